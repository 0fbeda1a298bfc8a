"""Large files in parts, as assistants send them."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from codegen.contract import Scope
from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from handlers.upload_wrappers import MAX_PART_BYTES
from tests.support.file_relay import FileRelay, parts_of, read_reply, running_file_relay
from tests.support.file_server import stalled, whole
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import ServerThread
from tests.support.transfers import GROWTH_LIMIT_MIB, MIB, PeakMemory

pytestmark = pytest.mark.integration

UPLOADS = "/v1/actions/uploads"
PIECE = bytes(range(256)) * 256
FILE_TIMEOUT_SECONDS = 1.0


@pytest.fixture(scope="module")
def running(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay that may fetch files from a server of this module, and waits a second for each."""
    settings = {"RELAY_FILE_TIMEOUT_SECONDS": str(FILE_TIMEOUT_SECONDS)}
    with running_file_relay(tmp_path_factory.mktemp("uploads"), upstream_server.url, settings) as running:
        yield running


def start(assistant: httpx.Client, size: int, **more: Any) -> dict[str, Any]:
    """Begin an upload of so many bytes."""
    body = {"filename": "large.jsonl", "purpose": "batch", "bytes": size, "mime_type": "text/jsonl", **more}
    return read_reply(assistant.post(UPLOADS, json=body), "UploadState")


def send(assistant: httpx.Client, upload: dict[str, Any], **body: Any) -> dict[str, Any]:
    """Add a part."""
    part = read_reply(assistant.post(f"{UPLOADS}/{upload['id']}/parts", json=body), "SentPart")
    assert part["upload_id"] == upload["id"]
    assert set(part) == {"id", "upload_id"}
    return part


