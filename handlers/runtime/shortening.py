r"""
Cuts JSON values to a length, so that what is left out shows: texts say how many characters are missing.

Lengths count the characters of compact JSON in which everything beyond ASCII stands as `\uXXXX`. Not for: how long a
reply may be and what its reader is told (`handlers.runtime.budget`).
"""

import json
import math
import re
import sys
from collections.abc import Iterable
from typing import Any

MAX_LEVELS = 100  # what is nested deeper is left out of a value that is cut
# A text is cut below this only when there is no other way: a paragraph should keep its sense.
MIN_TEXT_CHARACTERS = 1_000
_LEAST_TEXT_CHARACTERS = 40  # the note alone, with its quotes
_EMPTY = 2  # {} and []
# A text that begins like this is Base64. A piece of it is of no use to anybody.
_DATA = re.compile(r"(?:data:[\w./+-]{1,100};base64,)?[A-Za-z0-9+/_-]{1000}", re.ASCII)
_write = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def escaped_length(value: Any) -> int:
    """
    Count the characters of a value as compact JSON with everything beyond ASCII escaped: 12 for an emoji.

    Args:
        value: A JSON value; `bytes` are JSON text and are counted as they stand, line breaks and all.

    Raises:
        ValueError: JSON has no form for it.
        RecursionError: It is nested too deeply for this machine.
    """
    if not isinstance(value, bytes):
        return len(_write(value))
    controls = 5 * value.count(b"\x7f")  # the one ASCII character that needs no escape in JSON and gets one
    if value.isascii():
        return len(value) + controls
    text = value.decode("utf-8", "replace")
    ascii_characters = len(text.encode("ascii", "ignore"))
    units = len(text.encode("utf-16-le")) // 2
    return ascii_characters + 6 * (units - ascii_characters) + controls


def fitting_end(text: str, start: int, characters: int) -> int:
    """
    Find where the longest piece of a text ends that fits.

    Args:
        start: Where the piece begins.
        characters: Room for the piece, escaped, without quotes. Halves of a surrogate pair are not torn apart.
    """
    least, most = start, min(len(text), start + max(characters, 0))
    while least < most:
        middle = (least + most + 1) // 2
        if escaped_length(text[start:middle]) - _EMPTY <= characters:
            least = middle
        else:
            most = middle - 1
    torn = start < least < len(text) and "\ud800" <= text[least - 1] <= "\udbff" and "\udc00" <= text[least] <= "\udfff"
    return least - 1 if torn else least


