"""What `scripts/coverage_report.sh` makes of `contract coverage`. Opens no sockets."""

import pytest

from tests.support.script_checkouts import ScriptCheckout


@pytest.mark.parametrize("status", [0, 2, 3])
def test_arguments_report_and_verdict_pass_through(checkout: ScriptCheckout, status: int) -> None:
    """The script adds nothing but the set-up; it is called from any folder."""
    checkout.double(".venv/bin/contract", f'echo "report of $PWD"\nexit {status}')
    script = checkout.root / "scripts" / "coverage_report.sh"
    result = checkout.shell(f'"{script}" --format json --url http://127.0.0.1:9', checkout.doubles, {})
    assert (result.returncode, result.stdout) == (status, f"report of {checkout.root}\n")
    assert checkout.calls("contract") == ["coverage --format json --url http://127.0.0.1:9"]
    assert checkout.calls("setup") == [""]
