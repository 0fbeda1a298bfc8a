"""
Shows a contract diff and its gate: Markdown fit for a comment on a pull request, JSON for programs, an exit code.

Not for: finding changes or judging them. Texts of the documents are shown as inline code or escaped, because whoever
opens a pull request chooses them. Reads and writes nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import orjson

from codegen.changes import Change, Kind
from codegen.contract import ACTIONS
from codegen.contract_diff import ContractDiff
from codegen.diff_gate import EVIDENCE_READABLE, needed_version
from codegen.findings import Finding
from codegen.upstream import code

_FOLD_ROWS = 15  # longer lists are folded away
_MAX_CHARACTERS = 7_000  # of a list; with all eight of them a comment on GitHub holds 65,536
_MAX_DETAIL = 300
_NAMED_OPERATIONS = 6
_SPECIAL = frozenset("<>&|[]*@\\")  # what could become a link, a mention, markup or another cell
_SECTIONS = (
    ("Operations added", {Kind.ADDED}),
    ("Operations removed", {Kind.REMOVED}),
    ("Operations moved or renamed", {Kind.MOVED, Kind.RENAMED}),
    ("Decisions", {Kind.BUCKET, Kind.SCOPE, Kind.LIFECYCLE, Kind.WRAPPER, Kind.IMPORT, Kind.DOCUMENT}),
    (
        "Requests and replies",
        {Kind.PARAMETER, Kind.BODY, Kind.RESPONSE, Kind.MEDIA_TYPE, Kind.ERROR_CODE, Kind.SCHEMA},
    ),
    ("Texts only", {Kind.TEXT, Kind.UNUSED}),
)


@dataclass(frozen=True, slots=True)
class Report:
    """
    A diff with what the gate says about it.

    Args:
        findings: What keeps the diff from passing.
    """

    diff: ContractDiff
    findings: Sequence[Finding]

    @property
    def exit_code(self) -> int:
        """0 the gate passes, 1 it fails, 2 something that could speak for the change cannot be read."""
        if any(finding.rule == EVIDENCE_READABLE for finding in self.findings):
            return 2
        return 1 if self.findings else 0

    @property
    def verdict(self) -> str:
        """Level and versions, such as `minor: 1.0.0 -> 1.1.0`."""
        base, head = self.diff.base.full.version, self.diff.head.full.version
        return f"{self.diff.level.label}: {base} -> {head}"

    def to_markdown(self) -> str:
        """A report for people: verdict, gate, who reaches more, then what has changed."""
        sides = f"From {code(self.diff.base.label)} to {code(self.diff.head.label)}, both documents."
        lines = ["# Contract diff", "", f"**{code(self.verdict)}**", "", sides, "", *self._gate()]
        changes = self.diff.changes
        if not changes:
            lines += ["Nothing has changed.", ""]
        widening = [change for change in changes if change.widens]
        if widening:
            lines += [f"## Somebody reaches more ({len(widening)})", "", *_folded(list(_widened(widening))), ""]
        for title, kinds in _SECTIONS:
            chosen = [change for change in changes if change.kind in kinds]
            if chosen:
                fold = title == "Texts only"
                lines += [f"## {title} ({len(chosen)})", "", *_folded(list(_grouped(chosen)), always=fold), ""]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The same for programs, with nothing cut."""
        needed = needed_version(self.diff)
        report = {
            "level": self.diff.level.name.lower(),
            "base_version": self.diff.base.full.version,
            "head_version": self.diff.head.full.version,
            "needed_version": None if needed is None else str(needed),
            "passes": not self.findings,
            "exit_code": self.exit_code,
            "findings": [
                {"rule": f.rule, "file": f.file, "subject": f.subject, "problem": f.problem, "next_step": f.next_step}
                for f in self.findings
            ],
            "changes": [_record(change) for change in self.diff.changes],
        }
        return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()

    def _gate(self) -> Iterator[str]:
        if not self.findings:
            yield from ("**Gate: passes.**", "")
            return
        yield from (f"**Gate: fails** ({len(self.findings)}).", "")
        yield from ("| Rule | Where | What | Next step |", "|---|---|---|---|")
        yield from _fitting([_row(finding) for finding in self.findings], "| | | {} more are in the JSON form. | |")
        yield ""


def _row(finding: Finding) -> str:
    cells = (code(finding.rule), code(finding.subject), _prose(finding.problem), _prose(finding.next_step))
    return f"| {' | '.join(cells)} |"


def _widened(changes: Iterable[Change]) -> Iterator[str]:
    for change in changes:
        ways = ", ".join(code(way) for way in change.widens)
        yield f"- {_subject(change)}: {ways}"


def _grouped(changes: Iterable[Change]) -> Iterator[str]:
    """One line per subject with its changes; what a component changes is said once, with whom it reaches."""
    for _, group in groupby(changes, key=lambda change: (change.document, change.kind, change.subject)):
        together = list(group)
        said = "; ".join(f"{change.level.label} {code(_cut(change.detail))}" for change in together)
        yield f"- {_subject(together[0])}: {said}{_reaches(together)}"


def _subject(change: Change) -> str:
    own = [code(name) for name in change.operations] if _about_one_operation(change) else []
    label = " (Actions document)" if change.document == ACTIONS else ""
    return f"{' '.join([code(change.subject), *own])}{label}"


def _about_one_operation(change: Change) -> bool:
    return " /" in change.subject and len(change.operations) == 1


def _reaches(changes: Sequence[Change]) -> str:
    if all(_about_one_operation(change) for change in changes):
        return ""
    names = sorted(frozenset[str]().union(*(change.operations for change in changes)))
    if not names:
        return ""
    more = len(names) - _NAMED_OPERATIONS
    listed = ", ".join(code(name) for name in names[:_NAMED_OPERATIONS])
    return f"; reaches {listed}{f' and {more} more' if more > 0 else ''}"


def _folded(lines: Sequence[str], *, always: bool = False) -> list[str]:
    kept = _fitting(lines, "- {} more are in the JSON form.")
    if not always and len(kept) <= _FOLD_ROWS:
        return kept
    return [f"<details><summary>Show {len(lines)}</summary>", "", *kept, "", "</details>"]


def _fitting(lines: Sequence[str], rest: str) -> list[str]:
    """As many lines as a list may hold, and how many more there are."""
    lengths = list(accumulate(len(line) + 1 for line in lines))
    kept = [line for line, length in zip(lines, lengths, strict=True) if length <= _MAX_CHARACTERS]
    missing = len(lines) - len(kept)
    return [*kept, rest.format(missing)] if missing else kept


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_DETAIL else f"{text[:_MAX_DETAIL]} …"


def _prose(text: str) -> str:
    clean = "".join(c if c.isprintable() else " " for c in _cut(text))
    return "".join(f"&#{ord(c)};" if c in _SPECIAL else c for c in clean)


def _record(change: Change) -> dict[str, object]:
    return {
        "kind": change.kind,
        "level": change.level.name.lower(),
        "document": change.document,
        "subject": change.subject,
        "detail": change.detail,
        "operations": sorted(change.operations),
        "widens": list(change.widens),
    }
