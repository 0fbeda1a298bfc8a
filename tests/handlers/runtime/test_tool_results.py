import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mcp_types import BlobResourceContents, CallToolResult, EmbeddedResource, ResourceLink, TextContent

from handlers.runtime.errors import error_to_reply
from handlers.runtime.exceptions import IdempotencyInProgress, InsufficientScope
from handlers.runtime.messages import Reply
from handlers.runtime.tool_results import FILES_FIELD, REQUEST_ID, RETRY_AFTER, STATUS, reply_to_result

LINK = {
    "url": "https://relay.example/artifacts/abc",
    "name": "photo.png",
    "mime_type": "image/png",
    "bytes": 12,
    "expires_at": 1800000000,
}
FILE = {"name": "speech.mp3", "mime_type": "audio/mpeg", "content": base64.b64encode(b"sound").decode()}


def result_of(value: Any, *, status: int = 200, wrapped: bool = True) -> CallToolResult:
    """The result that a JSON reply becomes."""
    return reply_to_result(Reply.json(value, status=status), wrapped=wrapped)


def text_of(result: CallToolResult) -> str:
    """The text that stands first."""
    first = result.content[0]
    assert isinstance(first, TextContent)
    return first.text


def on_the_wire(result: CallToolResult) -> dict[str, Any]:
    """The result as each version of the protocol writes it; both must be able to."""
    older: dict[str, Any] = json.loads(result.model_dump_json(by_alias=True, exclude_none=True))
    newer = json.loads(json.dumps(result.model_dump(mode="json", by_alias=True, exclude_none=True), allow_nan=False))
    assert older == newer
    return older


def test_a_json_object_is_structured_and_a_text() -> None:
    """Both say the same; the text is the reply byte for byte."""
    reply = Reply(200, [(b"content-type", b"application/json; charset=utf-8")], b'{ "b": 1.0, "a": "\xc3\xa4" }')
    result = reply_to_result(reply, wrapped=True)
    assert result.structured_content == {"b": 1.0, "a": "ä"}
    assert text_of(result) == '{ "b": 1.0, "a": "ä" }'
    assert len(result.content) == 1
    assert not result.is_error


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, True])
def test_json_that_is_no_object_is_a_text(value: object) -> None:
    """Structured content is an object in every version of the protocol."""
    result = result_of(value)
    assert result.structured_content is None
    assert json.loads(text_of(result)) == value


@pytest.mark.parametrize("body", [b"{", b"\xff{}", b'{"a": NaN}', b'{"a": 1e400}'])
def test_what_is_not_quite_json_is_a_text(body: bytes) -> None:
    """Whatever the upstream calls JSON, the result is one that can be sent."""
    result = reply_to_result(Reply(200, [(b"content-type", b"application/json")], body), wrapped=True)
    assert result.structured_content is None
    assert text_of(result) == body.decode("utf-8", "replace")
    on_the_wire(result)


def test_half_a_character_is_marked_and_the_rest_stays() -> None:
    """A text of a model that ends in the middle of an emoji still is structured content, in both protocols."""
    result = result_of({"text": "tea \ud83d", "\ud83d": 1, "whole": "😀"})
    assert on_the_wire(result)["structuredContent"] == {"text": "tea \ufffd", "\ufffd": 1, "whole": "😀"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 502, 503, 504])
def test_an_error_keeps_its_body(status: int) -> None:
    """From status 400 on the result is an error, its text the body, and nothing is structured."""
    error = {"error": {"message": "no", "type": "t", "param": None, "code": "c"}}
    result = result_of(error, status=status)
    assert result.is_error
    assert result.structured_content is None
    assert json.loads(text_of(result)) == error
    assert (result.meta or {})[STATUS] == status


def test_the_relays_own_error_reads_as_over_http() -> None:
    """The body is the one of the HTTP operation, byte for byte."""
    reply = error_to_reply(InsufficientScope())
    assert isinstance(reply.body, bytes)
    assert text_of(reply_to_result(reply, wrapped=True)) == reply.body.decode()


