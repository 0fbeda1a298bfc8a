import json
import unicodedata
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.runtime.exceptions import FileRefused, FileUnreachable, RelayError
from handlers.runtime.file_names import MAX_NAME_BYTES
from handlers.runtime.multipart import FilePart, MultipartBody
from handlers.runtime.remote_files import FileReference, RemoteFiles, read_references

LINK = "https://files.oaiusercontent.com/file-abc/report%20final.pdf?se=2026&sig=signed%2Bsecret%3D"


def read_one(**fields: Any) -> FileReference:
    """The reference of an object as ChatGPT sends it, with some fields of its own."""
    (reference,) = read_references([{"id": "file-abc", "download_link": LINK, **fields}])
    return reference


def test_the_form_that_chatgpt_sends_is_read() -> None:
    """Name, type and link come from the object, several in their order."""
    value = [
        {"name": "a.png", "id": "file-1", "mime_type": "image/png", "download_link": f"{LINK}1"},
        {"name": "b.TXT", "id": "file-2", "mime_type": "Text/Plain; charset=utf-8", "download_link": f"{LINK}2"},
    ]
    assert read_references(value) == [
        FileReference("a.png", "image/png", f"{LINK}1"),
        FileReference("b.TXT", "text/plain", f"{LINK}2"),
    ]
    assert read_references([]) == []


