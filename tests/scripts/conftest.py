"""A checkout for the tests of the scripts."""

from pathlib import Path

import pytest

from tests.support.script_checkouts import ScriptCheckout, script_checkout


@pytest.fixture
def checkout(tmp_path: Path) -> ScriptCheckout:
    """A repository with the project's scripts and doubles for the tools that they call."""
    return script_checkout(tmp_path)
