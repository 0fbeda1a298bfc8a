"""
Changes of the real contract with the verdicts that `contract diff` must give them.

In this order: patch, minor, major, and those that need a proposal or more evidence.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from codegen.diff_gate import PROPOSAL_GIVEN
from codegen.reader import Document, read_yaml, resolve
from codegen.semver import Level
from tests.support.documents import ROOT, decide, node_of, operation

PATCH, MINOR, MAJOR = Level.PATCH, Level.MINOR, Level.MAJOR
CASES = "proxy-cases"
OPEN: list[Any] = []
HIDDEN: dict[str, Any] = {
    "x-policy-bucket": "EXCLUDED",
    "x-policy-exclusion": "hidden",
    "x-policy-reason": "Holds what only people need.",
    "x-policy-review": None,
}


@dataclass(frozen=True)
class Edit:
    """Both documents of the contract and the files beside them, to be changed in place."""

    full: Document
    actions: Document
    files: dict[str, Any] = field(default_factory=dict)

    def schema(self, name: str, document: Document | None = None) -> dict[str, Any]:
        """A component schema."""
        schemas: dict[str, dict[str, Any]] = (document or self.full)["components"]["schemas"]
        return schemas[name]

    def property(self, schema: str, name: str) -> dict[str, Any]:
        """A property of a component schema."""
        found: dict[str, Any] = self.schema(schema)["properties"][name]
        return found

    def error_codes(self) -> list[str]:
        """The closed list of the relay's error codes."""
        codes: list[str] = self.property("RelayErrorEnvelope", "error")["properties"]["code"]["enum"]
        return codes

    def node(self, operation_id: str) -> dict[str, Any]:
        """An operation of the full document."""
        return node_of(self.full, operation_id)

    def add(self, path: str, operation_id: str, tag: str, **changes: Any) -> None:
        """Add an operation `GET path` to the full document."""
        self.full["paths"].setdefault(path, {})["get"] = operation(operation_id, {"tags": [tag], **changes})


Change = Callable[[Edit], object]


def nothing(edit: Edit) -> None:
    """No further evidence is needed."""
    del edit


@dataclass(frozen=True)
class Seed:
    """
    One change.

    Args:
        changes: All that may be reported: document (`full` or `actions`), kind, subject.
        proposed: operationIds that a proposal has to name.
        rules: What the gate says without version, proposal and evidence, beside the version.
        evidence: Adds what makes the gate pass, apart from version and proposals.
    """

    name: str
    edit: Change
    level: Level
    changes: frozenset[tuple[str, str, str]]
    proposed: tuple[str, ...]
    rules: frozenset[str]
    evidence: Change


def seed(
    name: str,
    level: Level,
    changes: str | tuple[str, ...],
    edit: Change,
    *,
    proposed: str = "",
    rules: tuple[str, ...] = (),
    evidence: Change = nothing,
) -> Seed:
    """A seed whose changes are written `full kind subject`."""
    lines = (changes,) if isinstance(changes, str) else changes
    said = frozenset((parts[0], parts[1], parts[2]) for parts in (line.split(" ", 2) for line in lines))
    gates = frozenset({*rules, PROPOSAL_GIVEN}) if proposed else frozenset(rules)
    return Seed(name, edit, level, said, (proposed,) if proposed else (), gates, evidence)


def reword(node: dict[str, Any], key: str = "description") -> None:
    """Write another text."""
    node[key] = "Said in other words."


def shown(operation_id: str, path: str) -> Change:
    """Add a case file with an allowed and a refused case through the proxy."""
    request = {"operation": operation_id, "method": "GET", "path": path}
    verdicts = [{**request, "verdict": "allowed"}, {**request, "path": f"{path}/..", "verdict": "unknown_operation"}]
    file = {"situation": "A new one is tried.", "surface": "proxy", "scopes": ["proxy"], "cases": verdicts}
    return lambda edit: edit.files.update({"tests/policy_cases/a_new_one_is_tried.yaml": file})


