import base64
import re
from typing import Any

import orjson
import pytest

from handlers import file_wrappers
from handlers.file_wrappers import read_file_text, upload_file
from handlers.runtime.budget import MAX_REPLY_CHARACTERS
from handlers.runtime.exceptions import (
    FileRefused,
    FileTooLarge,
    FileUnreachable,
    InvalidBody,
    NotText,
    RelayError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.shortening import escaped_length
from handlers.runtime.wrapped_calls import UpstreamRefusal
from tests.handlers.conftest import MakeRequest
from tests.handlers.wrapper_doubles import FilesOfTest, Sent, UpstreamOfTest, answered, refused, services_with

FILE = {"id": "file-1", "bytes": 7, "filename": "a.txt", "purpose": "user_data", "created_at": 1}
LINK = "https://files.oaiusercontent.com/signed?sig=secret"
OTHER_LINK = "https://files.oaiusercontent.com/other?sig=secret"
REFERENCE = {"name": "a.txt", "id": "file-9", "mime_type": "text/plain", "download_link": LINK}
OTHER = {"name": "b.bin", "mime_type": None, "download_link": OTHER_LINK}


class Wrapped:
    """Calls the wrappers before an upstream and hosts of files that a test sets up."""

    def __init__(self, request_of: MakeRequest, own_services: Any) -> None:
        self.upstream = UpstreamOfTest([lambda _: answered({**FILE, "object": "file", "status": "processed"})])
        self.files = FilesOfTest({LINK: [b"con", b"tent"], OTHER_LINK: [b"other"]})
        self._request_of = request_of
        self._services = services_with(own_services, self.upstream, self.files)

    def request(self, operation_id: str, **fields: Any) -> Request:
        """A request to one of the wrappers."""
        return self._request_of(operation_id, services=self._services, **fields)

    async def upload(self, **body: Any) -> Any:
        """What `uploadFile` replies to a body."""
        reply = await upload_file(self.request("uploadFile", body={"purpose": "user_data", **body}))
        assert isinstance(reply.body, bytes)
        return orjson.loads(reply.body)

    async def read(self, query: str = "") -> Any:
        """What `readFileText` replies to a query."""
        request = self.request("readFileText", path_params={"file_id": "file-1"}, query=query.encode())
        reply = await read_file_text(request)
        assert isinstance(reply.body, bytes)
        assert escaped_length(reply.body) <= MAX_REPLY_CHARACTERS
        return orjson.loads(reply.body)


@pytest.fixture
def wrapped(request_of: MakeRequest, own_services: Any) -> Wrapped:
    """The wrappers, with two files and an upstream that keeps everything."""
    return Wrapped(request_of, own_services)


def form(call: Sent) -> list[tuple[str, bytes]]:
    """Heads and contents of the parts of a multipart body."""
    boundary = call.headers["content-type"].partition("boundary=")[2].encode()
    parts = call.body.split(b"--" + boundary)[1:-1]
    heads = (part.partition(b"\r\n\r\n") for part in parts)
    return [(head.strip().decode(), content.removesuffix(b"\r\n")) for head, _, content in heads]


async def test_a_small_file_goes_up_as_a_form(wrapped: Wrapped) -> None:
    """Purpose and file arrive as `createFile` takes them, and the reply is cut to what the contract names."""
    text = base64.b64encode(b"content").decode()
    assert await wrapped.upload(filename="ä.txt", content_base64=text) == {"data": [FILE], "failed": []}
    (call,) = wrapped.upstream.calls
    assert (call.method, call.path) == ("POST", "/v1/files")
    assert call.headers["content-length"] == str(len(call.body))
    (purpose, value), (head, content) = form(call)
    assert (purpose, value) == ('Content-Disposition: form-data; name="purpose"', b"user_data")
    assert head == 'Content-Disposition: form-data; name="file"; filename="ä.txt"\r\nContent-Type: text/plain'
    assert content == b"content"


async def test_both_forms_of_references_are_sent_in_order(wrapped: Wrapped) -> None:
    """Objects as ChatGPT sends them and links as they are documented; each file is a call of its own."""
    assert await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER_LINK]) == {"data": [FILE, FILE], "failed": []}
    forms = [form(call)[1] for call in wrapped.upstream.calls]
    assert [content for _, content in forms] == [b"content", b"other"]
    assert 'filename="a.txt"\r\nContent-Type: text/plain' in forms[0][0]
    assert 'filename="other"' in forms[1][0]


