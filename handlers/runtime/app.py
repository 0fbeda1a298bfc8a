"""
Builds the relay: contract, services and Connexion's app with the relay's own list of middleware.

Reads `spec/generated`, which lies beside the installed `codegen` package.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import orjson
from connexion import AsyncApp
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.main import API
from yarl import URL

import codegen
from codegen.contract import ACTIONS, FULL, Contract, load_contract
from codegen.publication import document_at, published_document
from codegen.tools import build_tools
from handlers.runtime.access import load_key_ring
from handlers.runtime.access_tokens import load_access_tokens
from handlers.runtime.addresses import load_address_rules
from handlers.runtime.admission import Admission
from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.binding import BindingSpecification, FunctionResolver, binding_view
from handlers.runtime.cors import load_cors
from handlers.runtime.counts import Counts
from handlers.runtime.edge import Edge
from handlers.runtime.exceptions import InvalidSettings
from handlers.runtime.idempotency import Idempotency, open_sql_store
from handlers.runtime.local_calls import LocalCalls
from handlers.runtime.matching import OperationIndex
from handlers.runtime.metrics import Metrics
from handlers.runtime.metrics_port import MetricsPort
from handlers.runtime.observability import load_tracing, observed
from handlers.runtime.pipeline import BoundOperations, ContractRouter
from handlers.runtime.readiness import Readiness
from handlers.runtime.remote_files import RemoteFiles
from handlers.runtime.routes import build_routes
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings
from handlers.runtime.sockets import SocketRelay
from handlers.runtime.time_limits import TimeLimit
from handlers.runtime.tool_server import ToolOffer, ToolServer
from handlers.runtime.upstream import Upstream

GENERATED = Path(codegen.__file__).parent.parent / "spec" / "generated"


def create_services(settings: Settings, folder: Path = GENERATED) -> Services:
    """
    Load the contract, bind it, and make everything that requests share.

    Args:
        folder: Where the generated documents are.

    Raises:
        ContractError: A document is missing, damaged or unclassified.
        UnboundOperations: With one line per operation that no function serves.
        InvalidKeyFile: The key file cannot be used.
    """
    full = load_contract(folder, FULL)
    actions = load_contract(folder, ACTIONS)
    routes = build_routes(full)
    index = OperationIndex((route.operation, route) for route in routes.values())
    local_calls = LocalCalls()
    admission = Admission(settings.RELAY_MAX_CONCURRENT_REQUESTS, settings.RELAY_MAX_CONCURRENT_REQUESTS_PER_KEY)
    upstream = Upstream(settings)
    metrics = Metrics(shared=settings.RELAY_WORKERS > 1)
    idempotency = Idempotency(partial(open_sql_store, settings.RELAY_STORE_URL.get_secret_value()))
    stored = "RELAY_STORE_URL" in settings.model_fields_set
    services = Services(
        settings=settings,
        contract=full,
        routes=routes,
        index=index,
        published={
            FULL: orjson.dumps(published_document(full)),
            ACTIONS: orjson.dumps(
                document_at(actions, settings.RELAY_PUBLIC_URL)
                if settings.RELAY_PUBLIC_URL
                else published_document(actions)
            ),
        },
        keys=load_key_ring(settings),
        tokens=load_access_tokens(settings, full),
        addresses=load_address_rules(settings),
        upstream=upstream,
        remote_files=_remote_files(settings),
        artifacts=_artifacts(settings, full),
        idempotency=idempotency,
        local_calls=local_calls,
        origins=_origins(settings),
        tools=ToolServer(
            ToolOffer(
                tuple(build_tools(full, actions)), index, local_calls, full.version, settings.RELAY_MAX_JSON_BYTES
            )
        ),
        admission=admission,
        time_limit=TimeLimit(settings.RELAY_TOTAL_TIMEOUT_SECONDS),
        counts=Counts(),
        metrics=metrics,
        metrics_port=(
            MetricsPort(metrics, settings.RELAY_METRICS_HOST, settings.RELAY_METRICS_PORT)
            if settings.RELAY_METRICS_PORT
            else None
        ),
        readiness=Readiness(
            admission, upstream.circuit, idempotency.check if stored else None, settings.OPENAI_BASE_URL
        ),
        tracing=load_tracing(settings) if settings.RELAY_OTEL else None,
    )
    services.metrics.read(services)
    return services


def create_app(services: Services) -> AsyncApp:
    """
    Build the application over the bound contract.

    Returns:
        An ASGI application; its lifespan opens a store that was asked for, and closes all connections.
    """

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async with services.upstream, services.artifacts:
            try:
                if "RELAY_STORE_URL" in services.settings.model_fields_set:
                    await services.idempotency.open()  # a mistake shows now; the one in memory may wait for its use
                async with observed(services):
                    yield
            finally:
                await services.tools.close()
                await services.idempotency.close()

    app = AsyncApp(
        __name__,
        lifespan=lifespan,
        middlewares=[
            partial(Edge, counts=services.counts, tracing=services.tracing),
            partial(
                ContractRouter,
                index=services.index,
                sockets=SocketRelay(services),
                cors=load_cors(services.settings, services.contract),
            ),
            partial(BoundOperations, services=services),
            LifespanMiddleware,
        ],
        resolver=FunctionResolver({id_: route.function for id_, route in services.routes.items()}),
    )
    # What `app.add_api` does, except that it would check the document itself.
    view = BindingSpecification(binding_view(services.contract))  # type: ignore[no-untyped-call]
    app.middleware.apis.append(API(view, base_path=None, name=None, **vars(app.middleware.options)))
    services.local_calls.serve(app)
    return app


def _remote_files(settings: Settings) -> RemoteFiles:
    try:
        return RemoteFiles(
            _listed(settings.RELAY_FILE_HOSTS),
            _listed(settings.RELAY_FILE_PRIVATE_NETWORKS),
            settings.RELAY_FILE_MAX_BYTES,
            settings.RELAY_FILE_TIMEOUT_SECONDS,
            ca_file=settings.RELAY_FILE_CA_FILE,
        )
    except (OSError, ValueError) as error:  # `ssl.SSLError` is an OSError
        raise InvalidSettings(f"RELAY_FILE_HOSTS, …_PRIVATE_NETWORKS or …_CA_FILE: {error}") from None


def _artifacts(settings: Settings, contract: Contract) -> ArtifactStore:
    url = settings.RELAY_ARTIFACT_URL.get_secret_value()
    secret = settings.RELAY_ARTIFACT_SECRET.get_secret_value().encode()
    if url and not secret:
        raise InvalidSettings(
            "RELAY_ARTIFACT_SECRET: must be set with RELAY_ARTIFACT_URL, so that links outlive a restart"
        )
    try:
        return ArtifactStore(
            url,
            secret or None,
            settings.RELAY_PUBLIC_URL,
            path=contract.operations["retrieveArtifact"].path,
            ttl_seconds=settings.RELAY_ARTIFACT_TTL_SECONDS,
            max_total_bytes=settings.RELAY_ARTIFACT_MAX_TOTAL_BYTES,
            max_file_bytes=settings.RELAY_ARTIFACT_MAX_FILE_BYTES,
        )
    except ValueError as error:
        raise InvalidSettings(f"RELAY_ARTIFACT_SECRET: {error}") from None


def _origins(settings: Settings) -> frozenset[bytes]:
    """Whose pages may ask for tools: those of the relay itself, and the listed ones."""
    own = [str(URL(settings.RELAY_PUBLIC_URL).origin())] if settings.RELAY_PUBLIC_URL else []
    return frozenset(origin.encode("ascii") for origin in [*_listed(settings.RELAY_MCP_ORIGINS), *own])


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
