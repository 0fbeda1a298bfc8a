"""
Rules that a document keeps by itself, read as plain data, so that one which does not load is still explained.

Not for: what holds between operations or between documents (`codegen.rules`). Each rule takes the name of a document
and its data and yields findings without lines; `codegen.check` adds those.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema_rs

from codegen.contract import ACTIONS, METHODS
from codegen.findings import Finding
from codegen.reader import Document, references

KEY_ORDER = (
    "operationId",
    "x-policy-bucket",
    "x-policy-reason",
    "x-policy-wrapper",
    "x-policy-wraps",
    "x-policy-carries",
    "x-policy-exclusion",
    "x-policy-review",
    "x-sunset",
    "x-openai-isConsequential",  # in the Actions document alone
    "summary",
    "description",
    "tags",
    "deprecated",
    "parameters",
    "requestBody",
    "responses",
    "security",
)
# The rule that a field of an operation belongs to, where it is not `closed-vocabulary`.
FIELD_RULES = {
    "operationId": "unique-operation-ids",
    "x-policy-bucket": "bucket-total",
    "x-policy-exclusion": "bucket-total",
    "x-policy-reason": "reason-given",
    "x-policy-review": "proxy-reviewed",
    "x-policy-wrapper": "wrapper-links",
    "x-policy-wraps": "wrapper-links",
    "x-policy-carries": "carrier-as-carried",
    "deprecated": "deprecated-with-sunset",
    "x-sunset": "deprecated-with-sunset",
}
Validator = jsonschema_rs.Validator
SHAPES = {"info": dict, "tags": list, "paths": dict, "components": dict}
DocumentRule = Callable[[str, Document], Iterator[Finding]]


def policy_fields(name: str, document: Document, schema: Document) -> Iterator[Finding]:
    """Every policy field is as spec/policy.schema.yaml says; a finding names the rule that its field belongs to."""
    next_step = "Write what spec/policy.schema.yaml allows there"
    kinds = ("operation", "reviews", "tag")
    operation, reviews, tag = (jsonschema_rs.validator_for({**schema, "$ref": f"#/$defs/{kind}"}) for kind in kinds)
    for where, node in operation_nodes(document):
        wrong = [
            (FIELD_RULES.get(field, "closed-vocabulary"), problem) for field, problem in _schema_errors(operation, node)
        ]
        # Without a bucket it is open which other fields belong there.
        bucketless = [found for found in wrong if "`x-policy-bucket`" in found[1]]
        for rule, problem in bucketless or wrong:
            yield found_in(name, rule, where, problem, next_step)
    for record, problem in _schema_errors(reviews, document.get("x-policy-reviews", {})):
        yield found_in(name, "proxy-reviewed", f"x-policy-reviews {record}".strip(), problem, next_step)
    for entry in _listed(document, "tags"):
        for _, problem in _schema_errors(tag, entry):
            yield found_in(name, "closed-vocabulary", f"tag {entry.get('name')}", problem, next_step)


def document_loads(name: str, document: Document) -> Iterator[Finding]:
    """What the model stands on has its shape, and every reference leads to a component of the same document."""
    for part, shape in SHAPES.items():
        if not isinstance(document.get(part), shape):
            yield _unloadable(name, part, f"must be a {'list' if shape is list else 'mapping'}")
    if not isinstance(_mapping(document, "info").get("version"), str):
        yield _unloadable(name, "info version", "must be a semantic version")
    if any(not isinstance(tag.get("name"), str) for tag in _listed(document, "tags")):
        yield _unloadable(name, "tags", "every tag must have a name")
    for path, item in _mapping(document, "paths").items():
        if not isinstance(path, str) or not isinstance(item, dict):
            yield _unloadable(name, str(path), "must be a path with a mapping of methods")
            continue
        for method in METHODS:
            if method in item and not isinstance(item[method], dict):
                yield _unloadable(name, f"{method.upper()} {path}", "must be a mapping")
    for where, node in _parts(document):
        for key in (key for key in _keys(node) if not isinstance(key, str)):
            yield _unloadable(name, where, f"the key `{key}` must be text in quotes")
    components = _mapping(document, "components")
    known = {f"#/components/{kind}/{key}" for kind in components for key in _mapping(components, kind)}
    for where, reference in _references(document):
        if reference not in known:
            yield _unloadable(name, where, f"`$ref: {reference}` leads to no component of this document")


def unique_operation_ids(name: str, document: Document) -> Iterator[Finding]:
    """No operationId stands twice."""
    known: dict[str, str] = {}
    for where, node in operation_nodes(document):
        key = str(node.get("operationId"))
        if "operationId" in node and known.setdefault(key, where) != where:
            problem = f"operationId `{key}` is taken by {known[key]}"
            yield found_in(name, "unique-operation-ids", where, problem, "Choose another")


def no_wildcard(name: str, document: Document) -> Iterator[Finding]:
    """One operation, one path: no wildcard, no template that takes several segments, no query, no two that overlap."""
    next_step = "Write one operation per path"
    known: dict[str, str] = {}
    for path, _ in _items(document):
        if re.search(r"\*|{path}|{[^}]*[^\w}][^}]*}|[?#]|^/(v1/)?{", path) or not path.startswith("/"):
            yield found_in(
                name, "no-wildcard", path, "a wildcard, a query or a template of more than a value", next_step
            )
        same = known.setdefault(re.sub(r"{[^}]*}", "{}", path), path)
        if same != path:
            yield found_in(name, "no-wildcard", path, f"the same path as {same} under other names", next_step)


def named_reviews(name: str, document: Document) -> Iterator[Finding]:
    """A review that an operation names stands in the document's `x-policy-reviews`."""
    records = document.get("x-policy-reviews", {})
    for where, node in operation_nodes(document):
        review = node.get("x-policy-review")
        if isinstance(review, str) and isinstance(records, dict) and review not in records:
            problem = f"no record `{review}` in x-policy-reviews"
            yield found_in(name, "proxy-reviewed", where, problem, "Add it or name one that exists")


