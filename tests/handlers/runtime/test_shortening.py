import json
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlers.runtime.shortening import MAX_LEVELS, escaped_length, fitting_end, shorten, shorten_text
from tests.support.json_values import json_values, kinds, nested, texts

LIMIT = 1_000


def as_sent(value: object) -> str:
    """A value as the cautious reader counts it."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


@given(json_values())
@example("\x7f")
@example("\U0001f600")
@example(["\ud800", "\udc00\ud800"])
@settings(deadline=None)
def test_a_value_is_as_long_as_its_json_with_everything_escaped(value: Any) -> None:
    """The count is that of the JSON which Python writes in ASCII without blanks."""
    assert escaped_length(value) == len(as_sent(value))


@given(json_values())
@settings(deadline=None)
def test_json_text_counts_no_less_than_what_it_says(value: Any) -> None:
    """Bytes are counted as they stand: every character beyond ASCII as 6, beyond the first 65,536 as 12."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        raw = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no bytes hold
        return
    wide = sum(6 + 6 * (ord(character) > 0xFFFF) - 1 for character in text if not character.isascii())
    assert escaped_length(raw) == len(text) + wide + 5 * text.count("\x7f")
    assert escaped_length(raw) >= len(as_sent(value))


def test_bytes_that_are_no_text_are_counted_all_the_same() -> None:
    """What is not UTF-8 costs as much as the signs that stand in for it."""
    assert escaped_length(b"\xff\xfe{\x00}") == 6 + 6 + 3


def test_what_json_cannot_say_has_no_length() -> None:
    """Numbers that are none, and nesting beyond what this machine can follow, raise."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        escaped_length([float("nan")])
    with pytest.raises(RecursionError):
        escaped_length(nested(100_000))


@given(texts(), st.integers(0, 40), st.integers(0, 300))
def test_a_piece_of_a_text_is_the_longest_that_fits(text: str, start: int, characters: int) -> None:
    """One character more would not fit, unless it is the second half of a pair that must stay together."""
    end = fitting_end(text, start, characters)
    assert escaped_length(text[start:end]) - 2 <= characters
    if start <= end < len(text):
        longer = text[start : end + 2] if "\udc00" <= text[end + 1 : end + 2] <= "\udfff" else text[start : end + 1]
        assert escaped_length(longer) - 2 > characters


def test_a_surrogate_pair_is_not_torn() -> None:
    """Two halves that a text holds one after the other stay together."""
    text = "ab\ud83d\ude00"
    assert [fitting_end(text, 0, characters) for characters in (2, 8, 13, 14)] == [2, 2, 2, 4]


@given(texts(), st.integers(0, 300))
@example("  " + "word " * 20, 60)
def test_a_text_that_is_cut_says_how_much_is_missing(text: str, limit: int) -> None:
    """The beginning and the number of characters left out are the whole text."""
    cut = shorten_text(text, limit)
    assert cut == text or escaped_length(cut) <= max(limit, 2)
    if cut != text and limit >= 40:
        kept, _, note = cut.rpartition("[")
        number, words = note.split(" ", 1)
        assert words == "characters left out]"
        kept = kept.removesuffix(" ") if int(number) < len(text) else kept
        assert text.startswith(kept)
        assert len(kept) + int(number) == len(text)


@given(json_values(large=True))
@example({"": "x" * 2_000, "x" * 2_000: 1})
@example([10**400, -(10**400), float("inf"), float("-inf"), "x" * 2_000])
@settings(deadline=None, max_examples=150)
def test_every_value_can_be_cut(value: Any) -> None:
    """The result fits, is JSON, keeps the type of everything that stays, and the value itself is not changed."""
    before = repr(value)
    cut = shorten(value, LIMIT)
    assert repr(value) == before
    assert escaped_length(cut) <= LIMIT
    assert json.loads(as_sent(cut)) == cut
    assert shorten(cut, LIMIT) == cut
    assert kinds(cut) <= kinds(value) | {((), type(value))}


def test_numbers_and_words_keep_their_value() -> None:
    """Only texts, lists and objects are cut; a reader may rely on the rest."""
    scalars = {"status": "completed", "total": 12, "ratio": 0.5, "ok": True, "none": None}
    assert shorten({**scalars, "text": "word " * 1_000, "items": [*range(10_000)]}, LIMIT).items() >= scalars.items()


def test_a_number_beyond_a_double_becomes_the_nearest() -> None:
    """JSON knows no bound for numbers, its readers do; what is no number at all is null."""
    cut = shorten([10**400, -(10**400), float("inf"), float("-inf"), float("nan"), "x " * 2_000], LIMIT)
    assert cut[:5] == [sys.float_info.max, -sys.float_info.max, sys.float_info.max, -sys.float_info.max, None]


def test_the_longest_texts_are_cut_first() -> None:
    """A short text, and a list beside it, stay whole as long as a longer text can give way."""
    value = {"short": "a b " * 500, "list": [*range(1_000)], "long": "c d " * 20_000, "longer": "e f " * 40_000}
    cut = shorten(value, 50_000)
    assert (cut["short"], cut["list"]) == (value["short"], value["list"])
    assert len(cut["long"]) == pytest.approx(len(cut["longer"]), abs=5)
    assert escaped_length(cut) > 49_950


def test_lists_are_cut_when_texts_are_short_already() -> None:
    """A text is not cut below a paragraph for the sake of a list."""
    value = {"text": "a b " * 2_000, "items": [{"n": n} for n in range(10_000)]}
    cut = shorten(value, 20_000)
    assert 900 < len(cut["text"]) <= 1_000
    assert cut["items"] == value["items"][: len(cut["items"])]
    assert escaped_length(cut) > 19_950


@pytest.mark.parametrize("limit", range(400, 440))
def test_the_room_is_used_to_the_last_characters(limit: int) -> None:
    """Neither one character more nor many less, whatever the limit."""
    texts = {"a": "x y " * 1_000, "b": "z " * 1_000}
    for value in (texts, [texts], [*texts.values()], {"n": texts}, [[{"n": [texts]}]]):
        assert limit - 220 < escaped_length(shorten(value, limit)) <= limit
    assert limit - 4 < escaped_length(shorten(texts, limit)) <= limit


def test_base64_is_left_out_rather_than_cut() -> None:
    """Half an image shows nothing, so it does not take the room of a text that can be read."""
    text = "a b " * 200
    value = {"b64_json": "QUJD" * 1_000_000, "url": f"data:image/png;base64,{'QUJD' * 500}", "text": text}
    assert shorten(value, LIMIT) == {
        "b64_json": "[4000000 characters left out]",
        "url": "[2022 characters left out]",
        "text": text,
    }


def test_what_is_nested_too_deeply_is_left_out() -> None:
    """Depth is no way around the limit, and no reason to fail."""
    cut = shorten(nested(100_000), LIMIT)
    assert as_sent(cut) == "[" * (MAX_LEVELS + 1) + "]" * (MAX_LEVELS + 1)


def test_names_that_take_all_the_room_are_left_out() -> None:
    """An object of many or of long names keeps the first that fit."""
    cut = shorten({**{f"name-{n:05}": n for n in range(10_000)}, "y" * 5_000: 1}, LIMIT)
    assert list(cut) == [f"name-{n:05}" for n in range(len(cut))]
    assert escaped_length(cut) > LIMIT - 30
