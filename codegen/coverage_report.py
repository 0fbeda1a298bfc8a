"""
Who covers each operation, as typed rows and as Markdown, JSON and an exit code.

Not for: finding anything out (`codegen.coverage`). Reads and writes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from codegen.evidence import NOT_SEEN, Evidence
from codegen.handler_sources import FORWARDER
from codegen.running_relay import RunningRelay
from codegen.upstream import code

UNKNOWN = "UNKNOWN"
_NONE = "-"


class Gap(StrEnum):
    """What is missing."""

    UNKNOWN_OPERATION = "unknown-operation"
    UNKNOWN_UPSTREAM = "unknown-upstream-operation"
    NO_LOCK_LINE = "no-lock-line"
    OTHER_LOCK_LINES = "other-lock-lines"
    NO_HANDLER = "no-handler"
    ORPHAN_HANDLER = "orphan-handler"
    NO_EVIDENCE = "no-evidence"
    UNDECLARED_ROUTE = "undeclared-route"
    UNBOUND_OPERATION = "unbound-operation"
    OTHER_FUNCTION = "other-function"


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One gap.

    Args:
        subject: The operation as `METHOD /path`, or a file.
        problem: What is wrong, without a full stop.
        next_step: What to do about it, without a full stop.
    """

    gap: Gap
    subject: str
    problem: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Row:
    """
    One operation of any source; an operation of the contract unless its bucket is `UNKNOWN`.

    Args:
        bucket: With the exclusion behind it.
        served: Whether anybody is ever answered.
        function: What serves it, with its module; empty when nothing does.
        policy_cases: How many policy cases are about it.
    """

    bucket: str
    problems: tuple[Problem, ...]
    operation_id: str = ""
    method: str = ""
    path: str = ""
    surfaces: tuple[str, ...] = ()
    wrapper: str = ""
    served: bool = False
    function: str = ""
    evidence: Evidence = NOT_SEEN
    policy_cases: int = 0

    @property
    def served_by(self) -> str:
        """The function, `forwarder`, or `refused` when nobody is ever answered."""
        if self.bucket != UNKNOWN and not self.served:
            return "refused"
        return "forwarder" if self.function == FORWARDER else self.function

    @property
    def status(self) -> str:
        """`ok`, or what is missing."""
        return ", ".join(problem.gap for problem in self.problems) or "ok"


@dataclass(frozen=True, slots=True)
class Coverage:
    """
    Every operation of the contract, the code, the upstream lock and, when one was asked, the running relay.

    Args:
        version: Of the checkout's contract.
        rows: In the order of the contract; what it does not know at the end.
    """

    version: str
    relay: RunningRelay | None
    rows: tuple[Row, ...]

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that is missing."""
        return tuple(problem for row in self.rows for problem in row.problems)

    @property
    def exit_code(self) -> int:
        """0 when all is covered, else 2."""
        return 2 if self.problems else 0

    def to_markdown(self) -> str:
        """A report for people: summary, table of all operations and, where one looks last, the problems."""
        lines = ["# Coverage", "", f"Contract {self.version}: {self._verdict()}", ""]
        if self.relay:
            lines += [f"Relay at {code(self.relay.url)}: contract {code(self.relay.version)}.", ""]
        lines += [*_table(_summary(self.rows), numbers=True), "", "## Operations", "", *_table(_operations(self.rows))]
        if self.problems:
            lines += ["", f"## Problems ({len(self.problems)})", "", *map(_line, self.problems)]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same for programs."""
        report = {
            "exit_code": self.exit_code,
            "version": self.version,
            "relay": self.relay and {"url": self.relay.url, "version": self.relay.version},
            "buckets": {bucket: len(rows) for bucket, rows in _by_bucket(self.rows)},
            "operations": [_record(row) for row in self.rows],
            "problems": [
                {"gap": p.gap, "subject": p.subject, "problem": p.problem, "next_step": p.next_step}
                for p in self.problems
            ],
        }
        return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    def _verdict(self) -> str:
        unknown = sum(row.bucket == UNKNOWN for row in self.rows)
        problems = _count(len(self.problems), "problem")
        return f"{_count(len(self.rows), 'operation')}, {unknown} {UNKNOWN}, {problems}."


def _by_bucket(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    names = sorted({row.bucket for row in rows})
    return [(name, [row for row in rows if row.bucket == name]) for name in names]


def _summary(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        ("Bucket", "Operations", "Served", "Answered in tests", "Refused in tests", "Policy cases", "Problems")
    ]
    for name, group in [*_by_bucket(rows), ("all", list(rows))]:
        counts = (
            len(group),
            sum(row.served for row in group),
            sum(row.evidence.answered for row in group),
            sum(row.evidence.refused for row in group),
            sum(row.policy_cases for row in group),
            sum(len(row.problems) for row in group),
        )
        table.append((name, *map(str, counts)))
    return table


def _operations(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        ("Operation", "operationId", "Bucket", "Surfaces", "Wrapper", "Served by", "Test evidence", "Status")
    ]
    table += [
        (
            _code(f"{row.method} {row.path}".strip()),
            _code(row.operation_id),
            row.bucket,
            ", ".join(row.surfaces) or _NONE,
            _code(row.wrapper),
            row.served_by if row.served_by in {"forwarder", "refused"} else _code(row.served_by),
            _evidence(row),
            row.status,
        )
        for row in rows
    ]
    return table


def _evidence(row: Row) -> str:
    parts = [name for name, seen in (("answered", row.evidence.answered), ("refused", row.evidence.refused)) if seen]
    if row.policy_cases:
        parts.append(_count(row.policy_cases, "case"))
    return ", ".join(parts) or _NONE


def _table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """A table of Markdown whose columns stand under each other on a terminal too; `numbers` stand behind a name."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = [">" if numbers and place else "<" for place in range(len(widths))]
    rule = ["-" * (width - 1) + (":" if sign == ">" else "-") for width, sign in zip(widths, signs, strict=True)]
    return [
        f"| {' | '.join(f'{cell:{sign}{width}}' for cell, sign, width in zip(row, signs, widths, strict=True))} |"
        for row in (rows[0], rule, *rows[1:])
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _line(problem: Problem) -> str:
    subject, text = (_printable(part) for part in (problem.subject, problem.problem))
    return f"- {problem.gap}: {subject}: {text}. {problem.next_step}."


def _code(text: str) -> str:
    return code(text) if text else _NONE


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _record(row: Row) -> dict[str, object]:
    return {
        "operation_id": row.operation_id,
        "method": row.method,
        "path": row.path,
        "bucket": row.bucket,
        "surfaces": row.surfaces,
        "wrapper": row.wrapper,
        "served_by": row.served_by,
        "answered": row.evidence.answered,
        "refused": row.evidence.refused,
        "policy_cases": row.policy_cases,
        "status": row.status,
    }
