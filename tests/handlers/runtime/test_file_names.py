import re
import unicodedata
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.runtime import file_names
from handlers.runtime.file_names import (
    MAX_NAME_BYTES,
    READ_CHARACTERS,
    UNSPECIFIC,
    attachment,
    plain_media_type,
    plain_name,
)

HOSTILE = {
    "": "file",
    "..": "file",
    "../../etc/passwd": "passwd",
    "C:\\temp\\report.csv": "report.csv",
    "a/b/": "file",
    'quo"ted.txt': 'quo"ted.txt',
    "line\r\nSet-Cookie: a=b.txt": "lineSet-Cookie: a=b.txt",
    "null\0byte.txt": "nullbyte.txt",
    "turned\u202etxt.exe": "turnedtxt.exe",
    "lone\ud800surrogate": "lonesurrogate",
    "  spaces.txt ": "spaces.txt",
    "Größe 100 %.csv": "Größe 100 %.csv",
    "図.png": "図.png",
}


@pytest.mark.parametrize("given_name, kept", HOSTILE.items(), ids=[repr(name) for name in HOSTILE])
def test_a_name_is_the_last_part_without_what_cannot_be_seen(given_name: str, kept: str) -> None:
    """Whatever a name holds, what is left is one plain name."""
    assert plain_name(given_name) == kept


@given(st.text(max_size=400))
def test_no_name_leads_anywhere_or_grows_too_long(text: str) -> None:
    """Every text becomes a name that a file system takes."""
    name = plain_name(text)
    assert name.strip(".")
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert not set(name) & set("/\\\r\n\0")


def test_a_long_name_keeps_its_ending() -> None:
    """The ending says what opens the file, so the rest is what is cut."""
    name = plain_name("ü" * 300 + ".jsonl")
    assert name.endswith("ü.jsonl")
    assert MAX_NAME_BYTES - 1 <= len(name.encode()) <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a" * 2**23 + ".pdf", "a" * (MAX_NAME_BYTES - 4) + ".pdf"),
        ("folder/" * 2**20 + "report.csv", "report.csv"),
        ("kept" + "\u202e" * 2**20 + ".pdf", "kept.pdf"),
        ("/" * 2**23, "file"),
        ("." * 2**23, "file"),
        ("b" * 1_024 + "/" + "c" * 1_024, "b" * MAX_NAME_BYTES),  # the only slash stood in the middle
    ],
    ids=["name", "path", "unseen", "slashes", "dots", "middle"],
)
def test_a_name_of_megabytes_keeps_its_ends(text: str, kept: str) -> None:
    """What stands in the middle of so long a text is left out."""
    assert plain_name(text) == kept


@pytest.mark.parametrize("length", [READ_CHARACTERS, READ_CHARACTERS + 1, 2**23])
def test_only_the_ends_of_a_long_name_are_read(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a name is, other requests do not wait for it: the pattern and the tables see two kilobytes."""
    searched: list[int] = []
    looked_up: list[str] = []

    def split(pattern: str, text: str) -> list[Any]:
        searched.append(len(text))
        return re.split(pattern, text)

    def category(character: str) -> str:
        looked_up.append(character)
        return unicodedata.category(character)

    monkeypatch.setattr(file_names, "re", SimpleNamespace(split=split))
    monkeypatch.setattr(file_names, "unicodedata", SimpleNamespace(category=category))
    plain_name("a" * length)
    assert searched == [READ_CHARACTERS]
    assert len(looked_up) == READ_CHARACTERS


@given(st.text(max_size=400))
def test_no_name_breaks_out_of_the_header(text: str) -> None:
    """The value is printable ASCII in the form of RFC 6266, and the whole name comes back out of it."""
    value = attachment(text)
    found = re.fullmatch(r'attachment; filename="([^"\\%]*)"; filename\*=UTF-8\'\'([A-Za-z0-9!#$&+.^_`|~%-]+)', value)
    assert found is not None
    assert value.isascii()
    assert value.isprintable()
    assert unquote(found[2]) == plain_name(text)


def test_old_clients_read_an_ascii_name() -> None:
    """What ASCII or a quoted string cannot hold is replaced there and complete in the other field."""
    assert (
        attachment('50 % "ü".txt')
        == "attachment; filename=\"50 _ ___.txt\"; filename*=UTF-8''50%20%25%20%22%C3%BC%22.txt"
    )


@pytest.mark.parametrize(
    "text, kept",
    {
        "image/png": "image/png",
        "Image/PNG": "image/png",
        "text/plain; charset=UTF-8": "text/plain; charset=utf-8",
        'text/csv; charset="utf-8"; header=present': "text/csv; charset=utf-8",
        "audio/ogg; codecs=opus": "audio/ogg",
        "": UNSPECIFIC,
        "png": UNSPECIFIC,
        "text/html\r\nX-Made-Up: 1": UNSPECIFIC,
        "text/pl ain": UNSPECIFIC,
        "text/größe": UNSPECIFIC,
        f"text/{'a' * 128}": UNSPECIFIC,
    }.items(),
)
def test_a_media_type_is_plain_or_unspecific(text: str, kept: str) -> None:
    """A type keeps its `charset` and nothing else; what is no type says nothing about the file."""
    assert plain_media_type(text) == kept
