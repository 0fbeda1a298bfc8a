"""
A real importer of OpenAPI documents, LibreChat's, in front of a real relay.

It shows that the served document can be imported and called as a whole; what ChatGPT's own importer accepts beyond that
is known from reports only, and `contract lint` holds the document against those.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest

from codegen.contract import ACTIONS, FULL, JSON, Operation, Scope, load_contract
from codegen.importable_document import importable_document
from codegen.reader import resolve
from handlers.runtime.app import GENERATED
from tests.support.documents import ROOT
from tests.support.file_server import FileServer, make_certificate, whole
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.librechat import Imported, import_and_call
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),  # said by the SDK, on videos
]

PUBLIC_URL = "https://relay.example.org"
HOST = "127.0.0.1"
CONTENT = b"Hello"
MAX_CHARACTERS = 100_000  # of an assistant's platform; the relay itself stops earlier
FILES = "openaiFileIdRefs"
ACTIONS_CONTRACT = load_contract(GENERATED, ACTIONS)
# By place: where upstream's operationId is no name of a function, the Actions document has another.
FULL_OPERATIONS = {(operation.method, operation.path): operation for operation in load_contract(GENERATED, FULL)}
# Where the full document's example uses a form of a field that assistants do not have: the same in theirs.
OTHER_WORDS: dict[str, dict[str, Any]] = {
    "createResponse": {"input": "When do we move the wiki?"},
    "createEmbedding": {"input": "A relay passes a message on."},
}


@dataclass(frozen=True)
class Office:
    """A relay that assistants use, and the server that the files of their conversations lie on."""

    relay: RelayProcess
    files: FileServer
    assistant: MadeKey
    without_proxy: MadeKey


@pytest.fixture(scope="module")
def office(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """The relay with a public address, which fetches files from one server on loopback."""
    folder = tmp_path_factory.mktemp("importer")
    assistant = make_key("assistant", Scope.ACTIONS, Scope.PROXY)
    without_proxy = make_key("without-proxy", Scope.ACTIONS)
    write_keys(folder / "keys.yaml", [assistant, without_proxy])
    certificate = make_certificate(folder)
    settings = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_PUBLIC_URL": PUBLIC_URL,
        "RELAY_FILE_HOSTS": HOST,
        "RELAY_FILE_PRIVATE_NETWORKS": f"{HOST}/32",
        "RELAY_FILE_CA_FILE": str(certificate.chain),
    }
    with FileServer(certificate) as files, running_relay(folder, upstream_server.url, settings) as relay:
        yield Office(relay, files, assistant, without_proxy)


@pytest.fixture(scope="module")
def imported(office: Office, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """What the importer says, after one call of each operation."""
    with openai.OpenAI(base_url=office.relay.base_url, api_key=office.relay.key, max_retries=0, timeout=10) as team:
        calls = {
            operation.id: {**new_objects(operation, team), **new_body(operation, office.files)}
            for operation in ACTIONS_CONTRACT
        }
        calls["finishUpload"]["part_ids"] = [new_part(team, calls["finishUpload"]["upload_id"])]
    return import_and_call(office.relay.url, office.assistant.text, calls, tmp_path_factory.mktemp("calls"))


def body_schema(operation: Operation) -> dict[str, Any]:
    """The schema of the JSON body in the Actions document; empty when there is none."""
    if operation.body is None:
        return {}
    pointer = operation.body.content[JSON].pointer
    assert pointer is not None
    return dict(resolve(ACTIONS_CONTRACT.document, {"$ref": pointer}))


NEW_OBJECTS: dict[str, Callable[[openai.OpenAI], str]] = {
    "response_id": lambda team: team.responses.create(model="gpt-6-luna", input="Wait.", background=True).id,
    "file_id": lambda team: team.files.create(file=("notes.txt", CONTENT), purpose="user_data").id,
    "upload_id": lambda team: (
        team.uploads.create(bytes=len(CONTENT), filename="notes.txt", mime_type="text/plain", purpose="user_data").id
    ),
    "vector_store_id": lambda team: team.vector_stores.create(name="Notes").id,
    "video_id": lambda team: team.videos.create(prompt="A lighthouse.").id,
}


def new_objects(operation: Operation, team: openai.OpenAI) -> dict[str, str]:
    """The operation's path parameters: ids of objects made for this call, so that no call stands in another's way."""
    return {parameter.name: NEW_OBJECTS[parameter.name](team) for parameter in operation.parameters_in("path")}


def new_part(team: openai.OpenAI, upload_id: str) -> str:
    """The id of a part that is the whole upload."""
    return team.uploads.parts.create(upload_id, data=CONTENT).id


def new_body(operation: Operation, files: FileServer) -> dict[str, Any]:
    """
    What assistants have of the full document's example for an operation.

    Files are named as at run time, by objects; they lie on the server.
    """
    schema = body_schema(operation)
    if not schema:
        return {}
    full = FULL_OPERATIONS[operation.method, operation.path].body
    assert full is not None
    examples = list(full.content[JSON].examples.values())
    example = deepcopy(next((one for one in examples if FILES in one), examples[0]))
    body = {name: value for name, value in example.items() if name in schema["properties"]}
    body |= OTHER_WORDS.get(operation.id, {})
    for reference in body.get(FILES, []):
        path = f"/{operation.id}/{reference['name']}"
        files.answers[path] = whole([CONTENT], length=len(CONTENT), media_type=reference["mime_type"])
        reference["download_link"] = files.link(path, HOST)
    declared = {**body, **({FILES: ["a text"] * len(body[FILES])} if FILES in body else {})}
    components = ACTIONS_CONTRACT.document["components"]
    jsonschema_rs.validator_for({**schema, "components": components}).validate(declared)
    return body


def test_the_served_document_is_the_rendered_one(office: Office) -> None:
    """What a relay with a public address serves is what `contract render --public-url` writes for that address."""
    served = httpx.get(f"{office.relay.url}/openapi.actions.json", timeout=10).raise_for_status()
    assert served.json() == json.loads(importable_document(ROOT, PUBLIC_URL))


def test_the_document_is_imported_without_a_word(imported: Imported) -> None:
    """The importer has nothing to say about the document and takes its public host."""
    assert imported.message == "OpenAPI spec is valid."
    assert imported.server_url == PUBLIC_URL
    assert imported.domain == {
        "isValid": True,
        "normalizedSpecDomain": PUBLIC_URL,
        "normalizedClientDomain": PUBLIC_URL,
    }


def test_the_importer_lists_every_operation(imported: Imported) -> None:
    """Name, method and path of its operations are those of the Actions document, none more or less."""
    listed = [(one["name"], one["method"], one["path"]) for one in imported.operations]
    assert listed == [(operation.id, operation.method, operation.path) for operation in ACTIONS_CONTRACT]


@pytest.mark.parametrize("operation", list(ACTIONS_CONTRACT), ids=lambda operation: operation.id)
def test_a_tool_takes_all_that_the_operation_takes(imported: Imported, operation: Operation) -> None:
    """The tool that a model is shown has every parameter and field of its operation, and no reference in them."""
    (one,) = [one for one in imported.operations if one["name"] == operation.id]
    parameters = one["tool"]["function"]["parameters"]
    fields = body_schema(operation)
    assert set(parameters["properties"]) == {p.name for p in operation.parameters} | set(fields.get("properties", {}))
    required = {p.name for p in operation.parameters if p.required} | set(fields.get("required", ()))
    assert set(parameters["required"]) == required
    assert "$ref" not in json.dumps(parameters)
    assert one["tool"]["function"]["description"]


@pytest.mark.parametrize("operation_id", [operation.id for operation in ACTIONS_CONTRACT])
def test_the_executor_gets_an_answer_from_every_operation(imported: Imported, operation_id: str) -> None:
    """Called by the importer with the contract's example, each operation answers one JSON value of bearable size."""
    called = imported.calls[operation_id]
    assert 200 <= called.status < 300, called
    assert called.media_type == JSON
    assert len(json.dumps(called.body)) < MAX_CHARACTERS
    assert isinstance(called.body, dict)
    assert "error" not in called.body or called.body["error"] is None


def test_files_of_the_conversation_were_fetched(imported: Imported, office: Office) -> None:
    """Every file that a call named was fetched, once."""
    assert all(called.status < 300 for called in imported.calls.values())
    assert office.files.answers
    assert sorted(asked.target for asked in office.files.requests) == sorted(office.files.answers)


def test_the_executor_is_refused_without_the_right_key(office: Office, tmp_path: Path) -> None:
    """A wrong key opens nothing, and the proxy takes a scope of its own: what the executor gets says so."""
    calls = {"listModels": {}, "forwardRequest": {"method": "GET", "path": "/v1/batches"}}
    unknown = import_and_call(office.relay.url, "rk_unknown", calls, tmp_path).calls
    assert [(one.status, one.body["error"]["code"]) for one in unknown.values()] == [(401, "invalid_key")] * 2
    narrow = import_and_call(office.relay.url, office.without_proxy.text, calls, tmp_path).calls
    assert narrow["listModels"].status == 200
    assert narrow["forwardRequest"].status == 403
    assert narrow["forwardRequest"].body["error"]["code"] == "insufficient_scope"
