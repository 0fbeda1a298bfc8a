"""
The typed model of the contract: one immutable `Operation` per operation, used by the runtime and by every tool.

Not for: reading files (`codegen.reader`) or writing any (`codegen.render`). A contract that is not totally and
exclusively classified does not load.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from codegen.exceptions import InvalidContract, UnreadableDocument
from codegen.policy_fields import PolicyFields
from codegen.reader import Document, read_json, read_yaml, resolve

METHODS = ("get", "post", "put", "patch", "delete")  # the order in which a path item lists them
FULL = "openapi.full"
ACTIONS = "openapi.actions"
EVENT_STREAM = "text/event-stream"
JSON = "application/json"
TOKEN_SCHEME = "relayToken"  # noqa: S105 - the name of a security scheme
MULTIPART = "multipart/form-data"
# What reading plain data of another shape than expected ends in.
_WRONG_SHAPE = (AttributeError, KeyError, TypeError, ValueError)


class Bucket(StrEnum):
    """Who may reach an operation besides SDK clients."""

    ACTIONS_DIRECT = "ACTIONS_DIRECT"
    PROXY_HARNESS = "PROXY_HARNESS"
    WRAPPER_REQUIRED = "WRAPPER_REQUIRED"
    EXCLUDED = "EXCLUDED"


class Exclusion(StrEnum):
    """What EXCLUDED means for an operation."""

    UNSUPPORTED = "unsupported"
    HIDDEN = "hidden"
    INTERNAL = "internal"


class Scope(StrEnum):
    """What a key may be used for; the contract's `security` names one or more of these."""

    ACTIONS = "actions"
    PROXY = "proxy"
    CANONICAL = "canonical"
    REALTIME = "realtime"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Parameter:
    """
    One parameter of an operation, references resolved.

    Args:
        location: `path`, `query` or `header`.
        schema: Its JSON Schema, as in the document; may hold references into the document.
    """

    name: str
    location: str
    required: bool
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Media:
    """
    One media type of a body.

    Args:
        pointer: JSON Pointer to its schema inside the document, `None` when it has no schema.
        examples: Name to value.
    """

    media_type: str
    pointer: str | None
    examples: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Body:
    """The request body of an operation, by media type."""

    required: bool
    content: Mapping[str, Media]


@dataclass(frozen=True)
class Operation:
    """
    One operation of the contract.

    Args:
        id: Its operationId.
        method: Upper case.
        path: The template, such as `/v1/files/{file_id}`.
        mirrored: Whether its tag holds the upstream's operations.
        carries: The bucket whose operations its messages call; `None` on all others.
        scopes: Any one of them opens the operation; empty means that it is open to everybody.
        token_scopes: Those of them that an access token may bring; empty where only relay keys are taken.
        responses: Status code or `default` to media types, each empty when the response has no content.
        sunset: Date (`YYYY-MM-DD`) on which upstream ends it.
    """

    id: str
    method: str
    path: str
    tag: str
    mirrored: bool
    summary: str
    bucket: Bucket
    reason: str
    exclusion: Exclusion | None
    wrapper: str
    wraps: tuple[str, ...]
    carries: Bucket | None
    review: str
    deprecated: bool
    sunset: str
    scopes: frozenset[Scope]
    token_scopes: frozenset[Scope]
    parameters: tuple[Parameter, ...]
    body: Body | None
    responses: Mapping[str, Mapping[str, Media]]

    @cached_property
    def success(self) -> tuple[str, Mapping[str, Media]]:
        """The first 2xx response: status code and media types; `("", {})` when none is declared."""
        return next(((code, media) for code, media in self.responses.items() if code.startswith("2")), ("", {}))

    @cached_property
    def request_media(self) -> frozenset[str]:
        """Media types that its request body may have."""
        return frozenset(self.body.content) if self.body else frozenset()

    @cached_property
    def response_media(self) -> frozenset[str]:
        """Media types of all its 2xx responses."""
        return frozenset(m for code, media in self.responses.items() if code.startswith("2") for m in media)

    @cached_property
    def multipart(self) -> bool:
        """Whether a request may be multipart."""
        return MULTIPART in self.request_media

    @cached_property
    def streaming(self) -> bool:
        """Whether a reply may be an event stream."""
        return EVENT_STREAM in self.response_media

    @cached_property
    def streaming_only(self) -> bool:
        """Whether every successful reply is an event stream."""
        return self.response_media == {EVENT_STREAM}

    @cached_property
    def binary(self) -> bool:
        """Whether a successful reply may be something else than JSON, an event stream or text."""
        return any(not _is_textual(media_type) for media_type in self.response_media)

    @cached_property
    def colon_path(self) -> bool:
        """Whether the path carries a custom verb, as in `/v1/responses:stream`."""
        return ":" in self.path

    @cached_property
    def content_path(self) -> bool:
        """Whether the path names the raw content of an object."""
        return self.path.endswith("/content")

    @cached_property
    def json_only(self) -> bool:
        """Whether requests and successful replies are JSON or empty."""
        return self.request_media <= {JSON} and self.response_media <= {JSON}

    @cached_property
    def open(self) -> bool:
        """Whether it needs no key."""
        return not self.scopes

    @cached_property
    def served(self) -> bool:
        """Whether anybody is ever answered."""
        return self.exclusion is not Exclusion.UNSUPPORTED

    @cached_property
    def published(self) -> bool:
        """Whether it stands in the documents that the relay publishes."""
        return self.exclusion is not Exclusion.INTERNAL

    def parameters_in(self, location: str) -> tuple[Parameter, ...]:
        """Its parameters in `path`, `query` or `header`."""
        return tuple(p for p in self.parameters if p.location == location)


