"""`SECURITY.md` tells of nothing that is not there: every threat names tests, and every test that it names exists."""

import ast
import re
from functools import cache

import pytest

from handlers.runtime.settings import Settings
from tests.support.documents import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
_HEADING = "| Threat | What stops it | Shown by |\n|---|---|---|\n"


def threats(text: str) -> dict[str, list[str]]:
    """Each threat of the table with the tests that it names."""
    rows = text.partition(_HEADING)[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0]: re.findall(r"`([^`]+)`", row[2]) for row in cells}


@cache
def names_in(path: str) -> frozenset[str]:
    """Names of the tests of a module, those of classes behind the class's name."""
    file = ROOT / "tests" / path
    if not file.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            functions = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{function.name}" for function in functions}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


def missing(references: list[str]) -> list[str]:
    """Those that name no test."""
    parts = [reference.partition("::") for reference in references]
    return [f"{path}::{name}" for path, _, name in parts if name not in names_in(path)]


@pytest.mark.parametrize("threat", threats(TEXT))
def test_every_threat_names_tests_that_exist(threat: str) -> None:
    """A threat without a test is a wish; a test that was renamed is renamed here too."""
    references = threats(TEXT)[threat]
    assert references
    assert missing(references) == []


def test_a_test_that_is_not_there_is_found() -> None:
    """A module that is gone, a name that is not a test, and a test of a class without its class."""
    wrong = [
        "test_nothing.py::test_x",
        "test_security_policy.py::missing",
        "scripts/test_audit.py::test_nothing",
        "handlers/runtime/test_addresses.py::test_the_first_answer_looks_at_no_key",
    ]
    assert missing([*wrong, "test_security_policy.py::test_a_test_that_is_not_there_is_found"]) == wrong
    assert len(threats(TEXT)) > 25


def test_settings_that_it_names_exist() -> None:
    """No setting is recommended that the relay would refuse; `…` stands for several."""
    named = set(re.findall(r"RELAY_[A-Z_]+(?:…)?", TEXT))
    assert named
    for name in named:
        assert (
            any(field.startswith(name.rstrip("…")) for field in Settings.model_fields)
            if "…" in name
            else (name in Settings.model_fields)
        ), name


def test_links_lead_to_files_of_the_project() -> None:
    """Relative links of the page are files."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert all((ROOT / link.partition("#")[0]).is_file() for link in links)
