"""What assistants read of files: texts in pieces that fit a reply."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from codegen.contract import Scope
from handlers.runtime import exceptions as exc
from handlers.runtime.budget import MAX_REPLY_CHARACTERS
from handlers.runtime.shortening import escaped_length
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_relay import FileRelay, read_reply, running_file_relay
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import UPSTREAM_KEY, ServerThread
from tests.support.transfers import GROWTH_LIMIT_MIB, MIB, PeakMemory
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MAX_OFFSET = 2**33  # 8 GiB, the largest file that an upload can make
LINE = {"custom_id": "request", "text": "Grüße, \N{EARTH GLOBE EUROPE-AFRICA} and 文字; " * 4}
JSONL = f"{json.dumps(LINE, ensure_ascii=False)}\n".encode() * 15_000


@pytest.fixture(scope="module")
def running(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay with a key for each scope."""
    with running_file_relay(tmp_path_factory.mktemp("texts"), upstream_server.url) as running:
        yield running


@pytest.fixture
def offered(running: FileRelay, upstream: SimulatedUpstream) -> FileRelay:
    """The same, with nothing recorded."""
    del upstream
    return running


@pytest.fixture
def assistant(offered: FileRelay) -> Iterator[httpx.Client]:
    """What an assistant calls with."""
    with offered.client() as client:
        yield client


@pytest.fixture(params=[False, True], ids=["ranges", "no ranges"])
def text_upstream(request: pytest.FixtureRequest, upstream: SimulatedUpstream) -> SimulatedUpstream:
    """An upstream that answers parts of files, and one that always sends the whole."""
    if request.param:
        upstream.faults.add(Fault("downloadFile", ignore_range=True))
    return upstream


def keep(upstream_url: str, content: bytes) -> str:
    """Put a file into the upstream, past the relay; answers its id."""
    reply = httpx.post(
        f"{upstream_url}/v1/files",
        headers={"Authorization": f"Bearer {UPSTREAM_KEY}"},
        data={"purpose": "batch"},
        files={"file": ("a.jsonl", content)},
    )
    return str(reply.json()["id"])


def pages(assistant: httpx.Client, file_id: str, limit: int) -> Iterator[dict[str, Any]]:
    """All pieces of a text, each asked for with what the one before says."""
    offset: int | None = 0
    while offset is not None:
        reply = assistant.get(f"/v1/actions/files/{file_id}/text", params={"offset": offset, "limit": limit})
        piece = read_reply(reply, "FileText")
        assert escaped_length(reply.content) <= MAX_REPLY_CHARACTERS
        yield piece
        assert piece["truncated"] == ("next" in piece) == ("how" in piece)
        offset = piece.get("next")


