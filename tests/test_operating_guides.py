"""
Holds `docs/runbook.md` and `docs/deployment.md` against the relay's log, commands, codes and limits.

Not for: links, settings and names, which `test_guides` holds for all guides. Opens no sockets.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import typer
from typer.core import TyperGroup

from codegen.cli import app as contract
from codegen.contract import FULL, load_contract
from handlers.cli import app
from handlers.runtime.app import GENERATED
from handlers.runtime.budget import DEADLINE_SECONDS
from handlers.runtime.errors import ERROR_TABLE
from handlers.runtime.settings import Settings
from tests.support.documents import ROOT

NAMES = ("runbook.md", "deployment.md")
GUIDES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in NAMES}
RUNBOOK, DEPLOYMENT = GUIDES.values()
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
TIMEOUT_SECONDS = 30
BASH = shutil.which("bash") or "bash"
READS_LOG = [
    line for block in BLOCK.findall(RUNBOOK) for line in block.splitlines() if re.match(r"requests |log ", line)
]
STATUSES = {rule.code: rule.status for rule in ERROR_TABLE.values()}


def logged_fields() -> set[str]:
    """Fields of the line that is written for a request; the table is held against real lines elsewhere."""
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = guide[guide.index("## Log lines") : guide.index("## Probes")]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


def sample(**changes: object) -> dict[str, object]:
    """A line as the relay writes it."""
    return {
        "request_id": "rly_19ebfaeaae53d0c424a9a81d",
        "method": "POST",
        "status": 200,
        "outcome": "answered",
        "bytes_out": 169,
        "ms": 8.7,
        "operation": "createResponse",
        "key": "alice",
        "event": "request",
        "level": "info",
        "timestamp": "2026-11-23T01:54:16.446394Z",
        **changes,
    }


SAMPLES = [
    sample(),
    sample(status=429),
    sample(status=404),
    sample(status=502, outcome="upstream_unreachable"),
    sample(status=404, outcome="unknown_operation"),
    sample(status=401, outcome="invalid_key"),
    sample(status=400, outcome="invalid_body"),
    {"event": "store", "level": "error", "reason": "x", "timestamp": "2026-11-23T01:54:16.446394Z"},
]


def commands(group: TyperGroup, path: str = "relay") -> Iterator[tuple[str, set[str]]]:
    """Commands as they are typed, with their options."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", {option for parameter in command.params for option in parameter.opts}


def wrong_calls(text: str) -> Iterator[str]:
    """Calls of `relay keys` in a guide that the command does not take."""
    known = dict(commands(typer.main.get_group(app)))
    for call, rest in re.findall(r"(relay keys [a-z]+)([^\n|`&]*)", text):
        if call not in known:
            yield call
        yield from (f"{call} {option}" for option in OPTION.findall(rest) if option not in known.get(call, {option}))


def run_bash(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run bash in a folder and keep what it prints."""
    return subprocess.run(
        [BASH, *arguments], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_managed_as_the_command_is(name: str) -> None:
    """Every call of `relay keys` names a command and options that exist."""
    assert "relay keys" in GUIDES[name]
    assert list(wrong_calls(GUIDES[name])) == []


def test_a_wrong_call_is_found() -> None:
    """A command or an option that was renamed does not stay behind."""
    assert list(wrong_calls("relay keys drop --id a\nrelay keys revoke --name a --file k\n")) == [
        "relay keys drop",
        "relay keys revoke --name",
    ]


@pytest.mark.parametrize("block", [block for text in GUIDES.values() for block in BLOCK.findall(text)])
def test_blocks_are_shell(block: str) -> None:
    """Every block can be pasted: bash reads it to its end."""
    read = subprocess.run(
        [BASH, "-n"], input=block, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert (read.returncode, read.stderr) == (0, "")


def test_the_table_of_fields_is_the_log() -> None:
    """The fields that the runbook explains are some of those that the code writes, and the commands use no others."""
    table = RUNBOOK[RUNBOOK.index("| Field | Says |") : RUNBOOK.index("So an error with the")]
    explained = {
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert explained <= logged_fields() - {"event", "level"}
    programs = " ".join(program for line in BLOCK.findall(RUNBOOK) for program in re.findall(r"'([^']*)'", line))
    assert set(re.findall(r"(?<![\w\]])\.([a-z_]+)", programs)) - {"event", "level"} <= explained


def test_programs_name_fields_of_the_log() -> None:
    """Programs of jq look at nothing that no line has."""
    assert len(READS_LOG) > 10
    programs = " ".join(program for line in BLOCK.findall(RUNBOOK) for program in re.findall(r"'([^']*)'", line))
    assert set(re.findall(r"(?<![\w\]])\.([a-z_]+)", programs)) <= logged_fields()


@pytest.mark.skipif(shutil.which("jq") is None, reason="this system has no jq to run them with")
@pytest.mark.parametrize("line", READS_LOG)
def test_what_reads_the_log_reads_it(line: str, tmp_path: Path) -> None:
    """Every command that reads the log finds something in lines of a relay that has seen all of it."""
    lines = "".join(f"{orjson.dumps(record).decode()}\n" for record in SAMPLES)
    (tmp_path / "relay.log").write_text(f"relay        http://127.0.0.1:8080\n{lines}", encoding="utf-8")
    helpers = next(block for block in BLOCK.findall(RUNBOOK) if "requests() {" in block)
    functions = "\n".join(text for text in helpers.splitlines() if "() {" in text)
    program = f"set -euo pipefail\njournalctl() {{ cat relay.log; }}\n{functions}\n{line}\n"
    ran = run_bash("-c", program, folder=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip()


@pytest.mark.parametrize("name", NAMES)
def test_codes_have_their_status(name: str) -> None:
    """Where a code of the relay stands behind a status, it is the one that it is answered with."""
    named = re.findall(r"\b(\d{3}) `([a-z_]+)`", GUIDES[name])
    assert all(STATUSES[code] == int(status) for status, code in named if code in STATUSES)
    assert name != "runbook.md" or len(named) > 5


def test_figures_are_those_of_the_code() -> None:
    """Seconds, messages and exit codes in the guides are what the relay works with."""
    shutdown = Settings.model_fields["RELAY_SHUTDOWN_TIMEOUT_SECONDS"].default
    assert f"| {shutdown} seconds to end |" in DEPLOYMENT
    assert f"{DEADLINE_SECONDS:g} seconds for assistants" in RUNBOOK
    store = (ROOT / "handlers" / "runtime" / "store.py").read_text(encoding="utf-8")
    assert "the store was used by a newer relay" in store
    assert "the store was used by a newer relay" in RUNBOOK
    assert re.findall(r"^\| (\d) \|", RUNBOOK, re.MULTILINE) == ["0", "1", "2", "3"]
    drift = next(command for command in contract.registered_commands if command.name == "drift")
    assert "3 a file cannot be read" in " ".join(str(drift.callback.__doc__).split())


def test_probes_are_open() -> None:
    """What the guide asks without a key after the start needs none."""
    open_paths = {operation.path for operation in load_contract(GENERATED, FULL) if not operation.scopes}
    asked = re.findall(r"^curl -fsS https://relay\.example\.com(/\S+)", DEPLOYMENT, re.MULTILINE)
    assert {"/livez", "/readyz"} <= set(asked) <= open_paths
