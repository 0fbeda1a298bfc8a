"""
What has changed between two contracts, as typed findings: the vocabulary of `contract diff`.

Not for: finding changes or showing them (`codegen.contract_diff`, `codegen.diff_report`). Reads and writes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from codegen.contract import Contract, Operation
from codegen.semver import Level


class Kind(StrEnum):
    """What has changed; the order is that of the report."""

    ADDED = "operation-added"
    REMOVED = "operation-removed"
    MOVED = "operation-moved"
    RENAMED = "operation-renamed"
    BUCKET = "bucket-moved"
    SCOPE = "scopes-changed"
    LIFECYCLE = "lifecycle"
    WRAPPER = "wrapper-changed"
    IMPORT = "importer-field"
    PARAMETER = "parameter"
    BODY = "request-body"
    RESPONSE = "response"
    MEDIA_TYPE = "media-type"
    ERROR_CODE = "error-code"
    SCHEMA = "schema"
    DOCUMENT = "document"
    TEXT = "text"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Change:
    """
    One change of one document.

    Args:
        document: `openapi.full` or `openapi.actions`.
        subject: `METHOD /path`, a component such as `schemas/Metadata`, or `document`.
        detail: What is different; plain text that may hold texts of the document.
        operations: operationIds that it reaches.
        widens: Surfaces that somebody may use now who was refused before.
    """

    kind: Kind
    level: Level
    document: str
    subject: str
    detail: str
    operations: frozenset[str] = frozenset()
    widens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One operation before and after."""

    old: Operation
    new: Operation

    @property
    def unseen(self) -> bool:
        """Whether a change of its shape concerns nobody but operators: refused before, or internal and still so."""
        return not self.old.served or not (self.old.published or self.new.published)


@dataclass(frozen=True, slots=True)
class Pairing:
    """
    The operations of one document, before and after.

    Args:
        kept: In the order of the newer document.
    """

    old: Contract
    new: Contract
    added: tuple[Operation, ...]
    removed: tuple[Operation, ...]
    kept: tuple[Pair, ...]


def paired(old: Contract, new: Contract) -> Pairing:
    """Find each operation's counterpart: by operationId, or by method and path where that has changed."""
    gone = {(o.method, o.path): o for o in old if o.id not in new.operations}
    kept: list[Pair] = []
    added: list[Operation] = []
    for operation in new:
        before = old.operations.get(operation.id) or gone.pop((operation.method, operation.path), None)
        if before:
            kept.append(Pair(before, operation))
        else:
            added.append(operation)
    return Pairing(old, new, tuple(added), tuple(gone.values()), tuple(kept))


def name_of(operation: Operation) -> str:
    """`METHOD /path`, as people write it."""
    return f"{operation.method} {operation.path}"


def merged(changes: Iterable[Change]) -> tuple[Change, ...]:
    """
    Say what many operations share once, with all of them and the highest level.

    Returns:
        By document, order of kinds, subject and detail.
    """
    groups: dict[tuple[str, Kind, str, str], list[Change]] = defaultdict(list)
    for change in changes:
        groups[change.document, change.kind, change.subject, change.detail].append(change)
    order = list(Kind)
    return tuple(
        Change(
            kind=kind,
            level=max(change.level for change in group),
            document=document,
            subject=subject,
            detail=detail,
            operations=frozenset().union(*(change.operations for change in group)),
            widens=group[0].widens,
        )
        for (document, kind, subject, detail), group in sorted(
            groups.items(), key=lambda item: (item[0][0] != "openapi.full", order.index(item[0][1]), item[0][2:])
        )
    )