def test_two_mebibytes_of_lines_are_read_in_pieces(
    assistant: httpx.Client, text_upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """Joined they are the file, and each reply is one that an assistant may get."""
    assert len(JSONL) > 2 * MIB
    file_id = keep(upstream_server.url, JSONL)
    pieces = list(pages(assistant, file_id, 40_000))
    assert "".join(piece["text"] for piece in pieces).encode() == JSONL
    statuses = {record.status for record in text_upstream.recorder.requests if record.operation_id == "downloadFile"}
    assert statuses in ({206}, {200})


def test_a_text_of_emoji_fits_the_budget(
    assistant: httpx.Client, text_upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """Although each becomes twelve characters, all of them arrive."""
    del text_upstream
    text = "\N{GRINNING FACE}" * 30_000
    pieces = list(pages(assistant, keep(upstream_server.url, text.encode()), 40_000))
    assert "".join(piece["text"] for piece in pieces) == text
    assert len(pieces) > 3
    controls = "\x01" * 50_000
    pieces = list(pages(assistant, keep(upstream_server.url, controls.encode()), 40_000))
    assert "".join(piece["text"] for piece in pieces) == controls


def test_any_place_of_a_text_can_be_read(
    assistant: httpx.Client, text_upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """In mid-character the next whole one comes; behind the end there is nothing; a byte order mark is left out."""
    del text_upstream
    file_id = keep(upstream_server.url, "\ufeffa€b".encode())

    def read(offset: int, limit: int = 100) -> dict[str, Any]:
        reply = assistant.get(f"/v1/actions/files/{file_id}/text", params={"offset": offset, "limit": limit})
        return read_reply(reply, "FileText")

    assert read(0) == {"file_id": file_id, "text": "a€b", "offset": 3, "truncated": False}
    assert read(5) == {"file_id": file_id, "text": "b", "offset": 7, "truncated": False}
    for behind in (8, 9, MAX_OFFSET):
        assert read(behind) == {"file_id": file_id, "text": "", "offset": behind, "truncated": False}
    assert (read(3, 3)["text"], read(3, 3)["next"]) == ("a", 4)


def test_what_is_no_text_is_refused(
    assistant: httpx.Client, text_upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """By its bytes or by its type, with a message that says what can be read."""
    binary = keep(upstream_server.url, b"\x89PNG\r\n\x1a\n\x00" * 100)
    latin = keep(upstream_server.url, "Grüße".encode("latin-1"))
    for file_id in (binary, latin, f"file-size-{2**30}"):
        error = assert_relay_error(assistant.get(f"/v1/actions/files/{file_id}/text"), exc.NotText)
        assert "UTF-8" in str(error["message"])
    text_upstream.faults.clear()
    text_upstream.faults.add(Fault("downloadFile", headers={"content-type": "image/png"}))
    reply = assistant.get(f"/v1/actions/files/{keep(upstream_server.url, b'text')}/text")
    assert_relay_error(reply, exc.NotText)


def test_the_rest_of_a_large_file_is_left_at_once(
    assistant: httpx.Client, upstream: SimulatedUpstream, offered: FileRelay, upstream_server: ServerThread
) -> None:
    """An upstream without ranges is left as soon as the piece is there, and the relay holds nothing of the rest."""
    upstream.faults.add(Fault("downloadFile", ignore_range=True))
    file_id = keep(upstream_server.url, b"line of text\n" * (64 * MIB // 13))
    upstream.recorder.clear()
    with PeakMemory(offered.relay.pid) as memory:
        reply = read_reply(assistant.get(f"/v1/actions/files/{file_id}/text?offset={8 * MIB}"), "FileText")
    assert len(reply["text"]) == 20_000
    (record,) = upstream.recorder.requests
    wait_until(lambda: record.disconnected_at is not None)
    assert memory.growth_mib < GROWTH_LIMIT_MIB


def test_an_upstream_that_answers_another_part_is_not_believed(
    assistant: httpx.Client, upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """Text from another place would pass for what was asked for."""
    file_id = keep(upstream_server.url, b"0123456789" * 10)
    for place in ("bytes 3-9/100", "bytes */100", "nonsense"):
        upstream.faults.clear()
        upstream.faults.add(Fault("downloadFile", headers={"content-range": place}))
        reply = assistant.get(f"/v1/actions/files/{file_id}/text?offset=5&limit=10")
        assert_relay_error(reply, exc.UpstreamProtocolError)


def test_a_missing_file_is_the_upstreams_error(assistant: httpx.Client) -> None:
    """It goes on as it came."""
    reply = assistant.get("/v1/actions/files/file-missing/text")
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize(
    "query", ["offset=-1", "offset=x", f"offset={MAX_OFFSET + 1}", "limit=0", "limit=40001", "limit=1.5"]
)
def test_a_place_that_is_none_is_refused(assistant: httpx.Client, upstream: SimulatedUpstream, query: str) -> None:
    """Before the upstream is asked."""
    assert_relay_error(assistant.get(f"/v1/actions/files/file-1/text?{query}"), exc.InvalidParameter)
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("scope", Scope)
def test_the_scope_of_assistants_opens_the_wrapper(
    scope: Scope, offered: FileRelay, upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """No other does, and what is refused calls nobody."""
    file_id = keep(upstream_server.url, b"text")
    upstream.recorder.clear()
    with offered.client(scope) as client:
        reply = client.get(f"/v1/actions/files/{file_id}/text")
    if scope is Scope.ACTIONS:
        assert read_reply(reply, "FileText")["text"] == "text"
        return
    assert_relay_error(reply, exc.InsufficientScope)
    assert upstream.recorder.count == 0
