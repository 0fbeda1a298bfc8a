from typing import Any

import orjson
import pytest

from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.images import IMAGE_TYPES, MAX_IMAGE_BYTES
from handlers.runtime.messages import Reply, Request
from handlers.runtime.services import Services
from handlers.video_wrappers import generate_video, remix_video
from tests.handlers.conftest import MakeRequest
from tests.handlers.wrapper_doubles import FilesOfTest, UpstreamOfTest, answered, services_with

CAT = "https://files.oaiusercontent.com/cat.png?sig=secret"
VIDEO = {"id": "video_1", "object": "video", "status": "queued", "progress": 0, "prompt": "A cat.", "error": None}


class Wrapped:
    """Requests to the wrappers before an upstream and a host of files."""

    def __init__(self, request_of: MakeRequest, own_services: Services) -> None:
        self.upstream = UpstreamOfTest([lambda _: answered(VIDEO)])
        self.files = FilesOfTest({CAT: [b"cat"]})
        self._request_of = request_of
        self._services = services_with(own_services, self.upstream, self.files)

    def request(self, operation_id: str, path_params: dict[str, str] | None = None, **body: Any) -> Request:
        """A request to one of the wrappers."""
        return self._request_of(operation_id, path_params, services=self._services, body=body)

    async def start(self, **answer: Any) -> dict[str, Any]:
        """What `generateVideo` answers when the upstream answers this."""
        self.upstream.answers = [answered(answer)]
        return read(await generate_video(self.request("generateVideo", prompt="A cat.")))


@pytest.fixture
def wrapped(request_of: MakeRequest, own_services: Services) -> Wrapped:
    """The wrappers, with an image offered and an upstream that answers a video."""
    return Wrapped(request_of, own_services)


def read(reply: Reply) -> dict[str, Any]:
    """The value of a reply."""
    assert isinstance(reply.body, bytes)
    value: dict[str, Any] = orjson.loads(reply.body)
    return value


async def test_a_video_is_reduced_to_its_state(wrapped: Wrapped) -> None:
    """The reply holds what the contract names, and what to do next with method and path."""
    value = read(await generate_video(wrapped.request("generateVideo", prompt="A cat.", idempotency_key="a")))
    assert value.pop("how") == (
        "Call `forwardRequest` with `method` GET and `path` `/v1/videos/video_1` from time to time, until `status` is "
        "`completed` or `failed`."
    )
    assert value == {"id": "video_1", "status": "queued", "progress": 0}
    (call,) = wrapped.upstream.calls
    assert (call.path, orjson.loads(call.body)) == ("/v1/videos", {"prompt": "A cat."})


async def test_an_image_makes_the_body_multipart(wrapped: Wrapped) -> None:
    """Without one the body is JSON; with one it has parts, and the image is held to the limits of images."""
    await generate_video(wrapped.request("generateVideo", prompt="A cat.", size="1280x720", openaiFileIdRefs=[CAT]))
    (call,) = wrapped.upstream.calls
    assert call.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="size"\r\n\r\n1280x720\r\n' in call.body
    assert b'name="input_reference"; filename="cat.png"\r\nContent-Type: image/png\r\n\r\ncat\r\n' in call.body
    assert (wrapped.files.limits, wrapped.files.media_types) == ([MAX_IMAGE_BYTES], [IMAGE_TYPES])


async def test_a_remix_goes_to_its_video(wrapped: Wrapped) -> None:
    """The id stands in the path, encoded, and the prompt alone in the body."""
    request = wrapped.request("remixVideo", {"video_id": "video ü"}, prompt="A dog.", idempotency_key="a")
    assert read(await remix_video(request))["id"] == "video_1"
    (call,) = wrapped.upstream.calls
    assert (call.path, orjson.loads(call.body)) == ("/v1/videos/video%20%C3%BC/remix", {"prompt": "A dog."})


async def test_a_path_that_the_reply_names_is_one_segment_longer(wrapped: Wrapped) -> None:
    """An id that would lead elsewhere is encoded before an assistant is told to call it."""
    value = await wrapped.start(id="../files?x=#", status="queued")
    assert "`/v1/videos/..%2Ffiles%3Fx%3D%23`" in value["how"]


async def test_a_state_that_is_not_known_is_passed_on(wrapped: Wrapped) -> None:
    """A job that was paid for is not lost because a service has a word of its own for its state."""
    value = await wrapped.start(id="video_1", status="preprocessing", progress=12, seconds=4, model="house-1")
    how = value.pop("how")
    assert value == {"id": "video_1", "status": "preprocessing", "progress": 12, "model": "house-1"}
    assert "forwardRequest" in how


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_finished_video_is_not_asked_for_again(status: str, wrapped: Wrapped) -> None:
    """There is nothing left to wait for."""
    assert "forwardRequest" not in (await wrapped.start(id="video_1", status=status))["how"]


@pytest.mark.parametrize(
    "answer",
    [{}, {"id": "", "status": "queued"}, {"id": "v" * 513, "status": "queued"}, {"id": "video_1", "status": None}],
    ids=["nothing", "empty_id", "long_id", "no_status"],
)
async def test_without_an_id_there_is_no_video(answer: dict[str, Any], wrapped: Wrapped) -> None:
    """Nobody could ask for it again."""
    with pytest.raises(UpstreamProtocolError):
        await wrapped.start(**answer)