@pytest.mark.parametrize(
    "link, name, media_type",
    [
        (LINK, "report final.pdf", "application/pdf"),
        ("HTTPS://files.example.com/a/photo.JPG", "photo.JPG", "image/jpeg"),
        ("https://files.example.com/file-abc?name=x.png", "file-abc", "application/octet-stream"),
        ("https://files.example.com/archive.tar.gz", "archive.tar.gz", "application/octet-stream"),
        ("https://files.example.com/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "passwd", "application/octet-stream"),
        ("https://files.example.com/a/", "file", "application/octet-stream"),
        ("https://files.example.com/%2e%2e", "file", "application/octet-stream"),
        ("https://files.example.com", "file", "application/octet-stream"),
        ("https://[broken/x.png", "file", "application/octet-stream"),
    ],
)
def test_the_documented_form_is_read(link: str, name: str, media_type: str) -> None:
    """A link alone tells the name in its path, and the name's ending the type."""
    assert read_references([link]) == [FileReference(name, media_type, link)]
    assert read_references([{"download_link": link}]) == [FileReference(name, media_type, link)]


@pytest.mark.parametrize(
    "item",
    [
        "file-abc123",
        "",
        "sandbox:/mnt/data/signed-secret.png",
        "http://files.oaiusercontent.com/signed-secret",
        "ftp://files.oaiusercontent.com/signed-secret",
        "file:///etc/signed-secret",
        "data:text/plain,signed-secret",
        "//files.oaiusercontent.com/signed-secret",
        " https://files.oaiusercontent.com/signed-secret",
        "https:files.oaiusercontent.com/signed-secret",
        f"https://files.oaiusercontent.com/{'signed-secret' * 1000}",
        {"name": "signed-secret", "id": "file-abc", "mime_type": "image/png"},
        {"download_link": None},
        {"download_link": ""},
        {"download_link": "http://files.oaiusercontent.com/signed-secret"},
        {"download_link": [LINK]},
        {},
        None,
        7,
        [LINK],
    ],
)
def test_anything_else_is_refused_without_being_repeated(item: Any) -> None:
    """The caller is told what belongs there and to leave the field out otherwise."""
    with pytest.raises(FileRefused, match=r"https `download_link`; leave it out") as caught:
        read_references([{"download_link": LINK}, item])
    assert "signed-secret" not in str(caught.value)
    assert caught.value.param == "openaiFileIdRefs"


@pytest.mark.parametrize(
    "given_name, name",
    [
        ("photo.png", "photo.png"),
        ("/etc/passwd", "passwd"),
        ("../../x.txt", "x.txt"),
        ("C:\\Users\\me\\x.txt", "x.txt"),
        ("a\r\nb\x00\x1b\x7f.txt", "ab.txt"),
        ("ab\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe", "abgpj.exe"),
        ("a\N{LINE SEPARATOR}b.txt", "ab.txt"),
        ("  spaces .txt ", "spaces .txt"),
        ('quotes".txt', 'quotes".txt'),
        (
            "\N{HIRAGANA LETTER HU}\N{IDEOGRAPHIC SPACE}\N{LATIN SMALL LETTER U WITH DIAERESIS}.pdf",
            "\N{HIRAGANA LETTER HU}\N{IDEOGRAPHIC SPACE}\N{LATIN SMALL LETTER U WITH DIAERESIS}.pdf",
        ),
        (".bashrc", ".bashrc"),
        ("..", "file"),
        (".", "file"),
        ("dir/", "file"),
        ("\x00", "file"),
        ("", "report final.pdf"),
        (None, "report final.pdf"),
        (7, "report final.pdf"),
    ],
)
def test_a_name_is_a_plain_file_name(given_name: Any, name: str) -> None:
    """No folder, nothing unseen; where none is given the link's own name stands in."""
    assert read_one(name=given_name).name == name


@pytest.mark.parametrize("ending", ["", ".pdf", f".{'e' * 300}"])
@pytest.mark.parametrize("letter", ["a", "\N{GREEK SMALL LETTER ALPHA}", "\N{GRINNING FACE}"])
def test_a_long_name_keeps_its_ending(letter: str, ending: str) -> None:
    """What is cut away is the middle, and no character is cut in two."""
    name = read_one(name=letter * 300 + ending).name
    assert MAX_NAME_BYTES - 4 < len(name.encode()) <= MAX_NAME_BYTES
    assert name.startswith(letter)
    assert name.endswith(ending if len(ending) < 10 else letter)


@given(st.text(), st.one_of(st.none(), st.text()))
async def test_whatever_a_reference_holds_fits_into_a_header(name: str, media_type: str | None) -> None:
    """Names and types from outside cannot break a multipart body or a file system."""
    reference = read_one(name=name, mime_type=media_type)
    assert 0 < len(reference.name.encode()) <= MAX_NAME_BYTES
    assert not set("/\\\r\n\x00") & set(reference.name)
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs"} for character in reference.name)
    body = MultipartBody([], [FilePart("file", reference.name, reference.media_type, None, b"")])
    head = b"".join([piece async for piece in body]).partition(b"\r\n\r\n")[0]
    assert head.count(b"\r\n") == 2


@pytest.mark.parametrize(
    "mime_type, media_type",
    [
        ("image/PNG", "image/png"),
        (" image/png ; a=b", "image/png"),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", None),
        (None, "application/pdf"),
        ("", "application/pdf"),
        ("image", "application/pdf"),
        ("image/png\r\nX: y", "application/pdf"),
        ("image/*", "application/pdf"),
        (7, "application/pdf"),
    ],
)
def test_a_type_is_a_media_type_or_guessed(mime_type: Any, media_type: str | None) -> None:
    """What is no media type counts for nothing; parameters are dropped."""
    assert read_one(mime_type=mime_type).media_type == (media_type or mime_type)


def test_a_reference_does_not_show_its_link() -> None:
    """A link is a secret: neither repr nor str tells it."""
    reference = read_one(name="a.png")
    assert "signed" not in f"{reference!r} {reference} {[reference]}"
    assert "a.png" in repr(reference)


class Nobody:
    """A resolver that counts who asks and knows no host."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Iterable[str]:
        """Know nothing, and say what was asked, as resolvers do."""
        self.asked += 1
        raise OSError(f"cannot look up {host}:{port}")


def remote_files(resolver: Nobody) -> RemoteFiles:
    """Fetches from one host whose address nobody knows."""
    return RemoteFiles(["files.oaiusercontent.com"], (), 1000, 5.0, resolver=resolver)


async def opened(files: RemoteFiles, link: str, **options: Any) -> RelayError:
    """What opening ends with."""
    with pytest.raises(RelayError) as caught:
        async with files.open(FileReference("a", "image/png", link), **options):
            pass
    return caught.value


async def test_a_type_that_is_not_wanted_asks_nobody() -> None:
    """The reference alone decides where it can, before anything is looked up."""
    nobody = Nobody()
    error = await opened(remote_files(nobody), LINK, media_types=["audio/", "image/webp"])
    assert isinstance(error, FileRefused)
    assert error.message == "The type of the file must be one of audio/, image/webp."
    assert nobody.asked == 0


async def test_a_host_that_is_not_allowed_asks_nobody() -> None:
    """Only hosts of the list are looked up."""
    nobody = Nobody()
    assert isinstance(await opened(remote_files(nobody), "https://evil.test/signed"), FileRefused)
    assert nobody.asked == 0


async def test_a_failed_look_up_tells_no_host() -> None:
    """What the resolver says stays inside."""
    nobody = Nobody()
    error = await opened(remote_files(nobody), LINK)
    assert isinstance(error, FileUnreachable)
    assert "oaiusercontent" not in json.dumps([error.message, repr(error)])
    assert nobody.asked == 1


@pytest.mark.parametrize("hosts, networks", [(["*"], []), (["files.example.com"], ["everything"])])
def test_malformed_settings_stop_the_start(hosts: list[str], networks: list[str]) -> None:
    """A host or network that cannot be one is an error when the relay starts, not when a file is fetched."""
    with pytest.raises(ValueError, match="must be a"):
        RemoteFiles(hosts, networks, 1000, 5.0)
