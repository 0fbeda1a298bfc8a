"""
Compares a newer OpenAPI document of the OpenAI API with the pinned inventory and with what our contract allows today.

Not for: changing the contract or the lock file; every suggestion is left to people. Reads a checkout and the document,
writes nothing.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.bucket_suggestion import suggest
from codegen.contract import Bucket, Contract, Operation, read_contract
from codegen.drift_report import UNCLASSIFIED, Change, Drift, Kind, Level, Weight, ordered
from codegen.looseness import Looseness, read_looseness
from codegen.pin import LOCK, read_lock
from codegen.request_difference import LOOSER, NARROWED, Difference, differences
from codegen.request_shape import contract_shape
from codegen.upstream import Inventory, Place, UpstreamOperation, code, read_upstream

_BREAKING = LOOSER  # a request that our contract lets through is refused by upstream
_Pair = tuple[UpstreamOperation, UpstreamOperation]  # as pinned, as it is now


@dataclass(frozen=True, slots=True)
class _Sides:
    contract: Contract
    places: Mapping[Place, Operation]
    known: frozenset[Looseness]
    inventory: Inventory

    def ours(self, operation: UpstreamOperation) -> Operation | None:
        """The contract's operation; that of its path for a variant."""
        return self.places.get(operation.plain_place)


def drift(root: Path, document: Path) -> Drift:
    """
    Find what upstream has changed since it was pinned.

    Args:
        root: The project's folder, with contract and lock file.
        document: OpenAPI document of the OpenAI API, JSON or YAML.

    Raises:
        UnreadableDocument: A file is missing or is not what it should be.
        InvalidContract: The contract or its list of known looseness breaks a rule.
    """
    contract = read_contract(root)
    pinned = read_lock(root / LOCK)
    sides = _Sides(
        contract=contract,
        places={(operation.path, operation.method): operation for operation in contract},
        known=read_looseness(root, contract),
        inventory=read_upstream(document),
    )
    return Drift(ordered(_changes(pinned, sides)))


def _changes(pinned: Mapping[Place, UpstreamOperation], sides: _Sides) -> Iterator[Change]:
    current = sides.inventory.operations
    gone = {operation.id: operation for place, operation in pinned.items() if place not in current}
    come = {operation.id: operation for place, operation in current.items() if place not in pinned}
    moved = [(gone[i], come[i]) for i in gone.keys() & come.keys() if gone[i].variant == come[i].variant]
    moved_ids = {new.id for _, new in moved}
    pairs = [*moved, *((pinned[place], current[place]) for place in pinned.keys() & current.keys())]
    yield from (_new(operation, sides) for operation in come.values() if operation.id not in moved_ids)
    yield from (_removed(operation, sides) for operation in gone.values() if operation.id not in moved_ids)
    for pair in pairs:
        yield from _of_lines(pair, sides)
    yield from _of_requests(pairs, sides)


def _new(operation: UpstreamOperation, sides: _Sides) -> Change:
    administration = operation.place in sides.inventory.administration
    classified = sides.ours(operation) is not None and not operation.variant
    advice = None if classified else suggest(operation, sides.contract, administration=administration)
    takes, gives = _media(operation.request_media), _media(operation.response_media)
    detail = f"takes {takes}, answers {gives}{', deprecated from the start' if operation.deprecated else ''}"
    change = _change(Kind.NEW_OPERATION, Level.LOOK, operation, operation, detail, sides)
    return Change(change.kind, change.level, change.weight, operation, change.verdict, detail, advice)


def _removed(operation: UpstreamOperation, sides: _Sides) -> Change:
    # Without its variant the path itself is still there.
    level = Level.LOOK if operation.variant else _level(operation, sides)
    return _change(Kind.REMOVED_OPERATION, level, operation, operation, "upstream has it no more", sides)


def _of_lines(pair: _Pair, sides: _Sides) -> Iterator[Change]:
    """Compare two lines of the lock file."""
    for compare in (_moved, _renamed, _request_media, _response_media, _deprecation):
        yield from compare(pair, sides)


def _moved(pair: _Pair, sides: _Sides) -> Iterator[Change]:
    old, new = pair
    if old.place == new.place:
        return
    same_on_wire = old.method == new.method and _wire(old.path) == _wire(new.path)
    level = Level.LOOK if same_on_wire or old.variant else _level(old, sides)
    detail = f"was {code(old.name)}{'; only names inside braces differ' if same_on_wire else ''}"
    yield _change(Kind.MOVED_OPERATION, level, old, new, detail, sides)


def _renamed(pair: _Pair, sides: _Sides) -> Iterator[Change]:
    old, new = pair
    if old.id != new.id:
        yield _change(Kind.RENAMED_OPERATION, Level.LOOK, old, new, f"was {code(old.id)}", sides)


