from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from handlers.runtime.exceptions import FileRefused, InvalidBody, UpstreamProtocolError
from handlers.runtime.messages import Reply, Request
from handlers.runtime.wrapped_calls import UpstreamRefusal
from handlers.upload_wrappers import MAX_PART_BYTES, finish_upload, send_upload_part, start_upload, stop_upload
from tests.handlers.conftest import MakeRequest
from tests.handlers.wrapper_doubles import FilesOfTest, UpstreamOfTest, answered, refused, services_with

STATE = {"id": "upload_1", "status": "pending", "filename": "a", "bytes": 9, "purpose": "batch", "expires_at": 2}
PART = {"id": "part_1", "upload_id": "upload_1"}
LINK = "https://files.oaiusercontent.com/signed?sig=secret"

Ask = Callable[..., Awaitable[Any]]
Function = Callable[[Request], Awaitable[Reply]]


@pytest.fixture
def upstream() -> UpstreamOfTest:
    """Answers what a test puts there."""
    return UpstreamOfTest([answered({**STATE, "object": "upload", "created_at": 1, "file": None})])


@pytest.fixture
def files() -> FilesOfTest:
    """One file of two pieces."""
    return FilesOfTest({LINK: [b"con", b"tent"]})


@pytest.fixture
def ask(request_of: MakeRequest, own_services: Any, upstream: UpstreamOfTest, files: FilesOfTest) -> Ask:
    """Calls a wrapper and decodes what it replies."""
    services = services_with(own_services, upstream, files)

    async def ask(function: Function, operation_id: str, body: Any, **path_params: str) -> Any:
        reply = await function(request_of(operation_id, path_params=path_params, services=services, body=body))
        assert isinstance(reply.body, bytes)
        return orjson.loads(reply.body)

    return ask


async def test_an_upload_is_started_with_what_the_body_says(ask: Ask, upstream: UpstreamOfTest) -> None:
    """Everything but the key goes on, and the reply is the state."""
    fields = {"filename": "a", "purpose": "batch", "bytes": 9, "mime_type": "text/jsonl"}
    assert await ask(start_upload, "startUpload", {**fields, "idempotency_key": "k"}) == STATE
    (call,) = upstream.calls
    assert (call.method, call.path, orjson.loads(call.body)) == ("POST", "/v1/uploads", fields)


async def test_an_upload_is_finished_with_its_parts_in_order(ask: Ask, upstream: UpstreamOfTest) -> None:
    """The reply has the file, in short."""
    file = {"id": "file-1", "filename": "a", "bytes": 9}
    upstream.answers = [answered({**STATE, "status": "completed", "file": {**file, "object": "file"}})]
    body = {"part_ids": ["part_2", "part_1"], "md5": "0" * 32}
    reply = await ask(finish_upload, "finishUpload", {**body, "idempotency_key": "k"}, upload_id="upload_1")
    assert reply == {**STATE, "status": "completed", "file": file}
    (call,) = upstream.calls
    assert (call.path, orjson.loads(call.body)) == ("/v1/uploads/upload_1/complete", body)


@pytest.mark.parametrize("body", [None, {}, {"idempotency_key": "k"}])
async def test_an_upload_is_given_up_without_a_body(ask: Ask, upstream: UpstreamOfTest, body: Any) -> None:
    """`cancelUpload` takes none."""
    upstream.answers = [answered({**STATE, "status": "cancelled"})]
    assert (await ask(stop_upload, "stopUpload", body, upload_id="upload_1"))["status"] == "cancelled"
    (call,) = upstream.calls
    assert (call.path, call.body) == ("/v1/uploads/upload_1/cancel", b"")
    assert "content-type" not in call.headers


@pytest.mark.parametrize(
    "body, content",
    [
        ({"openaiFileIdRefs": [LINK]}, b"content"),
        ({"openaiFileIdRefs": [{"name": "a", "download_link": LINK}]}, b"content"),
        ({"content_base64": "YWJj"}, b"abc"),
    ],
)
async def test_a_part_goes_up_as_a_form(
    ask: Ask, upstream: UpstreamOfTest, files: FilesOfTest, body: Any, content: bytes
) -> None:
    """As the field `data`, from a link with upstream's own limit, or from the body itself."""
    upstream.answers = [answered({**PART, "object": "upload.part", "created_at": 1})]
    assert await ask(send_upload_part, "sendUploadPart", body, upload_id="upload_1") == PART
    (call,) = upstream.calls
    assert call.path == "/v1/uploads/upload_1/parts"
    assert b'form-data; name="data"; filename=' in call.body
    assert b"\r\n\r\n" + content + b"\r\n" in call.body
    assert files.limits == [MAX_PART_BYTES] * ("openaiFileIdRefs" in body)


@pytest.mark.parametrize("body", [{}, {"openaiFileIdRefs": [LINK], "content_base64": "YQ=="}, {"content_base64": "?"}])
async def test_a_part_must_come_in_one_way(ask: Ask, upstream: UpstreamOfTest, body: Any) -> None:
    """Anything else is refused before anybody is called."""
    with pytest.raises(InvalidBody, match="content_base64"):
        await ask(send_upload_part, "sendUploadPart", body, upload_id="upload_1")
    assert upstream.calls == []


async def test_what_stops_a_part_is_the_error(ask: Ask, upstream: UpstreamOfTest, files: FilesOfTest) -> None:
    """Whether the host of the file or the upstream refuses."""
    body = {"openaiFileIdRefs": [LINK]}
    upstream.answers = [refused("Too late.")]
    with pytest.raises(UpstreamRefusal):
        await ask(send_upload_part, "sendUploadPart", body, upload_id="upload_1")
    files.files[LINK] = FileRefused()
    with pytest.raises(FileRefused):
        await ask(send_upload_part, "sendUploadPart", body, upload_id="upload_1")


async def test_an_answer_that_is_no_upload_is_an_error(ask: Ask, upstream: UpstreamOfTest) -> None:
    """A state without an id or with one that the contract does not know is not passed on."""
    for wrong in ({}, {**STATE, "id": None}, {**STATE, "status": "paused"}):
        upstream.answers = [answered(wrong)]
        with pytest.raises(UpstreamProtocolError):
            await ask(stop_upload, "stopUpload", {}, upload_id="upload_1")


async def test_an_id_of_the_path_stays_one_segment(ask: Ask, upstream: UpstreamOfTest) -> None:
    """Whatever stands in it is encoded."""
    await ask(stop_upload, "stopUpload", {}, upload_id="a b?c")
    assert upstream.calls[0].path == "/v1/uploads/a%20b%3Fc/cancel"
