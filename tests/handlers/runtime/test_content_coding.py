import gzip
import zlib

import pytest

from handlers.runtime.content_coding import DecodedTooLong, Undecodable, decode_body

PLAIN = b'{"id": "made-up"}' * 10
LIMIT_BYTES = 1000


def decoded(coding: bytes, body: bytes) -> bytes:
    """The body without its coding."""
    return decode_body(body, [(b"content-type", b"a/b"), (b"content-encoding", coding)], LIMIT_BYTES)


@pytest.mark.parametrize(
    "coding, body",
    [(b"gzip", gzip.compress(PLAIN)), (b"GZIP", gzip.compress(PLAIN)), (b"deflate", zlib.compress(PLAIN))],
    ids=["gzip", "upper case", "deflate"],
)
def test_a_coding_is_undone(coding: bytes, body: bytes) -> None:
    """Names of codings know no case."""
    assert decoded(coding, body) == PLAIN


def test_without_a_coding_a_body_is_what_it_is() -> None:
    """However long; and no body has none."""
    long = b"a" * (LIMIT_BYTES + 1)
    assert decode_body(long, [], LIMIT_BYTES) is long
    assert decoded(b"identity", long) is long
    assert decoded(b"gzip", b"") == b""


@pytest.mark.parametrize(
    "coding, body",
    [
        pytest.param(b"br", PLAIN, id="a coding that nobody asked for"),
        pytest.param(b"gzip, gzip", gzip.compress(gzip.compress(PLAIN)), id="two codings"),
        pytest.param(b"gzip", PLAIN, id="not in it"),
        pytest.param(b"gzip", gzip.compress(PLAIN)[:-9], id="cut short"),
        pytest.param(b"gzip", gzip.compress(PLAIN) + b"x", id="something behind it"),
        pytest.param(b"gzip", gzip.compress(PLAIN) * 2, id="a second member"),
    ],
)
def test_what_cannot_be_undone_is_not_guessed(coding: bytes, body: bytes) -> None:
    """Nobody knows what it says."""
    with pytest.raises(Undecodable):
        decoded(coding, body)


def test_what_swells_is_given_up() -> None:
    """A small body may unfold into a large one; nothing beyond the limit is kept."""
    assert decoded(b"gzip", gzip.compress(b"a" * LIMIT_BYTES)) == b"a" * LIMIT_BYTES
    with pytest.raises(DecodedTooLong):
        decoded(b"gzip", gzip.compress(b"a" * 100 * LIMIT_BYTES))


def test_two_lines_are_two_codings() -> None:
    """What one line says is no reason to overlook the other."""
    headers = [(b"content-encoding", b"identity"), (b"content-encoding", b"gzip")]
    with pytest.raises(Undecodable):
        decode_body(gzip.compress(PLAIN), headers, LIMIT_BYTES)
