"""
A real importer of OpenAPI documents, LibreChat's, in front of a real relay.

It shows that the served document can be imported and called as a whole; what ChatGPT's own importer accepts beyond that
is known from reports only, and `contract lint` holds the document against those.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from codegen.contract import ACTIONS, JSON, Operation, Scope, load_contract
from codegen.importable_document import importable_document
from codegen.reader import resolve
from handlers.runtime.app import GENERATED
from tests.support.documents import ROOT
from tests.support.file_relay import FileRelay, running_file_relay
from tests.support.librechat import Imported, import_and_call
from tests.support.servers import ServerThread
from tests.support.tool_calls import TOOLS, tool_call

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),  # said by the SDK, on videos
]

PUBLIC_URL = "https://relay.example.org"
MAX_CHARACTERS = 100_000  # of an assistant's platform; the relay itself stops earlier
ACTIONS_CONTRACT = load_contract(GENERATED, ACTIONS)


@pytest.fixture(scope="module")
def office(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """The relay with a public address, which fetches files from one server on loopback."""
    settings = {"RELAY_PUBLIC_URL": PUBLIC_URL}
    with running_file_relay(tmp_path_factory.mktemp("importer"), upstream_server.url, settings) as office:
        yield office


@pytest.fixture(scope="module")
def imported(office: FileRelay, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """What the importer says, after one call of each operation."""
    with openai.OpenAI(base_url=office.relay.base_url, api_key=office.relay.key, max_retries=0, timeout=10) as team:
        calls = {tool.name: tool_call(tool, team, office.files, as_objects=True) for tool in TOOLS}
    return import_and_call(office.relay.url, office.keys["assistant"].text, calls, tmp_path_factory.mktemp("calls"))


def body_schema(operation: Operation) -> dict[str, Any]:
    """The schema of the JSON body in the Actions document; empty when there is none."""
    if operation.body is None:
        return {}
    pointer = operation.body.content[JSON].pointer
    assert pointer is not None
    return dict(resolve(ACTIONS_CONTRACT.document, {"$ref": pointer}))


def test_the_served_document_is_the_rendered_one(office: FileRelay) -> None:
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


def test_files_of_the_conversation_were_fetched(imported: Imported, office: FileRelay) -> None:
    """Every file that a call named was fetched, once."""
    assert all(called.status < 300 for called in imported.calls.values())
    assert office.files.answers
    assert sorted(asked.target for asked in office.files.requests) == sorted(office.files.answers)


def test_the_executor_is_refused_without_the_right_key(office: FileRelay, tmp_path: Path) -> None:
    """A wrong key opens nothing, and the proxy takes a scope of its own: what the executor gets says so."""
    calls = {"listModels": {}, "forwardRequest": {"method": "GET", "path": "/v1/batches"}}
    unknown = import_and_call(office.relay.url, "rk_unknown", calls, tmp_path).calls
    assert [(one.status, one.body["error"]["code"]) for one in unknown.values()] == [(401, "invalid_key")] * 2
    narrow = import_and_call(office.relay.url, office.keys[Scope.ACTIONS.value].text, calls, tmp_path).calls
    assert narrow["listModels"].status == 200
    assert narrow["forwardRequest"].status == 403
    assert narrow["forwardRequest"].body["error"]["code"] == "insufficient_scope"
