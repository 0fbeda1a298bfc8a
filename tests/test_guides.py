"""
Holds the guides in `docs/` against what they talk about: operations, codes, settings, limits, commands, links.

Not for: whether an importer's editor still looks as described. Opens no sockets.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, get_args

import mcp_types
import pytest
import typer
import yaml
from pydantic import BaseModel

from codegen.contract import ACTIONS, FULL, Bucket, Scope, load_contract
from handlers.cli import app
from handlers.mcp_link import KEY_VARIABLE, URL_VARIABLE
from handlers.runtime.app import GENERATED
from handlers.runtime.budget import DEADLINE_SECONDS, MAX_REPLY_CHARACTERS
from handlers.runtime.counts import CLIENT_GONE
from handlers.runtime.errors import ERROR_TABLE
from handlers.runtime.idempotency import KEEP_SECONDS
from handlers.runtime.settings import Settings
from handlers.runtime.tool_protocol import PROGRESS_SECONDS
from tests.support.documents import ROOT
from tests.support.project_calls import unknown_calls

GUIDES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
GUIDE = GUIDES["actions.md"]
MCP_GUIDE = GUIDES["mcp.md"]
ACTIONS_CONTRACT = load_contract(GENERATED, ACTIONS)
FULL_CONTRACT = load_contract(GENERATED, FULL)
OPERATIONS = {operation.id for operation in ACTIONS_CONTRACT}
CODE_ROW = re.compile(r"^\| `([a-z_]+)` \| (\d{3}) \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
# Names in the first column of a guide's tables; a test of their own holds each table against what it lists.
LISTED = {name for guide in GUIDES.values() for name in re.findall(r"^\| `([a-z_]+)` \|", guide, re.MULTILINE)}
CAMEL = re.compile(r"`([a-z]+(?:[A-Z][a-z]*)+)`")
SNAKE = re.compile(r"`([a-z]+(?:_[a-z0-9]+)+)`")
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ADDRESS = "https://relay.example.com"  # of the relay, in all guides
# Paths below an issuer of access tokens, not below the relay: OpenID Connect Discovery, RFC 8414.
ISSUER_PATHS = frozenset({"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"})
LOGGING = ("artifact_objects", "edge", "pipeline")  # modules of the runtime that write lines of the log
# Folders of a machine, not of the relay.
MACHINE = re.compile(r"/(?:dev|etc|home|opt|run|tmp|usr|var)(?:/|$)")
COMMANDS = typer.main.get_group(app).commands


def properties(node: Any) -> Iterator[str]:
    """Names of all parameters and properties in a part of a document."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield from node["properties"]
        if "in" in node and isinstance(node.get("name"), str):
            yield node["name"]
        for value in node.values():
            yield from properties(value)
    elif isinstance(node, list):
        for item in node:
            yield from properties(item)


def values_of(node: Any) -> Iterator[str]:
    """Values of all enumerations in a part of a document."""
    if isinstance(node, dict):
        yield from (value for value in node.get("enum", ()) if isinstance(value, str))
        for value in node.values():
            yield from values_of(value)
    elif isinstance(node, list):
        for item in node:
            yield from values_of(item)


def relay_codes() -> set[str]:
    """The closed list of codes in the contract."""
    schema = FULL_CONTRACT.document["components"]["schemas"]["RelayErrorEnvelope"]
    return set(schema["properties"]["error"]["properties"]["code"]["enum"])


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(name: str, text: str) -> Iterator[str]:
    """Links of a guide that lead to no file, to no heading, or away without https."""
    for target in LINK.findall(text):
        if "://" in target:
            if not target.startswith("https://"):
                yield f"{target}: must begin with https://"
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / "docs" / path).resolve() if path else ROOT / "docs" / name
        if not file.is_file() or not file.is_relative_to(ROOT):
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{target}: no such heading"


def unknown_names(text: str, further: Set[str] = frozenset()) -> set[str]:
    """Names in backticks that neither the Actions document nor the relay knows, nor whatever else is known."""
    document: Mapping[str, Any] = ACTIONS_CONTRACT.document
    known = OPERATIONS | set(properties(document)) | set(values_of(document)) | relay_codes() | LISTED | {CLIENT_GONE}
    known |= further
    return {name for pattern in (CAMEL, SNAKE) for name in pattern.findall(text)} - known


