"""Which locks `scripts/audit` and `scripts/sbom` read, and how they end. The tools are doubles; opens no sockets."""

from pathlib import Path

import pytest

from tests.support.documents import ROOT
from tests.support.script_checkouts import ScriptCheckout

# Makes environments whose programs only note their calls; `fails` in the checkout lists locks with findings.
PYTHON = r"""
if [[ "$*" != "-m venv"* ]]; then exit 0; fi
folder=${!#}
mkdir -p "$folder/bin"
for name in python pip-audit cyclonedx-py; do
    printf '%s\n' '#!/usr/bin/env bash' "printf '%s\n' \"\$*\" >>'$DOUBLES/$name.calls'" \
        'if [[ -e fails ]] && grep -qxF -- "${2:-}" fails; then exit 1; fi' >"$folder/bin/$name"
    chmod +x "$folder/bin/$name"
done
"""
LOCKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "scripts").glob("requirements*.lock"))


@pytest.fixture
def tools(checkout: ScriptCheckout) -> ScriptCheckout:
    """A checkout with the locks, a commit and doubles for Python and all that it would install."""
    checkout.commit(dict.fromkeys(LOCKS, ""))
    checkout.double("python3", PYTHON)
    return checkout


def test_every_lock_is_audited(tools: ScriptCheckout) -> None:
    """With its hashes and without resolving anything; what else is said goes to pip-audit."""
    assert tools.script("audit", "--ignore-vuln", "X-1").returncode == 0
    calls = tools.calls("pip-audit")
    assert [call.split()[1] for call in calls] == LOCKS
    assert all("--require-hashes --disable-pip --strict" in call for call in calls)
    assert all(call.endswith("--ignore-vuln X-1") for call in calls)
    (installed,) = tools.calls("python")
    assert installed.endswith("--require-hashes --requirement scripts/requirements.audit.lock")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_finding_in_any_lock_fails_after_all_of_them(tools: ScriptCheckout, lock: str) -> None:
    """One run tells everything."""
    (tools.root / "fails").write_text(f"{lock}\n", encoding="utf-8")
    assert tools.script("audit").returncode == 1
    assert len(tools.calls("pip-audit")) == len(LOCKS)


def test_the_bill_of_materials_is_of_what_runs(tools: ScriptCheckout, tmp_path: Path) -> None:
    """From the runtime lock with its hashes, without pip, and the same each time."""
    assert tools.script("sbom", str(tmp_path / "sbom.json")).returncode == 0
    tool, runtime = tools.calls("python")
    assert tool.endswith("--require-hashes --requirement scripts/requirements.audit.lock")
    assert runtime.endswith("--require-hashes --requirement scripts/requirements.runtime.lock")
    (call,) = tools.calls("cyclonedx-py")
    assert call.startswith("environment ")
    assert "--output-reproducible" in call
    assert call.endswith(f"--output-file {tmp_path / 'sbom.json'}")
    assert any("--without-pip" in made for made in tools.calls("python3"))


def test_the_bill_of_materials_needs_a_file(tools: ScriptCheckout) -> None:
    """Without one it says so and makes nothing."""
    ended = tools.script("sbom")
    assert ended.returncode == 2
    assert "scripts/sbom FILE" in ended.stderr
    assert tools.calls("python3") == []
