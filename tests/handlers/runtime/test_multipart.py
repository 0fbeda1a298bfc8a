import tracemalloc
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart import MultipartParser
from python_multipart.multipart import parse_options_header

from handlers.runtime.exceptions import InternalError
from handlers.runtime.multipart import FilePart, MultipartBody

MIB = 2**20


@dataclass
class Part:
    """One part as it was read."""

    headers: dict[str, str]
    name: str
    file_name: str | None
    content: bytes


def parse(data: bytes, content_type: str) -> list[Part]:
    """Read a multipart body with the project's own parser."""
    media_type, options = parse_options_header(content_type)
    assert media_type == b"multipart/form-data"
    parts: list[Part] = []
    headers: list[tuple[bytes, bytes]] = []
    name = value = content = b""
    ended = False

    def on_part_begin() -> None:
        nonlocal content
        content = b""
        headers.clear()

    def on_header_field(piece: bytes, start: int, end: int) -> None:
        nonlocal name
        name += piece[start:end]

    def on_header_value(piece: bytes, start: int, end: int) -> None:
        nonlocal value
        value += piece[start:end]

    def on_header_end() -> None:
        nonlocal name, value
        headers.append((name, value))
        name = value = b""

    def on_part_data(piece: bytes, start: int, end: int) -> None:
        nonlocal content
        content += piece[start:end]

    def on_part_end() -> None:
        read = {key.decode().lower(): text.decode() for key, text in headers}
        _, found = parse_options_header(dict(headers)[b"Content-Disposition"])
        file_name = found.get(b"filename")
        parts.append(Part(read, found[b"name"].decode(), None if file_name is None else file_name.decode(), content))

    def on_end() -> None:
        nonlocal ended
        ended = True

    parser = MultipartParser(
        options[b"boundary"],
        {
            "on_part_begin": on_part_begin,
            "on_header_field": on_header_field,
            "on_header_value": on_header_value,
            "on_header_end": on_header_end,
            "on_part_data": on_part_data,
            "on_part_end": on_part_end,
            "on_end": on_end,
        },
    )
    assert parser.write(data) == len(data)
    assert ended
    return parts


async def written(body: MultipartBody) -> bytes:
    """The whole body."""
    return b"".join([piece async for piece in body])


