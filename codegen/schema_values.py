"""
Compares the keywords of two schemas that say which values are taken: type, enum, bounds, pattern, format, default.

Not for: what stands inside objects and lists (`codegen.schema_difference`). Each keyword has a direction of its own
here; where the proof over all of them says something worse, the worse counts.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import orjson

from codegen.schema_effects import OF_TYPES, OF_VALUES, Effect
from codegen.schema_judge import Verdict, judge

Node = Mapping[str, Any]
# Keyword to whether a larger number lets more values through.
_BOUNDS = {
    "maxLength": True,
    "maximum": True,
    "exclusiveMaximum": True,
    "maxItems": True,
    "maxProperties": True,
    "minLength": False,
    "minimum": False,
    "exclusiveMinimum": False,
    "minItems": False,
    "minProperties": False,
}
_JUDGED = ("pattern", "multipleOf", "uniqueItems")
KEYWORDS = frozenset({"type", "enum", "const", "format", "default", *_BOUNDS, *_JUDGED})
_PROVEN = frozenset({"type", "enum", "const", *_BOUNDS, *_JUDGED})  # what the judge looks at together
_LOOSER = frozenset({Effect.TYPE_WIDER, Effect.VALUES_ADDED, Effect.LOOSER, Effect.SPELLING})

Found = tuple[str, Effect]  # detail and effect


def value_changes(old: Node, new: Node) -> Iterator[Found]:
    """Compare these keywords of two schemas of one place; texts of the document stand in the details."""
    found = [*_type(old, new), *_values(old, new), *_bounds(old, new), *_judged(old, new)]
    yield from found
    only_looser = bool(found) and all(effect in _LOOSER for _, effect in found)
    if only_looser and _verdict(old, new, _PROVEN) not in {Verdict.SAME, Verdict.WIDER}:
        yield "it is not proven that every value from before is still taken", Effect.UNDECIDED
    yield from _format(old, new)
    yield from _default(old, new)


def shown(value: object) -> str:
    """A value for people."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _type(old: Node, new: Node) -> Iterator[Found]:
    before, after = _types(old), _types(new)
    if before != after:
        effect = OF_TYPES[_verdict(old, new, {"type"})]
        yield f"type {_listed(before) or 'any'} -> {_listed(after) or 'any'}", effect


def _types(node: Node) -> frozenset[str]:
    types = node.get("type", ())
    return frozenset([types] if isinstance(types, str) else types)


def _values(old: Node, new: Node) -> Iterator[Found]:
    before, after = _closed_list(old), _closed_list(new)
    if before == after:
        return
    if after is None:
        yield f"any value instead of {_texts(before or ())}", Effect.LOOSER
    elif before is None:
        yield f"only {_texts(after)} instead of any value", Effect.TIGHTER
    else:
        if before - after:
            effect = Effect.VALUES_REMOVED if before & after else Effect.VALUES_REPLACED
            yield f"values removed: {_texts(before - after)}", effect
        if after - before:
            yield f"values added: {_texts(after - before)}", Effect.VALUES_ADDED


def _closed_list(node: Node) -> frozenset[bytes] | None:
    """The values as JSON, so that `1` and `"1"` stay two; `None` when any value is taken."""
    if "enum" in node:
        return frozenset(orjson.dumps(value) for value in node["enum"])
    return frozenset({orjson.dumps(node["const"])}) if "const" in node else None


def _texts(values: Iterable[bytes]) -> str:
    return _listed(shown(orjson.loads(value)) for value in values)


def _bounds(old: Node, new: Node) -> Iterator[Found]:
    for keyword, larger_is_looser in _BOUNDS.items():
        before, after = old.get(keyword), new.get(keyword)
        if before == after:
            continue
        looser = after is None or (before is not None and (after > before) is larger_is_looser)
        yield _step(keyword, old, new), Effect.LOOSER if looser else Effect.TIGHTER


def _judged(old: Node, new: Node) -> Iterator[Found]:
    for keyword in _JUDGED:
        if old.get(keyword) != new.get(keyword):
            yield _step(keyword, old, new), OF_VALUES[_verdict(old, new, {keyword})]


def _format(old: Node, new: Node) -> Iterator[Found]:
    # No validator of ours holds values against a format, but generated clients make types of it.
    if old.get("format") != new.get("format"):
        if "format" not in old:
            effect = Effect.TYPE_NARROWER
        else:
            effect = Effect.TYPE_OTHER if "format" in new else Effect.TYPE_WIDER
        yield _step("format", old, new), effect


def _default(old: Node, new: Node) -> Iterator[Found]:
    before, after = ([node["default"]] if "default" in node else [] for node in (old, new))
    if orjson.dumps(before) == orjson.dumps(after):
        return
    if not before:
        effect = Effect.DEFAULT_ADDED
    elif after and _is_number(before[0]) and _is_number(after[0]):
        effect = Effect.DEFAULT_SMALLER if after[0] < before[0] else Effect.DEFAULT_LARGER
    else:
        effect = Effect.DEFAULT_OTHER
    yield _step("default", old, new), effect


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _verdict(old: Node, new: Node, keywords: Set[str]) -> Verdict:
    before, after = ({key: node[key] for key in keywords if key in node} for node in (old, new))
    return judge((before, {}), (after, {}))


def _step(keyword: str, old: Node, new: Node) -> str:
    before, after = (shown(node[keyword]) if keyword in node else "none" for node in (old, new))
    return f"{keyword} {before} -> {after}"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))
