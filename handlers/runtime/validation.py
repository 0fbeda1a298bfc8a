"""
Holds a request against its operation: path, query, media type, JSON body. Validators are built once, at start.

Not for: policy. Refuses what the contract cannot mean; on mirrored operations unknown fields and query names pass.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote

import jsonschema_rs

from codegen.contract import JSON, Contract, Media, Operation, Parameter
from handlers.runtime.exceptions import (
    ContractViolation,
    InvalidBody,
    InvalidParameter,
    MissingBody,
    UnsupportedExpectation,
    UnsupportedMediaType,
)
from handlers.runtime.json_bodies import decode_json
from handlers.runtime.messages import Header

CONTRACT_URI = "urn:contract"
MAX_QUERY_FIELDS = 1000
MAX_QUERY_BYTES = 32 * 1024
# As JSON writes numbers; Python reads at most 4,300 digits.
_INTEGER = re.compile(r"-?[0-9]{1,4000}\Z")
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,2})?\Z")
_REDACTED = "the value"


class SchemaSource:
    """
    Compiles validators for places of one contract document.

    Args:
        contract: Its document is registered once and shared by all validators.
    """

    def __init__(self, contract: Contract) -> None:
        self._registry = jsonschema_rs.Registry([(CONTRACT_URI, contract.document)])

    def at(self, pointer: str) -> jsonschema_rs.Draft202012Validator:
        """Compile the schema at a JSON Pointer such as `#/components/schemas/File`."""
        # A templated path makes braces part of the pointer, which a URI may only hold encoded.
        return self.of({"$ref": f"{CONTRACT_URI}{quote(pointer, safe='#/~:')}"})

    def of(self, schema: Mapping[str, Any]) -> jsonschema_rs.Draft202012Validator:
        """Compile a schema; its local references lead into the contract."""
        return jsonschema_rs.Draft202012Validator(_anchored(schema), registry=self._registry, mask=_REDACTED)


class RequestValidator:
    """
    The checks of one operation.

    Args:
        operation: Whose requests are checked.
        schemas: Where its schemas come from.
    """

    def __init__(self, operation: Operation, schemas: SchemaSource) -> None:
        self._path = [_ParameterCheck(p, schemas) for p in operation.parameters_in("path")]
        self._query = [_ParameterCheck(p, schemas) for p in operation.parameters_in("query")]
        self._body = operation.body
        self._bodies = (
            {m.media_type: _compile(m, schemas) for m in operation.body.content.values() if m.media_type == JSON}
            if operation.body
            else {}
        )

    def check_path(self, values: Mapping[str, str]) -> None:
        """
        Check the values of template segments.

        Raises:
            InvalidParameter: A value does not fit (400).
        """
        for check in self._path:
            check.check_text(values[check.name])

    def check_query(self, query: bytes) -> Mapping[str, list[str]]:
        """
        Check the declared query parameters.

        Args:
            query: As received, without `?`.

        Returns:
            Decoded values by name, repeated ones in order.

        Raises:
            InvalidParameter: A value does not fit, or a required parameter is missing (400).
        """
        if not query and not any(check.required for check in self._query):
            return {}
        values: dict[str, list[str]] = {}
        for name, value in _parse_query(query):
            values.setdefault(name, []).append(value)
        for check in self._query:
            check.check_query(values)
        return values

    def media_type(self, headers: list[Header]) -> str | None:
        """
        Decide how the body is to be read.

        Returns:
            One of the operation's media types, or `None` when there is no body to read. A body on an operation that
            declares none is not read and not forwarded.

        Raises:
            MissingBody: The operation needs a body and none came (400).
            UnsupportedMediaType: `Content-Type` is missing or not one of the operation's (415).
            UnsupportedExpectation: `Expect` is not `100-continue` (417).
        """
        content_type = b""
        encoding = b""
        present = False
        for name, value in headers:
            if name == b"content-type":
                if content_type:
                    raise UnsupportedMediaType("`Content-Type` must stand there once.")
                content_type = value
            elif name == b"content-length":
                present = present or value != b"0"
            elif name == b"transfer-encoding":
                present = True
            elif name == b"content-encoding":
                encoding = value
            elif name == b"expect" and value.lower() != b"100-continue":
                raise UnsupportedExpectation
        if self._body is None:
            return None
        if not present:
            if self._body.required:
                raise MissingBody
            return None
        media_type = _essence(content_type)
        if media_type not in self._body.content:
            allowed = ", ".join(f"`{name}`" for name in self._body.content)
            raise UnsupportedMediaType(f"`Content-Type` must be one of {allowed}.")
        if media_type == JSON and _charset(content_type) not in {"", "utf-8", "us-ascii"}:
            raise UnsupportedMediaType("`charset` must be `utf-8` or absent: JSON is always read as UTF-8.")
        if encoding.lower() not in {b"", b"identity"}:
            raise UnsupportedMediaType("`Content-Encoding` must be `identity` or absent.")
        if media_type.startswith("multipart/") and b"boundary=" not in content_type:
            raise UnsupportedMediaType("`Content-Type` must name the boundary of the multipart body.")
        return media_type

    def parse_json(self, raw: bytes) -> Any:
        """
        Decode and check a JSON body.

        Raises:
            MissingBody: It is empty although the operation needs one (400).
            MalformedJson: It is not JSON, not UTF-8, or nested more than 200 levels deep (400).
            DuplicateKey: One name stands twice in one object (400).
            InvalidBody: It does not fit the schema; `param` names the place (400).
        """
        if not raw:
            self.check_no_body()
            return None
        body = decode_json(raw)
        self.check_body(body)
        return body

    def check_no_body(self) -> None:
        """
        Check that the operation can do without a body.

        Raises:
            MissingBody: It needs one (400).
        """
        if self._body is not None and self._body.required:
            raise MissingBody

    def check_body(self, body: Any, *, place: str = "") -> None:
        """
        Check a decoded JSON body.

        Args:
            place: Where the body stands, when it is part of another one.

        Raises:
            InvalidBody: It does not fit the schema, or the operation takes none; `param` names the place (400).
        """
        if self._body is None:
            raise InvalidBody("The operation takes no body.", param=place or None)
        validator = self._bodies[JSON]
        if validator is not None and not validator.is_valid(body):
            raise _violation(InvalidBody, validator, body, place)


class _ParameterCheck:
    def __init__(self, parameter: Parameter, schemas: SchemaSource) -> None:
        self.name = parameter.name
        self.required = parameter.required
        types = parameter.schema.get("type", "string")
        self._types = frozenset([types] if isinstance(types, str) else types)
        self._validator = schemas.of(parameter.schema)

    def check_text(self, text: str) -> None:
        self._check(self._coerce(text))

    def check_query(self, values: Mapping[str, list[str]]) -> None:
        if "array" in self._types:
            found = [v for name, listed in values.items() if self._is_mine(name) for v in listed]
            if found:
                self._check(found)
        elif "object" in self._types:
            members = {name: listed[-1] for name, listed in values.items() if name.startswith(f"{self.name}[")}
            found = list(members)
            if found:
                self._check(members)
        else:
            found = values.get(self.name, [])
            for text in found:
                self.check_text(text)
        if self.required and not found:
            raise InvalidParameter(f"`{self.name}` is required.", param=self.name)

    def _is_mine(self, name: str) -> bool:
        # `include=a&include=b`, and as the official SDKs write it, `include[]=a&include[]=b`
        return name == self.name or (name.startswith(f"{self.name}[") and name.endswith("]"))

    def _coerce(self, text: str) -> object:
        if "string" not in self._types:
            if "integer" in self._types and _INTEGER.match(text):
                return int(text)
            if "number" in self._types and _NUMBER.match(text):
                return float(text)
            if "boolean" in self._types and text in {"true", "false"}:
                return text == "true"
        return text

    def _check(self, value: object) -> None:
        if not self._validator.is_valid(value):
            raise _violation(InvalidParameter, self._validator, value, self.name)


def _compile(media: Media, schemas: SchemaSource) -> jsonschema_rs.Draft202012Validator | None:
    return schemas.at(media.pointer) if media.pointer else None


def _anchored(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {
            key: f"{CONTRACT_URI}{value}" if key == "$ref" and str(value).startswith("#") else _anchored(value)
            for key, value in schema.items()
        }
    return [_anchored(item) for item in schema] if isinstance(schema, list) else schema


def _parse_query(query: bytes) -> list[tuple[str, str]]:
    if len(query) > MAX_QUERY_BYTES:
        raise InvalidParameter(f"The query must be at most {MAX_QUERY_BYTES} bytes.")
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
        )
    except (UnicodeDecodeError, ValueError):
        raise InvalidParameter(
            f"The query must be percent-encoded UTF-8 with at most {MAX_QUERY_FIELDS} fields."
        ) from None


def _essence(content_type: bytes) -> str:
    return content_type.split(b";", 1)[0].strip().lower().decode("latin-1")


def _charset(content_type: bytes) -> str:
    found = re.search(rb";\s*charset\s*=\s*\"?([^\";\s]*)", content_type, re.IGNORECASE)
    return found[1].decode("latin-1").lower().replace("utf8", "utf-8") if found else ""


def _violation(
    kind: type[ContractViolation], validator: jsonschema_rs.Draft202012Validator, value: object, prefix: str
) -> ContractViolation:
    """Describe the first violation with names from the contract only, never with anything that the request held."""
    error = next(iter(validator.iter_errors(value)))
    declared = {str(part) for part in error.evaluation_path}
    place = [prefix] if prefix else []
    for part in error.instance_path:
        if isinstance(part, str) and part not in declared:
            break
        place.append(str(part))
    param = ".".join(place) or None
    subject = f"`{param}`" if param else "the body"
    if error.kind.name in {"additionalProperties", "unevaluatedProperties"}:
        text = f"{subject} must only hold fields that the contract names"
    elif error.kind.name == "required":
        text = f"{subject} must hold {error.message.split(' is ')[0]}"
    elif error.message.startswith(_REDACTED):
        text = error.message.replace(_REDACTED, subject, 1)
    else:  # a message that names something else than the value may repeat what the request held
        text = f"{subject} does not fit its schema"
    return kind(f"{text[:1].upper()}{text[1:]}."[:500], param=param)