@dataclass(frozen=True)
class Review:
    """Why a kind of operation may pass through the proxy."""

    name: str
    requirement: str
    risk: str
    since: str


@dataclass(frozen=True)
class Contract:
    """
    One document with all its operations.

    Args:
        document: The document itself; never changed.
        operations: In the document's order, by operationId.
    """

    name: str
    document: Document
    operations: Mapping[str, Operation]
    reviews: Mapping[str, Review] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations.values())

    @property
    def version(self) -> str:
        """`info.version`, the contract's semantic version."""
        return str(self.document["info"]["version"])

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Declared tags: the table of contents, in order."""
        return tuple(tag["name"] for tag in self.document.get("tags", ()))


def read_contract(root: Path, name: str = FULL) -> Contract:
    """
    Read a hand-written document from a checkout.

    Args:
        root: The project's folder.
        name: `openapi.full` or `openapi.actions`.

    Raises:
        UnreadableDocument: A file cannot be read.
        InvalidContract: The policy fields or the structure break the contract's rules.
    """
    schema = read_yaml(root / "spec" / "policy.schema.yaml")
    return build_contract(name, read_yaml(root / "spec" / f"{name}.yaml"), policy_schema=schema)


def load_contract(folder: Path, name: str = FULL) -> Contract:
    """
    Load a generated document, as the runtime does.

    Args:
        folder: `spec/generated` of the installation.

    Raises:
        UnreadableDocument: The file is missing or damaged.
        InvalidContract: An operation is not classified.
    """
    return build_contract(name, read_json(folder / f"{name}.json"))


def build_contract(name: str, document: Document, *, policy_schema: Document | None = None) -> Contract:
    """
    Build the typed model of a document.

    Args:
        policy_schema: `spec/policy.schema.yaml`; when given, every `x-policy-*` field is held against it.

    Raises:
        InvalidContract: With one finding per broken rule.
    """
    try:
        return _build(name, document, policy_schema)
    except _WRONG_SHAPE as error:
        raise InvalidContract([f"spec/{name}.yaml: {_describe(error)}"]) from None


def _build(name: str, document: Document, policy_schema: Document | None) -> Contract:
    findings: list[str] = []
    operations: dict[str, Operation] = {}
    check = PolicyFields(policy_schema)
    findings += [*check.tags(document), *check.reviews(document)]
    reviews = {key: Review(name=key, **value) for key, value in document.get("x-policy-reviews", {}).items()}
    mirrored = frozenset(tag["name"] for tag in document.get("tags", ()) if tag.get("x-policy-mirrored"))
    for path, item in document.get("paths", {}).items():
        for method in (key for key in item if key in METHODS):
            where = f"{method.upper()} {path}"
            wrong = _unclassified(where, item[method]) or check.operation(where, item[method])
            if not wrong:
                try:
                    operation = _operation(document, path, method, mirrored)
                except (*_WRONG_SHAPE, UnreadableDocument) as error:
                    wrong = [f"{where}: {_describe(error)}"]
                else:
                    wrong = _conflicts(where, operation, operations, reviews)
                    operations.setdefault(operation.id, operation)
            findings += wrong
    if findings:
        raise InvalidContract([f"spec/{name}.yaml: {finding}" for finding in findings])
    return Contract(name=name, document=document, operations=operations, reviews=reviews)


def _describe(error: Exception) -> str:
    return f"cannot be read ({type(error).__name__}: {error}); compare with a neighbour that works."


def _unclassified(where: str, node: Mapping[str, Any]) -> list[str]:
    if node.get("x-policy-bucket") in set(Bucket):
        return []
    return [f"{where}: unclassified; `x-policy-bucket` must be one of {', '.join(Bucket)}."]


def _conflicts(
    where: str, operation: Operation, known: Mapping[str, Operation], reviews: Mapping[str, Review]
) -> list[str]:
    findings = []
    if operation.id in known:
        findings.append(
            f"{where}: operationId `{operation.id}` is taken by {known[operation.id].path}; choose another."
        )
    if operation.review and operation.review not in reviews:
        findings.append(f"{where}: no record `{operation.review}` in x-policy-reviews; add it or name one that exists.")
    if "*" in operation.path or "{path}" in operation.path:
        findings.append(f"{where}: wildcard paths are not allowed; write one operation per path.")
    return findings


def _operation(document: Document, path: str, method: str, mirrored_tags: frozenset[str]) -> Operation:
    item = document["paths"][path]
    node = item[method]
    (tag,) = node["tags"]
    bucket = Bucket(node["x-policy-bucket"])
    pointer = f"#/paths/{_escape(path)}/{method}"
    return Operation(
        id=node["operationId"],
        method=method.upper(),
        path=path,
        tag=tag,
        mirrored=tag in mirrored_tags,
        summary=node.get("summary", ""),
        bucket=bucket,
        reason=node.get("x-policy-reason", ""),
        exclusion=Exclusion(node["x-policy-exclusion"]) if bucket is Bucket.EXCLUDED else None,
        wrapper=node.get("x-policy-wrapper", ""),
        wraps=tuple(node.get("x-policy-wraps", ())),
        carries=Bucket(node["x-policy-carries"]) if "x-policy-carries" in node else None,
        review=node.get("x-policy-review", ""),
        deprecated=node.get("deprecated", False),
        sunset=node.get("x-sunset", ""),
        scopes=_scopes(node, document),
        token_scopes=_scopes(node, document, TOKEN_SCHEME),
        parameters=tuple(_parameters(document, [*item.get("parameters", ()), *node.get("parameters", ())])),
        body=_body(document, node["requestBody"], f"{pointer}/requestBody") if "requestBody" in node else None,
        responses={
            code: _content(document, response, f"{pointer}/responses/{code}")
            for code, response in node["responses"].items()
        },
    )


def _scopes(node: Mapping[str, Any], document: Document, only: str = "") -> frozenset[Scope]:
    """The scopes that open an operation, by any scheme or by one alone."""
    # Only an operation itself opens itself; a document that forgot its `security` opens nothing.
    alternatives = node["security"] if "security" in node else document["security"]
    if not isinstance(alternatives, list) or not (alternatives or "security" in node):
        raise ValueError("`security` must be a list, and only an operation's own may be empty")
    scopes = []
    for alternative in alternatives:
        ((scheme, names),) = alternative.items()
        (name,) = names  # exactly one scope per alternative, so that "any one opens it" is the whole rule
        scopes += [Scope(name)] if only in {"", scheme} else []
    return frozenset(scopes)


def _parameters(document: Document, nodes: Iterable[Mapping[str, Any]]) -> Iterator[Parameter]:
    for raw in nodes:
        node = resolve(document, raw)
        yield Parameter(
            name=node["name"], location=node["in"], required=node.get("required", False), schema=node["schema"]
        )


def _body(document: Document, node: Mapping[str, Any], pointer: str) -> Body:
    target = resolve(document, node)
    return Body(required=target.get("required", False), content=_content(document, node, pointer))


def _content(document: Document, node: Mapping[str, Any], pointer: str) -> dict[str, Media]:
    pointer = node.get("$ref", pointer)
    content = {}
    for media_type, media in resolve(document, node).get("content", {}).items():
        place = f"{pointer}/content/{_escape(media_type)}/schema"
        examples = {key: resolve(document, value)["value"] for key, value in media.get("examples", {}).items()}
        content[media_type] = Media(media_type, place if "schema" in media else None, examples)
    return content


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _is_textual(media_type: str) -> bool:
    return media_type in {JSON, "application/sdp"} or media_type.startswith("text/")
