"""Imports point one way: `handlers`, then `handlers.runtime`, then `codegen`."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.documents import ROOT

SOURCES = [path for folder in ("codegen", "handlers") for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(source: str) -> set[str]:
    """Names of all modules that a source imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def findings(path: Path, source: str) -> list[str]:
    """Imports of a module that point the wrong way."""
    place = path.as_posix()
    wrong = []
    for name in sorted(imported(source)):
        package = name.split(".")[0]
        if (
            package in {"tests", "scripts"}
            or (package == "handlers" and place.startswith("codegen/"))
            or (re.match(r"handlers\.(?!runtime\b)", name) and place.startswith("handlers/runtime/"))
        ):
            wrong.append(f"{place} must not import {name}")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    """`codegen` never imports `handlers`, and `handlers.runtime` never what stands on it."""
    assert findings(path.relative_to(ROOT), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "place, source",
    [
        ("codegen/contract.py", "import handlers"),
        ("codegen/render.py", "def f():\n    from handlers.runtime import errors"),
        ("handlers/runtime/app.py", "from handlers.relay import retrieve_health"),
        ("handlers/runtime/app.py", "from handlers import relay"),
        ("handlers/relay.py", "from tests.support import servers"),
    ],
)
def test_an_import_the_wrong_way_is_found(place: str, source: str) -> None:
    """The check sees imports of every form, also inside functions."""
    assert findings(Path(place), source) != []
