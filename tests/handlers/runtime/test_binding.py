from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from connexion import AsyncApp
from connexion.spec import Specification

from codegen.contract import ACTIONS, FULL, METHODS, Contract
from codegen.naming import snake_case
from codegen.reader import Document
from handlers import relay, responses
from handlers.runtime.app import GENERATED, create_services
from handlers.runtime.binding import bind_functions, binding_view
from handlers.runtime.exceptions import UnboundOperations
from handlers.runtime.forwarder import forward
from handlers.runtime.settings import Settings
from tests.support.documents import edited, node_of

OWN = {
    "x-policy-bucket": "EXCLUDED",
    "x-policy-reason": "For a test.",
    "x-policy-exclusion": "hidden",
    "tags": ["Relay"],
    "responses": {"200": {"description": "It."}},
}


def view_operations(view: Document) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """OperationId to method, path and node of the view."""
    return {
        node["operationId"]: (method.upper(), path, node)
        for path, item in view["paths"].items()
        for method, node in item.items()
        if method in METHODS
    }


def test_the_view_has_the_same_operations(contract: Contract) -> None:
    """Connexion sees every operation of the contract under its own method and path, and no other."""
    seen = {key: (method, path) for key, (method, path, _) in view_operations(binding_view(contract)).items()}
    assert seen == {operation.id: (operation.method, operation.path) for operation in contract}


def test_the_view_has_the_same_parameters_media_types_and_security(contract: Contract) -> None:
    """Names, places and need of parameters, media types of bodies and the need of a key are the contract's."""
    for key, (_, _, node) in view_operations(binding_view(contract)).items():
        operation = contract.operations[key]
        assert [(p["name"], p["in"], p["required"]) for p in node["parameters"]] == [
            (p.name, p.location, p.required) for p in operation.parameters
        ]
        assert frozenset(node.get("requestBody", {}).get("content", {})) == operation.request_media
        assert node.get("requestBody", {}).get("required") == (operation.body.required if operation.body else None)
        schemes = [scheme for alternative in node["security"] for scheme in alternative]
        assert schemes == ([] if operation.open else ["relayBearer", "relayKey"])


def test_connexion_itself_accepts_the_view(contract: Contract) -> None:
    """Connexion's own check finds nothing wrong with the view."""
    specification = Specification.from_dict(binding_view(contract))
    assert specification.version == (3, 0, 3)
    assert specification.base_path == ""


def test_the_view_leaves_the_contract_as_it_is(contract: Contract) -> None:
    """The view shares nothing with the contract that a reader of it could change."""
    view = binding_view(contract)
    shared = {id(node) for node in contract.document["paths"].values()}
    assert not shared & {id(node) for node in view["paths"].values()}
    assert contract.document["openapi"] == "3.1.0"


def test_every_operation_is_bound(contract: Contract) -> None:
    """Each operation has a function: the one of its name in its tag's module, else the forwarder."""
    functions = bind_functions(contract)
    assert set(functions) == set(contract.operations)
    for operation in contract:
        function: Any = functions[operation.id]
        if function is forward:
            assert operation.mirrored, operation.id
        else:
            assert function.__module__ == f"handlers.{snake_case(operation.tag)}"
            assert function.__name__ == snake_case(operation.id)
    assert functions["retrieveHealth"] is relay.retrieve_health
    assert functions["createResponseStream"] is responses.create_response_stream
    assert functions["createResponse"] is forward


def test_names_are_unique_within_their_module(contract: Contract) -> None:
    """No two operations of a tag ask for the same function, and every name is a Python name."""
    names = [(operation.tag, snake_case(operation.id)) for operation in contract]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for _, name in names)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("createResponseStream", "create_response_stream"),
        ("create-realtime-call", "create_realtime_call"),
        ("Vector stores", "vector_stores"),
        ("Fine-tuning", "fine_tuning"),
        ("ListContainers", "list_containers"),
        ("CreateAPIKey", "create_api_key"),
        ("getV2Thing", "get_v2_thing"),
    ],
)
def test_python_names_are_the_snake_case_of_the_contracts(name: str, expected: str) -> None:
    """Whoever knows the operationId knows the function's name."""
    assert snake_case(name) == expected


def problems_after(contract: Contract, change: Callable[[Document], object]) -> tuple[str, ...]:
    """What the start reports about an edited contract."""
    with pytest.raises(UnboundOperations) as caught:
        bind_functions(edited(contract, change))
    return caught.value.problems


