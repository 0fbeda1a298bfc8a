"""
Edits of a copied contract in a few words: operations chosen by what they are, and changes of their fields.

Not for: saying which edits are bad (`operation_mutations` and its neighbours).
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from codegen.contract import ACTIONS, FULL, TOKEN_SCHEME, Bucket, Contract, Exclusion, Operation, Scope
from codegen.document_rules import KEY_ORDER
from codegen.naming import importer_name
from codegen.reader import Document
from tests.support.documents import DECISION, node_of
from tests.support.mutations import Checkout, Edit

Node = dict[str, Any]
Pick = Callable[[Contract], Operation]
Change = Callable[[Node], object]


def first(wanted: Callable[[Operation], bool]) -> Pick:
    """The first operation of the contract that is so."""
    return lambda contract: next(operation for operation in contract if wanted(operation))


def decided(bucket: Bucket, exclusion: Exclusion | None = None) -> Pick:
    """The first operation with this verdict."""
    return first(lambda o: o.bucket is bucket and o.exclusion is exclusion)


DIRECT = first(lambda o: o.bucket is Bucket.ACTIONS_DIRECT and o.mirrored)
ASKED = first(lambda o: o.bucket is Bucket.ACTIONS_DIRECT and o.mirrored and o.body is not None and o.json_only)
DASHED = first(lambda o: o.bucket is Bucket.ACTIONS_DIRECT and importer_name(o.id) != o.id)
PROXY = decided(Bucket.PROXY_HARNESS)
OPENED_BY_PROXY = first(lambda o: o.scopes == {Scope.PROXY})
WRAPPED = first(lambda o: o.bucket is Bucket.WRAPPER_REQUIRED and bool(o.wrapper))
WRAPPER = first(lambda o: bool(o.wraps))
CARRIER = first(lambda o: o.carries is not None)
HIDDEN = decided(Bucket.EXCLUDED, Exclusion.HIDDEN)
UNSUPPORTED = decided(Bucket.EXCLUDED, Exclusion.UNSUPPORTED)
INTERNAL = decided(Bucket.EXCLUDED, Exclusion.INTERNAL)


def on(pick: Pick, change: Change, name: str = FULL) -> Edit:
    """An edit of one operation, chosen from the full document, in either."""

    def edit(checkout: Checkout) -> None:
        operation_id = pick(checkout.full).id
        own = importer_name(operation_id) if name == ACTIONS else operation_id
        checkout.change(name, lambda d: change(node_of(d, own)))

    return edit


def give(fields: Node) -> Change:
    """Write fields into an operation, each at its place in the order of keys."""

    def change(node: Node) -> None:
        node.update(deepcopy(fields))
        in_order(node)

    return change


def lose(*names: str) -> Change:
    """Take fields out of an operation."""
    return lambda node: [node.pop(name) for name in names]


def decide(**fields: object) -> Change:
    """Give an operation another decision; the fields of the old one go away."""

    def change(node: Node) -> None:
        for name in DECISION:
            node.pop(name, None)
        give({f"x-policy-{name}": value for name, value in fields.items()})(node)

    return change


def to_proxy(pick: Pick) -> Edit:
    """An edit that lets an operation into the proxy, with a review that exists."""
    return lambda c: on(pick, decide(bucket="PROXY_HARNESS", review=next(iter(c.full.reviews))))(c)


def answering(*media: str) -> Change:
    """Give an operation a success of these media types."""
    return give({"responses": {"200": {"description": "It.", "content": {name: {} for name in media}}}})


def opened_to(*scopes: str) -> Change:
    """Give an operation other scopes; none opens it to everybody."""
    return give({"security": [{"relayBearer": [scope]} for scope in scopes]})


def taking_tokens(*scopes: str) -> Change:
    """Let access tokens with these scopes open an operation as well."""
    return lambda node: node.update(
        security=[*node.get("security", ()), *({TOKEN_SCHEME: [scope]} for scope in scopes)]
    )


def in_order(node: Node) -> None:
    """Put the keys of an operation in their order, those without one last."""
    known = {key: place for place, key in enumerate(KEY_ORDER)}
    for key in sorted(node, key=lambda key: known.get(key, len(known))):
        node[key] = node.pop(key)


def renamed(mapping: dict[str, Any], old: str, new: str) -> None:
    """Give a key another name; it keeps its place."""
    for key in list(mapping):
        mapping[new if key == old else key] = mapping.pop(key)


def renamed_path(pick: Pick, rename: Callable[[str], str], name: str = FULL) -> Edit:
    """An edit of a path key; it keeps its place."""

    def edit(checkout: Checkout) -> None:
        path = pick(checkout.full).path
        checkout.change(name, lambda d: renamed(d["paths"], path, rename(path)))

    return edit


def removed(pick: Pick, name: str) -> Edit:
    """An edit that takes an operation out of a document, and its path when nothing else is there."""

    def remove(document: Document, operation: Operation) -> None:
        item = document["paths"][operation.path]
        del item[operation.method.lower()]
        if not any(isinstance(value, dict) for value in item.values()):
            del document["paths"][operation.path]

    return lambda checkout: checkout.change(name, lambda d: remove(d, pick(checkout.full)))


def listed_in_actions(pick: Pick, path: str = "", **fields: str) -> Edit:
    """
    An edit that lists an operation in the Actions document as well, in the form of one that is there.

    Args:
        path: Where, other than at its own path.
        fields: What it has instead of its own identity and decision.
    """

    def edit(checkout: Checkout) -> None:
        operation = pick(checkout.full)
        own = node_of(checkout.full.document, operation.id)
        identity = {key: own[key] for key in ("operationId", "x-policy-bucket", *DECISION) if key in own}
        node = deepcopy(node_of(checkout.actions.document, ASKED(checkout.full).id))
        give({**identity, **fields})(node)
        checkout.change(ACTIONS, lambda d: insert_path(d, path or operation.path, {operation.method.lower(): node}))

    return edit


def second(pick: Pick, rename: Callable[[str], str]) -> Edit:
    """An edit that writes an operation once more, at a path and under an operationId of its own."""

    def edit(checkout: Checkout) -> None:
        operation = pick(checkout.full)
        item = {operation.method.lower(): deepcopy(node_of(checkout.full.document, operation.id))}
        item[operation.method.lower()]["operationId"] += "Again"
        checkout.change(FULL, lambda d: insert_path(d, rename(operation.path), item))

    return edit


def swapped(mapping: dict[str, Any], one: str, other: str) -> None:
    """Let two keys of a mapping change places."""
    places = {one: other, other: one}
    values = dict(mapping)
    mapping.clear()
    mapping.update({places.get(key, key): values[places.get(key, key)] for key in values})


def insert_path(document: Document, path: str, item: Node) -> None:
    """Write a path where the order wants it."""
    tags = [tag["name"] for tag in document["tags"]]

    def place(path: str) -> tuple[int, list[tuple[bool, str]]]:
        tag = next(node["tags"][0] for node in document["paths"][path].values() if isinstance(node, dict))
        return tags.index(tag), [(segment.startswith("{"), segment) for segment in path.split("/")]

    document["paths"][path] = deepcopy(item)
    document["paths"] = {path: document["paths"][path] for path in sorted(document["paths"], key=place)}
