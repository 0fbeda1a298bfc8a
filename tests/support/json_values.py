"""JSON values of every kind for tests with generated data."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | None, ...]


def texts() -> st.SearchStrategy[str]:
    """Texts in every script, with control characters and halves of surrogate pairs."""
    characters = st.one_of(st.characters(codec=None), st.sampled_from('\x00\x1f\x7f"\\/\ud83d\ude00😀é語 '))
    return st.text(characters)


def json_values(*, large: bool = False) -> st.SearchStrategy[Any]:
    """
    Values of every type, nested.

    Args:
        large: Some of them have thousands of characters.
    """
    numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.just(10**300))
    short = st.one_of(st.none(), st.booleans(), numbers, texts())
    leaves = st.one_of(short, st.builds(_many, texts(), st.integers(1, 1_000))) if large else short
    values = st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts(), inner)), max_leaves=30
    )
    return st.one_of(values, st.builds(lambda inner, count: [inner] * count, values, st.integers(0, 200)))


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def kinds(value: Any, place: Place = ()) -> set[tuple[Place, type]]:
    """Which types stand at which place; all items of a list share one. All numbers are of one type."""
    return set(_kinds(value, place))


def _kinds(value: Any, place: Place) -> Iterator[tuple[Place, type]]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    yield place, float if number else type(value)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _kinds(item, (*place, key))
    elif isinstance(value, list):
        for item in value:
            yield from _kinds(item, (*place, None))


def _many(text: str, count: int) -> str:
    return text * count
