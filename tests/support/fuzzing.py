"""
Schemathesis over the documents that the relay publishes: its settings, and what is held against every reply.

Besides schemathesis' own checks there is one of ours, the witness: a request that the relay refuses never reaches the
upstream, and one that it passes on reaches it once.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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

from codegen.contract import ACTIONS, EVENT_STREAM, FULL, JSON, METHODS, MULTIPART, load_contract
from codegen.publication import published_document
from codegen.reader import Document, resolve
from handlers.runtime.app import GENERATED
from handlers.simulated_upstream.recorder import Recorder
from tests.support.servers import RelayProcess

# `scripts/fuzz` sets these; the defaults are what CI has time for.
MAX_EXAMPLES = int(os.environ.get("FUZZ_MAX_EXAMPLES", "12"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))

REFUSALS = frozenset({"relay_auth_error", "relay_policy_error", "relay_contract_error", "relay_limit_error"})
PLAIN_ID = re.compile(r"[A-Za-z0-9_.:-]+")
CURSORS = frozenset({"after", "before", "limit"})


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
        seen: How many replies came from the upstream, and how many refusals of each type from the relay.
    """

    relay: RelayProcess
    recorder: Recorder
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
        before = self.recorder.count
        response = case.call(**self.transport)
        self.seen[witness(response, self.recorder.count - before)] += 1
        return response

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
        if case.media_type not in {None, JSON} and _negative_body_only(case):
            excluded.append(negative_data_rejection)  # only JSON is parsed here; the upstream judges other bodies
        if any("[" in name for name in case.query or {}):
            excluded.append(negative_data_rejection)  # a deep object's values are text on the wire, whatever they were
        if not all(PLAIN_ID.fullmatch(str(value)) for value in (case.path_parameters or {}).values()):
            excluded.append(ensure_resource_availability)  # an id that a request brought along may fit into no path
        if case.body == "":
            excluded.append(positive_data_acceptance)  # HTTP cannot tell an empty body from none
        if not answered_by_relay(response) and _refused_for_good_reason(case, str(_error(response).get("param"))):
            excluded.append(positive_data_acceptance)
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


def _negative_body_only(case: Case[Any]) -> bool:
    return case.meta is not None and {
        location for location, component in case.meta.components.items() if component.mode.is_negative
    } == {ParameterLocation.BODY}
