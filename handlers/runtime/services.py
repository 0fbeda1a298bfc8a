"""What all requests of one relay share, built once at start."""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.contract import Contract
from handlers.runtime.access import KeyRing
from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.idempotency import Idempotency
from handlers.runtime.matching import OperationIndex
from handlers.runtime.remote_files import RemoteFiles
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
        remote_files: Fetches the files that an assistant names by link.
        artifacts: Keeps the files that an assistant is given a link to.
        idempotency: Runs calls with an `idempotency_key` once.
    """

    settings: Settings
    contract: Contract
    routes: Mapping[str, Route]
    index: OperationIndex[Route]
    published: dict[str, bytes]
    keys: KeyRing
    upstream: Upstream
    remote_files: RemoteFiles
    artifacts: ArtifactStore
    idempotency: Idempotency