def shorten(value: Any, limit: int) -> Any:
    """
    Cut a value until it fits: Base64 first, then the longest texts, then lists from their ends, then objects.

    Args:
        value: Stays as it is; a cut copy is returned.
        limit: At least 400 characters.

    Returns:
        A value of the same type. What is cut keeps its type as well, and numbers, true, false and null their value;
        only a number beyond a double becomes the nearest one.
    """
    plain = _plain(value, MAX_LEVELS, limit // 2)
    whole = _Cutter(plain, limit)
    texts = [length for length in whole.texts if length > MIN_TEXT_CHARACTERS]
    cap = _water_level(texts, limit - (whole.length_of(plain) - sum(texts)))
    cutter = _Cutter(plain, max(cap, MIN_TEXT_CHARACTERS))
    return cutter.cut(plain, limit)


def shorten_text(text: str, limit: int) -> str:
    """
    Cut a text; a note at its end says how many characters are missing.

    Args:
        limit: With quotes. Without room for the note nothing stays.
    """
    if escaped_length(text) <= limit:
        return text
    end = fitting_end(text, 0, limit - _EMPTY - len(_note(len(text))))
    cut = (text[:end] + _note(len(text) - end)) if end else _note(len(text)).lstrip()
    return cut if escaped_length(cut) <= limit else ""


class _Cutter:
    """
    Cuts parts of one value; knows the length of each without looking at it again.

    Args:
        value: Plain, as from `_plain`: every container in it stands there once.
        text_limit: No text may be longer; lengths are those of the texts when cut to this.
    """

    def __init__(self, value: Any, text_limit: int) -> None:
        self._text_limit = text_limit
        self._containers: dict[int, int] = {}  # by identity
        self.texts: list[int] = []
        self._measure(value)

    def length_of(self, value: Any) -> int:
        """The length of a part once its texts are cut."""
        if isinstance(value, (dict, list)):
            return self._containers[id(value)]
        if isinstance(value, str):
            return min(escaped_length(value), self._text_limit)
        return len(repr(value)) if type(value) in {int, float} else escaped_length(value)  # JSON's form, much faster

    def cut(self, value: Any, room: int) -> Any:
        """A part that takes at most `room` characters, which must be its least length or more."""
        if isinstance(value, str):
            return shorten_text(value, min(room, self._text_limit))
        if isinstance(value, list):
            return self._cut_list(value, room)
        if isinstance(value, dict):
            return self._cut_object(value, room)
        return value

    def _measure(self, value: Any) -> int:
        if isinstance(value, dict):
            length = sum(_key_length(key) + self._measure(item) for key, item in value.items())
        elif isinstance(value, list):
            length = sum(self._measure(item) + 1 for item in value)
        else:
            length = self.length_of(value)
            if isinstance(value, str):
                self.texts.append(length)
            return length
        self._containers[id(value)] = max(length + 1, _EMPTY)  # brackets, less the comma that the last one lacks
        return self._containers[id(value)]

    def _least(self, value: Any) -> int:
        if isinstance(value, (dict, list)):
            return _EMPTY
        length = self.length_of(value)
        return min(length, _LEAST_TEXT_CHARACTERS) if isinstance(value, str) else length

    def _cut_list(self, items: list[Any], room: int) -> list[Any]:
        kept: list[Any] = []
        left = room - 1
        for item in items:
            length = self.length_of(item)
            if length + 1 > left:
                # The first item says what the list is about; a part of a later one would pass for a whole one.
                if not kept and self._least(item) + 1 <= left:
                    kept.append(self.cut(item, left - 1))
                break
            left -= length + 1
            kept.append(self.cut(item, length))
        return kept

    def _cut_object(self, value: dict[str, Any], room: int) -> dict[str, Any]:
        left = room - 1
        kept: dict[str, tuple[Any, int]] = {}  # with the least length
        for key, item in value.items():
            least = self._least(item)
            if _key_length(key) + least <= left:
                left -= _key_length(key) + least
                kept[key] = item, least
        level = _water_level([self.length_of(item) - least for item, least in kept.values()], left)
        return {key: self.cut(item, min(self.length_of(item), least + level)) for key, (item, least) in kept.items()}


def _plain(value: Any, levels: int, max_items: int) -> Any:
    """
    A copy without what cannot be measured or is of no use in part.

    Args:
        max_items: No list can keep more; what lies behind them is not looked at.
    """
    if isinstance(value, dict):
        return {key: _plain(item, levels - 1, max_items) for key, item in value.items()} if levels else {}
    if isinstance(value, list):
        return [_plain(item, levels - 1, max_items) for item in value[:max_items]] if levels else []
    if isinstance(value, str) and _DATA.match(value):
        return _note(len(value)).lstrip()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else math.copysign(sys.float_info.max, value)
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return sys.float_info.max if value > 0 else -sys.float_info.max
    return value


def _water_level(lengths: Iterable[int], room: int) -> int:
    """The highest level such that all lengths, cut to it, fit together; `room` when they fit as they are."""
    ordered = sorted(lengths)
    level = max(room, 0)
    for position, length in enumerate(ordered):
        share = max(room, 0) // (len(ordered) - position)
        if length > share:
            return share
        room -= length
    return level


def _key_length(key: str) -> int:
    return escaped_length(key) + 2  # the colon, and the comma behind the value


def _note(characters: int) -> str:
    return f" [{characters} characters left out]"
