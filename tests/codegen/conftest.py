"""A checkout of a small contract, for tests that write files."""

from pathlib import Path

import orjson
import pytest

from codegen.pin import COLUMNS, LOCK
from tests.support.documents import POLICY_SCHEMA, document


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The folder of a project whose two documents and lock file hold one operation each; nothing is generated yet."""
    spec = tmp_path / "spec"
    spec.mkdir()
    (spec / "policy.schema.yaml").write_bytes(orjson.dumps(POLICY_SCHEMA))  # JSON is YAML
    for name in ("openapi.full", "openapi.actions"):
        (spec / f"{name}.yaml").write_bytes(orjson.dumps(document()))
    line = ("GET", "/v1/things", "retrieveThing", "-", "application/json", "-")
    (tmp_path / LOCK).write_text("".join("\t".join(cells) + "\n" for cells in (COLUMNS, line)), encoding="utf-8")
    return tmp_path
