"""What the benchmark installs, and how others' gateways are run: with programs that only pretend, and no sockets."""

import ast
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench import peers, tools
from tests.bench.peers import PEERS, litellm_configuration
from tests.bench.processes import Running
from tests.bench.subjects import OWN, OWN_SUBJECTS, UPSTREAM_KEY, Started, Subject
from tests.bench.tools import CannotInstall, Tools
from tests.bench.workloads import WORKLOADS
from tests.support.documents import ROOT

UPSTREAM = "http://127.0.0.1:1"
# Writes down how it was called, and what npm finds in its folder; makes what `python -m venv` would make.
_PRETENDING = """#!/bin/sh
echo "${{0##*/}} $*" >> {calls}
if [ "$2" = venv ]; then /bin/mkdir -p "$3/bin"; /bin/cp "$0" "$3/bin/python"; fi
if [ "$1" = install ]; then /bin/cp package.json {folder}/asked.json; fi
{more}
"""


class Machine:
    """
    A machine with nothing on its PATH but what a test puts there.

    Args:
        folder: Of its programs.
    """

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.said: list[str] = []
        self.tools = Tools(folder / "bench", self.said.append)
        self._calls = folder / "calls"
        self._folder = folder

    def add(self, name: str, more: str = "") -> Path:
        """Put a program there that does no more than the script says."""
        program = self.programs / name
        program.write_text(_PRETENDING.format(calls=self._calls, folder=self._folder, more=more), encoding="utf-8")
        program.chmod(0o755)
        return program

    @property
    def calls(self) -> list[str]:
        """Every call of its programs."""
        return self._calls.read_text(encoding="utf-8").splitlines() if self._calls.exists() else []

    @property
    def asked_of_npm(self) -> Any:
        """The package.json that npm was run with last."""
        return json.loads((self._folder / "asked.json").read_text(encoding="utf-8"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Root's machine, with a Python."""
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.programs))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "executable", str(made.add("python")))
    monkeypatch.setattr(tools, "_SYSTEMD", tmp_path / "no-systemd")
    return made


