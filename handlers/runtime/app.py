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

import codegen
from codegen.contract import ACTIONS, FULL, Contract, load_contract
from codegen.publication import published_document
from codegen.reader import Document
from handlers.runtime.access import load_key_ring
from handlers.runtime.binding import BindingSpecification, FunctionResolver, binding_view
from handlers.runtime.edge import Edge
from handlers.runtime.matching import OperationIndex
from handlers.runtime.pipeline import BoundOperations, ContractRouter
from handlers.runtime.routes import build_routes
from handlers.runtime.services import Services
from handlers.runtime.settings import Settings
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
    return Services(
        settings=settings,
        contract=full,
        routes=routes,
        index=OperationIndex((route.operation, route) for route in routes.values()),
        published={
            FULL: orjson.dumps(published_document(full)),
            ACTIONS: orjson.dumps(_at_public_url(actions, settings.RELAY_PUBLIC_URL)),
        },
        keys=load_key_ring(settings),
        upstream=Upstream(settings),
    )


def create_app(services: Services) -> AsyncApp:
    """
    Build the application over the bound contract.

    Returns:
        An ASGI application; its lifespan closes the connections to the upstream.
    """

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async with services.upstream:
            yield

    app = AsyncApp(
        __name__,
        lifespan=lifespan,
        middlewares=[
            Edge,
            partial(ContractRouter, index=services.index),
            partial(BoundOperations, services=services),
            LifespanMiddleware,
        ],
        resolver=FunctionResolver({id_: route.function for id_, route in services.routes.items()}),
    )
    # What `app.add_api` does, except that it would check the document itself.
    view = BindingSpecification(binding_view(services.contract))  # type: ignore[no-untyped-call]
    app.middleware.apis.append(API(view, base_path=None, name=None, **vars(app.middleware.options)))
    return app


def _at_public_url(contract: Contract, public_url: str) -> Document:
    document = published_document(contract)
    return {**document, "servers": [{"url": public_url}]} if public_url else document