def test_own_operations_without_a_function_stop_the_start_with_a_list(contract: Contract) -> None:
    """Each one is named with the function to write and the file to write it in, all at once."""

    def add_two(document: Document) -> None:
        document["paths"]["/v1/usage"] = {"get": {"operationId": "retrieveUsage", **OWN}}
        document["paths"]["/v1/wait"] = {"post": {"operationId": "waitForIt", **OWN, "tags": ["Operator"]}}

    assert problems_after(contract, add_two) == (
        "GET /v1/usage: write `async def retrieve_usage` in handlers/relay.py.",
        "POST /v1/wait: write `async def wait_for_it` in handlers/operator.py.",
    )


def test_a_tag_without_a_module_is_told_which_to_write(contract: Contract) -> None:
    """An own operation of a new tag names the module that its tag asks for."""

    def add_tag(document: Document) -> None:
        document["tags"].append({"name": "Team usage"})
        document["paths"]["/v1/usage"] = {"get": {"operationId": "retrieveUsage", **OWN, "tags": ["Team usage"]}}

    assert problems_after(contract, add_tag) == (
        "GET /v1/usage: write `async def retrieve_usage` in handlers/team_usage.py.",
    )


def test_a_custom_verb_is_never_forwarded_by_default(contract: Contract) -> None:
    """A colon path is the relay's own even under a mirrored tag, so it needs its function."""

    def add_verb(document: Document) -> None:
        node = {**node_of(document, "createResponseStream"), "operationId": "createResponseLater"}
        document["paths"]["/v1/responses:later"] = {"post": node}

    assert problems_after(contract, add_verb) == (
        "POST /v1/responses:later: write `async def create_response_later` in handlers/responses.py.",
    )


def test_functions_that_serve_no_operation_stop_the_start(contract: Contract) -> None:
    """A handler whose operation left the contract is reported instead of lying about."""

    def rename(document: Document) -> None:
        del document["paths"]["/livez"]
        node_of(document, "createResponseStream")["operationId"] = "streamResponse"

    assert set(problems_after(contract, rename)) == {
        "POST /v1/responses:stream: write `async def stream_response` in handlers/responses.py.",
        "handlers/relay.py: `retrieve_liveness` serves no operation of the contract.",
        "handlers/responses.py: `create_response_stream` serves no operation of the contract.",
    }


def test_a_function_is_reported_when_its_tag_has_no_operation_left(contract: Contract) -> None:
    """The last operation of a tag leaves no function behind either."""

    def close_operator(document: Document) -> None:
        paths = document["paths"]
        for path in [
            p for p, item in paths.items() if any(node.get("tags") == ["Operator"] for node in operations(item))
        ]:
            del paths[path]

    assert tuple(sorted(problems_after(contract, close_operator))) == (
        "handlers/operator.py: `list_routes` serves no operation of the contract.",
        "handlers/operator.py: `retrieve_metrics` serves no operation of the contract.",
        "handlers/operator.py: `retrieve_system_info` serves no operation of the contract.",
    )


def operations(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Operations of a path item."""
    return [item[method] for method in METHODS if method in item]


def test_a_function_that_is_not_a_coroutine_does_not_count(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only happens to have the right name, on an own or a mirrored operation, is a problem and no handler."""
    monkeypatch.setattr(relay, "retrieve_health", lambda request: None)
    monkeypatch.setattr(responses, "create_response", "not a function", raising=False)
    with pytest.raises(UnboundOperations) as caught:
        bind_functions(contract)
    assert caught.value.problems == (
        "GET /health: write `async def retrieve_health` in handlers/relay.py.",
        "POST /v1/responses: write `async def create_response` in handlers/responses.py.",
    )


def test_a_new_mirrored_operation_falls_to_the_forwarder(contract: Contract) -> None:
    """What the upstream adds needs a line in the contract and no code."""

    def add(document: Document) -> None:
        node = {**node_of(document, "listModels"), "operationId": "listNewModels"}
        document["paths"]["/v1/new_models"] = {"get": node}

    assert bind_functions(edited(contract, add))["listNewModels"] is forward


def test_the_relay_does_not_start_with_an_unbound_operation(contract: Contract, tmp_path: Path) -> None:
    """The check is part of loading the contract, before anything listens."""
    broken = {**contract.document, "paths": {"/v1/usage": {"get": {"operationId": "x", **OWN}}}}
    (tmp_path / f"{FULL}.json").write_bytes(orjson.dumps(broken))
    (tmp_path / f"{ACTIONS}.json").write_bytes((GENERATED / f"{ACTIONS}.json").read_bytes())
    with pytest.raises(UnboundOperations, match="these operations cannot be bound"):
        create_services(Settings.model_validate({}), tmp_path)


def test_the_app_binds_the_whole_contract(app: AsyncApp, contract: Contract) -> None:
    """Connexion keeps one entry per operation."""
    (api,) = app.middleware.apis
    assert sum(len(item) for item in api.specification["paths"].values()) == len(contract.operations)