def security(*scopes: str) -> list[Any]:
    """Any one of the scopes, with both ways to send a key."""
    return [{scheme: [scope]} for scope in scopes for scheme in ("relayBearer", "relayKey")]


def parameter(edit: Edit) -> None:
    """Let an operation take one more query parameter."""
    node = edit.node("listBatches")
    colour = {"name": "colour", "in": "query", "schema": {"type": "string"}}
    node["parameters"] = [*node.get("parameters", ()), colour]


def other_path(edit: Edit) -> None:
    """Serve two operations elsewhere."""
    edit.full["paths"]["/v1/batch_jobs"] = edit.full["paths"].pop("/v1/batches")


def other_order(edit: Edit) -> None:
    """Write the properties of a schema in another order."""
    schema = edit.schema("Batch")
    schema["properties"] = dict(reversed(schema["properties"].items()))


def wrapper(edit: Edit) -> None:
    """Give assistants an upload as JSON."""
    fields = {
        "x-policy-bucket": "ACTIONS_DIRECT",
        "x-policy-review": None,
        "x-policy-wraps": ["createFile"],
        "tags": ["Proxy"],
        "security": security("canonical", "actions"),
    }
    imported = {**fields, "tags": ["Files"], "security": None, "x-openai-isConsequential": True}
    edit.full["paths"]["/v1/actions/files"] = {"post": operation("uploadFileFromAction", fields)}
    edit.actions["paths"]["/v1/actions/files"] = {"post": operation("uploadFileFromAction", imported)}
    edit.node("createFile")["x-policy-wrapper"] = "uploadFileFromAction"


