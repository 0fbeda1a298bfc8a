"""
Where objects live: the collections that the contract's paths describe, and the way from a path to an object.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codegen.contract import Operation
from handlers.simulated_upstream import special_cases
from handlers.simulated_upstream.errors import NotFound
from handlers.simulated_upstream.objects import Collection, KeptObject
from handlers.simulated_upstream.shapes import Shapes


@dataclass(frozen=True)
class Place:
    """
    What a path means.

    Args:
        params: Names of its template parameters, one per object on the way.
        collections: Names of the collections on the way, such as `v1/vector_stores` and `files`.
        templates: The same as paths with unnamed parameters, such as `/v1/vector_stores/{}/files`.
        on_item: Whether the operation is about the last object on the way, not about the collection behind it.
        creator: The operation that creates objects of the collection that it is about; `None` when none does.
        key_field: Field of such an object that stands in paths.
    """

    operation: Operation
    params: tuple[str, ...]
    collections: tuple[str, ...]
    templates: tuple[str, ...]
    on_item: bool
    creator: Operation | None
    key_field: str


class Places:
    """All places of the served operations, and the root of the tree of kept objects."""

    def __init__(self, operations: Iterable[Operation], shapes: Shapes) -> None:
        self._root: dict[str, Collection] = {}
        self._shapes = shapes
        operations = list(operations)
        items = {_unnamed(o.path) for o in operations}
        self._creators: dict[str, Operation] = {}
        for operation in operations:
            template = _unnamed(operation.path)
            has_items = any(path.startswith(f"{template}/{{}}") for path in items)
            if operation.method == "POST" and has_items and self._makes_objects(operation):
                self._creators[template] = operation
        self._retrievers = {
            _unnamed(operation.path.rpartition("/{")[0]): operation
            for operation in operations
            if operation.method == "GET" and operation.path.endswith("}")
        }
        self._places = {operation.id: self._place(operation, operations) for operation in operations}

    def of(self, operation: Operation) -> Place:
        """The place of a served operation."""
        return self._places[operation.id]

    def walk(self, place: Place, path_params: Mapping[str, str]) -> list[KeptObject]:
        """
        Follow a path to its objects.

        Returns:
            One object per template parameter. Where nobody can create objects (models, checkpoints), one made for the
            occasion stands for any id.

        Raises:
            NotFound: An object that somebody could have created does not exist (404).
        """
        chain: list[KeptObject] = []
        for name, collection_name, template in zip(place.params, place.collections, place.templates, strict=False):
            key = path_params[name]
            collections = chain[-1].children if chain else self._root
            collection = collections.get(collection_name)
            kept = collection.get(key) if collection is not None else None
            if kept is None:
                kept = special_cases.generated(key, self._example(template))
            if kept is None and template in self._creators:
                raise NotFound(f"No such object: '{name}' does not exist.", param=name)
            chain.append(kept or KeptObject({**self._example(template), "id": key}))
        return chain

    def clear(self) -> None:
        """Forget every object."""
        self._root.clear()

    def collection(self, place: Place, chain: Sequence[KeptObject]) -> Collection:
        """The collection that a place is about, made when it is missing; `chain` holds the objects above it."""
        name = place.collections[len(chain)]
        children = chain[-1].children if chain else self._root
        return children.setdefault(name, Collection())

    def existing(self, place: Place, chain: Sequence[KeptObject]) -> Collection | None:
        """The collection that a place is about, `None` when nothing was ever put there."""
        children = chain[-1].children if chain else self._root
        return children.get(place.collections[len(chain)])

    def _makes_objects(self, operation: Operation) -> bool:
        shape = self._shapes.of(operation)
        example = shape.example if shape is not None else None
        return isinstance(example, dict) and ("id" in example or example.get("object") == "list")

    def _place(self, operation: Operation, operations: Sequence[Operation]) -> Place:
        params = tuple(re.findall(r"\{([^}]+)\}", operation.path))
        literals = re.split(r"/\{[^}]+\}", operation.path)
        tail = literals[-1]
        collections = tuple(part.strip("/") for part in literals if part)
        templates = tuple(
            _unnamed(operation.path[: found.start()]) for found in re.finditer(r"/\{[^}]+\}", operation.path)
        )
        template = _unnamed(operation.path)
        about = template if tail else templates[-1]
        creator = self._creators.get(about)
        on_item = not tail or (creator is None and self._acts_on_item(operation, templates))
        return Place(operation, params, collections, templates, on_item, creator, self._key_field(about, operations))

    def _acts_on_item(self, operation: Operation, templates: Sequence[str]) -> bool:
        """Whether a path with a verb at its end (`…/{batch_id}/cancel`) answers with the object before the verb."""
        if operation.method != "POST" or not templates or operation.id in special_cases.CREATES_LIKE:
            return False
        shape = self._shapes.of(operation)
        example = shape.example if shape is not None else None
        owner = self._example(templates[-1])
        return isinstance(example, dict) and "id" in example and example.get("object") == owner.get("object")

    def _key_field(self, template: str, operations: Sequence[Operation]) -> str:
        item = next((o for o in operations if _unnamed(o.path) == f"{template}/{{}}"), None)
        if item is None:
            return "id"
        name = item.path.rpartition("{")[2].rstrip("}")
        return name if name in self._example(template) else "id"

    def _example(self, template: str) -> dict[str, Any]:
        """What an object of a collection looks like; empty when no operation shows one."""
        operation = self._creators.get(template) or self._retrievers.get(template)
        shape = self._shapes.of(operation) if operation is not None else None
        return shape.example if shape is not None and isinstance(shape.example, dict) else {}


def _unnamed(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "{}", path)
