"""
Counts what the pinned inventory of the upstream holds and where the contract stands towards it.

Not for: changes since then (`codegen.drift`). Reads `spec/upstream.lock.tsv` and `spec/upstream.looser.tsv`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codegen.contract import Contract
from codegen.looseness import Looseness, read_looseness
from codegen.pin import LOCK, read_lock
from codegen.upstream import UpstreamOperation


@dataclass(frozen=True, slots=True)
class UpstreamSummary:
    """
    The pinned inventory in numbers.

    Args:
        pinned: Lines of the lock file.
        variants: Lines that are variants of another path.
        deprecated: Lines that upstream marks so, variants apart.
        served: Pinned operations that the contract lists and the relay answers.
        refused: Pinned operations that the contract lists and the relay always refuses.
        missing: Pinned operations that the contract does not list; `contract check` refuses any.
        looser: Where the contract takes more than upstream's document, sorted.
    """

    pinned: int
    variants: int
    deprecated: int
    served: int
    refused: int
    missing: int
    looser: tuple[Looseness, ...]

    @property
    def listed(self) -> int:
        """Pinned operations that the contract lists."""
        return self.served + self.refused


def summarise_upstream(root: Path, contract: Contract) -> UpstreamSummary:
    """
    Count the pinned inventory of a checkout against its contract.

    Args:
        root: The project's folder.
        contract: The full document.

    Raises:
        UnreadableDocument: The lock file is missing or damaged.
        InvalidContract: A line of `spec/upstream.looser.tsv` is wrong.
    """
    return count_upstream(read_lock(root / LOCK).values(), read_looseness(root, contract), contract)


def count_upstream(
    pinned: Iterable[UpstreamOperation], looser: Iterable[Looseness], contract: Contract
) -> UpstreamSummary:
    """
    Count pinned operations against a contract.

    A variant counts as one more line, not as one more operation: the contract lists the path once.
    """
    lines = list(pinned)
    plain = [line for line in lines if not line.variant]
    ours = {(operation.path, operation.method): operation for operation in contract}
    listed = [ours[line.plain_place] for line in plain if line.plain_place in ours]
    return UpstreamSummary(
        pinned=len(lines),
        variants=len(lines) - len(plain),
        deprecated=sum(line.deprecated for line in plain),
        served=sum(operation.served for operation in listed),
        refused=sum(not operation.served for operation in listed),
        missing=len(plain) - len(listed),
        looser=tuple(sorted(looser, key=lambda entry: (entry.operation_id, entry.difference))),
    )