def stream(edit: Edit) -> None:
    """Let an operation of the proxy answer with events."""
    reply: Any = deepcopy(resolve(edit.full, edit.node("listBatches")["responses"]["200"]))
    reply["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    edit.node("listBatches")["responses"]["200"] = reply


def new_word(edit: Edit) -> None:
    """Let the schema of the policy know one more exclusion."""
    schema = read_yaml(ROOT / "spec" / "policy.schema.yaml")
    schema["$defs"]["operation"]["properties"]["x-policy-exclusion"]["enum"].append("secret")
    edit.files["spec/policy.schema.yaml"] = schema


PATCHES = (
    seed("summary", PATCH, "full text GET /v1/batches", lambda e: reword(e.node("listBatches"), "summary")),
    seed("description", PATCH, "full text schemas/Metadata", lambda e: reword(e.schema("Metadata"))),
    seed("reason", PATCH, "full text POST /v1/files", lambda e: reword(e.node("createFile"), "x-policy-reason")),
    seed(
        "example",
        PATCH,
        "full text examples/batch",
        lambda e: e.full["components"]["examples"]["batch"]["value"].update(id="batch_other"),
    ),
    seed(
        "review_record",
        PATCH,
        "full text document",
        lambda e: reword(e.full["x-policy-reviews"]["json_read"], "risk"),
    ),
    seed("words_for_assistants", PATCH, "actions text document", lambda e: reword(e.actions["info"])),
    seed("order", PATCH, "full unused document", other_order),
    seed(
        "spare_component",
        PATCH,
        "full unused document",
        lambda e: e.full["components"]["schemas"].update(Spare={}),
    ),
    seed(
        "new_unsupported",
        PATCH,
        "full operation-added GET /v1/organization/moons",
        lambda e: e.add(
            "/v1/organization/moons",
            "list-moons",
            "Administration",
            **{**HIDDEN, "x-policy-exclusion": "unsupported"},
        ),
    ),
    seed(
        "internal_stays_internal",
        PATCH,
        "full schema schemas/SystemInfo",
        lambda e: e.schema("SystemInfo")["properties"].pop("upstream"),
    ),
)

MINORS = (
    seed("optional_parameter", MINOR, "full parameter GET /v1/batches", parameter),
    seed(
        "optional_request_field",
        MINOR,
        "full schema schemas/CreateBatchRequest",
        lambda e: e.schema("CreateBatchRequest")["properties"].update(colour={"type": "string"}),
    ),
    seed(
        "response_field",
        MINOR,
        "full schema schemas/Batch",
        lambda e: e.schema("Batch")["properties"].update(colour={"type": "string"}),
    ),
    seed(
        "looser_bound",
        MINOR,
        "full schema schemas/CreateSpeechRequest",
        lambda e: e.property("CreateSpeechRequest", "input").update(maxLength=9000),
    ),
    seed(
        "wider_enum",
        MINOR,
        "full schema schemas/CreateBatchRequest",
        lambda e: e.property("CreateBatchRequest", "completion_window")["enum"].append("48h"),
    ),
    seed(
        "new_response_value",
        MINOR,
        "full schema schemas/Batch",
        lambda e: e.property("Batch", "status")["enum"].append("paused"),
    ),
    seed(
        "announced_end",
        MINOR,
        "full lifecycle POST /v1/batches",
        lambda e: e.node("createBatch").update(deprecated=True, **{"x-sunset": "2027-06-30"}),
    ),
    seed(
        "error_code",
        MINOR,
        "full error-code schemas/RelayErrorEnvelope",
        lambda e: e.error_codes().append("moonless"),
    ),
    seed(
        "new_hidden",
        MINOR,
        "full operation-added GET /v1/moons",
        lambda e: e.add("/v1/moons", "listMoons", "Batch", **HIDDEN),
    ),
    seed(
        "move_that_nobody_feels",
        MINOR,
        "full bucket-moved GET /v1/containers/{container_id}/files/{file_id}/content",
        lambda e: decide(e.full, "RetrieveContainerFileContent", bucket="WRAPPER_REQUIRED", reason="Binary content."),
    ),
    seed(
        "open_page",
        MINOR,
        "full operation-added GET /moons",
        lambda e: e.add("/moons", "retrieveMoons", "Relay", security=OPEN, **HIDDEN),
    ),
    seed(
        "wrapper",
        MINOR,
        (
            "full operation-added POST /v1/actions/files",
            "full wrapper-changed POST /v1/files",
            "actions operation-added POST /v1/actions/files",
        ),
        wrapper,
    ),
)

MAJORS = (
    seed(
        "removed",
        MAJOR,
        "full operation-removed GET /v1/batches",
        lambda e: e.full["paths"]["/v1/batches"].pop("get"),
    ),
    seed(
        "moved",
        MAJOR,
        ("full operation-moved GET /v1/batch_jobs", "full operation-moved POST /v1/batch_jobs"),
        other_path,
    ),
    seed(
        "renamed",
        MAJOR,
        "full operation-renamed GET /v1/batches",
        lambda e: e.node("listBatches").update(operationId="listBatchJobs"),
    ),
    seed(
        "new_required_field",
        MAJOR,
        "full schema schemas/CreateBatchRequest",
        lambda e: e.schema("CreateBatchRequest")["required"].append("metadata"),
    ),
    seed(
        "tighter_shared_bound",
        MAJOR,
        "full schema schemas/Metadata",
        lambda e: e.schema("Metadata")["additionalProperties"].update(maxLength=64),
    ),
    seed(
        "narrower_enum",
        MAJOR,
        "full schema schemas/CreateBatchRequest",
        lambda e: e.property("CreateBatchRequest", "endpoint")["enum"].remove("/v1/moderations"),
    ),
    seed(
        "smaller_default_limit",
        MAJOR,
        "full schema parameters/Limit",
        lambda e: e.full["components"]["parameters"]["Limit"]["schema"].update(default=10),
    ),
    seed(
        "response_field_removed",
        MAJOR,
        "full schema schemas/Batch",
        lambda e: e.schema("Batch")["properties"].pop("usage"),
    ),
    seed(
        "response_field_optional",
        MAJOR,
        "full schema schemas/Batch",
        lambda e: e.schema("Batch")["required"].remove("status"),
    ),
    seed(
        "response_field_of_another_type",
        MAJOR,
        "full schema schemas/Batch",
        lambda e: e.property("Batch", "created_at").update(type="string"),
    ),
    seed(
        "error_code_removed",
        MAJOR,
        "full error-code schemas/RelayErrorEnvelope",
        lambda e: e.error_codes().remove("missing_key"),
    ),
    seed(
        "scope_taken",
        MAJOR,
        "full scopes-changed GET /v1/models",
        lambda e: e.node("listModels").update(security=security("actions")),
    ),
    seed(
        "closed",
        MAJOR,
        "full scopes-changed GET /health",
        lambda e: e.node("retrieveHealth").update(security=security("canonical")),
    ),
    seed(
        "taken_from_the_proxy",
        MAJOR,
        "full bucket-moved GET /v1/batches",
        lambda e: decide(e.full, "listBatches", bucket="EXCLUDED", reason="No.", exclusion="hidden"),
    ),
    seed(
        "field_refused_to_assistants",
        MAJOR,
        "actions schema schemas/CreateEmbeddingRequest",
        lambda e: e.schema("CreateEmbeddingRequest", e.actions)["properties"].pop("dimensions"),
    ),
)

ESCALATIONS = (
    seed(
        "hidden_to_proxy",
        MINOR,
        "full bucket-moved DELETE /v1/models/{model}",
        lambda e: decide(e.full, "deleteModel", bucket="PROXY_HARNESS", review="json_delete"),
        proposed="deleteModel",
        rules=(CASES,),
        evidence=shown("deleteModel", "/v1/models/ft"),
    ),
    seed(
        "administration_served",
        MINOR,
        "full bucket-moved GET /v1/organization/users",
        lambda e: decide(e.full, "list-users", bucket="EXCLUDED", reason="No.", exclusion="hidden"),
        proposed="list-users",
    ),
    seed(
        "internal_opened",
        MAJOR,
        "full bucket-moved GET /actions/system/info",
        lambda e: decide(e.full, "retrieveSystemInfo", bucket="EXCLUDED", reason="No.", exclusion="hidden").update(
            security=security("canonical")
        ),
        proposed="retrieveSystemInfo",
    ),
    seed(
        "opened_to_everybody",
        MINOR,
        "full scopes-changed GET /v1/models",
        lambda e: e.node("listModels").update(security=OPEN),
        proposed="listModels",
    ),
    seed(
        "scope_added",
        MINOR,
        "full scopes-changed GET /v1/files/{file_id}/content",
        lambda e: e.node("downloadFile").update(security=security("canonical", "realtime")),
        proposed="downloadFile",
    ),
    seed(
        "own_surface",
        MINOR,
        "full operation-added GET /v1/moons",
        lambda e: e.add("/v1/moons", "listMoons", "Relay", **HIDDEN),
        proposed="listMoons",
    ),
    seed(
        "sockets",
        MINOR,
        "full operation-added GET /v1/realtime/moons",
        lambda e: e.add(
            "/v1/realtime/moons",
            "listMoons",
            "Realtime",
            security=security("canonical", "realtime"),
            **HIDDEN,
        ),
        proposed="listMoons",
    ),
    seed(
        "administration_added",
        MINOR,
        "full operation-added GET /v1/organization/moons",
        lambda e: e.add("/v1/organization/moons", "listMoons", "Administration", **HIDDEN),
        proposed="listMoons",
    ),
    seed(
        "stream_through_the_proxy",
        MINOR,
        "full media-type GET /v1/batches",
        stream,
        proposed="listBatches",
    ),
    seed(
        "new_in_the_proxy",
        MINOR,
        "full operation-added GET /v1/moons",
        lambda e: e.add("/v1/moons", "listMoons", "Batch"),
        rules=(CASES,),
        evidence=shown("listMoons", "/v1/moons"),
    ),
)

SEEDS = (*PATCHES, *MINORS, *MAJORS, *ESCALATIONS)
