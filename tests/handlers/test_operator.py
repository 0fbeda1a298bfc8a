from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from handlers.operator import _kind, list_routes, retrieve_metrics, retrieve_system_info
from handlers.relay import retrieve_health
from handlers.runtime.forwarder import forward
from handlers.runtime.settings import Settings
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


async def test_metrics_are_those_of_the_relay(request_of: MakeRequest) -> None:
    """The text names version and bucket counts of the relay that answers."""
    request = request_of("retrieveMetrics")
    request.services.counts.refuse_unread("malformed_request", 400)
    reply = await retrieve_metrics(request)
    assert isinstance(reply.body, bytes)
    text = reply.body.decode()
    assert f'relay_build_info{{version="{request.services.contract.version}"}} 1.0' in text
    assert 'relay_refused_before_upstream_total{code="malformed_request"}' in text


@pytest.mark.parametrize(
    "url, store, artifacts",
    [
        ("sqlite+aiosqlite://", "memory", ""),
        ("sqlite+aiosqlite:////made/up/relay.db", "sqlite", "file:///made/up"),
        ("postgresql+asyncpg://relay:made-up-password@db.example/relay", "postgresql", "s3://made-up-bucket/folder"),
    ],
)
def test_urls_are_told_by_kind_only(url: str, store: str, artifacts: str) -> None:
    """Neither passwords nor places of a store are shown."""
    assert _kind(SecretStr(url), "memory") == store
    assert _kind(SecretStr(artifacts), "private") == (artifacts.partition(":")[0] or "private")


async def test_system_info_names_every_setting_and_no_secret(request_of: MakeRequest) -> None:
    """Settings are shown as they are, credentials and account names only as set or not set."""
    request = request_of("retrieveSystemInfo")
    reply = await retrieve_system_info(request)
    assert isinstance(reply.body, bytes)
    shown = orjson.loads(reply.body)["settings"]
    assert list(shown) == list(Settings.model_fields)
    secret = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    assert {shown[name] for name in secret | {"OPENAI_ORG_ID", "OPENAI_PROJECT_ID"}} <= {"set", "not set"}
    assert shown["OPENAI_API_KEY"] == "set"
    assert shown["RELAY_PORT"] == 8080
