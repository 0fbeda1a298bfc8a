import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.runtime.exceptions import NotText
from handlers.runtime.shortening import escaped_length
from handlers.runtime.text_pieces import MARGIN_BYTES, TextPiece, cut_text

BOM = b"\xef\xbb\xbf"
ROOM = 1_000
# Characters of every length in UTF-8 and of every length when escaped, those beside the borders among them.
ODD = 'a"\\\n\x01\x7f\x80ß߿ࠀ€\ufeff\uffff\U00010000😀\U0010ffff'
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(ODD), max_size=200)


def cut(content: bytes, offset: int, limit: int, room: int = ROOM) -> TextPiece:
    """A piece of a file, read as the wrapper reads it."""
    raw = content[offset : offset + limit + MARGIN_BYTES]
    return cut_text(raw, offset, limit, room)


def pieces_of(content: bytes, limit: int, room: int = ROOM) -> list[TextPiece]:
    """All pieces, each asked for with what the one before says."""
    pieces = []
    offset: int | None = 0
    while offset is not None:
        pieces.append(cut(content, offset, limit, room))
        offset = pieces[-1].next_offset
        assert offset is None or offset > pieces[-1].offset, "a piece must bring its reader on"
    return pieces


@given(TEXTS, st.integers(1, 40), st.integers(100, 300))
def test_the_pieces_are_the_file(text: str, limit: int, room: int) -> None:
    """Joined they are the text, each lies where it says, and none is longer than it may be."""
    content = text.encode()
    pieces = pieces_of(content, limit, room)
    assert "".join(piece.text for piece in pieces) == text.removeprefix("\ufeff")
    for piece in pieces:
        encoded = piece.text.encode()
        assert content[piece.offset : piece.offset + len(encoded)] == encoded
        assert len(encoded) <= limit or len(piece.text) == 1
        assert escaped_length(piece.text) <= room


@given(TEXTS, st.data())
def test_any_offset_begins_with_the_next_whole_character(text: str, data: st.DataObject) -> None:
    """Wherever a reader begins, it gets the rest of the text, less a character that it would have torn."""
    content = text.encode()
    offset = data.draw(st.integers(1, len(content) + 5))
    piece = cut(content, offset, 20)
    assert piece.offset - offset <= 3
    assert content[piece.offset :].decode().startswith(piece.text)
    assert (piece.next_offset is None) == (piece.offset + len(piece.text.encode()) >= len(content))


@pytest.mark.parametrize("text", ["\x01" * 40_000, "😀" * 10_000, "é" * 20_000, '"' * 40_000, "\x7f" * 40_000])
def test_a_text_that_grows_when_it_is_escaped_comes_in_smaller_pieces(text: str) -> None:
    """The room counts, not the bytes, and nothing of the text is lost."""
    pieces = pieces_of(text.encode(), 40_000, 20_000)
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == text
    assert all(18_000 < escaped_length(piece.text) <= 20_000 for piece in pieces[:-1])


def test_a_byte_order_mark_is_left_out_at_the_start_alone() -> None:
    """The text begins behind it; anywhere else it is a character."""
    assert cut(BOM + b"ab", 0, 10) == TextPiece("ab", 3, None)
    assert cut(BOM + b"ab", 0, 1) == TextPiece("a", 3, 4)
    assert cut(BOM + b"ab", 2, 10) == TextPiece("ab", 3, None)
    assert cut(b"ab" + BOM, 0, 10).text == "ab\ufeff"
    assert cut(BOM, 0, 10) == TextPiece("", 3, None)


def test_a_character_is_never_torn_by_the_limit() -> None:
    """It moves to the next piece as a whole; where it is longer than the limit, it is the piece."""
    content = "a€b".encode()
    assert cut(content, 0, 3) == TextPiece("a", 0, 1)
    assert cut(content, 1, 1) == TextPiece("€", 1, 4)
    assert cut(content, 2, 1) == TextPiece("b", 4, None)


def test_behind_the_end_there_is_nothing() -> None:
    """An empty file has no text, and neither has what lies behind a file."""
    assert cut(b"", 0, 10) == TextPiece("", 0, None)
    assert cut(b"abc", 3, 10) == TextPiece("", 3, None)
    assert cut(b"abc", 99, 10) == TextPiece("", 99, None)


@pytest.mark.parametrize(
    "content",
    [
        b"abc\x00def",
        b"\x89PNG\r\n\x1a\n",
        b"caf\xe9 au lait",
        "in UTF-16".encode("utf-16"),
        b"\xc0\xafabc",
        b"\xed\xa0\x80abc",
        b"\xf5\x80\x80\x80",
        b"ends in mid-character \xe2\x82",
        b"\x80\x80\x80\x80abc",
    ],
)
def test_what_is_no_text_is_refused(content: bytes) -> None:
    """A zero byte, another encoding and half a character at the end of the file are no UTF-8."""
    with pytest.raises(NotText):
        pieces_of(content, 100)


def test_too_many_bytes_inside_of_a_character_are_no_text() -> None:
    """No character has more than three bytes behind its first, wherever reading begins."""
    with pytest.raises(NotText):
        cut(b"a\x80\x80\x80\x80b", 1, 10)