def policy_fields_in_place(name: str, document: Document) -> Iterator[Finding]:
    """A policy field stands on an operation or a tag, and the reviews at the top of the document; nowhere else."""
    operations = dict(operation_nodes(document))
    places = [(key, key) for key in document if key != "x-policy-reviews"]
    places += [(path, key) for path, item in _items(document) for key in item]
    # An operation's own fields are those of the vocabulary; what lies below them is not.
    places += [(where, key) for where, node in operations.items() for key in _keys([*node.values()])]
    places += [(where, key) for where, node in _parts(document) if where not in operations for key in _keys(node)]
    for where, key in dict.fromkeys(places):
        if str(key).startswith("x-policy-"):
            yield found_in(name, "closed-vocabulary", str(where), f"`{key}` must not stand here", "Delete it")


def key_order(name: str, document: Document) -> Iterator[Finding]:
    """An operation holds identity and decision, then prose, then input, then output, and nothing else."""
    wanted = [key for key in KEY_ORDER if name == ACTIONS or not key.startswith("x-openai-")]
    for where, node in operation_nodes(document):
        if strangers := [str(key) for key in node if key not in wanted]:
            problem = f"`{'`, `'.join(strangers)}` must not be in an operation of this document"
            yield found_in(name, "key-order", where, problem, "Delete it")
        elif list(node) != (right := [key for key in wanted if key in node]):
            problem = f"the keys must stand in the order `{' '.join(right)}`"
            yield found_in(name, "key-order", where, problem, "Move them")


def paths_by_tag(name: str, document: Document) -> Iterator[Finding]:
    """A path's operations share its tag, and paths follow the table of contents."""
    order = [tag.get("name") for tag in _listed(document, "tags")]
    highest = 0
    for path, item in _items(document):
        tags = _tags(item)
        if len(tags) != 1 or tags[0] not in order:
            yield _misplaced(name, path, "its operations must share one tag that the document declares")
            continue
        place = order.index(tags[0])
        if place < highest:
            yield _misplaced(name, path, f"must stand with the other paths of `{tags[0]}`, before `{order[highest]}`")
        highest = max(highest, place)


