"""
Holds the guides in `docs/` against what they talk about: operations, codes, settings, limits, commands, links.

Not for: whether an importer's editor still looks as described. Opens no sockets.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from codegen.contract import ACTIONS, FULL, Bucket, Scope, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.budget import DEADLINE_SECONDS, MAX_REPLY_CHARACTERS
from handlers.runtime.errors import ERROR_TABLE
from handlers.runtime.idempotency import KEEP_SECONDS
from handlers.runtime.settings import Settings
from tests.support.documents import ROOT
from tests.support.project_calls import unknown_calls

GUIDES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
GUIDE = GUIDES["actions.md"]
ACTIONS_CONTRACT = load_contract(GENERATED, ACTIONS)
FULL_CONTRACT = load_contract(GENERATED, FULL)
OPERATIONS = {operation.id for operation in ACTIONS_CONTRACT}
CODE_ROW = re.compile(r"^\| `([a-z_]+)` \| (\d{3}) \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
CAMEL = re.compile(r"`([a-z]+(?:[A-Z][a-z]*)+)`")
SNAKE = re.compile(r"`([a-z]+(?:_[a-z0-9]+)+)`")


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


def unknown_names(text: str) -> set[str]:
    """Names in backticks that neither the Actions document nor the relay knows."""
    document: Mapping[str, Any] = ACTIONS_CONTRACT.document
    known = OPERATIONS | set(properties(document)) | set(values_of(document)) | relay_codes()
    return {name for pattern in (CAMEL, SNAKE) for name in pattern.findall(text)} - known


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
    """Every operation, field, value and code in backticks is one of the contract's."""
    assert unknown_names(GUIDES[name]) == set()


def test_an_unknown_name_is_found() -> None:
    """A renamed operation or code does not stay behind in a guide."""
    assert unknown_names("`startResponse` `askModel` `invalid_key` `no_such_code`") == {"askModel", "no_such_code"}


@pytest.mark.parametrize("name", GUIDES)
def test_settings_and_commands_exist(name: str) -> None:
    """Variables are settings of the relay, commands and scripts can be called."""
    assert set(re.findall(r"RELAY_[A-Z_]+", GUIDES[name])) <= set(Settings.model_fields)
    assert unknown_calls(GUIDES[name]) == []


def test_every_code_of_the_relay_is_explained_once_with_its_status() -> None:
    """The table of codes is the contract's closed list, with the status that each is answered with."""
    rows = CODE_ROW.findall(GUIDE)
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
