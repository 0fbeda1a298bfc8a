"""
Holds the order of spec/openapi.full.yaml (style guide, Spec), and shows that each rule can fail.

Not for: what the decisions mean (`test_spec_policy`), whether examples are right (`test_spec_examples`) or the form of
the text (`test_spec_text`). Opens no sockets.
"""

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest

from codegen.contract import ACTIONS, FULL, read_contract
from codegen.document_rules import ORDER_RULES, key_order, methods_in_order, paths_by_tag, paths_in_order
from codegen.document_rules import DocumentRule as OrderRule
from codegen.reader import Document
from tests.support.documents import ROOT, node_of, nodes

DOCUMENT = read_contract(ROOT).document
MAX_SUMMARY_CHARS = 119
TOP_LEVEL = ["openapi", "info", "servers", "security", "x-policy-reviews", "tags", "paths", "components"]
KINDS = ["securitySchemes", "headers", "parameters", "requestBodies", "responses", "schemas", "examples"]

Change = Callable[[Document], object]
DocumentRule = Callable[[Document], list[str]]


def in_order(found: list[Any], wanted: list[Any]) -> bool:
    """Whether all that is found is known and stands in the wanted order."""
    return [item for item in wanted if item in found] == found


def references(node: Any) -> Iterator[str]:
    """Every reference to a component, as `kind/name`."""
    return (found[1] for found in re.finditer(r'"#/components/([^"]+)"', json.dumps(node)))


def top_level_order(document: Document) -> list[str]:
    """The document begins with what it is and ends with what it is made of."""
    return [] if in_order(list(document), TOP_LEVEL) else list(document)


def one_declared_tag(document: Document) -> list[str]:
    """Every operation has exactly one tag, which the table of contents declares, and every declared tag is used."""
    declared = [tag["name"] for tag in document["tags"]]
    used = [node["tags"] for _, node in nodes(document)]
    wrong = [where for where, node in nodes(document) if len(node["tags"]) != 1 or node["tags"][0] not in declared]
    return wrong + [name for name in declared if [name] not in used] + [n for n in declared if declared.count(n) > 1]


