import base64

import pytest

from handlers.runtime.exceptions import FileTooLarge, InvalidBody
from handlers.runtime.file_names import UNSPECIFIC
from handlers.runtime.file_sources import MAX_BASE64_BYTES, brings_links, inline_part

INLINE = ("filename", "content_base64")


def test_a_body_takes_one_of_two_ways() -> None:
    """Links alone, or all that a file in the body itself needs."""
    assert brings_links({"purpose": "batch", "openaiFileIdRefs": ["https://x"]}, INLINE)
    assert not brings_links({"filename": "a", "content_base64": "YQ=="}, INLINE)
    assert not brings_links({"content_base64": "YQ=="}, INLINE[1:])


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("filename",),
        ("content_base64",),
        ("openaiFileIdRefs", "filename"),
        ("openaiFileIdRefs", "content_base64"),
        ("openaiFileIdRefs", "filename", "content_base64"),
    ],
)
def test_neither_way_both_and_half_of_one_are_refused(fields: tuple[str, ...]) -> None:
    """The message names all the fields, so that a caller can choose."""
    with pytest.raises(InvalidBody) as caught:
        brings_links(dict.fromkeys(fields, "x"), INLINE)
    for name in ("openaiFileIdRefs", *INLINE):
        assert f"`{name}`" in caught.value.message


@pytest.mark.parametrize(
    "name, media_type",
    [
        ("a.jsonl", UNSPECIFIC),
        ("a.csv", "text/csv"),
        ("a.PDF", "application/pdf"),
        ("a.txt.gz", UNSPECIFIC),
        ("../../a.txt", "text/plain"),
        ("https://a.test/x.txt", "text/plain"),
        ("data:image/png,x", UNSPECIFIC),
    ],
)
def test_the_name_says_what_a_file_is(name: str, media_type: str) -> None:
    """Its ending stands for its type, and its folders are left out."""
    part = inline_part("file", name, "YQ==")
    assert (part.field_name, part.media_type, part.content) == ("file", media_type, b"a")
    assert "/" not in part.file_name


@pytest.mark.parametrize(
    "text", ["YQ", "YQ=", "YQ===", "YQ==\n", " YQ==", "YQ==YQ==", "Y*==", "YWI_", "ü", "====", "="]
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Nothing is guessed or passed over, and the message does not repeat it."""
    with pytest.raises(InvalidBody, match="Base64") as caught:
        inline_part("file", "a", text)
    assert caught.value.param == "content_base64"


def test_a_small_file_has_a_limit() -> None:
    """It counts bytes, not the characters of Base64."""
    largest = base64.b64encode(bytes(MAX_BASE64_BYTES)).decode()
    assert inline_part("file", "a", largest).content == bytes(MAX_BASE64_BYTES)
    with pytest.raises(FileTooLarge, match="openaiFileIdRefs"):
        inline_part("file", "a", base64.b64encode(bytes(MAX_BASE64_BYTES + 1)).decode())