def protocol_names() -> set[str]:
    """Names of fields and kinds in messages of MCP, as its library has them, and of the operation that takes them."""
    models = [part for part in vars(mcp_types).values() if isinstance(part, type) and issubclass(part, BaseModel)]
    fields = [(name, field) for model in models for name, field in model.model_fields.items()]
    kinds = {value for _, field in fields for value in get_args(field.annotation) if isinstance(value, str)}
    carriers = {operation.id for operation in FULL_CONTRACT if operation.carries}
    return {field.serialization_alias or field.alias or name for name, field in fields} | kinds | carriers


def rival_names() -> set[str]:
    """What the programs that the relay is measured beside call their own."""
    return {"proxy_pass"}


def operating_names() -> set[str]:
    """Names in the examples of deployment, and in the code that writes the relay's log."""
    modules = [ROOT / "handlers" / "runtime" / f"{name}.py" for name in LOGGING]
    files = [*(ROOT / "docs" / "deployment").iterdir(), *modules]
    return {name for file in files for name in re.findall(r"\w+", file.read_text(encoding="utf-8"))}


def unknown_paths(text: str) -> set[str]:
    """Paths in backticks or of the relay's address that the contract does not have; one may stop at a slash."""
    named = re.findall(rf"(?:`|{ADDRESS}|\$RELAY)(/[^`\s\"',|]*)", text)
    known = {operation.path for operation in FULL_CONTRACT} | ISSUER_PATHS
    begun = {path[: end.end()] for path in known for end in re.finditer("/", path)}
    return {path for path in named if not (path in known or path in begun or MACHINE.match(path))}


def unknown_commands(text: str) -> set[str]:
    """Commands of `relay` that do not exist."""
    return set(re.findall(r"(?:`|\.venv/bin/)relay ([a-z]+)", text)) - set(COMMANDS)


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name: str) -> None:
    """Files and headings that a guide links to exist; other sites are linked by https."""
    assert list(broken_links(name, GUIDES[name])) == []


def test_a_broken_link_is_found() -> None:
    """A moved file, a renamed heading and plain http are reported."""
    page = "[a](../nothing.md) [b](../README.md#nothing) [c](http://example.com) [d](../README.md#settings)"
    assert len(list(broken_links("actions.md", page))) == 3


@pytest.mark.parametrize("name", GUIDES)
def test_names_exist(name: str) -> None:
    """Every operation, field, value and code in backticks is one of the contract's, or of what the guide is about."""
    further = {
        "mcp.md": protocol_names,
        "deployment.md": operating_names,
        "runbook.md": operating_names,
        "performance.md": rival_names,
    }
    assert unknown_names(GUIDES[name], further.get(name, set)()) == set()


def test_an_unknown_name_is_found() -> None:
    """A renamed operation or code does not stay behind in a guide."""
    assert unknown_names("`startResponse` `askModel` `invalid_key` `no_such_code`") == {"askModel", "no_such_code"}


@pytest.mark.parametrize("name", GUIDES)
def test_settings_and_commands_exist(name: str) -> None:
    """Variables are settings of the relay or of `relay mcp`, commands and scripts can be called."""
    assert set(re.findall(r"RELAY_[A-Z_]+", GUIDES[name])) <= {*Settings.model_fields, URL_VARIABLE, KEY_VARIABLE}
    assert unknown_calls(GUIDES[name]) == []
    assert unknown_commands(GUIDES[name]) == set()


def test_an_unknown_command_is_found() -> None:
    """A command that was renamed does not stay behind in a guide."""
    assert unknown_commands("`relay mcp`, `relay bridge` and .venv/bin/relay keys create") == {"bridge"}


@pytest.mark.parametrize("name", GUIDES)
def test_paths_exist(name: str) -> None:
    """Paths of the relay are those of the contract."""
    assert unknown_paths(GUIDES[name]) == set()


def test_an_unknown_path_is_found() -> None:
    """A path that has moved is reported, alone or behind the relay's address; one of a machine is not."""
    page = "`/mcp` `/artifacts/` `/tmp` `/etc/relay/relay.env` `/v1/mcp` https://relay.example.com/tools"
    page += " curl $RELAY/mcp $RELAY/openapi.yaml"
    assert unknown_paths(page) == {"/v1/mcp", "/tools", "/openapi.yaml"}


def test_tools_exist() -> None:
    """Every tool that the guide to MCP calls is an operation of the Actions document."""
    called = re.findall(r'--tool-name (\w+)|"name": "(\w+)", "arguments"', MCP_GUIDE)
    assert called
    assert {name for names in called for name in names if name} <= OPERATIONS


