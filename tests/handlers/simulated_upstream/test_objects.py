import pytest

from handlers.simulated_upstream import objects
from handlers.simulated_upstream.errors import BadRequest
from handlers.simulated_upstream.objects import Collection, KeptObject, page_of

VALUES = [{"id": name} for name in "edcba"]  # newest first


@pytest.mark.parametrize(
    "query,expected,has_more",
    [
        ({}, "edcba", False),
        ({"order": "asc"}, "abcde", False),
        ({"limit": "2"}, "ed", True),
        ({"limit": "2", "after": "d"}, "cb", True),
        ({"limit": "2", "after": "b"}, "a", False),
        ({"limit": "2", "order": "asc", "after": "b"}, "cd", True),
        ({"limit": "2", "before": "b"}, "dc", True),
        ({"limit": "3", "before": "c"}, "ed", False),
        ({"after": "e", "before": "b"}, "dc", False),
        ({"after": "a"}, "", False),
    ],
)
def test_cursors_cut_pages_both_ways(query: dict[str, str], expected: str, has_more: bool) -> None:
    """A page follows `order`, starts behind `after`, ends before `before`, and says whether there is more."""
    page = page_of(VALUES, query)
    assert ("".join(value["id"] for value in page.data), page.has_more) == (expected, has_more)


@pytest.mark.parametrize(
    "query", [{"after": "z"}, {"before": "z"}, {"limit": "0"}, {"limit": "x"}, {"order": "sideways"}]
)
def test_senseless_cursors_are_refused(query: dict[str, str]) -> None:
    """An unknown cursor, a limit below 1 and an unknown order are errors, not empty pages."""
    with pytest.raises(BadRequest):
        page_of(VALUES, query)


def test_the_oldest_objects_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection never holds more than its bound."""
    monkeypatch.setattr(objects, "MAX_OBJECTS", 2)
    collection = Collection()
    for name in "abc":
        collection.add(name, KeptObject({"id": name}))
    assert [kept.value["id"] for kept in collection] == ["b", "c"]
