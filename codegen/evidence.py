"""
Reads and writes `tests/evidence.tsv`: what the integration tests have had answered and refused, by operation.

Measured, never written by hand: the tests take it from the logs of the relays that they run. Not for: judging it
(`codegen.coverage`). Reads the file it is given, writes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codegen.exceptions import UnreadableDocument

EVIDENCE = Path("tests/evidence.tsv")
COMMAND = "./scripts/test integration -- --update-evidence"
COLUMNS = ("operationId", "answered", "refused", "lock_lines")
_HEAD = f"# Measured by `{COMMAND}`. Do not edit."
_MARKS = {"✔": True, "-": False}
_CELLS = {marked: mark for mark, marked in _MARKS.items()}


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What the integration tests have seen of one operation.

    Args:
        answered: A relay has answered it, with a status below 400.
        refused: A relay has refused it, with an error of its own.
        lock_lines: How many lines of the upstream lock were asked for it; variants have lines of their own.
    """

    answered: bool = False
    refused: bool = False
    lock_lines: int = 0


NOT_SEEN = Evidence()


def evidence_table(evidence: Mapping[str, Evidence]) -> str:
    """
    Write what was seen as a table.

    Args:
        evidence: By operationId, in the order of the contract.

    Returns:
        The text of `tests/evidence.tsv`.
    """
    lines = [_HEAD, "\t".join(COLUMNS)]
    for operation_id, seen in evidence.items():
        marks = (_CELLS[seen.answered], _CELLS[seen.refused], str(seen.lock_lines))
        lines.append("\t".join((operation_id, *marks)))
    return "".join(f"{line}\n" for line in lines)


def read_evidence(path: Path) -> Mapping[str, Evidence]:
    """
    Read the table.

    Returns:
        What was seen, by operationId.

    Raises:
        UnreadableDocument: The file is missing, or a line is not one that the tests write.
    """
    try:
        head, columns, *lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise UnreadableDocument(f"{path}: must be the table of evidence; run `{COMMAND}`.") from None
    if (head, tuple(columns.split("\t"))) != (_HEAD, COLUMNS):
        raise UnreadableDocument(f"{path}:1: must begin as the tests write it; run `{COMMAND}`.")
    evidence: dict[str, Evidence] = {}
    for number, line in enumerate(lines, 3):
        operation_id, *cells = line.split("\t")
        if operation_id in evidence or len(cells) != 3 or not {*cells[:2]} <= _MARKS.keys() or not cells[2].isdecimal():
            raise UnreadableDocument(f"{path}:{number}: must be a line as the tests write it; run `{COMMAND}`.")
        evidence[operation_id] = Evidence(_MARKS[cells[0]], _MARKS[cells[1]], int(cells[2]))
    return evidence
