"""
Schemathesis over the documents that the relay publishes: its settings, and what is held against every reply.

Besides schemathesis' own checks there is one of ours, the witness: a request that the relay refuses never reaches the
upstream, one that it passes on reaches it once, and a wrapper asks for nothing but what it wraps.
"""

import base64
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import requests
import schemathesis
from schemathesis import Case, Response
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    ensure_resource_availability,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
    unsupported_method,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from codegen.contract import ACTIONS, EVENT_STREAM, FULL, JSON, METHODS, MULTIPART, Operation, load_contract
from codegen.publication import published_document
from codegen.reader import Document, resolve
from handlers.runtime.app import GENERATED
from handlers.runtime.sockets import is_socket
from handlers.simulated_upstream.recorder import Recorder
from tests.support.contract_requests import calls_upstream
from tests.support.file_server import FileServer, whole
from tests.support.servers import HOST, RelayProcess

# `scripts/fuzz` sets these; the defaults are what CI has time for.
MAX_EXAMPLES = int(os.environ.get("FUZZ_MAX_EXAMPLES", "12"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))

REFUSALS = frozenset({"relay_auth_error", "relay_policy_error", "relay_contract_error", "relay_limit_error"})
PLAIN_ID = re.compile(r"[A-Za-z0-9_.:-]+")
CURSORS = frozenset({"after", "before", "limit"})
# A wrapper may find out from the upstream's answer that it has to refuse: a file is no text, or finds no room here.
LATE_REFUSALS = frozenset({"not_text", "artifact_store_full"})
# What importers' documents cannot say about a body, since they know neither alternatives nor patterns.
UNSAID: Mapping[str, frozenset[str]] = {
    "forwardRequest": frozenset({"malformed_json", "duplicate_key", "invalid_body", "invalid_parameter"}),
    "uploadFile": frozenset({"invalid_body"}),
    "sendUploadPart": frozenset({"invalid_body"}),
    "editImages": frozenset({"invalid_body"}),
}
FILES, BASE64, KEY = "openaiFileIdRefs", "content_base64", "idempotency_key"
MAX_INLINE_BYTES = 30_000
MAX_KEY_CHARACTERS = 100
_NUMBERS = count()  # one row for both documents: the relay remembers keys of the one when the other is fuzzed
# Of a conversation; which one a wrapper is given depends on what it reads.
IMAGE, RECORDING = ("/image.png", "image/png", b"\x89PNG\r\n"), ("/recording.mp3", "audio/mpeg", b"ID3")

CONTRACT = load_contract(GENERATED, FULL)
OPERATIONS = {f"{operation.method} {operation.path}": operation for operation in CONTRACT}
READS_STATE = "getResponse"  # as often as a wrapper of responses likes, while it waits


# The Actions document is the narrower of two that one relay serves.
NARROWER: tuple[CheckFunction, ...] = (
    allow_header_conformance,  # a path has more methods in the full document, and `Allow` names them
    unsupported_method,  # as before: those methods are answered
    negative_data_rejection,  # requests are held against the full document, whose bounds are wider
)


def load_schema(name: str = FULL) -> OpenApiSchema:
    """A document as the relay publishes it, ready to be fuzzed."""
    document = published_document(load_contract(GENERATED, name))
    if name == ACTIONS:
        document = nullable_replies(document)
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "suppress-health-check": ["all"],  # the largest bodies take long to draw; pytest's time is the bound
            "phases": {"stateful": {"link-calibration": False}},  # it would remember earlier chains
            "generation": {
                "max-examples": MAX_EXAMPLES,
                "deterministic": SEED == 0,
                "database": "none",
                "with-security-parameters": False,  # a key of our own goes along; `ignored_auth` sends others
            },
        }
    )
    return schemathesis.openapi.from_dict(document, config=config)


def nullable_replies(document: Document) -> Document:
    """
    Let a field of a reply that may be absent be null as well.

    The Actions importer takes no type but a single plain one, so its document cannot say "or null".
    """
    paths = {
        path: {
            key: {**value, "responses": _nullable(document, value["responses"])} if key in METHODS else value
            for key, value in item.items()
        }
        for path, item in document["paths"].items()
    }
    return {**document, "paths": paths}


