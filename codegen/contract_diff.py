"""
Compares two editions of the contract, both documents at once, and says which level of section 9 the changes have.

Not for: whether the change is allowed (`codegen.diff_gate`) or how it is shown (`codegen.diff_report`). Reads and
writes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.changes import Change, Pairing, merged, paired
from codegen.decision_difference import decision_changes
from codegen.document_difference import document_changes, leftover
from codegen.exceptions import UnreadableDocument
from codegen.operation_difference import shape_changes
from codegen.revision import Side
from codegen.semver import Level

# What reading plain data of another shape than OpenAPI's ends in.
_WRONG_SHAPE = (AttributeError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class ContractDiff:
    """
    What has changed between two sides.

    Args:
        full: The operations of the full document, before and after.
        actions: Those of the Actions document.
        changes: In the order of the report.
    """

    base: Side
    head: Side
    full: Pairing
    actions: Pairing
    changes: tuple[Change, ...]

    @property
    def level(self) -> Level:
        """The highest level of all changes."""
        return max((change.level for change in self.changes), default=Level.NONE)


def compare(base: Side, head: Side) -> ContractDiff:
    """
    Find what has changed.

    Raises:
        UnreadableDocument: A reference leads nowhere, or a part of a document is not what OpenAPI says.
    """
    full, actions = paired(base.full, head.full), paired(base.actions, head.actions)
    try:
        changes = merged([*_changes(full), *_changes(actions)])
    except _WRONG_SHAPE as error:
        raise UnreadableDocument(
            f"{base.label} and {head.label} cannot be compared ({type(error).__name__}: {error}). "
            "Run `contract check` on both of them."
        ) from None
    return ContractDiff(base, head, full, actions, changes)


def _changes(pairing: Pairing) -> Iterator[Change]:
    if pairing.old is pairing.new:
        return
    found = [*document_changes(pairing), *decision_changes(pairing), *shape_changes(pairing)]
    yield from found
    yield from leftover(pairing, found=bool(found))
