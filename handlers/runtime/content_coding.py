"""
Undoes the content coding of whole bodies (RFC 9110, section 8.4), as far as the relay asks for it.

Not for: bodies that only pass through; they stay as they are.
"""

import zlib
from collections.abc import Iterable

from handlers.runtime.messages import Header

# What the upstream is asked for at most, so that the relay can look into what it has to look into.
READABLE_CODINGS = frozenset({b"gzip", b"deflate", b"identity"})


class Undecodable(Exception):
    """The coding is unknown, or the body is not in it, or not all of it."""


class DecodedTooLong(Undecodable):
    """It unfolds into more than is read."""


def decode_body(body: bytes, headers: Iterable[Header], limit_bytes: int) -> bytes:
    """
    The body as it was before its coding.

    Args:
        headers: Names in lower case.
        limit_bytes: Of what it may unfold into; a body without a coding is not measured.

    Raises:
        Undecodable: Nobody knows what it says.
        DecodedTooLong: It is longer than the limit.
    """
    # Several lines are one list (RFC 9110, section 5.3); nobody asked for two codings.
    coding = b", ".join(value.lower() for name, value in headers if name == b"content-encoding")
    if coding in {b"", b"identity"} or not body:
        return body
    if coding not in READABLE_CODINGS:
        raise Undecodable
    try:
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)  # tells gzip and deflate apart by itself
        plain = decoder.decompress(body, limit_bytes)
    except zlib.error:
        raise Undecodable from None
    if decoder.unconsumed_tail:
        raise DecodedTooLong
    # Cut short, or a second member follows, which nobody has read.
    if not decoder.eof or decoder.unused_data:
        raise Undecodable
    return plain
