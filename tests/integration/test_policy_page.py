"""`GET /policy`: open to everybody, protected by its headers, silent about internal operations."""

import httpx
import pytest

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream import SimulatedUpstream
from tests.support.servers import RelayProcess

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)


@pytest.fixture(scope="module")
def reply(relay_process: RelayProcess) -> httpx.Response:
    """What somebody without a key gets."""
    return httpx.get(f"{relay_process.url}{CONTRACT.operations['retrievePolicy'].path}", timeout=10)


def test_the_page_is_the_rendered_one(reply: httpx.Response) -> None:
    """It needs no key and is the generated file, byte for byte."""
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.content == (GENERATED / "policy.html").read_bytes()


def test_the_page_can_neither_load_nor_be_framed(reply: httpx.Response) -> None:
    """Its Content-Security-Policy allows its own inline parts by hash; frames, guessed types and referrers are out."""
    policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_the_page_names_every_published_operation_and_no_internal_one(reply: httpx.Response) -> None:
    """Ids and paths of published operations are there, those of internal operations are not."""
    for operation in CONTRACT:
        assert (f'id="{operation.id}"' in reply.text) == operation.published
    for operation in CONTRACT:
        if not operation.published:
            assert operation.id not in reply.text
            assert operation.path not in reply.text


def test_the_page_is_answered_without_the_upstream(relay: RelayProcess, upstream: SimulatedUpstream) -> None:
    """Nobody upstream hears that the page was read."""
    assert httpx.get(f"{relay.url}/policy", timeout=10).status_code == 200
    assert upstream.recorder.count == 0
