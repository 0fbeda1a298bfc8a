import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from handlers.audio_wrappers import (
    MAX_INLINE_BYTES,
    MAX_RECORDING_BYTES,
    MAX_TEXT_CHARACTERS,
    RECORDING_TYPES,
    speak_text,
    transcribe_recording,
    translate_recording,
)
from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.budget import MAX_REPLY_CHARACTERS
from handlers.runtime.exceptions import UpstreamProtocolError
from handlers.runtime.messages import Reply, Request
from handlers.runtime.services import Services
from handlers.runtime.shortening import escaped_length
from tests.handlers.conftest import MakeRequest
from tests.handlers.wrapper_doubles import FilesOfTest, UpstreamOfTest, answered, services_with
from tests.support.artifacts import PATH, SECRET, content_of

MEMO = "https://files.oaiusercontent.com/memo.mp3?sig=secret"
REFERENCE = {"name": "memo", "mime_type": "audio/wav", "download_link": MEMO}


class Wrapped:
    """Requests to the wrappers before an upstream and hosts of files that a test sets up."""

    def __init__(self, request_of: MakeRequest, own_services: Services) -> None:
        self.upstream = UpstreamOfTest([lambda _: answered({"text": "Hello."})])
        self.files = FilesOfTest({MEMO: [b"mem", b"o"]})
        stored = replace(own_services, artifacts=ArtifactStore("memory:///", SECRET, path=PATH))
        self.services = services_with(stored, self.upstream, self.files)
        self._request_of = request_of

    def request(self, operation_id: str, **body: Any) -> Request:
        """A request to one of the wrappers."""
        return self._request_of(operation_id, services=self.services, body=body)

    async def speak(self, *pieces: bytes, media_type: bytes | None = b"audio/mpeg", **body: Any) -> dict[str, Any]:
        """What `speakText` answers when the upstream answers these pieces."""
        headers = [] if media_type is None else [(b"content-type", media_type)]
        self.upstream.answers = [Reply(200, headers, streamed(pieces))]
        return read(await speak_text(self.request("speakText", input="Hello.", **body)))

    async def kept(self, link: dict[str, Any]) -> bytes:
        """What lies behind a link."""
        return await content_of(self.services.artifacts, link["url"].rpartition("/")[2])


@pytest.fixture
def wrapped(request_of: MakeRequest, own_services: Services) -> Wrapped:
    """The wrappers, with a recording offered and an upstream that answers a text."""
    return Wrapped(request_of, own_services)


async def streamed(pieces: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for piece in pieces:
        yield piece


def read(reply: Reply) -> dict[str, Any]:
    """The value of a reply, which must fit as it is."""
    assert isinstance(reply.body, bytes)
    assert escaped_length(reply.body) <= MAX_REPLY_CHARACTERS
    value: dict[str, Any] = orjson.loads(reply.body)
    return value


async def test_a_recording_stands_in_the_reply_while_it_fits(wrapped: Wrapped) -> None:
    """The largest that fits is a file in the reply, with name and type; nothing is kept."""
    content = bytes(range(256)) * (MAX_INLINE_BYTES // 256 + 1)
    value = await wrapped.speak(content[:1000], content[1000:MAX_INLINE_BYTES])
    (file,) = value.pop("openaiFileResponse")
    assert value == {}
    assert (file["name"], file["mime_type"]) == ("speech.mp3", "audio/mpeg")
    assert base64.b64decode(file["content"]) == content[:MAX_INLINE_BYTES]
    assert wrapped.upstream.closed == 1


async def test_one_byte_more_and_it_is_a_link(wrapped: Wrapped) -> None:
    """What has been read and what follows are one file."""
    pieces = [bytes([number]) * 1000 for number in range(100)]
    value = await wrapped.speak(*pieces, b"x", response_format="flac", media_type=b"audio/flac")
    (link,) = value["links"]
    assert (link["name"], link["mime_type"]) == ("speech.flac", "audio/flac")
    assert await wrapped.kept(link) == b"".join(pieces) + b"x"
    assert wrapped.upstream.closed == 1


@pytest.mark.parametrize(
    ("asked", "told", "media_type"),
    [
        ("mp3", None, "audio/mpeg"),
        ("opus", b"application/octet-stream", "audio/ogg"),
        ("opus", b"Audio/Opus; rate=48000", "audio/opus"),
        ("aac", b"audio/aac", "audio/aac"),
        ("wav", b"", "audio/wav"),
    ],
)
async def test_the_type_is_what_the_upstream_says(
    asked: str, told: bytes | None, media_type: str, wrapped: Wrapped
) -> None:
    """Where it says nothing, the type is that of the form which was asked for."""
    (file,) = (await wrapped.speak(b"x", media_type=told, response_format=asked))["openaiFileResponse"]
    assert (file["name"], file["mime_type"]) == (f"speech.{asked}", media_type)


@pytest.mark.parametrize(
    ("pieces", "media_type"),
    [((), b"audio/mpeg"), ((b"<html>",), b"text/html"), ((b"{}",), b"application/json")],
    ids=["empty", "html", "json"],
)
async def test_what_is_no_recording_is_an_error(pieces: tuple[bytes, ...], media_type: bytes, wrapped: Wrapped) -> None:
    """No file is made of a page, an object or nothing; the upstream's answer is closed."""
    with pytest.raises(UpstreamProtocolError):
        await wrapped.speak(*pieces, media_type=media_type)
    assert wrapped.upstream.closed == 1


async def test_a_recording_is_fetched_by_the_upstreams_limits(wrapped: Wrapped) -> None:
    """Size and type hold while it comes; the ending says what the name does not."""
    await transcribe_recording(wrapped.request("transcribeRecording", openaiFileIdRefs=[REFERENCE], language="de"))
    await translate_recording(wrapped.request("translateRecording", openaiFileIdRefs=[REFERENCE], model="house-1"))
    assert wrapped.files.limits == [MAX_RECORDING_BYTES] * 2
    assert wrapped.files.media_types == [RECORDING_TYPES] * 2
    first, second = wrapped.upstream.calls
    assert [first.path, second.path] == ["/v1/audio/transcriptions", "/v1/audio/translations"]
    assert b'name="language"\r\n\r\nde\r\n' in first.body
    assert b'name="model"\r\n\r\nhouse-1\r\n' in second.body
    for call in (first, second):
        assert b'filename="memo.wav"\r\nContent-Type: audio/wav\r\n\r\nmemo\r\n' in call.body


@pytest.mark.parametrize("extra", [0, 1], ids=["fits", "one_too_many"])
async def test_the_text_is_whole_as_long_as_it_fits(extra: int, wrapped: Wrapped) -> None:
    """The longest text that fits stands in the reply as it is; one character more and all of it is behind a link."""
    text = "a" * (MAX_TEXT_CHARACTERS - 2 + extra)
    wrapped.upstream.answers = [answered({"text": text})]
    value = read(await translate_recording(wrapped.request("translateRecording", openaiFileIdRefs=[REFERENCE])))
    if not extra:
        assert value == {"text": text, "truncated": False}
        return
    assert (value["text"], value["truncated"]) == (text[:-1], True)
    assert "`links`" in value["how"]
    (link,) = value["links"]
    assert (link["name"], link["mime_type"]) == ("translation.txt", "text/plain; charset=utf-8")
    assert await wrapped.kept(link) == text.encode()
