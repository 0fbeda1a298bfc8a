"""
Compares what was decided about an operation: its place, bucket, scopes, wrapper, review and announced end.

Not for: the shape of requests and replies (`codegen.operation_difference`). Levels are those of section 9 of
GOVERNANCE.md, ways to an operation those of its section 4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from codegen.changes import Change, Kind, Pair, Pairing, name_of
from codegen.contract import Bucket, Contract, Exclusion, Operation, Scope
from codegen.semver import Level
from codegen.surfaces import Surface, surfaces

_CONSEQUENTIAL = "x-openai-isConsequential"
_Compare = Callable[[Pairing, Pair], Iterator[Change]]


def decision_changes(pairing: Pairing) -> Iterator[Change]:
    """Compare every operation's decisions; what is new or gone is one change each."""
    for operation in pairing.added:
        yield _added(pairing, operation)
    for operation in pairing.removed:
        level = Level.MAJOR if operation.served else Level.PATCH
        yield _about(pairing, operation, Kind.REMOVED, level, f"was {verdict(operation)}")
    for pair in pairing.kept:
        for compare in _COMPARISONS:
            yield from compare(pairing, pair)


def verdict(operation: Operation) -> str:
    """Its bucket, with the exclusion where there is one."""
    return " ".join(filter(None, (operation.bucket, operation.exclusion)))


def reach(operation: Operation) -> frozenset[Surface]:
    """The ticks of its row in section 4; a wrapper is an operation of its own."""
    return frozenset(surfaces(operation)) - {Surface.WRAPPER}


def _added(pairing: Pairing, operation: Operation) -> Change:
    ways = tuple(surfaces(operation))
    detail = ", ".join((verdict(operation), *ways)) if ways else verdict(operation)
    level = Level.MINOR if operation.served else Level.PATCH
    return _about(pairing, operation, Kind.ADDED, level, detail, widens=ways)


