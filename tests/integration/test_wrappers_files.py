"""What assistants do with files: uploads from links and from Base64."""

import asyncio
import base64
import hashlib
import json
import math
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from codegen.contract import Scope
from handlers.runtime import exceptions as exc
from handlers.runtime.budget import DEADLINE_SECONDS
from handlers.runtime.remote_hosts import HTTPS_PORT
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_relay import FileRelay, parts_of, read_reply, running_file_relay
from tests.support.file_server import FileServer, redirect, stalled, whole
from tests.support.hostile_links import HOSTILE_LINKS
from tests.support.raw_http import raw_request
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import HOST, UPSTREAM_KEY, ServerThread
from tests.support.transfers import GROWTH_LIMIT_MIB, MIB, PeakMemory
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

UPLOAD = "/v1/actions/files/upload"
SIZE = 100 * MIB
PIECE = bytes(range(256)) * 256
FILE_TIMEOUT_SECONDS = 3.0  # so that only what stalls for good is late, also on a machine that is busy
MAX_FILE_BYTES = MIB
LONGEST_SECONDS = 40.0


@pytest.fixture(scope="module")
def running_strict(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """One that waits for no file longer than a second and takes none beyond a mebibyte."""
    settings = {
        "RELAY_FILE_TIMEOUT_SECONDS": str(FILE_TIMEOUT_SECONDS),
        "RELAY_FILE_MAX_BYTES": str(MAX_FILE_BYTES),
    }
    with running_file_relay(tmp_path_factory.mktemp("strict"), upstream_server.url, settings) as running:
        yield running


@pytest.fixture
def strict(running_strict: FileRelay, upstream: SimulatedUpstream) -> FileRelay:
    """The strict relay, with nothing offered and nothing recorded."""
    del upstream
    running_strict.files.forget()
    return running_strict


def upload_of(*references: Any, **more: Any) -> dict[str, Any]:
    """A body for `uploadFile`."""
    return {"purpose": "user_data", "openaiFileIdRefs": list(references), **more}


def digest_of(upstream_url: str, file_id: str) -> tuple[int, str]:
    """Size and digest of a file that the upstream has."""
    digest = hashlib.sha256()
    size = 0
    headers = {"Authorization": f"Bearer {UPSTREAM_KEY}"}
    with httpx.stream("GET", f"{upstream_url}/v1/files/{file_id}/content", headers=headers) as reply:
        for piece in reply.iter_bytes():
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def test_a_hundred_mebibytes_go_from_a_link_to_the_upstream(
    offered: FileRelay, assistant: httpx.Client, upstream_server: ServerThread
) -> None:
    """They arrive whole, and the relay never holds much of them."""
    expected = hashlib.sha256(PIECE * (SIZE // len(PIECE))).hexdigest()
    pieces = [PIECE] * (SIZE // len(PIECE))
    offered.files.answers["/large.bin"] = whole(pieces, length=SIZE, media_type="application/octet-stream")
    small = offered.offer("small.bin", PIECE, "application/octet-stream")
    read_reply(assistant.post(UPLOAD, json=upload_of(small)), "UploadedFiles")
    with PeakMemory(offered.relay.pid) as memory:
        reference = offered.refer("large.bin", "application/octet-stream")
        reply = read_reply(assistant.post(UPLOAD, json=upload_of(reference)), "UploadedFiles")
    (made,) = reply["data"]
    try:
        assert (made["bytes"], made["filename"]) == (SIZE, "large.bin")
        assert digest_of(upstream_server.url, made["id"]) == (SIZE, expected)
        assert memory.growth_mib < GROWTH_LIMIT_MIB
    finally:
        assert assistant.delete(f"/v1/files/{made['id']}").json()["deleted"] is True  # it lies on the disk till then


def test_a_file_of_unknown_length_arrives(
    offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """A host that sends chunks is as good as one that says the length."""
    offered.files.answers["/chunks.csv"] = whole([b"a,b\n", b"1,2\n"], media_type="text/csv")
    reply = read_reply(assistant.post(UPLOAD, json=upload_of(offered.refer("chunks.csv", "text/csv"))), "UploadedFiles")
    assert reply["data"][0]["bytes"] == 8
    (record,) = upstream.recorder.requests
    assert parts_of(record)[1:] == [("file", "chunks.csv", "text/csv", b"a,b\n1,2\n")]


def test_a_small_file_arrives_from_base64(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """With its name, its purpose and all of its bytes."""
    content = bytes(range(256)) * 256
    body = {"purpose": "vision", "filename": "Bild ä.png", "content_base64": base64.b64encode(content).decode()}
    (made,) = read_reply(assistant.post(UPLOAD, json=body), "UploadedFiles")["data"]
    assert (made["bytes"], made["filename"], made["purpose"]) == (65_536, "Bild ä.png", "vision")
    assert set(made) == {"id", "bytes", "filename", "purpose", "created_at"}
    larger = base64.b64encode(content + b"x").decode()
    assert_relay_error(assistant.post(UPLOAD, json={**body, "content_base64": larger}), exc.FileTooLarge)
    assert_relay_error(assistant.post(UPLOAD, json={**body, "content_base64": "_"}), exc.InvalidBody)
    assert upstream.recorder.count == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filename": "a"},
        {"content_base64": "YQ=="},
        {"openaiFileIdRefs": []},
        {"openaiFileIdRefs": ["https://files.oaiusercontent.com/"] * 11},
        {"openaiFileIdRefs": ["https://files.oaiusercontent.com/"], "filename": "a", "content_base64": "YQ=="},
    ],
    ids=lambda body: "+".join(body) or "nothing",
)
def test_a_body_without_one_clear_file_is_refused(
    assistant: httpx.Client, upstream: SimulatedUpstream, body: dict[str, Any]
) -> None:
    """Nobody is called, and the message names what there is to choose from."""
    message = assert_relay_error(assistant.post(UPLOAD, json={"purpose": "batch", **body}), exc.InvalidBody)["message"]
    assert "openaiFileIdRefs" in str(message)
    assert upstream.recorder.count == 0


def test_hostile_references_reach_nobody(
    upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory, upstream: SimulatedUpstream
) -> None:
    """In both forms, alone and among others, with the hosts that are allowed by default: nothing connects."""
    folder = tmp_path_factory.mktemp("hostile")
    settings = {"RELAY_FILE_HOSTS": ""}
    with running_file_relay(folder, upstream_server.url, settings) as running, running.client() as assistant:
        ports = (running.files.port, HTTPS_PORT)
        links = [template.format(port=port) for template in HOSTILE_LINKS for port in ports]
        assert len(links) > 120
        for link in links:
            for form in (link, {"name": "a.txt", "download_link": link}):
                error = assert_relay_error(assistant.post(UPLOAD, json=upload_of(form)), exc.FileRefused)
                assert len(link) < 9 or link not in str(error)
        for start in range(0, len(links), 10):
            reply = read_reply(assistant.post(UPLOAD, json=upload_of(*links[start : start + 10])), "UploadedFiles")
            assert reply["data"] == []
            assert len(reply["failed"]) == len(links[start : start + 10])
            assert "://" not in str(reply)
        assert running.files.connections == 0
        printed = running.relay.printed()
    assert "oaiusercontent" not in printed
    assert upstream.recorder.count == 0


def test_a_link_that_leads_on_to_elsewhere_is_refused(
    offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """A good host cannot send the relay to a bad one."""
    with FileServer(None) as canary:
        for target in (
            f"http://{HOST}:{canary.port}/",
            f"https://localhost:{canary.port}/",
            "https://169.254.169.254/",
        ):
            offered.files.answers["/away"] = redirect(target)
            reply = assistant.post(UPLOAD, json=upload_of(offered.refer("away", "text/plain")))
            assert_relay_error(reply, exc.FileRefused)
        assert canary.connections == 0
    assert upstream.recorder.count == 0


def test_what_a_host_does_wrong_is_the_error(strict: FileRelay, upstream: SimulatedUpstream) -> None:
    """Each with its code, within its time; no part of a file is ever kept for a whole one."""
    text = b"x" * 10_000
    too_many = [b"x" * 65_536] * 17
    answers = {
        "silent": (stalled(), exc.FileUnreachable),
        "stalls": (stalled(b"beginning"), exc.FileUnreachable),
        "short": (whole([text], length=20_000, leaves=True), exc.FileUnreachable),
        "gone": (whole([], length=0, status=404), exc.FileUnreachable),
        "ended": (whole([], length=0, status=403), exc.FileUnreachable),
        "packed": (whole([text], length=len(text), Content_Encoding="gzip"), exc.FileRefused),
        "long": (whole(too_many, length=65_536 * 17), exc.FileTooLarge),
        "endless": (whole(too_many), exc.FileTooLarge),
    }
    with strict.client() as assistant:
        for name, (answer, error) in answers.items():
            strict.files.answers[f"/{name}"] = answer
            began = time.monotonic()
            assert_relay_error(assistant.post(UPLOAD, json=upload_of(strict.refer(name, "text/plain"))), error)
            assert time.monotonic() - began < FILE_TIMEOUT_SECONDS + 2
        wait_until(lambda: strict.files.open_connections == 0)
        wait_until(lambda: all(record.finished_at is not None for record in upstream.recorder.requests))
    # Those that failed in mid-file had begun to go up; the upstream saw each of them broken off.
    assert {record.status for record in upstream.recorder.requests} <= {None}
    assert 1 <= upstream.recorder.count <= 3


def test_one_bad_file_does_not_take_the_others_along(strict: FileRelay, upstream: SimulatedUpstream) -> None:
    """What was kept and what was not is told by name, with reasons that hold no link."""
    message = "Too wide; read https://platform.example/docs?x=1."
    upstream.faults.add(Fault("createFile", times=1, status=400, body={"error": {"message": message}}))
    strict.files.answers["/stalls.txt"] = stalled(b"beginning")
    strict.files.answers["/long.txt"] = whole([b"x" * 65_536] * 17)
    references = [
        strict.offer("wide.png", b"png", "image/png"),
        strict.offer("a.txt", b"first", "text/plain"),
        strict.refer("stalls.txt", "text/plain"),
        strict.refer("missing.txt", "text/plain"),
        strict.refer("long.txt", "text/plain"),
        {"name": "elsewhere.txt", "download_link": "https://evil.test/secret?sig=1"},
        "file-id-alone",
        strict.offer("b.txt", b"second", "text/plain")["download_link"],
    ]
    with strict.client() as assistant:
        response = assistant.post(UPLOAD, json=upload_of(*references))
    reply = read_reply(response, "UploadedFiles")
    assert [(file["filename"], file["bytes"]) for file in reply["data"]] == [("a.txt", 5), ("b.txt", 6)]
    reasons = {item["name"]: item["reason"] for item in reply["failed"]}
    assert list(reasons) == ["wide.png", "stalls.txt", "missing.txt", "long.txt", "elsewhere.txt", "file 7"]
    assert reasons["wide.png"] == "Too wide; read [link]"
    assert "404" in reasons["missing.txt"]
    assert "1048576 bytes" in reasons["long.txt"]
    for hidden in ("://", "sig=", "evil", str(strict.files.port)):
        assert hidden not in response.text


def test_the_upstreams_refusal_of_the_only_file_goes_on(
    offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Status and body are the upstream's."""
    error = {"error": {"message": "Not this.", "type": "invalid_request_error", "param": "file", "code": "x"}}
    upstream.faults.add(Fault("createFile", status=415, body=error))
    reply = assistant.post(UPLOAD, json=upload_of(offered.offer("a.txt", b"a", "text/plain")))
    assert (reply.status_code, reply.json()) == (415, error)


def test_a_client_that_leaves_takes_both_sides_along(offered: FileRelay, upstream: SimulatedUpstream) -> None:
    """The host of the file and the upstream both see the end of it."""
    offered.files.answers["/stalls"] = stalled(b"x" * 65_536)
    body = json.dumps(upload_of(offered.refer("stalls", "text/plain"))).encode()
    headers = {
        **offered.keys[Scope.ACTIONS.value].headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    with socket.create_connection((HOST, int(offered.relay.url.rpartition(":")[2])), 10) as client:
        client.sendall(raw_request("POST", UPLOAD, headers.items()) + body)
        wait_until(lambda: any(record.body_size > 65_536 for record in upstream.recorder.requests))
        assert offered.files.open_connections == 1
        left_at = time.monotonic()
    wait_until(lambda: offered.files.open_connections == 0)
    wait_until(lambda: upstream.recorder.requests[0].disconnected_at is not None)
    assert (upstream.recorder.requests[0].disconnected_at or math.inf) - left_at < 1.0


def test_the_same_key_uploads_once(offered: FileRelay, assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """Called again, also with a fresh link to the same file, the first reply comes back; another file is refused."""
    reference = offered.offer("a.txt", b"content", "text/plain")
    first = assistant.post(UPLOAD, json=upload_of(reference, idempotency_key="upload 1"))
    fresh = {**reference, "download_link": f"{reference['download_link']}&again=1"}
    again = assistant.post(UPLOAD, json=upload_of(fresh, idempotency_key="upload 1"))
    assert first.json() == again.json() == read_reply(again, "UploadedFiles")
    assert (upstream.recorder.count, len(offered.files.requests)) == (1, 1)
    other = offered.offer("b.txt", b"content", "text/plain")
    refusal = assistant.post(UPLOAD, json=upload_of(other, idempotency_key="upload 1"))
    assert_relay_error(refusal, exc.IdempotencyKeyReused)
    assert upstream.recorder.count == 1


async def test_a_silent_upstream_leaves_time_for_a_reply(offered: FileRelay, upstream: SimulatedUpstream) -> None:
    """
    Every call ends in time. What was kept before is told of, and so is what may have been.

    Takes more than half a minute: these are the limits that assistants meet.
    """
    upstream.faults.add(Fault("createFile", times=1))
    upstream.faults.add(Fault("createFile", silent=True))
    upstream.faults.add(Fault("downloadFile", silent_after_bytes=5))
    references = [offered.offer(name, b"content", "text/plain") for name in ("a.txt", "b.txt", "c.txt")]
    headers = offered.keys[Scope.ACTIONS.value].headers
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=offered.relay.url, headers=headers, timeout=60) as client:
        uploaded, read = await asyncio.gather(
            client.post(UPLOAD, json=upload_of(*references)),
            client.get("/v1/actions/files/file-size-1000/text"),
        )
    assert time.monotonic() - began < LONGEST_SECONDS
    reply = read_reply(uploaded, "UploadedFiles")
    assert [file["filename"] for file in reply["data"]] == ["a.txt"]
    assert [item["name"] for item in reply["failed"]] == ["b.txt", "c.txt"]
    assert "listFiles" in reply["failed"][0]["reason"]
    assert "call again with this file" in reply["failed"][1]["reason"]
    assert_relay_error(read, exc.UpstreamTimeout)
    assert time.monotonic() - began >= DEADLINE_SECONDS - 1
    assert [record.operation_id for record in upstream.recorder.requests].count("createFile") == 2


@pytest.mark.parametrize("scope", Scope)
def test_the_scope_of_assistants_opens_the_wrapper(
    scope: Scope, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """No other does, and what is refused calls nobody."""
    with offered.client(scope) as client:
        reply = client.post(UPLOAD, json=upload_of(offered.offer("a.txt", b"a", "text/plain")))
    if scope is Scope.ACTIONS:
        assert len(read_reply(reply, "UploadedFiles")["data"]) == 1
        return
    assert_relay_error(reply, exc.InsufficientScope)
    assert (upstream.recorder.count, offered.files.connections) == (0, 0)
