import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.runtime.byte_ranges import select_range
from handlers.runtime.exceptions import RangeNotSatisfiable

SELECTED = {
    "bytes=0-0": (0, 1),
    "bytes=0-9": (0, 10),
    "bytes=2-4": (2, 5),
    "bytes=9-9": (9, 10),
    "bytes=3-": (3, 10),
    "bytes=0-": (0, 10),
    "bytes=5-99": (5, 10),
    "bytes=-1": (9, 10),
    "bytes=-10": (0, 10),
    "bytes=-99": (0, 10),
    "BYTES=1-2": (1, 3),
    "bytes= 1-2 ": (1, 3),
}
PASSED_OVER = (
    None,
    "",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=1",
    "bytes=a-b",
    "bytes=4-2",
    "bytes=0-1,3-4",
    "bytes=0-1, -1",
    "bytes=--1",
    "bytes=+1-2",
    "bytes=0x1-0x2",
    "bytes=1 - 2",
    "bytes=\u0661-\u0662",
    "bytes=0-" + "9" * 5000,
    "items=0-1",
    "bytes 0-1",
    "0-1",
)
BEHIND_THE_END = ("bytes=10-", "bytes=10-11", "bytes=99-", "bytes=-0")


@pytest.mark.parametrize("header", SELECTED)
def test_a_single_range_is_selected(header: str) -> None:
    """First and last, an open end and a suffix each select their bytes, cut to the file."""
    assert select_range(header, 10) == SELECTED[header]


@pytest.mark.parametrize("header", PASSED_OVER, ids=lambda header: repr(header)[:30])
def test_what_is_no_single_range_of_bytes_is_passed_over(header: str | None) -> None:
    """Several ranges, other units and nonsense are answered with the whole file."""
    assert select_range(header, 10) is None


@pytest.mark.parametrize("header", BEHIND_THE_END)
def test_a_range_behind_the_end_is_refused_with_the_length(header: str) -> None:
    """The client learns how long the file is."""
    with pytest.raises(RangeNotSatisfiable) as caught:
        select_range(header, 10)
    assert caught.value.headers == (("Content-Range", "bytes */10"),)


def test_an_empty_file_has_an_end_and_no_first_byte() -> None:
    """The last bytes of nothing are nothing; its first byte does not exist."""
    assert select_range("bytes=-5", 0) is None
    with pytest.raises(RangeNotSatisfiable):
        select_range("bytes=0-", 0)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_selected_range_is_the_slice_of_the_same_numbers(total: int, first: int, last: int) -> None:
    """What is selected is what Python would cut out."""
    content = bytes(range(total))
    try:
        selected = select_range(f"bytes={first}-{last}", total)
    except RangeNotSatisfiable:
        assert content[first : last + 1] == b""
        return
    if selected is None:
        assert last < first
    else:
        assert content[slice(*selected)] == content[first : last + 1] != b""
