"""
What upstream has changed, as typed findings and as Markdown, JSON and an exit code.

Not for: finding the changes (`codegen.drift`). Reads and writes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import orjson

from codegen import request_difference
from codegen.bucket_suggestion import Suggestion
from codegen.upstream import UpstreamOperation, code

UNCLASSIFIED = "unclassified"


class Kind(StrEnum):
    """What has changed."""

    NEW_OPERATION = "new-operation"
    REMOVED_OPERATION = "removed-operation"
    MOVED_OPERATION = "moved-operation"
    RENAMED_OPERATION = "renamed-operation"
    REQUEST_MEDIA = "request-media-changed"
    RESPONSE_MEDIA = "response-media-changed"
    NEWLY_DEPRECATED = "newly-deprecated"
    NO_LONGER_DEPRECATED = "no-longer-deprecated"
    NEW_REQUIRED_BODY = request_difference.REQUIRED_BODY
    NEW_REQUIRED_FIELD = request_difference.REQUIRED_FIELD
    NEW_REQUIRED_PARAMETER = request_difference.REQUIRED_PARAMETER
    NARROWED_ENUM = request_difference.NARROWED
    WIDENED_ENUM = request_difference.WIDENED
    NO_LONGER_REQUIRED = request_difference.NOT_REQUIRED
    LOOSENESS_ENDED = "looseness-ended"


class Level(IntEnum):
    """What a change asks for; the highest is the exit code."""

    LOOK = 1
    BREAKING = 2


class Weight(IntEnum):
    """Whom a change concerns, by the bucket of its operation; heaviest last."""

    REFUSED = 0
    UNCLASSIFIED = 1
    SERVED = 2
    EXPOSED = 3


_NEXT = {
    Kind.NEW_OPERATION: "Decide its bucket in `spec/openapi.full.yaml`; the suggestion is not applied.",
    Kind.REMOVED_OPERATION: "Decide with GOVERNANCE.md sections 8 and 9 whether it leaves the contract.",
    Kind.MOVED_OPERATION: "Move it in the contract; serve the old path no longer than upstream does.",
    Kind.RENAMED_OPERATION: "Rename it in the contract, byte for byte.",
    Kind.REQUEST_MEDIA: "Bring its request body in line and look at its bucket again.",
    Kind.RESPONSE_MEDIA: "Bring its responses in line and look at its bucket again.",
    Kind.NEWLY_DEPRECATED: "Add `deprecated` and, when the date is known, `x-sunset`.",
    Kind.NO_LONGER_DEPRECATED: "Ask upstream's notes; take `deprecated` and `x-sunset` away if it stays.",
    Kind.NEW_REQUIRED_BODY: "Require the body in the contract, or name it in `spec/upstream.looser.tsv`.",
    Kind.NEW_REQUIRED_FIELD: "Require it in the contract, or name it in `spec/upstream.looser.tsv`.",
    Kind.NEW_REQUIRED_PARAMETER: "Require it in the contract, or name it in `spec/upstream.looser.tsv`.",
    Kind.NARROWED_ENUM: "Take the values out of the contract, or name them in `spec/upstream.looser.tsv`.",
    Kind.WIDENED_ENUM: "Allow the values in the contract; it must never be stricter than upstream.",
    Kind.NO_LONGER_REQUIRED: "Require it no longer; the contract must never be stricter than upstream.",
    Kind.LOOSENESS_ENDED: "Delete the line from `spec/upstream.looser.tsv`.",
}
_TITLES = {Level.BREAKING: "Breaks a served operation", Level.LOOK: "To look at"}
_WEIGHTS = {
    Weight.EXPOSED: "assistants or proxy",
    Weight.SERVED: "SDK clients",
    Weight.UNCLASSIFIED: "nobody yet",
    Weight.REFUSED: "nobody, refused",
}


@dataclass(frozen=True, slots=True)
class Change:
    """
    One change of one operation.

    Args:
        operation: As upstream has it now; as it was pinned when it is gone.
        verdict: The contract's decision about it, `unclassified` without one.
        detail: What is different, without a full stop; texts of upstream in backticks.
        suggestion: For new operations that the contract does not know.
    """

    kind: Kind
    level: Level
    weight: Weight
    operation: UpstreamOperation
    verdict: str
    detail: str
    suggestion: Suggestion | None = None

    @property
    def next_step(self) -> str:
        """What to do about it."""
        return _NEXT[self.kind]


@dataclass(frozen=True, slots=True)
class Drift:
    """All changes between the pinned upstream and another document, the weightiest first."""

    changes: tuple[Change, ...]

    @property
    def exit_code(self) -> int:
        """0 nothing, 1 something to look at, 2 something breaks a served operation."""
        return max((change.level for change in self.changes), default=0)

    def to_markdown(self) -> str:
        """A report for people: one table per level."""
        lines = ["# Upstream drift", "", self._summary(), ""]
        for level in sorted(_TITLES, reverse=True):
            changes = [change for change in self.changes if change.level is level]
            if changes:
                lines += [f"## {_TITLES[level]} ({len(changes)})", "", *_table(changes), ""]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same for programs."""
        report = {"exit_code": self.exit_code, "changes": [_record(change) for change in self.changes]}
        return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    def _summary(self) -> str:
        if not self.changes:
            return "Nothing: the document says what `spec/upstream.lock.tsv` and the contract say."
        breaking = sum(change.level is Level.BREAKING for change in self.changes)
        return (
            f"Changes: {len(self.changes)}; breaking a served operation: {breaking}. "
            "Suggested buckets are proposals, nothing is applied. "
            "When the contract is in line, run `contract pin FILE`."
        )


def ordered(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Changes in the order of the report: level, whom they concern, place, kind."""
    return tuple(sorted(changes, key=lambda c: (-c.level, -c.weight, c.operation.place, c.kind, c.detail)))


def _table(changes: Iterable[Change]) -> list[str]:
    rows = [
        "| Operation | Bucket | Concerns | Change | Next step |",
        "|---|---|---|---|---|",
    ]
    for change in changes:
        detail = f"{change.kind}: {change.detail}."
        if change.suggestion:
            detail += f" Suggested: `{change.suggestion.verdict}`. {change.suggestion.reason}"
        where = f"{code(change.operation.name)} {code(change.operation.id)}"
        rows.append(f"| {where} | {change.verdict} | {_WEIGHTS[change.weight]} | {detail} | {change.next_step} |")
    return rows


def _record(change: Change) -> dict[str, object]:
    suggestion = change.suggestion
    return {
        "kind": change.kind,
        "level": change.level.name.lower(),
        "concerns": change.weight.name.lower(),
        "method": change.operation.method,
        "path": change.operation.path,
        "operation_id": change.operation.id,
        "bucket": change.verdict,
        "detail": change.detail,
        "next_step": change.next_step,
        "suggestion": suggestion and {"bucket": suggestion.verdict, "reason": suggestion.reason},
    }
