"""
What a change of upstream's document is made of: an operation of its own, an edit, and what the report must hold then.

Not for: which changes there are (`seeded_plans`) or comparing the report with them (`seeded_drift`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codegen.contract import JSON, Bucket, Contract, Exclusion, Operation
from codegen.drift_report import Kind, Level, Weight
from codegen.reader import Document, resolve
from codegen.request_difference import Difference
from codegen.request_shape import contract_shape
from codegen.upstream import PREFIX, VARIANT

Node = dict[str, Any]
Change = Callable[[Document], object]
Wanted = Callable[["Plot"], bool]


class NoSuchOperation(Exception):
    """No operation of the document is what a change needs, or none is left."""


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What the report must hold.

    Args:
        operation_id: As upstream has it after the change.
        suggestion: The bucket that is proposed for a new operation.
    """

    kind: Kind
    level: Level
    weight: Weight
    operation_id: str
    suggestion: str = ""

    def __str__(self) -> str:
        words = (self.kind, self.level.name.lower(), self.weight.name.lower(), self.operation_id)
        return " ".join(words) + (f" → {self.suggestion}" if self.suggestion else "")


@dataclass(frozen=True, slots=True)
class Seed:
    """A change of the document, made in place, and what the report must hold then."""

    name: str
    edit: Change
    expected: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A change whose operation is still to be found."""

    name: str
    make: Callable[["Field"], tuple[Change, tuple[Expected, ...]]]

    def seed(self, field: "Field") -> Seed:
        """
        Find it an operation.

        Raises:
            NoSuchOperation: There is none for it.
        """
        return Seed(self.name, *self.make(field))


@dataclass(frozen=True, slots=True)
class Plot:
    """
    One operation of upstream's document, with what the contract decides about it.

    Args:
        path: As in the document; likewise `method`.
        varied: Whether the path has a variant.
        alone: Whether the path has no other operation.
    """

    operation: Operation
    path: str
    method: str
    node: Node
    varied: bool
    alone: bool

    @property
    def weight(self) -> Weight:
        """Whom a change of it concerns, by GOVERNANCE.md, section 4."""
        if self.operation.exclusion is Exclusion.UNSUPPORTED:
            return Weight.REFUSED
        exposed = self.operation.bucket in {Bucket.ACTIONS_DIRECT, Bucket.PROXY_HARNESS} or self.operation.wrapper
        return Weight.EXPOSED if exposed else Weight.SERVED

    def here(self, document: Document) -> Node:
        """Its node in a copy of the document."""
        node: Node = document["paths"][self.path][self.method]
        return node

    def says(self, kind: Kind, level: Level, operation_id: str = "") -> tuple[Expected]:
        """What the report must hold about it."""
        return (Expected(kind, level, self.weight, operation_id or self.node["operationId"]),)


class Field:
    """
    The operations of a document, to be taken once each.

    Args:
        contract: The full one of the project.
        document: That of upstream, which the contract agrees with.
        looser: Where the contract knowingly takes more: operationId and what upstream's document refuses.
    """

    def __init__(self, contract: Contract, document: Document, looser: Iterable[tuple[str, Difference]]) -> None:
        self.contract = contract
        self.document = document
        self.looser = frozenset(looser)
        self._free = list(self._plots())

    def take(self, *wanted: Wanted, varied: bool = False) -> Plot:
        """
        The first operation that is all this and whose path was not taken yet.

        Args:
            varied: Whether its path has a variant.

        Raises:
            NoSuchOperation: There is none.
        """
        for plot in self._free:
            if plot.varied is varied and all(is_so(plot) for is_so in wanted):
                self._free = [other for other in self._free if other.path != plot.path]
                return plot
        raise NoSuchOperation

    def schema(self, plot: Plot) -> Mapping[str, Any]:
        """The schema of the JSON body of an operation; empty without one."""
        content = resolve(self.document, plot.node.get("requestBody", {})).get("content", {})
        return resolve(self.document, content.get(JSON, {}).get("schema", {}))

    def lists(self, plot: Plot) -> dict[str, list[str]]:
        """The fields of a body whose closed list of words is the same in contract and document."""
        ours = contract_shape(self.contract, plot.operation).bodies.get(JSON)
        found = {}
        for name, schema in self.schema(plot).get("properties", {}).items():
            words = resolve(self.document, schema).get("enum", ())
            closed = ours.values.get(name) if ours else None
            if closed and len(words) > 1 and closed == frozenset(words):
                found[name] = list(words)
        return found

    def _plots(self) -> Iterator[Plot]:
        for operation in self.contract:
            path, method = operation.path.removeprefix(PREFIX), operation.method.lower()
            item = self.document["paths"].get(path, {})
            if method in item:
                varied = f"{path}{VARIANT}" in self.document["paths"]
                yield Plot(operation, path, method, item[method], varied, len(item.keys() - {"parameters"}) == 1)