def test_parts_from_links_and_from_base64_become_a_file(
    offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """They are joined in the order that is asked for, and the file can be read."""
    begun = start(assistant, 24)
    assert begun["status"] == "pending"
    assert set(begun) == {"id", "status", "filename", "bytes", "purpose", "expires_at"}
    reference = offered.offer("part-1", b'{"line": 1}\n', "text/jsonl")
    second = send(assistant, begun, content_base64=base64.b64encode(b'{"line": 2}\n').decode())
    first = send(assistant, begun, openaiFileIdRefs=[reference])
    sent = [parts_of(record) for record in upstream.recorder.requests if record.operation_id == "addUploadPart"]
    assert [[(name, content) for name, _, _, content in parts] for parts in sent] == [
        [("data", b'{"line": 2}\n')],
        [("data", b'{"line": 1}\n')],
    ]
    reply = assistant.post(f"{UPLOADS}/{begun['id']}/complete", json={"part_ids": [first["id"], second["id"]]})
    done = read_reply(reply, "UploadState")
    assert (done["status"], done["file"]["bytes"], done["file"]["filename"]) == ("completed", 24, "large.jsonl")
    text = read_reply(assistant.get(f"/v1/actions/files/{done['file']['id']}/text"), "FileText")["text"]
    assert text == '{"line": 1}\n{"line": 2}\n'


def test_an_upload_is_given_up(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """With an empty body, with a key, and without any body; nothing can be added afterwards."""
    ways: list[dict[str, Any]] = [{"json": {}}, {"json": {"idempotency_key": "stop 1"}}, {}]
    for options in ways:
        begun = start(assistant, 3)
        state = read_reply(assistant.post(f"{UPLOADS}/{begun['id']}/cancel", **options), "UploadState")
        assert (state["id"], state["status"]) == (begun["id"], "cancelled")
    cancels = [record for record in upstream.recorder.requests if record.operation_id == "cancelUpload"]
    assert [record.body_size for record in cancels] == [0, 0, 0]
    reply = assistant.post(f"{UPLOADS}/{begun['id']}/complete", json={"part_ids": ["part_1"]})
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "The upload must be pending.")


def test_the_largest_part_goes_up_in_constant_memory(
    offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """64 MiB from a link arrive; a byte more is refused before it is fetched."""
    begun = start(assistant, MAX_PART_BYTES)
    offered.files.answers["/largest"] = whole([PIECE] * (MAX_PART_BYTES // len(PIECE)), length=MAX_PART_BYTES)
    offered.files.answers["/larger"] = whole([], length=MAX_PART_BYTES + 1)
    send(assistant, begun, openaiFileIdRefs=[offered.offer("small", PIECE, "text/plain")])
    with PeakMemory(offered.relay.pid) as memory:
        part = send(assistant, begun, openaiFileIdRefs=[offered.refer("largest", "text/plain")])
    assert upstream.recorder.requests[-1].body_size > MAX_PART_BYTES
    assert memory.growth_mib < GROWTH_LIMIT_MIB
    count = upstream.recorder.count
    reply = assistant.post(
        f"{UPLOADS}/{begun['id']}/parts", json={"openaiFileIdRefs": [offered.refer("larger", "text/plain")]}
    )
    error = assert_relay_error(reply, exc.FileTooLarge)
    assert str(MAX_PART_BYTES) in str(error["message"])
    assert upstream.recorder.count == count
    done = assistant.post(f"{UPLOADS}/{begun['id']}/complete", json={"part_ids": [part["id"]]}).json()
    digest = hashlib.sha256()
    with offered.client(Scope.CANONICAL) as client:
        with client.stream("GET", f"/v1/files/{done['file']['id']}/content") as content:
            for piece in content.iter_bytes(MIB):
                digest.update(piece)
        assert client.delete(f"/v1/files/{done['file']['id']}").json()["deleted"] is True
    assert digest.hexdigest() == hashlib.sha256(PIECE * (MAX_PART_BYTES // len(PIECE))).hexdigest()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"openaiFileIdRefs": ["https://files.oaiusercontent.com/"], "content_base64": "YQ=="},
        {"openaiFileIdRefs": ["https://files.oaiusercontent.com/"] * 2},
        {"content_base64": "YQ"},
        {"filename": "a", "content_base64": "YQ=="},
    ],
    ids=["nothing", "both", "two files", "no Base64", "a name"],
)
def test_a_part_that_is_not_one_file_calls_nobody(
    assistant: httpx.Client, upstream: SimulatedUpstream, body: dict[str, Any]
) -> None:
    """It is refused with the relay's own error."""
    assert_relay_error(assistant.post(f"{UPLOADS}/upload_1/parts", json=body), exc.InvalidBody)
    assert upstream.recorder.count == 0


def test_what_stops_a_part_is_the_error(
    offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """A link that is not allowed, a host that stalls, and an upstream that says no."""
    begun = start(assistant, 3)
    path = f"{UPLOADS}/{begun['id']}/parts"
    offered.files.answers["/stalls"] = stalled(b"beginning")
    count = upstream.recorder.count
    hostile = {"openaiFileIdRefs": ["https://169.254.169.254/latest/meta-data"]}
    assert_relay_error(assistant.post(path, json=hostile), exc.FileRefused)
    assert upstream.recorder.count == count
    stalling = {"openaiFileIdRefs": [offered.refer("stalls", "text/plain")]}
    assert_relay_error(assistant.post(path, json=stalling), exc.FileUnreachable)
    error = {"error": {"message": "Enough.", "type": "invalid_request_error", "param": None, "code": None}}
    upstream.faults.add(Fault("addUploadPart", status=400, body=error))
    reply = assistant.post(path, json={"content_base64": "YWJj"})
    assert (reply.status_code, reply.json()) == (400, error)


def test_answers_that_are_no_upload_are_not_passed_on(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """What an assistant cannot use is an error of the upstream."""
    answers: list[Any] = [{}, [], {"id": "upload_1"}, {"id": "upload_1", "status": "unheard of"}]
    for body in answers:
        upstream.faults.clear()
        upstream.faults.add(Fault(status=200, body=body))
        for path, sent in (("/cancel", {}), ("/complete", {"part_ids": ["part_1"]})):
            reply = assistant.post(f"{UPLOADS}/upload_1{path}", json=sent)
            assert_relay_error(reply, exc.UpstreamProtocolError)


def test_the_same_key_starts_one_upload(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Called again, the first reply comes back, for parts as well."""
    begun = start(assistant, 3, idempotency_key="start 1")
    assert start(assistant, 3, idempotency_key="start 1") == begun
    assert upstream.recorder.count == 1
    part = send(assistant, begun, content_base64="YWJj", idempotency_key="part 1")
    assert send(assistant, begun, content_base64="YWJj", idempotency_key="part 1") == part
    assert upstream.recorder.count == 2


@pytest.mark.parametrize("scope", Scope)
def test_the_scope_of_assistants_opens_the_wrappers(
    scope: Scope, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """No other does, and what is refused calls nobody."""
    with offered.client() as assistant:
        upload = f"{UPLOADS}/{start(assistant, 3)['id']}"
    upstream.recorder.clear()
    body = {"filename": "a", "purpose": "batch", "bytes": 3, "mime_type": "text/jsonl"}
    with offered.client(scope) as client:
        replies = [
            client.post(UPLOADS, json=body),
            client.post(f"{upload}/parts", json={"content_base64": "YWJj"}),
            client.post(f"{upload}/complete", json={"part_ids": []}),
            client.post(f"{upload}/cancel", json={}),
        ]
    if scope is Scope.ACTIONS:
        assert [reply.status_code for reply in replies] == [200, 200, 400, 200]
        return
    for reply in replies:
        assert_relay_error(reply, exc.InsufficientScope)
    assert upstream.recorder.count == 0
