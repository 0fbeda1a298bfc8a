"""What an assistant is answered fits its platform, whatever the upstream sends; wrappers have their own tests, too."""

import json
from collections.abc import Iterator

import httpx
import pytest

from codegen.contract import FULL, Bucket, Operation, Scope, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.contract_requests import contract_requests
from tests.support.key_files import make_key, write_keys
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
ASKED = [o for o in CONTRACT if o.bucket is Bucket.ACTIONS_DIRECT and o.mirrored]
PLATFORM_CHARACTERS = 100_000
ASSISTANT = make_key("assistant", Scope.ACTIONS, Scope.PROXY)
PROGRAM = make_key("program", Scope.ACTIONS, Scope.PROXY, Scope.CANONICAL)


@pytest.fixture(scope="module")
def shared(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with an assistant's key and one that opens the canonical surface as well."""
    folder = tmp_path_factory.mktemp("budget")
    write_keys(folder / "keys.yaml", [ASSISTANT, PROGRAM])
    with running_relay(folder, upstream_server.url, {"RELAY_KEY_FILE": str(folder / "keys.yaml")}) as relay:
        yield relay


@pytest.fixture
def assistant(shared: RelayProcess) -> Iterator[httpx.Client]:
    """A client with an assistant's key."""
    with httpx.Client(base_url=shared.url, headers=ASSISTANT.headers, timeout=30) as client:
        yield client


@pytest.fixture
def program(shared: RelayProcess) -> Iterator[httpx.Client]:
    """A client with a key that has the scope `canonical`."""
    with httpx.Client(base_url=shared.url, headers=PROGRAM.headers, timeout=30) as client:
        yield client


def escaped_characters(text: str) -> int:
    """Characters of a reply as the most cautious reader counts them."""
    return sum(1 if ord(c) < 0x80 else 6 if ord(c) < 0x10000 else 12 for c in text)


def ask(client: httpx.Client, operation: Operation) -> httpx.Response:
    """The contract's own example of a call."""
    request = next(contract_requests(CONTRACT, operation))
    return client.request(request.method, request.path, headers=dict(request.headers), content=request.content)


@pytest.mark.parametrize("operation", ASKED, ids=lambda o: o.id)
def test_two_megabytes_of_json_are_cut_for_an_assistant(
    operation: Operation, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """The reply is JSON under the platform's limit, and says that it was cut and what to do."""
    upstream.faults.add(Fault(operation.id, status=200, body={"object": "thing", "text": "ä😀" * 300_000}))
    reply = ask(assistant, operation)
    assert reply.status_code == 200
    assert escaped_characters(reply.text) < PLATFORM_CHARACTERS
    value = reply.json()
    assert value["truncated"] is True
    assert value["how"].endswith(".")


def test_a_long_list_is_cut_between_its_items(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Whole items stay, in order, and `next` names the last of them."""
    items = [{"id": f"file-{n}", "object": "file", "filename": "x" * 1000} for n in range(500)]
    upstream.faults.add(Fault("listFiles", status=200, body={"object": "list", "data": items, "has_more": False}))
    value = assistant.get("/v1/files").json()
    kept = value["data"]
    assert kept == items[: len(kept)]
    assert 0 < len(kept) < len(items)
    assert (value["has_more"], value["truncated"], value["next"]) == (True, True, kept[-1]["id"])
    assert "after" in value["how"]


def test_the_proxy_is_cut_for_an_assistant(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """What an assistant fetches through the proxy fits as well."""
    upstream.faults.add(Fault("listBatches", repeat_body_to_bytes=2_000_000))
    reply = assistant.post("/v1/proxy", json={"method": "GET", "path": "/v1/batches"})
    assert reply.status_code == 200
    assert escaped_characters(reply.text) < PLATFORM_CHARACTERS


@pytest.mark.parametrize("operation", ASKED, ids=lambda o: o.id)
def test_a_program_gets_all_of_it(operation: Operation, program: httpx.Client, upstream: SimulatedUpstream) -> None:
    """A key with the scope `canonical` gets the upstream's bytes, however many there are."""
    body = {"object": "thing", "text": "a" * 600_000}
    upstream.faults.add(Fault(operation.id, status=200, body=body))
    assert ask(program, operation).json() == body


def test_an_error_of_a_megabyte_is_cut_too(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Errors keep their status and stay readable."""
    upstream.faults.add(Fault("listModels", status=500, body={"error": {"message": "x" * 600_000, "type": "t"}}))
    reply = assistant.get("/v1/models")
    assert reply.status_code == 500
    assert escaped_characters(reply.text) < PLATFORM_CHARACTERS
    assert json.loads(reply.text)["error"]["type"] == "t"


def test_what_fits_keeps_its_bytes(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """An ordinary reply is not written anew."""
    upstream.faults.add(Fault("listModels", status=200, body={"object": "list", "data": [], "note": "ä"}))
    reply = assistant.get("/v1/models")
    assert reply.json() == {"object": "list", "data": [], "note": "ä"}
    assert reply.headers["content-type"].startswith("application/json")
