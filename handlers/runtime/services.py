"""What all requests of one relay share, built once at start."""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.contract import Contract
from handlers.runtime.access import KeyRing
from handlers.runtime.access_tokens import AccessTokens
from handlers.runtime.addresses import AddressRules
from handlers.runtime.admission import Admission
from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.counts import Counts
from handlers.runtime.idempotency import Idempotency
from handlers.runtime.local_calls import LocalCalls
from handlers.runtime.matching import OperationIndex
from handlers.runtime.metrics import Metrics
from handlers.runtime.metrics_port import MetricsPort
from handlers.runtime.observation import Tracing
from handlers.runtime.readiness import Readiness
from handlers.runtime.remote_files import RemoteFiles
from handlers.runtime.routes import Route
from handlers.runtime.settings import Settings
from handlers.runtime.time_limits import TimeLimit
from handlers.runtime.tool_server import ToolServer
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
        tokens: Judges access tokens; `None` where no issuer is configured.
        addresses: From where which scope may be used; `None` where every one may be from everywhere.
        remote_files: Fetches the files that an assistant names by link.
        artifacts: Keeps the files that an assistant is given a link to.
        idempotency: Runs calls with an `idempotency_key` once.
        origins: Of the pages that may ask for tools, as `Origin` names them.
        local_calls: Calls operations of this relay from inside.
        tools: Offers the operations of the Actions document as tools.
        admission: Counts and limits what runs.
        time_limit: Of every request as a whole.
        counts: What this worker has counted.
        metrics: The same of all workers together.
        metrics_port: Where they are served without a key; `None` unless a port is set.
        readiness: Whether requests can be taken.
        tracing: OpenTelemetry; `None` unless it is on.
    """

    settings: Settings
    contract: Contract
    routes: Mapping[str, Route]
    index: OperationIndex[Route]
    published: dict[str, bytes]
    keys: KeyRing
    tokens: AccessTokens | None
    addresses: AddressRules | None
    upstream: Upstream
    remote_files: RemoteFiles
    artifacts: ArtifactStore
    idempotency: Idempotency
    origins: frozenset[bytes]
    local_calls: LocalCalls
    tools: ToolServer
    admission: Admission
    time_limit: TimeLimit
    counts: Counts
    metrics: Metrics
    metrics_port: MetricsPort | None
    readiness: Readiness
    tracing: Tracing | None