@pytest.mark.parametrize("body", [{}, {"filename": "a"}, {"filename": "a", "openaiFileIdRefs": [REFERENCE]}])
async def test_a_body_without_one_clear_file_calls_nobody(wrapped: Wrapped, body: dict[str, Any]) -> None:
    """It is refused before anything is fetched or sent."""
    with pytest.raises(InvalidBody, match="openaiFileIdRefs"):
        await wrapped.upload(**body)
    assert (wrapped.upstream.calls, wrapped.files.limits) == ([], [])


@pytest.mark.parametrize(
    "failure", [FileRefused("no"), FileTooLarge("large"), FileUnreachable("gone"), UpstreamProtocolError()]
)
async def test_what_stops_the_only_file_is_the_error(wrapped: Wrapped, failure: RelayError) -> None:
    """Its code reaches the caller."""
    wrapped.files.files[LINK] = failure
    with pytest.raises(type(failure)):
        await wrapped.upload(openaiFileIdRefs=[REFERENCE])


async def test_what_the_upstream_says_to_the_only_file_goes_on(wrapped: Wrapped) -> None:
    """Its error is the reply as it came, for both ways to send a file."""
    wrapped.upstream.answers = [refused("Not this one.", 415)]
    for body in ({"openaiFileIdRefs": [REFERENCE]}, {"filename": "a", "content_base64": "YQ=="}):
        with pytest.raises(UpstreamRefusal) as caught:
            await wrapped.upload(**body)
        assert caught.value.reply.status == 415


async def test_a_file_that_fails_does_not_take_the_others_along(wrapped: Wrapped) -> None:
    """What was kept is told, in order, and what was not has a name and a reason without any link."""
    wrapped.files.files[LINK] = FileRefused("That host is not allowed.")
    wrapped.upstream.answers = [refused("Wrong."), answered(FILE)]
    reply = await wrapped.upload(
        openaiFileIdRefs=[REFERENCE, OTHER, OTHER_LINK, "file-id-alone", {**REFERENCE, "name": "../x"}]
    )
    assert reply["data"] == [FILE]
    failed = [(item["name"], item["reason"]) for item in reply["failed"]]
    assert failed[:2] == [("a.txt", "That host is not allowed."), ("b.bin", "Wrong.")]
    assert [name for name, _ in failed] == ["a.txt", "b.bin", "file 4", "x"]
    assert "secret" not in str(reply)
    assert "oaiusercontent" not in str(reply)


async def test_several_that_all_fail_are_told_one_by_one(wrapped: Wrapped) -> None:
    """There is no one error to answer with."""
    wrapped.files.files = {LINK: FileUnreachable(), OTHER_LINK: FileTooLarge()}
    reply = await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER])
    assert reply["data"] == []
    assert [item["reason"] for item in reply["failed"]] == [
        "The file could not be fetched; ask for it again.",
        "The file exceeds the limit.",
    ]


@pytest.mark.parametrize(
    "message, reason",
    [
        ("Bad file.", "Bad file."),
        ("Read\n\nhttps://a.test/x?sig=1 or  www.b.test, please.", "Read [link] or [link] please."),
        ("see:HTTPS://A.TEST/", "[link]"),
        ("x" * 500, "x" * 199 + "…"),
        ("x" * 1_000_000, "x" * 199 + "…"),
        ("", "The upstream answered with status 400."),
    ],
)
async def test_a_reason_is_a_sentence_without_links(wrapped: Wrapped, message: str, reason: str) -> None:
    """The upstream's message is cut, and what could be a link is left out."""
    wrapped.upstream.answers = [refused(message)]
    reply = await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER])
    assert [item["reason"] for item in reply["failed"]] == [reason, reason]


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'{"error": "text"}', b'{"error": {}}'])
async def test_an_error_that_says_nothing_is_told_by_its_status(wrapped: Wrapped, body: bytes) -> None:
    """Whatever the upstream, or a proxy before it, sends as an error."""
    wrapped.upstream.answers = [Reply(503, [], body)]
    reply = await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER])
    assert {item["reason"] for item in reply["failed"]} == {"The upstream answered with status 503."}