@schemathesis.serializer("application/sdp")
def _serialize_sdp(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    return str(value).encode("utf-8", "replace")


def _nullable(document: Document, node: Any) -> Any:
    if isinstance(node, list):
        return [_nullable(document, item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _nullable(document, value) for key, value in resolve(document, node).items()}
    for name, schema in node.get("properties", {}).items():
        if name not in node.get("required", ()):
            node["properties"][name] = {"anyOf": [schema, {"type": "null"}]}
    return node


@dataclass
class Fuzzer:
    """
    Sends generated requests through the relay and holds every reply against the contract.

    Args:
        recorder: Of the upstream behind the relay; nobody else may use it meanwhile.
        files: The only server that the relay may fetch files from.
        seen: How many replies came from the upstream, and how many refusals of each type from the relay.
    """

    relay: RelayProcess
    recorder: Recorder
    files: FileServer
    session: requests.Session
    seen: Counter[str] = field(default_factory=Counter)
    _guarded: set[str] = field(default_factory=set)

    @property
    def transport(self) -> dict[str, Any]:
        """How requests are sent: where to, and with which key."""
        return {"base_url": self.relay.url, "headers": dict(self.relay.headers), "session": self.session}

    def check(self, case: Case[Any], *, excluded: Sequence[CheckFunction] = ()) -> None:
        """
        Send one request and check its reply.

        Args:
            excluded: Checks that say nothing about the whole document.

        Raises:
            AssertionError: The contract promises something else, or a refused request reached the upstream.
        """
        __tracebackhide__ = True
        self.validate(case, self.call(case), excluded=excluded)

    def call(self, case: Case[Any]) -> Response:
        """Send one request; the witness counts what reaches the upstream meanwhile."""
        operation = OPERATIONS[case.operation.label]
        if operation.wraps and case.meta is not None and case.meta.generation.mode.is_positive:
            self._make_sense(case, operation)
        before = self.recorder.count
        response = case.call(**self.transport)
        new = self.recorder.count - before
        arrived = [record.operation_id for record in self.recorder.requests[-new:]] if new else []
        if operation.wraps and case.method == operation.method:  # others are tried at the same path
            self.seen[wrapper_witness(response, arrived, operation, len(_named_files(case)))] += 1
        elif operation.carries and response.status_code < 300:
            # What is in the message is a call of its own; the examples hold one that reaches the upstream.
            assert new <= 1, f"one message became {new} requests"
            self.seen["carried"] += 1
        else:
            self.seen[witness(response, new)] += 1
        return response

    def _make_sense(self, case: Case[Any], operation: Operation) -> None:
        """
        Let a body that is meant to be good mean something.

        Made-up links lead nowhere, made-up text is no Base64, and generated keys repeat, so that most of what fits the
        document would be refused before anything is done.
        """
        body = dict(_object_sent(case))
        if _named_files(case):
            path, media_type, content = IMAGE if "Image" in operation.tag or "Video" in operation.tag else RECORDING
            self.files.answers[path] = whole([content], length=len(content), media_type=media_type)
            link = self.files.link(path, host=HOST)
            body[FILES] = [{**one, "download_link": link} if isinstance(one, dict) else link for one in body[FILES]]
        if BASE64 in body:
            body[BASE64] = base64.b64encode(body[BASE64].encode()[:MAX_INLINE_BYTES]).decode()
        if KEY in body:
            body[KEY] = f"{next(_NUMBERS)}:{body[KEY][:MAX_KEY_CHARACTERS]}"
        if body:
            case.body = body

    def validate(
        self,
        case: Case[Any],
        response: Response,
        *,
        excluded: Sequence[CheckFunction] = (),
        recorder: ScenarioRecorder | None = None,
    ) -> None:
        """
        Check the reply to a request.

        Args:
            excluded: Checks that say nothing about the whole document.
            recorder: What happened before in the same chain of requests.

        Raises:
            AssertionError: The contract promises something else.
        """
        __tracebackhide__ = True
        before = self.recorder.count
        case.validate_response(
            response,
            headers=dict(self.relay.headers),
            transport_kwargs=self.transport,
            excluded_checks=[*excluded, *self.inapplicable(case, response)],
            recorder=recorder,
        )
        # What the checks sent themselves were requests without a good key.
        assert self.recorder.count == before, "a request without a good key reached the upstream"
        if response.status_code < 300:
            self._guarded.add(case.operation.label)

    def inapplicable(self, case: Case[Any], response: Response) -> list[CheckFunction]:
        """The checks that say nothing about a reply, each with its reason."""
        excluded: list[CheckFunction] = []
        if _media_type(response) == EVENT_STREAM:
            excluded.append(response_schema_conformance)  # holds each event against the schema of the whole text
        if _media_type(response) == "application/yaml":
            excluded.append(response_schema_conformance)  # holds what the text says against the schema of the text
        if case.media_type not in {None, JSON} and _negative_body_only(case):
            excluded.append(negative_data_rejection)  # only JSON is parsed here; the upstream judges other bodies
        if any("[" in name for name in case.query or {}):
            excluded.append(negative_data_rejection)  # a deep object's values are text on the wire, whatever they were
        if not all(PLAIN_ID.fullmatch(str(value)) for value in (case.path_parameters or {}).values()):
            excluded.append(ensure_resource_availability)  # an id that a request brought along may fit into no path
        if case.body == "":
            excluded.append(positive_data_acceptance)  # HTTP cannot tell an empty body from none
        if answered_by_relay(response) and _refused_beyond_schema(case, str(_error(response).get("code"))):
            excluded.append(positive_data_acceptance)
        if not answered_by_relay(response) and _refused_for_good_reason(case, str(_error(response).get("param"))):
            excluded.append(positive_data_acceptance)
        if is_socket(OPERATIONS[case.operation.label]):
            excluded.append(positive_data_acceptance)  # good is a handshake alone; what is generated is answered 426
        if case.operation.label in self._guarded:
            excluded.append(ignored_auth)  # two more requests each time; once per operation proves it
        return excluded


def witness(response: Response, arrived: int) -> str:
    """
    Hold a reply against the number of requests that reached the upstream for it.

    Returns:
        Who answered: `upstream`, `relay`, or the type of the relay's refusal.

    Raises:
        AssertionError: A refused request got through, or a forwarded one did not arrive exactly once.
    """
    kind = str(_error(response).get("type"))
    if kind in REFUSALS:
        assert arrived == 0, f"refused with {kind}, and yet it reached the upstream"
        return kind
    if answered_by_relay(response):
        assert arrived == 0, "answered by the relay itself, and yet it reached the upstream"
        return "relay"
    assert arrived == 1, f"answered by the upstream, which was asked {arrived} times"
    return "upstream"


def wrapper_witness(response: Response, arrived: Sequence[str | None], operation: Operation, files: int) -> str:
    """
    Hold a wrapper's reply against what reached the upstream for it, which is never more than it wraps.

    Args:
        arrived: operationIds of the requests that the upstream got.
        files: How many files the request names.

    Returns:
        What it came to: `wrapper`, `replay`, or the type of the relay's refusal.

    Raises:
        AssertionError: It asked for something else, more or less often than it had to, or though it refused.
    """
    (wrapped,) = calls_upstream(CONTRACT, operation)
    state = {READS_STATE} if operation.tag == "Response wrappers" else set()
    assert set(arrived) <= {wrapped} | state, f"a wrapper of {wrapped} asked the upstream for {arrived}"
    error = _error(response)
    if error.get("type") in REFUSALS and error.get("code") not in LATE_REFUSALS:
        assert not arrived, f"refused with {error['code']}, and yet it reached the upstream"
        return str(error["type"])
    if "idempotent-replayed" in response.headers:
        assert not arrived, "answered from memory, and yet it reached the upstream"
        return "replay"
    times = arrived.count(wrapped)
    if wrapped in state:
        assert times >= 1, "answered without a look at the state"
    elif files > 1 and operation.id == "uploadFile":
        assert times <= files, f"{files} files became {times}"
    else:
        assert times == 1, (
            f"a wrapper of {wrapped} asked for it {times} times and answered {error or response.status_code}"
        )
    return "wrapper"


def answered_by_relay(response: Response) -> bool:
    """Whether the reply is the relay's own: an upstream's carries the upstream's request id beside the relay's."""
    return response.headers["x-request-id"] == response.headers["x-relay-request-id"]


def _media_type(response: Response) -> str:
    (value,) = response.headers.get("content-type", [""])
    return value.partition(";")[0]


def _error(response: Response) -> dict[str, Any]:
    if response.status_code < 400 or _media_type(response) != "application/json":
        return {}
    body = response.json()
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _refused_for_good_reason(case: Case[Any], param: str) -> bool:
    """Whether the upstream may refuse what its own document, and so the contract, allows."""
    if param in CURSORS:
        return True  # no bounds are documented, and a generated id is in no list
    if case.media_type == MULTIPART:
        return isinstance(case.body, dict) and case.body.get(param) == []  # an empty list leaves no part behind
    return case.media_type == JSON and not isinstance(case.body, dict)  # one body has no documented type


def _refused_beyond_schema(case: Case[Any], code: str) -> bool:
    """Whether the relay may refuse what its document allows: it says so in words, for importers take no more."""
    operation = OPERATIONS[case.operation.label]
    return code in UNSAID.get(operation.id, ())


def _object_sent(case: Case[Any]) -> Mapping[str, Any]:
    return case.body if isinstance(case.body, dict) else {}


def _named_files(case: Case[Any]) -> list[Any]:
    files = _object_sent(case).get(FILES)
    return files if isinstance(files, list) else []


def _negative_body_only(case: Case[Any]) -> bool:
    return case.meta is not None and {
        location for location, component in case.meta.components.items() if component.mode.is_negative
    } == {ParameterLocation.BODY}
