"""A checkout of a small contract, for tests that write files."""

from pathlib import Path

import orjson
import pytest

from tests.support.documents import POLICY_SCHEMA, document


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The folder of a project whose two documents hold one operation each; nothing is generated yet."""
    spec = tmp_path / "spec"
    spec.mkdir()
    (spec / "policy.schema.yaml").write_bytes(orjson.dumps(POLICY_SCHEMA))  # JSON is YAML
    for name in ("openapi.full", "openapi.actions"):
        (spec / f"{name}.yaml").write_bytes(orjson.dumps(document()))
    return tmp_path
