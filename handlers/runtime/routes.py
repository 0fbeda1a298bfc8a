"""
Every operation with what serves it: its function, its checks, the headers that say when it ends.

Built once at start. A direct call and a call through the proxy meet the same objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime

from codegen.contract import METHODS, Contract, Operation
from handlers.runtime.binding import bind_functions
from handlers.runtime.messages import Handler, Header
from handlers.runtime.validation import RequestValidator, SchemaSource

_REQUEST_COMPONENTS = frozenset({"parameters", "requestBodies", "schemas"})


@dataclass(frozen=True, slots=True)
class Route:
    """
    One operation and what serves it.

    Args:
        function: What it is bound to.
        validator: Holds its requests against the contract.
        lifecycle_headers: `Deprecation` and `Sunset` for every reply; empty unless its end is announced.
    """

    operation: Operation
    function: Handler
    validator: RequestValidator
    lifecycle_headers: tuple[Header, ...]


def build_routes(contract: Contract) -> Mapping[str, Route]:
    """
    Bind every operation and compile its checks.

    Returns:
        operationId to route, in the contract's order.

    Raises:
        UnboundOperations: With one line per operation that no function serves.
    """
    functions = bind_functions(contract)
    schemas = SchemaSource(_of_requests(contract))
    return {
        operation.id: Route(
            operation=operation,
            function=functions[operation.id],
            validator=RequestValidator(operation, schemas),
            lifecycle_headers=_lifecycle_headers(operation),
        )
        for operation in contract
    }


def _of_requests(contract: Contract) -> Contract:
    """
    The contract without what no check of a request refers to, such as replies and examples.

    The registry of schemas copies what it is given: the whole document takes it nearly twice the memory and the time. A
    reference to what is left out stops the start, like any that leads nowhere.
    """
    document = contract.document
    paths = {
        path: {m: {"requestBody": item[m]["requestBody"]} for m in METHODS if "requestBody" in item.get(m, ())}
        for path, item in document["paths"].items()
    }
    components = {name: part for name, part in document.get("components", {}).items() if name in _REQUEST_COMPONENTS}
    return replace(contract, document={"paths": paths, "components": components})


def _lifecycle_headers(operation: Operation) -> tuple[Header, ...]:
    """
    `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) of an operation that upstream ends.

    The day of its end is the only date that is known for sure, so it stands in both.
    """
    if not operation.sunset:
        return ()
    end = datetime.fromisoformat(operation.sunset).replace(tzinfo=UTC)
    return (
        (b"deprecation", f"@{int(end.timestamp())}".encode()),
        (b"sunset", format_datetime(end, usegmt=True).encode()),
    )