class TestDebian:
    def test_a_program_that_is_there_is_used(self, machine: Machine) -> None:
        """Nothing is installed over what a machine has."""
        program = machine.add("pretended")
        machine.add("apt-get")
        assert machine.tools.debian("pretended", "package") == str(program)
        assert machine.calls == []

    def test_a_missing_program_is_installed(self, machine: Machine) -> None:
        """The lists are fetched, then the package, without a question and without what is only recommended."""
        pretended = machine.programs / "pretended"
        machine.add("apt-get", f'case "$*" in *install*) /bin/cp "$0" {pretended};; esac')
        assert machine.tools.debian("pretended", "package") == str(pretended)
        update, install = machine.calls
        assert update.endswith(" update")
        assert install.endswith(" install --yes --no-install-recommends package")
        assert machine.said == ["installing Debian's package"]

    def test_a_server_is_not_started_by_its_installation(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where systemd would start Debian's nginx, it is masked before it comes."""
        monkeypatch.setattr(tools, "_SYSTEMD", machine.programs)
        machine.add("systemctl")
        machine.add("apt-get", f'case "$*" in *install*) /bin/cp "$0" {machine.programs}/pretended;; esac')
        machine.tools.debian("pretended", "nginx-light")
        assert machine.calls[0] == "systemctl mask --runtime nginx.service"

    def test_another_system_is_told_what_is_missing(self, machine: Machine) -> None:
        """Without apt-get, the reason names the program."""
        with pytest.raises(CannotInstall, match="`pretended` is missing: install it with this system's package"):
            machine.tools.debian("pretended", "package")

    def test_a_user_is_told_the_command(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who is not root installs by hand; nothing is tried."""
        machine.add("apt-get")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(CannotInstall, match=r"run `sudo apt-get update && .*install .* package`"):
            machine.tools.debian("pretended", "package")
        assert machine.calls == []

    def test_a_failing_installation_is_told(self, machine: Machine) -> None:
        """The reason says who failed, how, and where the rest stands; it holds no path of this machine."""
        machine.add("apt-get", "echo No such server; exit 100")
        with pytest.raises(CannotInstall) as refused:
            machine.tools.debian("pretended", "package")
        reason = "package could not be installed: apt-get ended with 100, and what it said is in bench/package.log."
        assert str(refused.value) == reason
        assert "No such server" in (machine.programs.parent / "bench" / "package.log").read_text(encoding="utf-8")

    def test_a_package_without_the_program_is_told(self, machine: Machine) -> None:
        """An installation that brings something else does not pass."""
        machine.add("apt-get")
        with pytest.raises(CannotInstall, match="Debian's package has no program `pretended`"):
            machine.tools.debian("pretended", "package")


class TestVenv:
    def test_it_is_made_once(self, machine: Machine) -> None:
        """What is there with the same requirements stays as it is."""
        first = machine.tools.venv("peer", ["one==1.0"])
        assert first.is_file()
        assert machine.tools.venv("peer", ["one==1.0"]) == first
        venv, pip = machine.calls
        assert venv.startswith("python -m venv ")
        assert pip.startswith("python -m pip install ")
        assert pip.endswith(" one==1.0")
        assert len(machine.said) == 1

    def test_other_requirements_make_it_anew(self, machine: Machine) -> None:
        """A raised version does not come over what the old one has left."""
        python = machine.tools.venv("peer", ["one==1.0"])
        left = python.parent / "left"
        left.touch()
        machine.tools.venv("peer", ["one==1.1"])
        assert not left.exists()
        assert machine.calls[-1].endswith(" one==1.1")

    def test_one_that_failed_is_made_anew(self, machine: Machine) -> None:
        """A half environment is never taken for a whole one."""
        machine.add("python", 'if [ "$2" = pip ]; then exit 1; fi')
        with pytest.raises(
            CannotInstall, match=r"^peer could not be installed: pip ended with 1, and .*bench/peer\.log\.$"
        ):
            machine.tools.venv("peer", ["one==1.0"])
        machine.add("python")
        machine.tools.venv("peer", ["one==1.0"])
        assert [call.split()[2] for call in machine.calls] == ["venv", "pip", "venv", "pip"]

    def test_a_hanging_installation_is_given_up(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        """A registry that never answers costs one peer, not the benchmark."""
        monkeypatch.setattr(tools, "INSTALL_SECONDS", 0.1)
        machine.add("python", "exec /bin/sleep 60")
        with pytest.raises(CannotInstall, match="venv took more than 0 minutes"):
            machine.tools.venv("peer", ["one==1.0"])

    def test_a_missing_python_is_told(self, machine: Machine) -> None:
        """What cannot even be started is a reason, too."""
        (machine.programs / "python").unlink()
        with pytest.raises(CannotInstall, match="venv: No such file or directory"):
            machine.tools.venv("peer", ["one==1.0"])

    def test_two_benchmarks_make_it_once(self, machine: Machine) -> None:
        """The second one waits for the first, and finds it made."""
        threads = [threading.Thread(target=machine.tools.venv, args=("peer", ["one==1.0"])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [call.split()[2] for call in machine.calls] == ["venv", "pip"]


class TestNpm:
    def test_exactly_these_versions_are_installed_once(self, machine: Machine) -> None:
        """No package brings another version of one of them along, and no script of theirs is run."""
        machine.add("node")
        machine.add("npm")
        for _ in range(2):
            folder = machine.tools.npm("peer", {"gateway": "1.2.3", "server": "4.5.6"})
        (call,) = machine.calls
        assert "--ignore-scripts" in call
        assert machine.asked_of_npm["dependencies"] == {"gateway": "1.2.3", "server": "4.5.6"}
        assert machine.asked_of_npm["overrides"] == machine.asked_of_npm["dependencies"]
        assert (folder / "package.json").is_file()

    def test_another_version_is_installed_anew(self, machine: Machine) -> None:
        """What the old one has left is gone."""
        machine.add("node")
        machine.add("npm")
        left = machine.tools.npm("peer", {"gateway": "1.2.3"}) / "left"
        left.touch()
        machine.tools.npm("peer", {"gateway": "1.2.4"})
        assert not left.exists()
        assert machine.asked_of_npm["dependencies"] == {"gateway": "1.2.4"}

    def test_without_node_it_is_refused(self, machine: Machine) -> None:
        """The reason names what is missing."""
        with pytest.raises(CannotInstall, match="`node` is missing"):
            machine.tools.npm("peer", {"gateway": "1.2.3"})

    def test_a_failing_installation_is_told(self, machine: Machine) -> None:
        """The reason says that it was npm."""
        machine.add("node")
        machine.add("npm", "exit 7")
        with pytest.raises(CannotInstall, match=r"^peer could not be installed: npm ended with 7"):
            machine.tools.npm("peer", {"gateway": "1.2.3"})


class Asked(Tools):
    """Tools that only note what they are asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lambda line: None)
        self.requirements: list[str] = []
        self.packages: dict[str, str] = {}

    def debian(self, program: str, package: str) -> str:
        """Pretend that it is there."""
        del package
        return f"/bin/{program}"

    def venv(self, name: str, requirements: Sequence[str]) -> Path:
        """Note them."""
        self.requirements += requirements
        return Path(f"/{name}/bin/python")

    def npm(self, name: str, packages: Mapping[str, str]) -> Path:
        """Note them."""
        self.packages |= packages
        return Path(f"/{name}")


class Launch:
    """What a peer would have run."""

    command: Sequence[str]
    environment: Mapping[str, str]
    started: Started


@pytest.fixture(params=PEERS, ids=lambda peer: peer.name)
def launch(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """A start of each peer, in an environment that holds what none of them may see."""
    seen = Launch()

    @contextmanager
    def running(
        command: Sequence[str], ready_url: str, output: Path, environment: Mapping[str, str], *, folder: Path
    ) -> Iterator[Running]:
        assert ready_url.startswith("http://127.0.0.1:")
        assert output.parent == folder == tmp_path
        seen.command, seen.environment = command, environment
        yield Running(1, 0.5)

    monkeypatch.setattr(peers, "running", running)
    monkeypatch.setattr(peers, "free_port", lambda: 2)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    peer: Subject = request.param
    peer.install(Asked(tmp_path))
    with peer.start(UPSTREAM, tmp_path) as started:
        seen.started = started
    return seen


class TestPeers:
    def test_their_names_are_their_own(self) -> None:
        """Each word of --only means one subject, and no peer is asked for what only the relay has."""
        names = [subject.name for subject in (*OWN_SUBJECTS, *PEERS)]
        assert len(names) == len(set(names))
        for peer in PEERS:
            assert not peer.workloads & OWN

    def test_every_version_is_exact(self, tmp_path: Path) -> None:
        """Two runs, months apart, measure the same; and the page says what."""
        asked = Asked(tmp_path)
        told = ""
        for peer in PEERS:
            told += peer.version
            peer.install(asked)
        versions = [requirement.partition("==")[2] for requirement in asked.requirements] + [*asked.packages.values()]
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)
        assert all(version in told for version in versions)

    def test_none_inherits_anything(self, launch: Launch) -> None:
        """No key of the machine's owner, no proxy and no setting reaches what others have written."""
        assert "sk-of-somebody" not in launch.environment.values()
        assert not {name for name in launch.environment if name.lower().endswith("_proxy")}

    def test_no_key_stands_in_a_command(self, launch: Launch, tmp_path: Path) -> None:
        """Keys come in the environment or with each request, never where every process can read them."""
        keys = (launch.started.headers["Authorization"].removeprefix("Bearer "), UPSTREAM_KEY)
        texts = [*launch.command, *(file.read_text(encoding="utf-8") for file in tmp_path.iterdir())]
        assert not [text for text in texts if any(key in text for key in keys)]

    def test_each_listens_on_loopback_and_asks_the_upstream(self, launch: Launch, tmp_path: Path) -> None:
        """Address and upstream stand in its arguments, its files, its environment or its headers."""
        files = [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()]
        whole = "\n".join([*launch.command, *launch.environment.values(), *launch.started.headers.values(), *files])
        assert "127.0.0.1" in whole.replace(UPSTREAM, "")
        assert UPSTREAM in whole
        assert launch.started.url == "http://127.0.0.1:2"

    def test_litellm_has_the_models_of_its_workloads(self) -> None:
        """It refuses a model that its file does not name."""
        configuration: Any = litellm_configuration(UPSTREAM)
        known = {entry["model_name"] for entry in configuration["model_list"]}
        litellm = next(peer for peer in PEERS if peer.name == "litellm")
        asked = {WORKLOADS[name].body["model"] for name in litellm.workloads if name in WORKLOADS}
        assert asked
        assert asked <= known

    def test_the_fastapi_application_stands_alone(self) -> None:
        """Its environment has no package of this project, so it can gain nothing from it."""
        source = (ROOT / "tests" / "bench" / "fastapi_app.py").read_text(encoding="utf-8")
        names = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
        assert names - set(sys.stdlib_module_names) == {"fastapi", "httpx", "starlette"}
