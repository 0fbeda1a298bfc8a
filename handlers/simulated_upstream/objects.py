"""
The objects that the simulated upstream keeps: a tree of bounded collections, and cursors over them.

Not for: what the objects look like (`handlers.simulated_upstream.shapes`).
"""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlers.simulated_upstream.content import Content
from handlers.simulated_upstream.errors import BadRequest

MAX_OBJECTS = 10_000  # per collection; the oldest go first
DEFAULT_LIMIT = 20


@dataclass
class KeptObject:
    """
    One object.

    Args:
        value: Its JSON, when it is finished.
        started: Its JSON until it is finished; `None` when it never was in progress.
        finished_at: Monotonic seconds from which `value` is shown.
        content: The bytes behind it, for files and what is like them.
        children: Collections under it, by the literal part of the path behind its id, such as `files`.
    """

    value: dict[str, Any]
    started: dict[str, Any] | None = None
    finished_at: float = 0.0
    content: Content | None = None
    children: dict[str, "Collection"] = field(default_factory=dict)

    @property
    def current(self) -> dict[str, Any]:
        """Its JSON as of now."""
        return self.started if self.started is not None and time.monotonic() < self.finished_at else self.value

    def become(self, value: dict[str, Any]) -> None:
        """Take another JSON, as finished."""
        self.value = value
        self.started = None


class Collection:
    """Objects by key, in the order of their creation."""

    def __init__(self) -> None:
        self._objects: OrderedDict[str, KeptObject] = OrderedDict()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[KeptObject]:
        return iter(self._objects.values())

    def get(self, key: str) -> KeptObject | None:
        """The object of a key, `None` when there is none (any more)."""
        return self._objects.get(key)

    def add(self, key: str, kept: KeptObject) -> None:
        """Keep an object as the newest; drops the oldest beyond `MAX_OBJECTS`."""
        self._objects.pop(key, None)
        self._objects[key] = kept
        while len(self._objects) > MAX_OBJECTS:
            self._objects.popitem(last=False)

    def remove(self, key: str) -> None:
        """Forget an object and everything under it."""
        self._objects.pop(key, None)


@dataclass(frozen=True)
class Page:
    """One page of a list."""

    data: list[dict[str, Any]]
    has_more: bool


def page_of(newest_first: Sequence[dict[str, Any]], query: Mapping[str, Any], *, default_order: str = "desc") -> Page:
    """
    Cut a page out of a list by `order`, `limit`, `after` and `before`.

    Args:
        query: Query parameters by name.

    Raises:
        BadRequest: A cursor is unknown, `limit` is no number above 0, or `order` is neither `asc` nor `desc` (400).
    """
    order = query.get("order", default_order)
    if order not in {"asc", "desc"}:
        raise BadRequest("`order` must be `asc` or `desc`.", param="order")
    values = list(newest_first) if order == "desc" else list(reversed(newest_first))
    limit = _limit(query.get("limit", DEFAULT_LIMIT))
    end = _position(values, query, "before", len(values))
    start = _position(values, query, "after", -1) + 1
    if "before" in query and "after" not in query:
        first = max(end - limit, 0)
        return Page(values[first:end], has_more=first > 0)
    return Page(values[start : min(start + limit, end)], has_more=start + limit < end)


def _limit(text: Any) -> int:
    try:
        limit = int(text)
    except (TypeError, ValueError):
        limit = 0
    if limit < 1:
        raise BadRequest("`limit` must be a number of at least 1.", param="limit")
    return limit


def _position(values: Sequence[dict[str, Any]], query: Mapping[str, Any], name: str, default: int) -> int:
    if name not in query:
        return default
    for position, value in enumerate(values):
        if value.get("id") == query[name]:
            return position
    raise BadRequest(f"`{name}` must be the id of an object in this list.", param=name)