def parameters_of_the_template(document: Document) -> list[str]:
    """Each template of a path is described once, at the path, by the component of its own name."""
    wrong = []
    for path, item in document["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        if item.get("parameters", []) != [{"$ref": f"#/components/parameters/{name}"} for name in names]:
            wrong.append(path)
        wrong += [
            f"{path}: {name}"
            for name in names
            if not {"name": name, "in": "path", "required": True}.items()
            <= document["components"]["parameters"].get(name, {}).items()
        ]
    return wrong


def components_in_order(document: Document) -> list[str]:
    """Components stand by kind, and within their kind by name."""
    components = document["components"]
    wrong = [] if in_order(list(components), KINDS) else list(components)
    return wrong + [
        kind for kind, found in components.items() if kind != "securitySchemes" and list(found) != sorted(found)
    ]


def components_used(document: Document) -> list[str]:
    """Every component is used by some operation, if only through others."""
    components = document["components"]
    reached: set[str] = set()
    waiting = set(references(document["paths"]))
    while waiting:
        place = waiting.pop()
        reached.add(place)
        kind, name = place.split("/")
        waiting |= set(references(components[kind][name])) - reached
    schemes = {
        name for node in (document, *(n for _, n in nodes(document))) for s in node.get("security", ()) for name in s
    }
    reached |= {f"securitySchemes/{name}" for name in schemes}
    return sorted({f"{kind}/{name}" for kind, found in components.items() for name in found} - reached)


def summaries_are_phrases(document: Document) -> list[str]:
    """A served operation has a summary: a capital, a full stop, short enough for one line, not two sentences' worth."""
    wrong = []
    for where, node in nodes(document):
        summary = node.get("summary", "")
        if node.get("x-policy-exclusion") == "unsupported" and not summary:
            continue
        if not re.fullmatch(r"[A-Z][^\n]*\.", summary) or len(summary) > MAX_SUMMARY_CHARS:
            wrong.append(where)
    return wrong


def descriptions_are_sentences(document: Document) -> list[str]:
    """Descriptions of operations, tags, parameters, bodies and replies end as sentences do and repeat no path."""
    named = [(where, node.get("description", "It.")) for where, node in nodes(document)]
    named += [(f"tag {tag['name']}", tag.get("description", "")) for tag in document["tags"]]
    for kind in ("parameters", "requestBodies", "responses", "headers"):
        named += [(f"{kind}/{n}", c.get("description", "It.")) for n, c in document["components"].get(kind, {}).items()]
    return [where for where, text in named if not re.fullmatch(r"(?s)[A-Z`].*\.", text.strip()) or "/v1/" in text]


def one_wording_per_reason(document: Document) -> list[str]:
    """Reasons that say the same say it in the same words: they differ in more than case, dots or blanks."""
    reasons = {node["x-policy-reason"] for _, node in nodes(document) if "x-policy-reason" in node}
    plain: dict[str, str] = {}
    return [
        reason for reason in sorted(reasons) if plain.setdefault(re.sub(r"\W", "", reason).lower(), reason) != reason
    ]


def move_first(mapping: dict[str, Any], key: str) -> None:
    """Give a key the first place in its mapping."""
    rest = {name: mapping.pop(name) for name in list(mapping) if name != key}
    mapping.update(rest)


BROKEN_DOCUMENTS: dict[str, tuple[DocumentRule, Change, str]] = {
    "top level: components first": (top_level_order, lambda d: move_first(d, "components"), "components"),
    "top level: something new": (top_level_order, lambda d: d.update(webhooks={}), "webhooks"),
    "tag: undeclared": (one_declared_tag, lambda d: node_of(d, "listModels").update(tags=["Model"]), "GET /v1/models"),
    "tag: two": (one_declared_tag, lambda d: node_of(d, "listModels")["tags"].append("Files"), "GET /v1/models"),
    "tag: none": (one_declared_tag, lambda d: node_of(d, "listModels").update(tags=[]), "GET /v1/models"),
    "tag: unused": (one_declared_tag, lambda d: d["tags"].append({"name": "Spare"}), "Spare"),
    "tag: declared twice": (one_declared_tag, lambda d: d["tags"].append({"name": "Files"}), "Files"),
    "parameters: missing": (
        parameters_of_the_template,
        lambda d: d["paths"]["/v1/files/{file_id}"].pop("parameters"),
        "/v1/files/{file_id}",
    ),
    "parameters: of another name": (
        parameters_of_the_template,
        lambda d: d["components"]["parameters"]["file_id"].update(name="id"),
        "/v1/files/{file_id}: file_id",
    ),
    "components: kinds": (components_in_order, lambda d: move_first(d["components"], "schemas"), "schemas"),
    "components: names": (
        components_in_order,
        lambda d: move_first(d["components"]["responses"], "Probe"),
        "responses",
    ),
    "components: unused": (
        components_used,
        lambda d: d["components"]["schemas"].update(Spare={"$ref": "#/components/schemas/Spare"}),
        "schemas/Spare",
    ),
    "components: unused scheme": (
        components_used,
        lambda d: d["components"]["securitySchemes"].update(cookie={}),
        "securitySchemes/cookie",
    ),
    "summary: missing": (
        summaries_are_phrases,
        lambda d: node_of(d, "listModels").pop("summary"),
        "GET /v1/models",
    ),
    "summary: no full stop": (
        summaries_are_phrases,
        lambda d: node_of(d, "listModels").update(summary="List models"),
        "GET /v1/models",
    ),
    "summary: no capital": (
        summaries_are_phrases,
        lambda d: node_of(d, "listModels").update(summary="list models."),
        "GET /v1/models",
    ),
    "summary: too long": (
        summaries_are_phrases,
        lambda d: node_of(d, "listModels").update(summary=f"L{'o' * MAX_SUMMARY_CHARS}ng."),
        "GET /v1/models",
    ),
    "description: no full stop": (
        descriptions_are_sentences,
        lambda d: node_of(d, "listModels").update(description="All of them"),
        "GET /v1/models",
    ),
    "description: of a tag": (descriptions_are_sentences, lambda d: d["tags"][0].pop("description"), "tag Relay"),
    "description: repeats the path": (
        descriptions_are_sentences,
        lambda d: node_of(d, "listModels").update(description="Calls /v1/models."),
        "GET /v1/models",
    ),
    "reason: another spelling": (
        one_wording_per_reason,
        lambda d: node_of(d, "createFile").update(
            {"x-policy-reason": node_of(d, "createFile")["x-policy-reason"].upper() + "."}
        ),
        "Actions and the proxy cannot carry multipart bodies.",
    ),
}
DOCUMENT_RULES = {rule: None for rule, _, _ in BROKEN_DOCUMENTS.values()}


@pytest.mark.parametrize("rule", DOCUMENT_RULES, ids=lambda rule: rule.__name__)
def test_the_document_keeps(rule: DocumentRule) -> None:
    """The document follows the rule that the function's docstring states."""
    assert rule(DOCUMENT) == []


@pytest.mark.parametrize("rule, change, culprit", BROKEN_DOCUMENTS.values(), ids=BROKEN_DOCUMENTS.keys())
def test_a_document_out_of_order_is_found(rule: DocumentRule, change: Change, culprit: str) -> None:
    """The rule names what breaks it in an edited copy."""
    copy = deepcopy(DOCUMENT)
    change(copy)
    assert culprit in rule(copy)


BROKEN_ORDERS: dict[str, tuple[OrderRule, Change, str]] = {
    "paths: against the tags": (paths_by_tag, lambda d: move_first(d["paths"], "/v1/files"), "/docs"),
    "paths: two tags on one path": (
        paths_by_tag,
        lambda d: node_of(d, "createFile").update(tags=["Uploads"]),
        "/v1/files",
    ),
    "paths: item before collection": (
        paths_in_order,
        lambda d: move_first(d["paths"], "/v1/files/{file_id}"),
        "/v1/files",
    ),
    "paths: by template before by name": (
        paths_in_order,
        lambda d: move_first(d["paths"], "/v1/responses/{response_id}"),
        "/v1/responses",
    ),
    "methods: post before get": (methods_in_order, lambda d: move_first(d["paths"]["/v1/files"], "post"), "/v1/files"),
    "methods: parameters last": (
        methods_in_order,
        lambda d: move_first(d["paths"]["/v1/files/{file_id}"], "get"),
        "/v1/files/{file_id}",
    ),
    "methods: head": (methods_in_order, lambda d: d["paths"]["/v1/files"].update(head={}), "/v1/files"),
    "keys: responses first": (
        key_order,
        lambda d: move_first(node_of(d, "listModels"), "responses"),
        "GET /v1/models",
    ),
    "keys: bucket not under the id": (
        key_order,
        lambda d: move_first(node_of(d, "listModels"), "x-policy-bucket"),
        "GET /v1/models",
    ),
    "keys: unknown": (key_order, lambda d: node_of(d, "listModels").update(servers=[]), "GET /v1/models"),
    "keys: of the Actions document": (
        key_order,
        lambda d: node_of(d, "listModels").update({"x-openai-isConsequential": True}),
        "GET /v1/models",
    ),
    "paths: of an undeclared tag": (
        paths_by_tag,
        lambda d: node_of(d, "listModels").update(tags=["Model"]),
        "/v1/models",
    ),
}


@pytest.mark.parametrize("name", [FULL, ACTIONS])
@pytest.mark.parametrize("rule", ORDER_RULES, ids=lambda rule: rule.__name__)
def test_both_documents_keep(rule: OrderRule, name: str) -> None:
    """The document follows the rule that the function's docstring states."""
    assert list(rule(name, read_contract(ROOT, name).document)) == []


@pytest.mark.parametrize("rule, change, culprit", BROKEN_ORDERS.values(), ids=BROKEN_ORDERS.keys())
def test_a_broken_order_is_found(rule: OrderRule, change: Change, culprit: str) -> None:
    """The rule of `codegen.document_rules` names what breaks it in an edited copy."""
    copy = deepcopy(DOCUMENT)
    change(copy)
    assert culprit in {finding.subject for finding in rule(FULL, copy)}


def test_every_order_is_shown_to_break() -> None:
    """No rule is without a case that breaks it."""
    assert {rule for rule, _, _ in BROKEN_ORDERS.values()} == set(ORDER_RULES)