def test_a_file_of_the_reply_is_a_resource_and_no_text() -> None:
    """Its bytes travel once, beside what a model reads; name, type and content can be put together again."""
    result = result_of({"how": "Play it.", FILES_FIELD: [FILE, {**FILE, "name": "ä b/c.mp3"}]})
    assert result.structured_content == {"how": "Play it."}
    assert json.loads(text_of(result)) == {"how": "Play it."}
    resources = [block.resource for block in result.content[1:] if isinstance(block, EmbeddedResource)]
    assert [resource.uri for resource in resources] == ["attachment:///1/speech.mp3", "attachment:///2/__b_c.mp3"]
    for resource in resources:
        assert isinstance(resource, BlobResourceContents)
        assert (resource.mime_type, resource.blob) == (FILE["mime_type"], FILE["content"])


def test_a_link_is_a_resource_link_too() -> None:
    """Wherever a reply holds links of the relay, each stands in the content as well, in order."""
    second = {**LINK, "url": "https://relay.example/artifacts/def"}
    result = result_of({"links": [LINK, second], "how": "Give them to the user."})
    assert result.structured_content == {"links": [LINK, second], "how": "Give them to the user."}
    links = [block for block in result.content if isinstance(block, ResourceLink)]
    assert [link.uri for link in links] == [LINK["url"], second["url"]]
    assert {(link.name, link.mime_type, link.size) for link in links} == {("photo.png", "image/png", 12)}


@pytest.mark.parametrize(
    "value",
    [
        {FILES_FIELD: [FILE]},
        {FILES_FIELD: ["https://example.com/a"]},
        {FILES_FIELD: [{"name": 1}]},
        {"attributes": {**LINK, "url": "https://elsewhere.example/"}},
        {"metadata": {**LINK, "bytes": "many"}},
    ],
)
def test_what_an_upstream_calls_a_file_or_link_stays_a_field(value: dict[str, Any]) -> None:
    """Metadata may be anybody's words: nothing is lost, no link is made of them, and the result can be sent."""
    result = result_of(value, wrapped=False)
    assert result.structured_content == value
    assert json.loads(text_of(result)) == value
    assert len(result.content) == 1
    on_the_wire(result)


def test_what_is_neither_text_nor_json_is_a_resource() -> None:
    """Its type and bytes stay."""
    result = reply_to_result(Reply(200, [(b"content-type", b"image/png")], b"\x89PNG"), wrapped=True)
    (block,) = result.content
    assert isinstance(block, EmbeddedResource)
    assert isinstance(block.resource, BlobResourceContents)
    assert (block.resource.mime_type, base64.b64decode(block.resource.blob)) == ("image/png", b"\x89PNG")


def test_plain_text_is_a_text() -> None:
    """Whatever its charset says, it is read as UTF-8."""
    result = reply_to_result(
        Reply(200, [(b"content-type", b"text/plain; charset=utf-8")], "tea ä".encode()), wrapped=True
    )
    assert text_of(result) == "tea ä"


def test_an_empty_reply_is_an_empty_result() -> None:
    """Nothing is said where nothing was answered."""
    result = reply_to_result(Reply(200, []), wrapped=True)
    assert result.content == []
    assert not result.is_error


def test_the_meta_tells_status_id_and_when_to_try_again() -> None:
    """What clients over HTTP read in headers stands beside the result."""
    reply = error_to_reply(IdempotencyInProgress(headers=(("Retry-After", "5"),)))
    reply.headers.append((b"x-request-id", b"rly_1"))
    assert reply_to_result(reply, wrapped=True).meta == {STATUS: 503, REQUEST_ID: "rly_1", RETRY_AFTER: "5"}
    assert result_of({}).meta == {STATUS: 200}


async def test_a_stream_is_no_result() -> None:
    """Who gives one has not read it, which is a defect."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: {}"

    with pytest.raises(TypeError):
        reply_to_result(Reply(200, [], pieces()), wrapped=True)