async def test_files_without_time_left_are_named(wrapped: Wrapped, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not begun, and the caller is told to send them again; the first is always tried."""
    monkeypatch.setattr(file_wrappers, "LAST_START_SECONDS", -1.0)
    reply = await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER])
    assert reply["data"] == []
    assert [item["name"] for item in reply["failed"]] == ["a.txt", "b.bin"]
    assert all("call again with this file" in item["reason"] for item in reply["failed"])
    assert wrapped.files.limits == []


async def test_a_file_that_takes_too_long_leaves_time_for_the_reply(
    wrapped: Wrapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were kept before are told of; the caller learns that it may have been kept all the same."""
    monkeypatch.setattr(file_wrappers, "LAST_END_SECONDS", 0.05)
    wrapped.files.files[OTHER_LINK] = None
    reply = await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER])
    assert reply["data"] == [FILE]
    assert [item["name"] for item in reply["failed"]] == ["b.bin"]
    assert "listFiles" in reply["failed"][0]["reason"]
    with pytest.raises(UpstreamTimeout, match="listFiles"):
        await wrapped.upload(openaiFileIdRefs=[OTHER])


@pytest.mark.parametrize("answer", [{}, {"id": 1}, {"id": None, "bytes": 1}])
async def test_an_answer_that_is_no_file_is_an_error(wrapped: Wrapped, answer: Any) -> None:
    """Nobody is told of a file that has no id."""
    wrapped.upstream.answers = [lambda _: answered(answer)]
    with pytest.raises(UpstreamProtocolError):
        await wrapped.upload(filename="a", content_base64="YQ==")
    assert len((await wrapped.upload(openaiFileIdRefs=[REFERENCE, OTHER]))["failed"]) == 2


def served(content: bytes, *, ranges: bool = True, media_type: str = "application/octet-stream") -> Any:
    """An upstream that holds one file and knows ranges, or not; it sends a byte at a time."""

    def answer(call: Sent) -> Reply:
        found = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", call.headers["range"])
        assert found is not None
        start, end = int(found[1]), min(int(found[2]) + 1, len(content))
        headers: list[Header] = [(b"content-type", media_type.encode())]
        if not ranges:
            return Reply(200, headers, _bytes_of(content))
        if start >= len(content):
            return Reply(416, headers, b"{}")
        place = f"bytes {start}-{end - 1}/{len(content)}".encode()
        return Reply(206, [*headers, (b"content-range", place)], _bytes_of(content[start:end]))

    return answer


async def _bytes_of(content: bytes) -> Any:
    for byte in content:
        yield bytes([byte])


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without"])
async def test_a_text_is_read_in_pieces(wrapped: Wrapped, *, ranges: bool) -> None:
    """Each says where it lies and what to do next; the last one says that nothing follows."""
    wrapped.upstream.answers = [served(b"0123456789abcdef", ranges=ranges)]
    how = "Call `readFileText` again with `offset` set to `next` to read on."
    first = await wrapped.read("limit=10")
    assert first == {
        "file_id": "file-1",
        "text": "0123456789",
        "offset": 0,
        "truncated": True,
        "next": 10,
        "how": how,
    }
    last = {"file_id": "file-1", "text": "abcdef", "offset": 10, "truncated": False}
    assert await wrapped.read("offset=10&limit=10") == last
    behind = {"file_id": "file-1", "text": "", "offset": 99, "truncated": False}
    assert await wrapped.read("offset=99") == behind
    assert {(call.method, call.path) for call in wrapped.upstream.calls} == {("GET", "/v1/files/file-1/content")}
    assert wrapped.upstream.calls[0].headers["range"] == "bytes=0-17"


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without"])
async def test_all_pieces_together_are_the_file(wrapped: Wrapped, *, ranges: bool) -> None:
    """With characters of every length, and with pieces that the budget makes shorter than asked for."""
    text = "aß€😀\x01\n" * 3_000 + "\x02" * 20_000
    wrapped.upstream.answers = [served(text.encode(), ranges=ranges)]
    pieces = [await wrapped.read("limit=40000")]
    while "next" in pieces[-1]:
        pieces.append(await wrapped.read(f"offset={pieces[-1]['next']}&limit=40000"))
    assert "".join(piece["text"] for piece in pieces) == text
    assert wrapped.upstream.closed == len(pieces)


async def test_an_empty_file_has_an_empty_text(wrapped: Wrapped) -> None:
    """With ranges it is a 416, since nothing of it can be asked for."""
    for ranges in (True, False):
        wrapped.upstream.answers = [served(b"", ranges=ranges)]
        assert await wrapped.read() == {"file_id": "file-1", "text": "", "offset": 0, "truncated": False}