def paths_in_order(name: str, document: Document) -> Iterator[Finding]:
    """Within a tag a collection stands before its items and those before their parts, each level by name."""
    last: dict[str, tuple[list[tuple[bool, str]], str]] = {}
    for path, item in _items(document):
        tag = " ".join(_tags(item))
        here = [(segment.startswith("{"), segment) for segment in path.split("/")]
        before, neighbour = last.get(tag, ([], ""))
        if here <= before:
            yield _misplaced(name, path, f"must stand before {neighbour}")
        last[tag] = (here, path)


def methods_in_order(name: str, document: Document) -> Iterator[Finding]:
    """A path item holds its parameters, then its methods in the usual order, and nothing else."""
    wanted = ["parameters", *METHODS]
    for path, item in _items(document):
        if list(item) != [key for key in wanted if key in item]:
            yield _misplaced(name, path, f"must hold, in this order, only {', '.join(wanted)}")


LOAD_RULES: tuple[DocumentRule, ...] = (
    document_loads,
    unique_operation_ids,
    no_wildcard,
    named_reviews,
    policy_fields_in_place,
)
ORDER_RULES: tuple[DocumentRule, ...] = (key_order, paths_by_tag, paths_in_order, methods_in_order)


def found_in(name: str, rule: str, subject: str, problem: str, next_step: str) -> Finding:
    """A finding about a hand-written document, its line still open."""
    return Finding(rule, f"spec/{name}.yaml", 0, subject, problem, next_step)


def operation_nodes(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation that is a mapping, with its place as `METHOD /path`."""
    for path, item in _items(document):
        for key, node in item.items():
            if key in METHODS and isinstance(node, dict):
                yield f"{key.upper()} {path}", node


def _items(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in _mapping(document, "paths").items():
        if isinstance(path, str) and isinstance(item, dict):
            yield path, item


def _mapping(node: Mapping[str, Any], key: str) -> dict[Any, Any]:
    value = node.get(key)
    return value if isinstance(value, dict) else {}


def _listed(document: Document, key: str) -> list[dict[str, Any]]:
    value = document.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _tags(item: Mapping[str, Any]) -> list[str]:
    nodes = [node for key, node in item.items() if key in METHODS and isinstance(node, dict)]
    return sorted({str(tag) for node in nodes if isinstance(node.get("tags"), list) for tag in node["tags"]})


def _schema_errors(validator: Validator, node: Any) -> Iterator[tuple[str, str]]:
    """The field (or record) at fault and what is wrong with it."""
    try:
        for error in validator.iter_errors(node):
            match error.kind:
                case jsonschema_rs.ValidationErrorKind.Required(missing):
                    path, problem = [*error.instance_path, missing], "must be given"
                case jsonschema_rs.ValidationErrorKind.FalseSchema():
                    path, problem = error.instance_path, "must not stand here"
                case _:
                    path, problem = error.instance_path, f"is wrong: {error.message}"
            yield str(path[0]) if path else "", f"`{'.'.join(str(part) for part in path)}` {problem}"
    except (TypeError, ValueError):
        return  # a key that is not text: `build_contract` refuses it and says so


def _references(document: Document) -> Iterator[tuple[str, str]]:
    """Every `$ref` with the operation or component that holds it."""
    for where, start in _parts(document):
        if not where.startswith("examples "):  # these hold data
            yield from ((where, reference) for reference in references(start))


def _parts(document: Document) -> Iterator[tuple[str, Any]]:
    """Every operation, the parameters of every path and every component, with its name for people."""
    yield from operation_nodes(document)
    yield from ((path, item.get("parameters")) for path, item in _items(document))
    components = _mapping(document, "components")
    for kind in components:
        yield from ((f"{kind} {key}", node) for key, node in _mapping(components, kind).items())


def _keys(node: Any) -> Iterator[Any]:
    """Every key of every mapping inside a part of a document."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            yield from part


def _unloadable(name: str, where: str, problem: str) -> Finding:
    return found_in(name, "document-loads", where, problem, "Compare with a neighbour that works")


def _misplaced(name: str, path: str, problem: str) -> Finding:
    return found_in(name, "path-order", path, problem, "Move it")
