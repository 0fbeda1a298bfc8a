"""What `scripts/drift` makes of the document that it fetches. Opens no sockets: `curl` is a double."""

import hashlib

import pytest

from tests.support.script_checkouts import ScriptCheckout

FETCHED = """while (($# > 0)); do
    if [[ "$1" == --output ]]; then printf '{}' >"$2"; fi
    shift
done"""


@pytest.fixture
def fetching(checkout: ScriptCheckout) -> ScriptCheckout:
    """A checkout whose `curl` fetches an empty object."""
    checkout.double("curl", FETCHED)
    return checkout


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_the_verdict_is_that_of_the_command(fetching: ScriptCheckout, status: int) -> None:
    """Report and exit code of `contract drift` reach the caller, and the log says what was compared."""
    fetching.double(".venv/bin/contract", f"echo report\nexit {status}")
    result = fetching.script("drift")
    assert (result.returncode, result.stdout) == (status, "report\n")
    assert hashlib.sha256(b"{}").hexdigest() in result.stderr
    (call,) = fetching.calls("contract")
    assert call.startswith("drift ")
    assert call.endswith("/openapi.json --format markdown")


def test_what_is_fetched_has_bounds(fetching: ScriptCheckout) -> None:
    """Only https, only so many bytes, only so long, and an error page is an error."""
    fetching.script("drift")
    (call,) = fetching.calls("curl")
    for bound in ("--fail", "--proto =https", "--max-filesize", "--max-time", "-- https://"):
        assert bound in call


def test_a_document_that_does_not_come_is_no_drift(fetching: ScriptCheckout) -> None:
    """Exit codes 1 and 2 are kept for what upstream has changed."""
    fetching.double("curl", "exit 1")
    result = fetching.script("drift")
    assert (result.returncode, result.stdout, fetching.calls("contract")) == (3, "", [])


@pytest.mark.parametrize("tool", ["scripts/setup", ".venv/bin/contract"])
def test_a_tool_that_breaks_is_no_drift(fetching: ScriptCheckout, tool: str) -> None:
    """A set-up that fails and a command that ends without a report are failures of this run."""
    fetching.double(tool, "exit 1")
    result = fetching.script("drift")
    assert (result.returncode, result.stdout) == (3, "")
