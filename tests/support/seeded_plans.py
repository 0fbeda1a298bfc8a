"""
The changes of upstream's document that `contract drift` must report: some forty, of every kind and for every bucket.

Operations are chosen by what they are, never by name, and each is changed by one plan only, so that all changes can be
made together.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from codegen.contract import EVENT_STREAM, JSON, MULTIPART, Bucket, Exclusion
from codegen.drift_report import Kind, Level, Weight
from codegen.reader import Document, resolve
from codegen.request_shape import contract_shape
from codegen.upstream import VARIANT
from tests.support.seeded_changes import Change, Expected, Field, Node, NoSuchOperation, Plan, Plot, Wanted

LOOK, BREAKING = Level.LOOK, Level.BREAKING
Make = Callable[[Field], tuple[Change, tuple[Expected, ...]]]


def in_bucket(bucket: Bucket, exclusion: Exclusion | None = None) -> Wanted:
    """Whether the contract decides so."""
    return lambda plot: plot.operation.bucket is bucket and plot.operation.exclusion is exclusion


DIRECT = in_bucket(Bucket.ACTIONS_DIRECT)
PROXY = in_bucket(Bucket.PROXY_HARNESS)
WRAPPED = in_bucket(Bucket.WRAPPER_REQUIRED)
HIDDEN = in_bucket(Bucket.EXCLUDED, Exclusion.HIDDEN)
REFUSED = in_bucket(Bucket.EXCLUDED, Exclusion.UNSUPPORTED)


def served(plot: Plot) -> bool:
    """Whether anybody is answered."""
    return plot.operation.served


def alone(plot: Plot) -> bool:
    """Whether nothing else stands at its path."""
    return plot.alone


def in_braces(plot: Plot) -> bool:
    """Whether its path has a template."""
    return "{" in plot.path


def sends_json(plot: Plot) -> bool:
    """Whether its body is JSON alone."""
    return list(plot.node.get("requestBody", {}).get("content", {})) == [JSON]


def sends_much(plot: Plot) -> bool:
    """Whether its body has one of several media types."""
    return len(plot.node.get("requestBody", {}).get("content", {})) > 1


def sends_nothing(plot: Plot) -> bool:
    """Whether it takes no body."""
    return "requestBody" not in plot.node


def answers_json(plot: Plot) -> bool:
    """Whether its only reply is JSON."""
    return [*success(plot.node).get("content", {})] == [JSON]


def lasting(plot: Plot) -> bool:
    """Whether its end is not announced."""
    return not plot.node.get("deprecated")


def ending(plot: Plot) -> bool:
    """Whether its end is announced."""
    return bool(plot.node.get("deprecated"))


def success(node: Node) -> Node:
    """The first successful reply of an operation."""
    reply: Node = next(reply for code, reply in node["responses"].items() if code.startswith("2"))
    return reply


def added(place: str, method: str, suggestion: str, *, answers: str = JSON, **fields: object) -> Make:
    """
    An operation that upstream adds.

    Args:
        place: Its path; `{bucket}` stands for the area of the first operation there, below which it lies.
    """

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        areas = {
            o.exclusion or o.bucket: o.path.rsplit("/{", 1)[0].removeprefix("/v1") for o in reversed([*field.contract])
        }
        if any(f"{{{area}}}" in place for area in (*Bucket, *Exclusion) if area not in areas):
            raise NoSuchOperation
        path = place.format_map(areas)
        name = "seeded" + "".join(part.title() for part in path.replace("_", "/").split("/"))
        reply = {"200": {"description": "It.", "content": {answers: {}}}}
        expected = Expected(Kind.NEW_OPERATION, LOOK, Weight.UNCLASSIFIED, name, suggestion)
        node = {"operationId": name, "responses": reply, **fields}
        return lambda d: d["paths"].update({path: {method: deepcopy(node)}}), (expected,)

    return make


def added_variant(field: Field) -> tuple[Change, tuple[Expected, ...]]:
    """A variant of a path that had none: what is suggested is what the path is."""
    plot = field.take(PROXY, sends_nothing)
    item = {plot.method: {**plot.node, "operationId": "seededVariant"}}
    verdict = f"{plot.operation.bucket} {plot.operation.review}"
    expected = Expected(Kind.NEW_OPERATION, LOOK, plot.weight, "seededVariant", verdict)
    return lambda d: d["paths"].update({plot.path + VARIANT: deepcopy(item)}), (expected,)


def removed_variant(field: Field) -> tuple[Change, tuple[Expected, ...]]:
    """A variant that is gone while its path stays."""
    plot = field.take(lambda p: p.method in field.document["paths"][p.path + VARIANT], varied=True)
    name = field.document["paths"][plot.path + VARIANT][plot.method]["operationId"]
    return lambda d: d["paths"][plot.path + VARIANT].pop(plot.method), plot.says(Kind.REMOVED_OPERATION, LOOK, name)


def removed(level: Level, *wanted: Wanted) -> Make:
    """An operation that is gone."""

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        plot = field.take(*wanted)
        return lambda d: d["paths"][plot.path].pop(plot.method), plot.says(Kind.REMOVED_OPERATION, level)

    return make


def moved(level: Level, rename: Callable[[str], str], *wanted: Wanted) -> Make:
    """An operation at another path."""

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        plot = field.take(alone, *wanted)
        return (
            lambda d: d["paths"].update({rename(plot.path): d["paths"].pop(plot.path)}),
            plot.says(Kind.MOVED_OPERATION, level),
        )

    return make


def renamed(field: Field) -> tuple[Change, tuple[Expected, ...]]:
    """An operation under another operationId."""
    plot = field.take(PROXY)
    return lambda d: plot.here(d).update(operationId="seededName"), plot.says(
        Kind.RENAMED_OPERATION, LOOK, "seededName"
    )


def changed(kind: Kind, level: Level, change: Callable[[Node], object], *wanted: Wanted) -> Make:
    """A change of the node of one operation; of a refused one nothing that requests ask for is reported."""

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        plot = field.take(*wanted)
        reported = plot.operation.served or kind is not Kind.NEW_REQUIRED_PARAMETER
        return lambda d: change(plot.here(d)), plot.says(kind, level) if reported else ()

    return make


def asks(kind: Kind, level: Level, change: Callable[[Node], object], *wanted: Callable[[Field, Plot], bool]) -> Make:
    """A change of the schema of a JSON body, of which the operation gets a copy first."""

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        plot = field.take(
            sends_json, lambda p: "properties" in field.schema(p), lambda p: all(is_so(field, p) for is_so in wanted)
        )
        return lambda d: change(own_schema(d, plot.here(d))), plot.says(kind, level) if served(plot) else ()

    return make


def lists(kind: Kind, change: Callable[[list[str]], Node], level: Level = LOOK) -> Make:
    """Another list of words for a field, two references below the body."""

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        plot = field.take(sends_json, served, lambda p: bool(field.lists(p)))
        name, words = next(iter(field.lists(plot).items()))
        outer, inner = f"SeededFieldOf{plot.operation.id}", f"SeededWordsOf{plot.operation.id}"

        def edit(document: Document) -> None:
            own_schema(document, plot.here(document))["properties"][name] = {"$ref": f"#/components/schemas/{outer}"}
            listed = {"$ref": f"#/components/schemas/{inner}"}
            document["components"]["schemas"][outer] = {"anyOf": [listed, {"type": "null"}]}
            document["components"]["schemas"][inner] = {"type": "string", **change(words)}

        return edit, plot.says(kind, level)

    return make


def listed_in_query(kind: Kind, change: Callable[[list[str]], list[str]], level: Level) -> Make:
    """Another list of words for a parameter of the query."""

    def parameter(field: Field, plot: Plot) -> Node:
        ours = contract_shape(field.contract, plot.operation).parameters.values
        nodes = [resolve(field.document, raw) for raw in plot.node.get("parameters", ())]
        same = (
            n
            for n in nodes
            if n["in"] == "query" and ours.get(f"query {n['name']}") == frozenset(n["schema"].get("enum", ()))
        )
        return dict(next((node for node in same if node["schema"].get("enum")), {}))

    def make(field: Field) -> tuple[Change, tuple[Expected, ...]]:
        plot = field.take(served, lambda p: bool(parameter(field, p)))
        old = parameter(field, plot)
        new = {**old, "schema": {"type": "string", "enum": change(list(old["schema"]["enum"]))}}

        def edit(document: Document) -> None:
            node = plot.here(document)
            others = [raw for raw in node["parameters"] if resolve(document, raw).get("name") != old["name"]]
            node["parameters"] = [*others, new]

        return edit, plot.says(kind, level)

    return make


def ended_looseness(field: Field) -> tuple[Change, tuple[Expected, ...]]:
    """A field that upstream requires no longer, where the contract never did and says so."""
    known = {(o, d.place.removeprefix("body ")) for o, d in field.looser if d.kind == Kind.NEW_REQUIRED_FIELD}
    plot = field.take(sends_json, lambda p: (p.operation.id, first_required(field.schema(p))) in known)
    return (
        lambda d: own_schema(d, plot.here(d)).update(required=field.schema(plot)["required"][1:]),
        plot.says(Kind.LOOSENESS_ENDED, LOOK),
    )


def own_schema(document: Document, node: Node) -> Node:
    """Give an operation a copy of its JSON schema, so that no other operation changes with it."""
    node["requestBody"] = deepcopy(dict(resolve(document, node["requestBody"])))
    schema: Node = deepcopy(dict(resolve(document, node["requestBody"]["content"][JSON]["schema"])))
    node["requestBody"]["content"][JSON]["schema"] = schema
    return schema


def decided(wanted: Wanted) -> Callable[[Field, Plot], bool]:
    """The same question about an operation of a field."""
    return lambda _, plot: wanted(plot)


def first_required(schema: Mapping[str, Any]) -> str:
    """The first field that a schema requires; empty when it requires none."""
    return next(iter(schema.get("required", ())), "")


def first_optional(schema: Mapping[str, Any]) -> str:
    """The first field that a schema does not require; empty when it requires all."""
    return next((name for name in schema["properties"] if name not in schema.get("required", ())), "")


def has_optional(field: Field, plot: Plot) -> bool:
    """Whether some field is optional on both sides."""
    ours = contract_shape(field.contract, plot.operation).bodies.get(JSON)
    name = first_optional(field.schema(plot))
    return bool(ours and name and name not in ours.required)


def has_required(field: Field, plot: Plot) -> bool:
    """Whether the first required field is so on both sides."""
    ours = contract_shape(field.contract, plot.operation).bodies.get(JSON)
    return bool(ours and first_required(field.schema(plot)) in ours.required)


def require(name: Callable[[Node], str]) -> Callable[[Node], object]:
    """Require a field, which is added when the schema does not have it."""

    def change(schema: Node) -> None:
        wanted = name(schema)
        schema["required"] = [*schema.get("required", ()), wanted]
        schema["properties"].setdefault(wanted, {"type": "string"})

    return change


def require_parameter(node: Node) -> None:
    """Require a parameter of the query that nobody knew."""
    parameter = {"name": "seeded", "in": "query", "required": True, "schema": {"type": "string"}}
    node["parameters"] = [*node.get("parameters", ()), parameter]


def answers(*media: str, keep: bool) -> Callable[[Node], object]:
    """Answer in these media types, beside those of before or in their place."""

    def change(node: Node) -> None:
        reply = success(node)
        reply["content"] = {**(reply.get("content", {}) if keep else {}), **{name: {} for name in media}}

    return change


def takes(*media: str, keep: bool) -> Callable[[Node], object]:
    """Take these media types, with the schema of before, beside the others or in their place."""

    def change(node: Node) -> None:
        body = node["requestBody"]
        schema = next(iter(body["content"].values()))
        body["content"] = {**(body["content"] if keep else {}), **{name: deepcopy(schema) for name in media}}

    return change


def body_required(*, required: bool) -> Callable[[Node], object]:
    """Whether a request without a body is refused."""
    return lambda node: node["requestBody"].update(required=required)


def body_is(*, required: bool) -> Wanted:
    """Whether both sides are of one mind about a missing body, and of which."""
    return lambda p: (
        p.operation.body is not None
        and (p.operation.body.required is bool(p.node.get("requestBody", {}).get("required")) is required)
    )


A_FILE: Node = {"requestBody": {"required": True, "content": {MULTIPART: {"schema": {"type": "object"}}}}}
A_BODY: Node = {"required": True, "content": {JSON: {"schema": {"type": "object"}}}}
NEW_FIELD = require(lambda _: "seeded")
PLANS: tuple[Plan, ...] = (
    # Those with few operations to choose from come first.
    Plan("list of words narrowed", lists(Kind.NARROWED_ENUM, lambda words: {"enum": words[:-1]}, BREAKING)),
    Plan("list of words widened", lists(Kind.WIDENED_ENUM, lambda words: {"enum": [*words, "seeded"]})),
    Plan("list of words opened", lists(Kind.WIDENED_ENUM, lambda _: {})),
    Plan("new operation that reads", added("/seeded_reports", "get", "PROXY_HARNESS json_read")),
    Plan(
        "new operation beside those of the proxy",
        added("{PROXY_HARNESS}/seeded_reports", "get", "PROXY_HARNESS json_read"),
    ),
    Plan(
        "new operation with an admin key",
        added("/seeded_quotas", "get", "EXCLUDED unsupported", security=[{"AdminApiKeyAuth": []}]),
    ),
    Plan("new operation among refused ones", added("{unsupported}/seeded_reports", "get", "EXCLUDED unsupported")),
    Plan("new operation that takes a file", added("/seeded_uploads", "post", "WRAPPER_REQUIRED", **A_FILE)),
    Plan("new operation that only streams", added("/seeded_streams", "get", "WRAPPER_REQUIRED", answers=EVENT_STREAM)),
    Plan("new operation that answers audio", added("/seeded_sounds", "get", "EXCLUDED hidden", answers="audio/mpeg")),
    Plan("new operation that mints a credential", added("/seeded/client_secrets", "post", "EXCLUDED hidden")),
    Plan("new variant", added_variant),
    Plan("variant gone", removed_variant),
    Plan("Actions operation gone", removed(BREAKING, DIRECT)),
    Plan("operation for the proxy gone", removed(BREAKING, PROXY)),
    Plan("wrapped operation gone", removed(BREAKING, WRAPPED)),
    Plan("hidden operation gone", removed(BREAKING, HIDDEN)),
    Plan("refused operation gone", removed(LOOK, REFUSED)),
    Plan("operation for the proxy moved", moved(BREAKING, "{}/seeded".format, PROXY)),
    Plan("refused operation moved", moved(LOOK, "{}/seeded".format, REFUSED)),
    Plan("other names in braces", moved(LOOK, lambda path: path.replace("{", "{seeded_"), PROXY, in_braces)),
    Plan("operationId changed", renamed),
    Plan("request media gained", changed(Kind.REQUEST_MEDIA, LOOK, takes(MULTIPART, keep=True), PROXY, sends_json)),
    Plan("request media lost", changed(Kind.REQUEST_MEDIA, BREAKING, takes(JSON, keep=False), served, sends_much)),
    Plan(
        "request media of a refused operation",
        changed(Kind.REQUEST_MEDIA, LOOK, takes("text/csv", keep=False), REFUSED, sends_json),
    ),
    Plan(
        "body where none was",
        changed(Kind.REQUEST_MEDIA, BREAKING, lambda n: n.update(requestBody=A_BODY), PROXY, sends_nothing),
    ),
    Plan(
        "reply media gained", changed(Kind.RESPONSE_MEDIA, LOOK, answers(EVENT_STREAM, keep=True), PROXY, answers_json)
    ),
    Plan(
        "reply media lost", changed(Kind.RESPONSE_MEDIA, BREAKING, answers("text/csv", keep=False), PROXY, answers_json)
    ),
    Plan(
        "reply media of a refused operation",
        changed(Kind.RESPONSE_MEDIA, LOOK, answers("text/csv", keep=False), REFUSED, answers_json),
    ),
    Plan("end announced", changed(Kind.NEWLY_DEPRECATED, LOOK, lambda n: n.update(deprecated=True), PROXY, lasting)),
    Plan(
        "end of a refused operation announced",
        changed(Kind.NEWLY_DEPRECATED, LOOK, lambda n: n.update(deprecated=True), REFUSED, lasting),
    ),
    Plan("end taken back", changed(Kind.NO_LONGER_DEPRECATED, LOOK, lambda n: n.pop("deprecated"), ending)),
    Plan("required field of an Actions operation", asks(Kind.NEW_REQUIRED_FIELD, BREAKING, NEW_FIELD, decided(DIRECT))),
    Plan(
        "required field of an operation for the proxy",
        asks(Kind.NEW_REQUIRED_FIELD, BREAKING, NEW_FIELD, decided(PROXY)),
    ),
    Plan("required field of a wrapped operation", asks(Kind.NEW_REQUIRED_FIELD, BREAKING, NEW_FIELD, decided(WRAPPED))),
    Plan("required field of a hidden operation", asks(Kind.NEW_REQUIRED_FIELD, BREAKING, NEW_FIELD, decided(HIDDEN))),
    Plan("required field of a refused operation", asks(Kind.NEW_REQUIRED_FIELD, BREAKING, NEW_FIELD, decided(REFUSED))),
    Plan(
        "optional field that is required now",
        asks(Kind.NEW_REQUIRED_FIELD, BREAKING, require(first_optional), decided(served), has_optional),
    ),
    Plan(
        "field that is required no longer",
        asks(
            Kind.NO_LONGER_REQUIRED, LOOK, lambda s: s.update(required=s["required"][1:]), decided(served), has_required
        ),
    ),
    Plan("required parameter", changed(Kind.NEW_REQUIRED_PARAMETER, BREAKING, require_parameter, PROXY, sends_nothing)),
    Plan(
        "required parameter of a refused operation",
        changed(Kind.NEW_REQUIRED_PARAMETER, BREAKING, require_parameter, REFUSED),
    ),
    Plan(
        "list of words of the query narrowed", listed_in_query(Kind.NARROWED_ENUM, lambda words: words[:-1], BREAKING)
    ),
    Plan(
        "list of words of the query widened", listed_in_query(Kind.WIDENED_ENUM, lambda words: [*words, "seeded"], LOOK)
    ),
    Plan(
        "body that is required now",
        changed(Kind.NEW_REQUIRED_BODY, BREAKING, body_required(required=True), served, body_is(required=False)),
    ),
    Plan(
        "body that is required no longer",
        changed(Kind.NO_LONGER_REQUIRED, LOOK, body_required(required=False), PROXY, body_is(required=True)),
    ),
    Plan("known looseness that ended", ended_looseness),
)
