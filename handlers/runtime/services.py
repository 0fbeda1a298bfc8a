"""What all requests of one relay share, built once at start."""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.contract import Contract
from handlers.runtime.access import KeyRing
from handlers.runtime.matching import OperationIndex
from handlers.runtime.routes import Route
from handlers.runtime.settings import Settings
from handlers.runtime.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Services:
    """
    Shared parts of one relay.

    Args:
        contract: The full document.
        routes: operationId to what serves it, in the contract's order.
        index: Paths to the same routes, by method.
        published: The documents that `/openapi.json` and `/openapi.actions.json` answer, encoded.
    """

    settings: Settings
    contract: Contract
    routes: Mapping[str, Route]
    index: OperationIndex[Route]
    published: dict[str, bytes]
    keys: KeyRing
    upstream: Upstream