def test_options_exist() -> None:
    """Options in backticks and behind `relay mcp` are those of `relay mcp` and of `relay keys create`."""
    keys = typer.main.get_group(app).commands["keys"]
    assert isinstance(keys, typer.core.TyperGroup)
    known = {
        option for command in (COMMANDS["mcp"], keys.commands["create"]) for p in command.params for option in p.opts
    }
    named = re.findall(r"`(--[a-z-]+)`", MCP_GUIDE)
    for line in re.findall(r"relay mcp (--.*)|\"args\": \[\"mcp\", (.*)\]", MCP_GUIDE):
        named += re.findall(r"--[a-z-]+", " ".join(line))
    assert {"--url", "--key-file", "--ca-file"} <= set(named) <= known


def test_configurations_can_be_read() -> None:
    """What clients are given is valid JSON, YAML and Python, and leads to the endpoint."""
    readers: dict[str, Callable[[str], object]] = {"json": json.loads, "yaml": yaml.safe_load, "python": ast.parse}
    found = [(kind, text) for kind, text in BLOCK.findall(MCP_GUIDE) if kind in readers]
    (carrier,) = (operation for operation in FULL_CONTRACT if operation.carries)
    assert {kind for kind, _ in found} == set(readers)
    for kind, text in found:
        readers[kind](text)
        assert f"{ADDRESS}{carrier.path}" in text


def test_every_code_of_the_relay_is_explained_once_with_its_status() -> None:
    """The tables of codes of both guides are the contract's closed list, with the status of each."""
    rows = CODE_ROW.findall(GUIDE) + CODE_ROW.findall(MCP_GUIDE)
    assert len(rows) == len({code for code, _, _ in rows})
    statuses = {code: int(status) for code, status, _ in rows}
    assert set(statuses) == relay_codes()
    assert {rule.code: rule.status for rule in ERROR_TABLE.values()}.items() <= statuses.items()


def test_scopes_are_those_of_the_contract() -> None:
    """One operation needs `proxy`, as the guide says; `actions` opens all others."""
    proxied = {operation.id for operation in ACTIONS_CONTRACT if Scope.PROXY in operation.scopes}
    assert proxied == {"forwardRequest"}
    assert all(operation.scopes == {Scope.ACTIONS} for operation in ACTIONS_CONTRACT if operation.id not in proxied)
    assert all(operation.bucket is Bucket.ACTIONS_DIRECT for operation in ACTIONS_CONTRACT)


def test_figures_are_those_of_the_code() -> None:
    """Numbers of operations, characters, seconds and hours in the guide are what the relay works with."""
    assert f"all {len(OPERATIONS)}" in GUIDE
    assert f"It stops at {MAX_REPLY_CHARACTERS:,}" in GUIDE
    assert f"It answers within {DEADLINE_SECONDS:g} seconds" in GUIDE
    assert f"for {KEEP_SECONDS / 3600:g} hours" in GUIDE
    assert Settings.model_fields["RELAY_ARTIFACT_TTL_SECONDS"].default == 3600
    assert "(an hour unless set)" in GUIDE


def test_figures_of_the_tools_are_those_of_the_code() -> None:
    """Numbers of tools, characters, seconds and hours in the guide to MCP are what the relay works with."""
    assert f"All {len(OPERATIONS)} tools" in MCP_GUIDE
    assert f"| {MAX_REPLY_CHARACTERS:,} characters, {DEADLINE_SECONDS:g} seconds |" in MCP_GUIDE
    assert f"answers within {DEADLINE_SECONDS:g} in any case" in MCP_GUIDE
    assert f"within {KEEP_SECONDS / 3600:g} hours" in MCP_GUIDE
    assert PROGRESS_SECONDS == 2
    assert "progress every two seconds" in MCP_GUIDE


def test_scopes_of_the_tools_are_those_of_the_contract() -> None:
    """Who may send messages, and what a token may bring, is what the guide to MCP says."""
    (carrier,) = (operation for operation in FULL_CONTRACT if operation.carries)
    assert carrier.carries is Bucket.ACTIONS_DIRECT
    assert carrier.token_scopes == {Scope.ACTIONS, Scope.PROXY}
    assert "with the scopes `actions` and `proxy`" in MCP_GUIDE
