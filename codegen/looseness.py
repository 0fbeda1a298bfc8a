"""
Reads `spec/upstream.looser.tsv`: where our contract knowingly allows what upstream's document refuses, with the reason.

Edited by hand, no command writes it, and it may only shrink: a line that upstream no longer needs is reported.
"""

from dataclasses import dataclass, field
from pathlib import Path

from codegen.contract import Contract
from codegen.exceptions import InvalidContract
from codegen.request_difference import LOOSER as LOOSER_KINDS
from codegen.request_difference import Difference

LOOSER = Path("spec/upstream.looser.tsv")
COLUMNS = ("operationId", "kind", "place", "value", "reason")


@dataclass(frozen=True, slots=True)
class Looseness:
    """
    One line of the file.

    Args:
        difference: What is allowed; its value is empty for what is not required.
        reason: Why, for people; two lines that differ in it alone are the same.
    """

    operation_id: str
    difference: Difference
    reason: str = field(default="", compare=False)


def read_looseness(root: Path, contract: Contract) -> frozenset[Looseness]:
    """
    Read the file of a checkout.

    Returns:
        Its lines; none when the file does not exist, which is the strictest case.

    Raises:
        InvalidContract: A line has other cells, gives no reason, stands twice or names no operation of the contract.
    """
    path = root / LOOSER
    if not path.exists():
        return frozenset()
    head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    findings = [] if tuple(head.split("\t")) == COLUMNS else [f"{LOOSER}:1: must hold {', '.join(COLUMNS)}."]
    known: set[Looseness] = set()
    for number, line in enumerate(lines, 2):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != len(COLUMNS) or not all(cells):
            findings.append(f"{LOOSER}:{number}: must hold {len(COLUMNS)} cells, `-` for no value, and a reason.")
            continue
        operation_id, kind, place, value, reason = cells
        entry = Looseness(operation_id, Difference(kind, place, "" if value == "-" else value), reason)
        if kind not in LOOSER_KINDS:
            findings.append(f"{LOOSER}:{number}: the kind must be one of {', '.join(sorted(LOOSER_KINDS))}.")
        if operation_id not in contract.operations:
            findings.append(f"{LOOSER}:{number}: `{operation_id}` must be an operation of the contract.")
        if entry in known:
            findings.append(f"{LOOSER}:{number}: stands twice; delete one of them.")
        known.add(entry)
    if findings:
        raise InvalidContract(findings)
    return frozenset(known)