def _place(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    # Whoever is refused anyway loses nothing, and operators are told by the change of the operation they have.
    level = Level.PATCH if pair.unseen else Level.MAJOR
    if name_of(pair.old) != name_of(pair.new):
        yield _about(pairing, pair.new, Kind.MOVED, level, f"was {name_of(pair.old)}")
    if pair.old.id != pair.new.id:
        yield _about(pairing, pair.new, Kind.RENAMED, level, f"{pair.old.id} -> {pair.new.id}")


def _bucket(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    if not moved(pair):
        return
    gained, lost = reach(pair.new) - reach(pair.old), reach(pair.old) - reach(pair.new)
    detail = f"{verdict(pair.old)} -> {verdict(pair.new)}"
    detail += "".join(f"; {word} {_listed(ways)}" for word, ways in (("gains", gained), ("loses", lost)) if ways)
    level = Level.MAJOR if lost else Level.MINOR
    yield _about(pairing, pair.new, Kind.BUCKET, level, detail, widens=tuple(sorted(gained)))


def moved(pair: Pair) -> bool:
    """Whether an operation has another bucket or exclusion than before."""
    return (pair.old.bucket, pair.old.exclusion) != (pair.new.bucket, pair.new.exclusion)


def gained_scopes(pair: Pair) -> frozenset[Scope]:
    """Scopes that open an operation now and did not before, other than those that a bucket brings with it."""
    return pair.new.scopes - pair.old.scopes - _brought_along(pair)


def _brought_along(pair: Pair) -> frozenset[Scope]:
    if not moved(pair):
        return frozenset()
    scopes = set()
    if Bucket.ACTIONS_DIRECT in {pair.old.bucket, pair.new.bucket}:
        scopes.add(Scope.ACTIONS)
    if Exclusion.INTERNAL in {pair.old.exclusion, pair.new.exclusion}:
        scopes |= {Scope.OPERATOR, Scope.CANONICAL}
    return frozenset(scopes)


def _scopes(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    old, new = pair.old, pair.new
    if old.open or new.open:
        if old.open is not new.open:
            words = "opened to everybody" if new.open else f"closed; needs {_listed(new.scopes)}"
            level = Level.MINOR if new.open else Level.MAJOR
            widens = (Surface.OPEN,) if new.open and new.served else ()
            yield _about(pairing, new, Kind.SCOPE, _capped(pair, level), words, widens=widens)
        return
    gained, lost = gained_scopes(pair), old.scopes - new.scopes - _brought_along(pair)
    if gained:
        words = f"scope gained: {_listed(gained)}"
        opened = tuple(sorted(gained)) if new.served else ()
        yield _about(pairing, new, Kind.SCOPE, _capped(pair, Level.MINOR), words, widens=opened)
    if lost:
        words = f"scope lost: {_listed(lost)}"
        yield _about(pairing, new, Kind.SCOPE, _capped(pair, Level.MAJOR), words)
    if old.scopes == new.scopes:
        yield from _schemes(pairing, pair)


def _schemes(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    before, after = _requirements(pairing.old, pair.old), _requirements(pairing.new, pair.new)
    for word, ways, level in (("added", after - before, Level.MINOR), ("removed", before - after, Level.MAJOR)):
        if ways:
            words = f"way to send a key {word}: {_listed(f'{scheme} {scope}' for scheme, scope in ways)}"
            yield _about(pairing, pair.new, Kind.SCOPE, _capped(pair, level), words)


def _requirements(contract: Contract, operation: Operation) -> frozenset[tuple[str, str]]:
    """Scheme and scope of every alternative that opens an operation."""
    alternatives = _node(contract, operation).get("security", contract.document.get("security", ()))
    return frozenset((scheme, scope) for alternative in alternatives for scheme, (scope,) in alternative.items())


def _lifecycle(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    before, after = _end(pair.old), _end(pair.new)
    if before != after:
        level = _capped(pair, Level.MINOR)
        yield _about(pairing, pair.new, Kind.LIFECYCLE, level, f"{before} -> {after}")


def _end(operation: Operation) -> str:
    return f"deprecated{f', ends {operation.sunset}' if operation.sunset else ''}" if operation.deprecated else "stays"


def _wrapper(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    # A wrapper is added or removed as an operation; these fields only say which one it is.
    level = _capped(pair, Level.MINOR)
    if pair.old.wrapper != pair.new.wrapper and not moved(pair):
        words = f"x-policy-wrapper {pair.old.wrapper or 'none'} -> {pair.new.wrapper or 'none'}"
        yield _about(pairing, pair.new, Kind.WRAPPER, level, words)
    if pair.old.wraps != pair.new.wraps:
        words = f"x-policy-wraps {_listed(pair.old.wraps) or 'none'} -> {_listed(pair.new.wraps) or 'none'}"
        yield _about(pairing, pair.new, Kind.WRAPPER, level, words)


def _carries(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    if pair.old.carries is not pair.new.carries:
        words = f"x-policy-carries {pair.old.carries or 'none'} -> {pair.new.carries or 'none'}"
        yield _about(pairing, pair.new, Kind.BUCKET, _capped(pair, Level.MAJOR), words)


def _mirrored(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    if pair.old.mirrored is not pair.new.mirrored:
        words = "now upstream's operation" if pair.new.mirrored else "now the relay's own operation"
        level = _capped(pair, Level.MAJOR)
        yield _about(pairing, pair.new, Kind.DOCUMENT, level, words)


def _consequential(pairing: Pairing, pair: Pair) -> Iterator[Change]:
    # It changes what people are asked before a call, not what the call may be.
    before, after = (
        str(_node(side, operation).get(_CONSEQUENTIAL, "none")).lower()
        for side, operation in ((pairing.old, pair.old), (pairing.new, pair.new))
    )
    if before != after:
        yield _about(pairing, pair.new, Kind.IMPORT, Level.MINOR, f"{_CONSEQUENTIAL} {before} -> {after}")


_COMPARISONS: tuple[_Compare, ...] = (
    _place,
    _bucket,
    _scopes,
    _lifecycle,
    _wrapper,
    _carries,
    _mirrored,
    _consequential,
)


def _node(contract: Contract, operation: Operation) -> Mapping[str, Any]:
    node: Mapping[str, Any] = contract.document["paths"][operation.path][operation.method.lower()]
    return node


def _capped(pair: Pair, level: Level) -> Level:
    return Level.PATCH if pair.unseen else level


def _about(
    pairing: Pairing,
    operation: Operation,
    kind: Kind,
    level: Level,
    detail: str,
    *,
    widens: tuple[str, ...] = (),
) -> Change:
    name = pairing.new.name
    return Change(kind, level, name, name_of(operation), detail, frozenset({operation.id}), widens)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
