"""One version, one list of paths: what the contract says is said nowhere else. Opens no sockets."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from codegen.contract import ACTIONS, FULL, read_contract

ROOT = Path(__file__).parent.parent
CONTRACT = read_contract(ROOT, FULL)
# The tour calls a few operations by name, as a user would.
TOUR = ROOT / "handlers" / "demo.py"


def named_paths(source: str) -> set[str]:
    """Paths of the contract below `/v1/` that stand in a source text as a whole."""
    known = {operation.path for operation in CONTRACT if operation.path.startswith("/v1/")}
    return known & set(re.findall(r"/v1/[A-Za-z0-9_/{}:.-]*[A-Za-z0-9_}]", source))


def sources() -> Iterable[Path]:
    """All code of the project that is not a test."""
    for folder in ("codegen", "handlers", "scripts"):
        yield from (
            path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in {".py", ""} and path.is_file()
        )


def test_no_module_keeps_a_list_of_paths() -> None:
    """Code may mention a path to explain itself, but none names more than two of the contract's."""
    listed = {path.name: named_paths(path.read_text(encoding="utf-8")) for path in sources() if path != TOUR}
    assert {name: paths for name, paths in listed.items() if len(paths) > 2} == {}


def test_a_list_of_paths_would_be_found() -> None:
    """The check sees paths in quotes, in prose and with templates."""
    source = 'ALLOWED = ["/v1/models", "/v1/files/{file_id}"]  # and /v1/embeddings, not /v1/unheard_of'
    assert named_paths(source) == {"/v1/models", "/v1/files/{file_id}", "/v1/embeddings"}


def test_package_and_documents_carry_one_version() -> None:
    """A release has one number, whoever asks for it."""
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {package, CONTRACT.version, read_contract(ROOT, ACTIONS).version} == {package}
