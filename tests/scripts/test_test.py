"""
What `scripts/test` does before the integration part, with doubles for what it installs and for pytest.

Not for: the parts themselves; whoever runs these tests runs them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.script_checkouts import ScriptCheckout

# What the script itself calls; nothing else of this machine is on the PATH.
TOOLS = ("bash", "cat", "cp", "dirname", "env", "mkdir", "mktemp", "rm", "sed", "touch")
CLIENTS = ("tests/importers", "tests/inspector")
LOCK = "package-lock.json"
INSTALLED = "node_modules/.package-lock.json"
# Notes pytest's calls and leaves a report of one passed test; says whether there is a server of PostgreSQL.
PYTHON = """case "$*" in
  *find_programs*) [[ -e "$DOUBLES/has-postgres" ]] ;;
  *find_nginx*) [[ -e "$DOUBLES/has-nginx" ]] ;;
  *"-m pytest"*)
    touch "$DOUBLES/pytest.ran"
    for word in "$@"; do
        case "$word" in --junit-xml=*) echo '<testsuite tests="1"/>' >"${word#--junit-xml=}" ;; esac
    done ;;
  *) exec "$PYTHON_OF_THE_TESTS" "$@" ;;
esac"""
NPM = "mkdir -p node_modules && touch node_modules/.package-lock.json"


@pytest.fixture
def bare(checkout: ScriptCheckout, tmp_path: Path) -> ScriptCheckout:
    """A machine that has nothing of what the integration part needs, and no package manager."""
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None, name
        (tmp_path / "bin" / name).symlink_to(found)
    checkout.double(".venv/bin/python", PYTHON)
    for folder in CLIENTS:
        (checkout.root / folder).mkdir(parents=True)
        (checkout.root / folder / LOCK).write_text("{}", encoding="utf-8")
    return checkout


@pytest.fixture
def equipped(bare: ScriptCheckout) -> ScriptCheckout:
    """A machine with everything but the clients from npm."""
    for name, body in (("node", "true"), ("npm", NPM), ("openssl", "true"), ("wrk", "true")):
        bare.double(name, body)
    for server in ("postgres", "nginx"):
        (bare.doubles / f"has-{server}").touch()
    return bare


def run(checkout: ScriptCheckout, *parts: str) -> subprocess.CompletedProcess[str]:
    """Run some parts, with the doubles and the few tools on the PATH."""
    path = f"{checkout.doubles}{os.pathsep}{checkout.root.parent / 'bin'}"
    program = f'PATH="{path}"; exec scripts/test "$@"'
    return checkout.shell(
        f"set -- {' '.join(parts)}; {program}", checkout.root, {"PYTHON_OF_THE_TESTS": sys.executable}
    )


def pytest_ran(checkout: ScriptCheckout) -> bool:
    """Whether any test was run."""
    return (checkout.doubles / "pytest.ran").exists()


def test_what_is_missing_is_told_at_once_and_fails_the_part(bare: ScriptCheckout) -> None:
    """Without a package manager every missing thing is named, no test runs, and the part counts as failed."""
    ended = run(bare, "integration")
    assert ended.returncode == 1
    for needed in ("`openssl`", "PostgreSQL's server", "need nginx", "`wrk`", "Node.js as `node` and `npm`"):
        assert needed in ended.stderr
    assert "integration  FAILED" in ended.stdout
    assert not pytest_ran(bare)


def test_the_unit_part_needs_none_of_it(bare: ScriptCheckout) -> None:
    """Where only the unit tests are asked for, nothing is missed and nothing installed."""
    bare.double("npm", "exit 1")
    ended = run(bare, "unit")
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert pytest_ran(bare)
    assert bare.calls("npm") == []


def test_clients_are_installed_from_their_locks_and_only_when_those_changed(equipped: ScriptCheckout) -> None:
    """`npm ci` runs for each client when there is nothing yet, for one alone when its lock is newer, and else not."""
    assert run(equipped, "integration").returncode == 0
    assert pytest_ran(equipped)
    assert [call.split()[0] for call in equipped.calls("npm")] == ["ci"] * len(CLIENTS)
    assert run(equipped, "integration").returncode == 0
    assert len(equipped.calls("npm")) == len(CLIENTS)
    for folder in CLIENTS:
        os.utime(equipped.root / folder / INSTALLED, (0, 0))
        ended = run(equipped, "integration")
        assert ended.returncode == 0
        assert f"test: installing the locked packages of {folder}\n" in ended.stdout
        assert ended.stdout.count("locked packages") == 1


def test_clients_that_cannot_be_installed_fail_the_part(equipped: ScriptCheckout) -> None:
    """When npm does not reach its registry, it is told where to look, no test runs, and the next run tries again."""
    equipped.double("npm", "echo 'npm error network' >&2; exit 1")
    for _ in range(2):
        ended = run(equipped, "integration")
        assert ended.returncode == 1
        assert "npm error network" in ended.stderr
        for folder in CLIENTS:
            assert f"cd {folder} && npm ci" in ended.stderr
    assert not pytest_ran(equipped)
    assert len(equipped.calls("npm")) == 2 * len(CLIENTS)


def test_debian_s_packages_are_installed_by_root_and_named_to_others(equipped: ScriptCheckout) -> None:
    """On Debian root gets what is missing, without what is only recommended; others are told the command."""
    (equipped.doubles / "node").unlink()
    equipped.double("apt-get", 'case "$*" in *install*) cp "$DOUBLES/openssl" "$DOUBLES/node" ;; esac')
    ended = run(equipped, "integration")
    calls = [call.partition("Timeout=300 ")[2] for call in equipped.calls("apt-get")]
    if os.geteuid() == 0:
        assert ended.returncode == 0
        assert calls == ["update", "install --yes --no-install-recommends nodejs npm"]
        assert pytest_ran(equipped)
    else:
        assert ended.returncode == 1
        assert "Run: sudo apt-get update && sudo apt-get install nodejs npm" in ended.stderr
        assert calls == []