async def stream(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Pieces as they come from elsewhere."""
    for piece in pieces:
        yield piece


def escaped(text: str) -> str:
    """A name as browsers write it."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


async def test_a_body_looks_as_browsers_send_it() -> None:
    """Fields come before files, every part under its own boundary, and nothing is left over."""
    body = MultipartBody([("purpose", "user_data")], [FilePart("file", "a.txt", "text/plain", 3, b"abc")])
    boundary = body.content_type.removeprefix("multipart/form-data; boundary=")
    assert (await written(body)).decode() == (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="purpose"\r\n\r\n'
        "user_data\r\n"
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n'
        "Content-Type: text/plain\r\n\r\n"
        "abc\r\n"
        f"--{boundary}--\r\n"
    )


# The parser takes a backslash for an escape, and a file name that begins with a drive or two of them for a path.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\"))
VALUES = st.one_of(TEXT, st.sampled_from(["\r\n", "--", "\r\n--relay-", "\n", "a\r\n\r\nb"]))
CONTENTS = st.one_of(
    st.binary(max_size=300), st.sampled_from([b"", b"\r\n", b"--", b"\r\n--", b"\r\n--relay-", b"--relay-\r\n\r\n"])
)


@given(
    st.lists(st.tuples(TEXT, VALUES), max_size=3),
    st.lists(st.tuples(TEXT, TEXT, st.lists(CONTENTS, max_size=4), st.booleans(), st.booleans()), max_size=3),
)
async def test_what_goes_in_comes_out(
    fields: list[tuple[str, str]], files: list[tuple[str, str, list[bytes], bool, bool]]
) -> None:
    """Names, values and contents of any kind survive, and the length is the true one wherever it can be known."""
    parts = []
    for name, file_name, pieces, whole, known in files:
        content = b"".join(pieces)
        length = len(content) if known else None
        parts.append(FilePart(name, file_name, "image/png", length, content if whole else stream(pieces)))
    body = MultipartBody(fields, parts)
    data = await written(body)
    assert body.length == (len(data) if all(whole or known for *_, whole, known in files) else None)
    assert [(part.name, part.file_name, part.content) for part in parse(data, body.content_type)] == [
        *((escaped(name), None, value.encode()) for name, value in fields),
        *((escaped(name), escaped(file_name), b"".join(pieces)) for name, file_name, pieces, *_ in files),
    ]


async def test_an_empty_body_ends_at_once() -> None:
    """Without fields and files only the last boundary is left."""
    body = MultipartBody([], [])
    data = await written(body)
    assert data == f"--{body.content_type.partition('boundary=')[2]}--\r\n".encode()
    assert body.length == len(data)


async def test_a_content_that_knows_another_boundary_stays_whole() -> None:
    """Every body has a boundary of its own that nobody can know before."""
    bodies = [MultipartBody([], []) for _ in range(100)]
    assert len({body.content_type for body in bodies}) == 100
    stolen = await written(bodies[0])
    body = MultipartBody([("a", stolen.decode())], [FilePart("f", "x", "a/b", None, stream([b"\r\n", stolen]))])
    assert [part.content for part in parse(await written(body), body.content_type)] == [stolen, b"\r\n" + stolen]


async def test_a_name_cannot_end_its_header() -> None:
    """Quotes and line breaks in names are escaped as browsers do; other scripts are UTF-8."""
    name = 'x"; filename="y"\r\nX-Evil: 1\r\n\r\n\N{SNOWMAN}'
    body = MultipartBody([(name, "v")], [FilePart(name, name, "a/b", 0, b"")])
    for part in parse(await written(body), body.content_type):
        assert part.name == escaped(name)
        assert set(part.headers) <= {"content-disposition", "content-type"}
        assert part.file_name in {None, escaped(name)}


@pytest.mark.parametrize(
    "media_type",
    ["", "image", "/png", "image/", "image/png\r\nX-Evil: 1", "image/png\n", "i mage/png", "image/p\xf6ng"],
)
def test_a_media_type_cannot_end_its_header(media_type: str) -> None:
    """What is no media type is not written at all."""
    with pytest.raises(ValueError, match="media type"):
        MultipartBody([], [FilePart("f", "x", media_type, 0, b"")])


@pytest.mark.parametrize(
    "length, pieces", [(5, [b"abc"]), (5, [b"abc", b"abc"]), (0, [b"x"]), (1, []), (2, [b"", b"x"])]
)
@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "whole"])
async def test_a_length_that_is_not_true_is_an_error(length: int, pieces: list[bytes], whole: bool) -> None:
    """Too many bytes are not sent on, and too few are not passed over: the announced length could not be kept."""
    content = b"".join(pieces) if whole else stream(pieces)
    body = MultipartBody([], [FilePart("f", "x", "a/b", length, content)])
    sent: list[bytes] = []

    async def send() -> None:
        async for piece in body:
            sent.append(piece)

    with pytest.raises(InternalError) as caught:
        await send()
    assert len(b"".join(sent).partition(b"\r\n\r\n")[2]) <= length
    assert caught.value.__notes__
    assert caught.value.message == ""


async def test_an_error_of_a_source_passes_through() -> None:
    """What ends a file ends the body, as it is."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("broken")

    body = MultipartBody([], [FilePart("f", "x", "a/b", None, broken())])
    with pytest.raises(LookupError, match="broken"):
        await written(body)


async def test_files_are_read_one_after_the_other_and_never_held() -> None:
    """However large a file is, no more than a piece of it is in memory, and nothing is read ahead."""
    read = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(64):
            read += 1
            yield bytes(MIB)

    body = MultipartBody([], [FilePart("a", "a", "a/b", 64 * MIB, large()), FilePart("b", "b", "a/b", None, large())])
    pieces = aiter(body)
    assert await anext(pieces)
    assert read == 0
    tracemalloc.start()
    try:
        for expected in range(1, 65):
            assert len(await anext(pieces)) == MIB
            assert read == expected
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert sum([len(piece) async for piece in pieces]) > 64 * MIB


def test_a_part_does_not_show_its_content() -> None:
    """A repr that ends up in a log is short and tells nothing."""
    assert "secret" not in repr(FilePart("f", "x", "a/b", 6, b"secret"))
