"""
Names and media types of files that come from elsewhere, made fit to be stored, shown and sent in headers.

Not for keys or paths: nothing here decides where a file lies.
"""

import re
import unicodedata
from urllib.parse import quote

MAX_NAME_BYTES = 255  # what file systems take
READ_CHARACTERS = 2_048  # of a longer name, half from each end: the loop waits while it is read
FALLBACK_NAME = "file"
UNSPECIFIC = "application/octet-stream"

# Control and format characters (some turn the direction of writing), surrogates, private ones, line breaks.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # noqa: S105 - RFC 6838's restricted names, no secret
_MEDIA_TYPE = re.compile(
    rf"({_TOKEN}/{_TOKEN})\s*(?:;\s*charset=\"?({_TOKEN})\"?\s*)?(?:;.*)?", re.IGNORECASE | re.ASCII
)
_NOT_QUOTABLE = re.compile(r'[^ -~]|["\\%]')  # `%` because browsers disagree whether it starts an escape
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"  # beside letters and digits: RFC 8187, section 3.2.1


def plain_name(text: str) -> str:
    """
    The last part of a path, without what cannot be seen, no longer than `MAX_NAME_BYTES`.

    Returns:
        A name that is never empty and never leads anywhere.
    """
    if len(text) > READ_CHARACTERS:
        text = text[: READ_CHARACTERS // 2] + text[-READ_CHARACTERS // 2 :]
    last = re.split(r"[/\\]", text)[-1]
    name = "".join(character for character in last if unicodedata.category(character) not in _UNSEEN).strip()
    if not name.strip("."):
        return FALLBACK_NAME
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) >= MAX_NAME_BYTES // 2:
        stem, dot, ending = name, "", ""
    room = MAX_NAME_BYTES - len(f"{dot}{ending}".encode())
    return f"{stem.encode()[:room].decode(errors='ignore')}{dot}{ending}"


def plain_media_type(text: str) -> str:
    """A media type with at most its `charset`, in lower case; `UNSPECIFIC` when the text is none."""
    found = _MEDIA_TYPE.fullmatch(text.strip())
    if not found:
        return UNSPECIFIC
    charset = f"; charset={found[2]}" if found[2] else ""
    return f"{found[1]}{charset}".lower()


def attachment(name: str) -> str:
    """
    The value of `Content-Disposition` for a file to be saved under a name.

    Old clients read `filename`, in ASCII; all others `filename*`, which has the whole name.

    Source: RFC 6266, RFC 8187
    """
    plain = plain_name(name)
    return (
        f'attachment; filename="{_NOT_QUOTABLE.sub("_", plain)}"; '
        f"filename*=UTF-8''{quote(plain, safe=_ATTRIBUTE_CHARACTERS)}"
    )
