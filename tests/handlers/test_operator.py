from typing import Any

import orjson
import pytest

from handlers.operator import list_routes
from handlers.relay import retrieve_health
from handlers.runtime.forwarder import forward
from tests.handlers.conftest import MakeRequest


@pytest.fixture
async def listed(request_of: MakeRequest) -> list[dict[str, Any]]:
    """The routes that the operation lists."""
    reply = await list_routes(request_of("listRoutes"))
    assert isinstance(reply.body, bytes)
    routes: list[dict[str, Any]] = orjson.loads(reply.body)["data"]
    return routes


def test_every_operation_is_listed_in_the_contracts_order(
    request_of: MakeRequest, listed: list[dict[str, Any]]
) -> None:
    """Method, path and operationId of all operations, internal ones included."""
    contract = request_of("listRoutes").services.contract
    assert [(r["method"], r["path"], r["operation_id"]) for r in listed] == [(o.method, o.path, o.id) for o in contract]


def test_each_route_names_the_function_that_serves_it(request_of: MakeRequest, listed: list[dict[str, Any]]) -> None:
    """The name is that of the very function which the app calls: an own one or the forwarder."""
    functions = {route["operation_id"]: route["function"] for route in listed}
    routes = request_of("listRoutes").services.routes
    for operation_id, function in (("retrieveHealth", retrieve_health), ("listBatches", forward)):
        assert routes[operation_id].function is function
        assert functions[operation_id] == f"{function.__module__}.{function.__name__}"
