"""
Turns the arguments of a tool into the request of its operation.

Arguments stand side by side in a tool and in path, query and body in the request. Whether they fit is for the operation
to say; refused here is only what could not be put into its request.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from codegen.contract import Operation
from codegen.tools import Place, Tool
from handlers.runtime.exceptions import InvalidBody, InvalidParameter
from handlers.runtime.json_bodies import encode_json
from handlers.runtime.local_calls import LocalCall


def arguments_to_call(tool: Tool, operation: Operation, arguments: Mapping[str, Any]) -> LocalCall:
    """
    Build the request.

    Args:
        operation: The tool's.
        arguments: By name; null counts as absent in path and query, which have no word for it.

    Raises:
        InvalidBody: An argument is not one of the tool's, or a number exceeds a double (400).
        InvalidParameter: A value cannot stand in a path or query, or one of the path is missing (400).
    """
    known = {argument.name: argument.place for argument in tool.arguments}
    if not known.keys() >= arguments.keys():
        names = ", ".join(f"`{name}`" for name in known) or "none"
        raise InvalidBody(f"Arguments must be those of the tool: {names}.")
    path = tool.path
    for name in _of(known, Place.PATH):
        path = path.replace(f"{{{name}}}", _segment(name, arguments.get(name)))
    query = [pair for name in _of(known, Place.QUERY) for pair in _pairs(name, arguments.get(name))]
    fields = {name: arguments[name] for name in _of(known, Place.BODY) if name in arguments}
    required = operation.body is not None and operation.body.required
    return LocalCall(
        method=tool.method,
        raw_path=path,
        query=urlencode(query).encode("ascii"),
        body=encode_json(fields) if fields or required else None,
    )


def _of(known: Mapping[str, Place], place: Place) -> Iterable[str]:
    return (name for name, found in known.items() if found is place)


def _segment(name: str, value: Any) -> str:
    if value is None or value == "":
        raise InvalidParameter(f"`{name}` is required.", param=name)
    if not isinstance(value, str):
        raise InvalidParameter(f"`{name}` must be a string.", param=name)
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:  # half of a surrogate pair
        raise InvalidParameter(f"`{name}` must be a string of whole characters.", param=name) from None


def _pairs(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if value is None:
        return
    for one in value if isinstance(value, list) else [value]:
        if one is None or isinstance(one, (dict, list)):
            raise InvalidParameter(f"`{name}` must be a plain value or a list of such.", param=name)
        try:
            text = one if isinstance(one, str) else _plain(one)
            text.encode()
        except ValueError:  # half of a surrogate pair, more digits than Python writes
            raise InvalidParameter(f"`{name}` must be whole characters or an ordinary number.", param=name) from None
        yield name, text


def _plain(value: object) -> str:
    """A number or boolean as JSON writes it; 20.0 is an integer in JSON, but only as 20 in a query."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, allow_nan=False)
