from typing import Any

import httpx
import pytest

from codegen.contract import Scope
from handlers.runtime import exceptions as exc
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_relay import FileRelay, parts_of, read_reply
from tests.support.images import image
from tests.support.relay_errors import assert_relay_error

pytestmark = pytest.mark.integration

VIDEOS = "/v1/actions/videos"
PROMPT: dict[str, Any] = {"prompt": "A lighthouse at night."}


@pytest.fixture
def video_id(assistant: httpx.Client, upstream: SimulatedUpstream) -> str:
    """A video that the upstream has."""
    started: str = read_reply(assistant.post(VIDEOS, json=PROMPT), "VideoJob")["id"]
    upstream.recorder.clear()
    return started


def remixes(video_id: str) -> str:
    """Where a remix is started."""
    return f"{VIDEOS}/{video_id}/remix"


def test_a_video_is_started_with_the_fields_of_the_assistant(
    assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """JSON goes upstream as it is, without what the relay alone uses; the model is the service's choice."""
    body = PROMPT | {"seconds": "8", "size": "1280x720", "idempotency_key": "a"}
    value = read_reply(assistant.post(VIDEOS, json=body), "VideoJob")
    (record,) = upstream.recorder.requests
    assert httpx.Response(200, content=record.body_start).json() == PROMPT | {"seconds": "8", "size": "1280x720"}
    assert (value["status"], value["progress"], value["seconds"], value["size"]) == ("queued", 0, "8", "1280x720")
    assert set(value) <= {"id", "status", "progress", "model", "seconds", "size", "how"}


def test_what_to_do_next_works_as_it_is_told(offered: FileRelay, assistant: httpx.Client) -> None:
    """The method and the path that the reply names lead through the proxy to the state of this video."""
    started = read_reply(assistant.post(VIDEOS, json=PROMPT), "VideoJob")
    assert "`forwardRequest`" in started["how"]
    assert f"`method` GET and `path` `/v1/videos/{started['id']}`" in started["how"]
    with offered.client(Scope.PROXY) as client:
        state = client.post("/v1/proxy", json={"method": "GET", "path": f"/v1/videos/{started['id']}"})
    assert (state.status_code, state.json()["id"]) == (200, started["id"])


def test_an_image_to_begin_with_is_sent_along(
    assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream
) -> None:
    """With a reference the body is multipart, and the image arrives whole."""
    content = image("image/webp")
    body = PROMPT | {"seconds": "4", "openaiFileIdRefs": [offered.offer("first.webp", content, "image/webp")]}
    read_reply(assistant.post(VIDEOS, json=body), "VideoJob")
    (record,) = upstream.recorder.requests
    assert parts_of(record) == [
        ("prompt", None, "text/plain", PROMPT["prompt"].encode()),
        ("seconds", None, "text/plain", b"4"),
        ("input_reference", "first.webp", "image/webp", content),
    ]


def test_only_an_image_is_sent_along(assistant: httpx.Client, offered: FileRelay, upstream: SimulatedUpstream) -> None:
    """Another type is refused, what does not come is said to be missing; nothing is sent."""
    clip = offered.offer("clip.mp4", b"made up", "video/mp4")
    for reference, error in ((clip, exc.FileRefused), (offered.refer("gone.png", "image/png"), exc.FileUnreachable)):
        reply = assistant.post(VIDEOS, json=PROMPT | {"openaiFileIdRefs": [reference]})
        assert_relay_error(reply, error)
    assert upstream.recorder.count == 0


def test_a_remix_names_its_video(assistant: httpx.Client, video_id: str, upstream: SimulatedUpstream) -> None:
    """The id goes into the path, the prompt into the body, and the answer is the new video."""
    value = read_reply(assistant.post(remixes(video_id), json=PROMPT | {"idempotency_key": "r"}), "VideoJob")
    (record,) = upstream.recorder.requests
    assert (record.path, record.operation_id) == (f"/v1/videos/{video_id}/remix", "CreateVideoRemix")
    assert httpx.Response(200, content=record.body_start).json() == PROMPT
    assert value["id"] != video_id
    assert f"`/v1/videos/{value['id']}`" in value["how"]


def test_a_video_that_nobody_has_is_the_upstreams_refusal(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """An error of the upstream comes as it is, whether the video or the whole service is missing."""
    reply = assistant.post(remixes("video_unknown"), json=PROMPT)
    assert reply.status_code == 404
    assert not reply.json()["error"]["type"].startswith("relay_")
    gone = {"error": {"message": "The Videos API has been shut down.", "type": "invalid_request_error"}}
    upstream.faults.add(Fault("createVideo", status=410, body=gone))
    reply = assistant.post(VIDEOS, json=PROMPT)
    assert (reply.status_code, reply.json()) == (410, gone)


def test_they_say_that_they_have_ended(assistant: httpx.Client, video_id: str, upstream: SimulatedUpstream) -> None:
    """Every reply, a refusal too, carries the day on which the upstream closed them."""
    upstream.faults.add(Fault("createVideo", status=410, times=1))
    for path in (VIDEOS, VIDEOS, remixes(video_id)):
        reply = assistant.post(path, json=PROMPT)
        assert reply.headers["sunset"] == "Thu, 24 Sep 2026 00:00:00 GMT"
        assert reply.headers["deprecation"].startswith("@")


@pytest.mark.parametrize(("status", "told"), [("completed", "cannot be fetched here"), ("failed", "failed")])
def test_what_is_finished_at_once_needs_no_waiting(
    status: str, told: str, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """A service that answers a finished or failed video is understood; there is nothing to ask again."""
    upstream.faults.add(Fault("createVideo", status=200, body={"id": "video_1", "status": status, "progress": 99.5}))
    value = read_reply(assistant.post(VIDEOS, json=PROMPT), "VideoJob")
    assert (value["id"], value["status"]) == ("video_1", status)
    assert told in value["how"]
    assert "progress" not in value


@pytest.mark.parametrize(
    "body",
    [{"status": "queued"}, {"id": "video_1"}, {"id": 1, "status": "queued"}, {"id": "v" * 600, "status": "queued"}],
    ids=["no_id", "no_status", "number", "long"],
)
def test_an_answer_that_is_no_video_is_an_error(
    body: Any, assistant: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Without an id nobody could ask for the video again."""
    upstream.faults.add(Fault("createVideo", status=200, body=body))
    assert_relay_error(assistant.post(VIDEOS, json=PROMPT), exc.UpstreamProtocolError)


def test_much_text_around_a_video_stays_behind(assistant: httpx.Client, upstream: SimulatedUpstream) -> None:
    """However much the upstream says, the reply is the state of the video."""
    upstream.faults.add(Fault("createVideo", repeat_body_to_bytes=2_000_000))
    reply = assistant.post(VIDEOS, json=PROMPT)
    read_reply(reply, "VideoJob")
    assert len(reply.content) < 1_000


def test_the_same_key_starts_one_video(assistant: httpx.Client, video_id: str, upstream: SimulatedUpstream) -> None:
    """A second call with the same key and fields gets the first reply; with other fields it is refused."""
    for path in (VIDEOS, remixes(video_id)):
        upstream.recorder.clear()
        body = PROMPT | {"idempotency_key": f"start {path}"}
        first, second = (assistant.post(path, json=body) for _ in range(2))
        assert read_reply(first, "VideoJob") == read_reply(second, "VideoJob")
        other = assistant.post(path, json=body | {"prompt": "Another."})
        assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_reused")
        assert upstream.recorder.count == 1


@pytest.mark.parametrize("scope", Scope)
def test_the_scope_of_assistants_alone_opens_them(
    scope: Scope, offered: FileRelay, video_id: str, upstream: SimulatedUpstream
) -> None:
    """An SDK client has the operation itself; a key without `actions` gets nowhere."""
    with offered.client(scope) as client:
        for path in (VIDEOS, remixes(video_id)):
            reply = client.post(path, json=PROMPT)
            if scope is Scope.ACTIONS:
                read_reply(reply, "VideoJob")
            else:
                assert_relay_error(reply, exc.InsufficientScope)
    assert upstream.recorder.count == (2 if scope is Scope.ACTIONS else 0)
