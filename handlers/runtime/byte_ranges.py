"""
The one range of bytes that a request asks for. Several ranges and other units are passed over, as RFC 9110 lets us.
"""

import re

from handlers.runtime.exceptions import RangeNotSatisfiable

# Numbers that no file reaches are passed over with the rest: RFC 9110 lets a server ignore any range.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE | re.ASCII)


def select_range(header: str | None, total: int) -> tuple[int, int] | None:
    """
    Read `Range`.

    Args:
        header: Its value; `None` when the request has none.
        total: Length of the whole in bytes.

    Returns:
        The first byte and the one after the last, or `None` where the whole is to be answered.

    Raises:
        RangeNotSatisfiable: No byte of the file is in the range (416).

    Source: RFC 9110, sections 14.1.2 and 14.2
    """
    found = _RANGE.fullmatch(header) if header is not None else None
    if not found:
        return None
    first, last = found[1], found[2]
    if first:
        if last and int(last) < int(first):
            return None  # not a range
        if int(first) >= total:
            raise _behind_the_end(total)
        return int(first), min(int(last) + 1, total) if last else total
    if not last:
        return None
    if int(last) == 0:
        raise _behind_the_end(total)
    # The end of nothing is a good range that no `Content-Range` can express: the whole is the same.
    return (max(total - int(last), 0), total) if total else None


def _behind_the_end(total: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(
        f"`Range` must begin within the file, which has {total} bytes.",
        param="Range",
        headers=[("Content-Range", f"bytes */{total}")],
    )