def _request_media(pair: _Pair, sides: _Sides) -> Iterator[Change]:
    old, new = pair
    if old.request_media == new.request_media:
        return
    lost = set(old.request_media) - set(new.request_media)
    demanded = not old.request_media and sides.inventory.requests[new.place].body_required
    level = _level(old, sides) if lost or demanded else Level.LOOK
    detail = _media_detail(old.request_media, new.request_media) + (", and a body is required" if demanded else "")
    yield _change(Kind.REQUEST_MEDIA, level, old, new, detail, sides)


def _response_media(pair: _Pair, sides: _Sides) -> Iterator[Change]:
    old, new = pair
    if old.response_media == new.response_media:
        return
    level = _level(old, sides) if set(old.response_media) - set(new.response_media) else Level.LOOK
    detail = _media_detail(old.response_media, new.response_media)
    yield _change(Kind.RESPONSE_MEDIA, level, old, new, detail, sides)


def _deprecation(pair: _Pair, sides: _Sides) -> Iterator[Change]:
    old, new = pair
    if old.deprecated != new.deprecated:
        kind = Kind.NEWLY_DEPRECATED if new.deprecated else Kind.NO_LONGER_DEPRECATED
        words = "upstream announces its end" if new.deprecated else "upstream keeps it after all"
        yield _change(kind, Level.LOOK, old, new, words, sides)


def _of_requests(pairs: list[_Pair], sides: _Sides) -> Iterator[Change]:
    """Compare the requests of served operations; what a variant has in common with its path is said once."""
    said: set[tuple[Place, Difference]] = set()
    for old, new in sorted(pairs, key=lambda pair: pair[1].variant):
        operation = sides.ours(old)
        if operation is None or not operation.served:
            continue
        found = differences(contract_shape(sides.contract, operation), sides.inventory.requests[new.place])
        known = {entry.difference for entry in sides.known if entry.operation_id == operation.id}
        fresh = {d for d in found - known if (old.plain_place, d) not in said}
        said |= {(old.plain_place, difference) for difference in fresh}
        yield from _request_changes(fresh, (old, new), sides)
        if not new.variant and old.request_media == new.request_media:
            yield from _ended(known - found, (old, new), sides)


def _request_changes(found: set[Difference], pair: _Pair, sides: _Sides) -> Iterator[Change]:
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for difference in found:
        values[difference.kind, difference.place] |= {difference.value} - {""}
    for (kind, place), names in values.items():
        level = Level.BREAKING if kind in _BREAKING else Level.LOOK
        yield _change(Kind(kind), level, *pair, _difference_detail(kind, place, names), sides)


def _difference_detail(kind: str, place: str, values: set[str]) -> str:
    listed = ", ".join(code(value) for value in sorted(values))
    if not values:
        return code(place)
    return f"{code(place)} {'no longer allows' if kind == NARROWED else 'also allows'} {listed}"


def _ended(ended: set[Difference], pair: _Pair, sides: _Sides) -> Iterator[Change]:
    for difference in ended:
        detail = f"{code(f'{difference.kind} {difference.place} {difference.value}'.strip())} is no difference any more"
        yield _change(Kind.LOOSENESS_ENDED, Level.LOOK, *pair, detail, sides)


def _change(
    kind: Kind, level: Level, old: UpstreamOperation, new: UpstreamOperation, detail: str, sides: _Sides
) -> Change:
    ours = sides.ours(old)
    return Change(kind, level, _weight(ours), new, _verdict(ours), detail)


def _level(operation: UpstreamOperation, sides: _Sides) -> Level:
    ours = sides.ours(operation)
    return Level.BREAKING if ours is not None and ours.served else Level.LOOK


def _weight(operation: Operation | None) -> Weight:
    if operation is None:
        return Weight.UNCLASSIFIED
    if not operation.served:
        return Weight.REFUSED
    exposed = operation.bucket in {Bucket.ACTIONS_DIRECT, Bucket.PROXY_HARNESS} or bool(operation.wrapper)
    return Weight.EXPOSED if exposed else Weight.SERVED


def _verdict(operation: Operation | None) -> str:
    if operation is None:
        return UNCLASSIFIED
    return " ".join(filter(None, (operation.bucket, operation.exclusion)))


def _wire(path: str) -> list[str]:
    return ["{}" if part.startswith("{") else part for part in path.split("/")]


def _media(media: tuple[str, ...]) -> str:
    return ", ".join(code(name) for name in media) or "nothing"


def _media_detail(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    return f"was {_media(old)}, is {_media(new)}"