async def test_no_more_is_read_than_is_needed(wrapped: Wrapped) -> None:
    """The rest of a large file is left where it is."""
    taken = []

    async def pieces() -> Any:
        for number in range(1_000):
            taken.append(number)
            yield b"x" * 100

    wrapped.upstream.answers = [Reply(200, [], pieces())]
    assert len((await wrapped.read("offset=250&limit=300"))["text"]) == 300
    assert len(taken) == 6
    assert wrapped.upstream.closed == 1


@pytest.mark.parametrize(
    "content_range",
    [
        b"bytes 1-9/20",
        b"bytes 0-9/10",
        b"items 0-9/20",
        b"bytes */20",
        b"bytes 5-14",
        b"",
        b"bytes 5-14/9999999999999999999",
    ],
)
async def test_another_part_than_was_asked_for_is_an_error(wrapped: Wrapped, content_range: bytes) -> None:
    """Text from elsewhere must not pass for what the caller wanted."""
    wrapped.upstream.answers = [Reply(206, [(b"content-range", content_range)], _bytes_of(b"0123456789"))]
    with pytest.raises(UpstreamProtocolError):
        await wrapped.read("offset=5&limit=2")
    assert wrapped.upstream.closed == 1


async def test_a_part_that_is_too_short_is_an_error(wrapped: Wrapped) -> None:
    """Neither may it pass for the end of the file."""
    wrapped.upstream.answers = [Reply(206, [(b"content-range", b"bytes 0-9/20")], _bytes_of(b"01234"))]
    with pytest.raises(UpstreamProtocolError):
        await wrapped.read("limit=2")


async def test_a_part_of_a_file_of_unknown_length_is_read(wrapped: Wrapped) -> None:
    """It ends where fewer bytes come than were asked for."""
    wrapped.upstream.answers = [
        lambda _: Reply(206, [(b"content-range", b"bytes 5-14/*")], _bytes_of(b"0123456789")),
    ]
    assert (await wrapped.read("offset=5&limit=2"))["next"] == 7
    assert "next" not in await wrapped.read("offset=5&limit=20")


async def test_a_coding_that_nobody_asked_for_is_an_error(wrapped: Wrapped) -> None:
    """Compressed text would be taken for no text at all."""
    wrapped.upstream.answers = [Reply(200, [(b"content-encoding", b"gzip")], _bytes_of(b"text"))]
    with pytest.raises(UpstreamProtocolError):
        await wrapped.read()


@pytest.mark.parametrize("status", [201, 204, 302])
async def test_another_status_is_an_error(wrapped: Wrapped, status: int) -> None:
    """Only 200 and 206 bring a file."""
    wrapped.upstream.answers = [Reply(status, [], _bytes_of(b"text"))]
    with pytest.raises(UpstreamProtocolError):
        await wrapped.read()


async def test_an_error_of_the_upstream_goes_on(wrapped: Wrapped) -> None:
    """As it came, but for the range behind the end."""
    wrapped.upstream.answers = [refused("No such file.", 404)]
    with pytest.raises(UpstreamRefusal):
        await wrapped.read()


@pytest.mark.parametrize(
    "media_type, content",
    [
        ("application/octet-stream", b"\x00\x01\x02"),
        ("application/octet-stream", b"caf\xe9"),
        ("text/plain", b"a\x00b"),
        ("image/png", b"text"),
        ("AUDIO/mpeg; a=b", b"text"),
        ("application/pdf", b"%PDF-1.7 text"),
        ("application/zip", b"PK text"),
    ],
)
async def test_what_is_no_text_is_refused(wrapped: Wrapped, media_type: str, content: bytes) -> None:
    """By its type where that is clear, else by its bytes."""
    wrapped.upstream.answers = [served(content, media_type=media_type)]
    with pytest.raises(NotText):
        await wrapped.read()
    assert wrapped.upstream.closed == 1


@pytest.mark.parametrize("media_type", ["image/svg+xml", "application/json", "text/csv; charset=utf-8", ""])
async def test_text_by_another_name_is_read(wrapped: Wrapped, media_type: str) -> None:
    """Some images are text, and some services do not say what a file is."""
    wrapped.upstream.answers = [served(b"<svg/>", media_type=media_type)]
    assert (await wrapped.read())["text"] == "<svg/>"
