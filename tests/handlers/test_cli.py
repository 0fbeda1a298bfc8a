import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from codegen.contract import Scope
from handlers.cli import main
from handlers.runtime.access import hash_key, read_key_file
from handlers.runtime.settings import Settings

Run = Callable[..., tuple[int, str, str]]
KEY = "rk_made-up-canary-0123456789"
UPSTREAM_KEY = "sk-made-up-canary-0123456789"


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `relay` inside this process, in an empty folder: exit code, what it printed, what it complained about."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in [name for name in os.environ if name.startswith(("RELAY_", "OPENAI_"))]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["relay", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        code = caught.value.code
        return code if isinstance(code, int) else 0, printed.out, printed.err

    return run


def serve(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `relay serve` in a process of its own where it must refuse to start."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "OPENAI_"))}
    return subprocess.run(
        [sys.executable, "-m", "handlers.cli", "serve"],
        env={**inherited, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(folder: Path, **environment: str) -> str:
    """What `relay serve` says when it refuses to start: with exit code 2, every line its own, no traceback, no key."""
    ended = serve(folder, **environment)
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert lines
    assert all(line.startswith("relay: ") for line in lines), ended.stderr
    for secret in (KEY, UPSTREAM_KEY):
        assert secret not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["serve", "demo", "keys"]),
        (["serve"], ["RELAY_KEY"]),
        (["demo"], ["--port", "--once", "simulated upstream"]),
        (["keys"], ["create", "list", "revoke"]),
        (["keys", "create"], ["--file", "--id", "--scope", "--expires", "RELAY_KEY_FILE"]),
        (["keys", "list"], ["--file"]),
        (["keys", "revoke"], ["--file", "--id"]),
        (["networks"], ["refresh"]),
        (["networks", "refresh"], ["--file", "--url", "RELAY_CHATGPT_NETWORKS_FILE"]),
    ],
)
def test_every_command_explains_itself(relay: Run, arguments: list[str], words: list[str]) -> None:
    """`--help` of each command ends well, needs no setting, and names what the command takes."""
    code, shown, complaints = relay(*arguments, "--help")
    assert (code, complaints) == (0, "")
    assert all(word in shown for word in words)


def test_the_help_of_serve_lists_every_setting(relay: Run) -> None:
    """Whoever runs `relay serve --help` sees each setting with its meaning."""
    _, shown, _ = relay("serve", "--help")
    unwrapped = re.sub(r"\s", "", shown)
    for name, field in Settings.model_fields.items():
        assert re.sub(r"\s", "", f"{name}: {field.description}") in unwrapped


@pytest.mark.parametrize(
    "arguments", [["fly"], ["serve", "--port", "1"], ["keys", "rotate"], ["demo", "--port", "70000"], ["demo", "x"]]
)
def test_what_a_command_does_not_know_is_an_error(relay: Run, arguments: list[str]) -> None:
    """Unknown commands, options and values end with 2 and a hint, and nothing is run."""
    code, shown, complaints = relay(*arguments)
    assert code == 2
    assert shown == ""
    assert complaints


def test_serve_without_a_key_says_how_to_get_one(tmp_path: Path) -> None:
    """Without any key the relay refuses to start and names the three ways out."""
    text = refusal(tmp_path, OPENAI_API_KEY=UPSTREAM_KEY)
    assert "no relay key" in text
    for word in ("RELAY_KEY", "relay keys create", "RELAY_KEY_FILE", "relay demo"):
        assert word in text


def test_serve_with_an_empty_key_is_serve_without_a_key(tmp_path: Path) -> None:
    """`RELAY_KEY=` and a key file without keys open nothing."""
    (tmp_path / "keys.yaml").write_text("keys: []\n", encoding="utf-8")
    assert "no relay key" in refusal(tmp_path, RELAY_KEY="")
    assert "no relay key" in refusal(tmp_path, RELAY_KEY_FILE="keys.yaml")


def test_wrong_settings_stop_serve_with_their_names(tmp_path: Path) -> None:
    """Unknown and malformed variables are reported together, each on its line, without the value of a key."""
    text = refusal(tmp_path, RELAY_KEY=f"{KEY} and a space", RELAY_PORT="many", RELAY_PROT="8080")
    names = [line.split(": ")[1] for line in text.splitlines()]
    assert sorted(names) == ["RELAY_KEY", "RELAY_PORT", "RELAY_PROT"]


def test_a_key_file_that_cannot_be_used_stops_serve(tmp_path: Path) -> None:
    """A missing or malformed key file is named, with what to do about it."""
    assert "keys.yaml: cannot be read" in refusal(tmp_path, RELAY_KEY_FILE="keys.yaml")
    (tmp_path / "keys.yaml").write_text(f"keys: [{{id: ci, key: {KEY}}}]\n", encoding="utf-8")
    assert "keys.yaml: " in refusal(tmp_path, RELAY_KEY_FILE="keys.yaml")


@pytest.mark.integration
def test_a_taken_port_stops_serve_with_the_next_step(tmp_path: Path) -> None:
    """When the address is taken the relay says which, and which settings choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        text = refusal(tmp_path, RELAY_KEY=KEY, RELAY_PORT=port, OPENAI_API_KEY=UPSTREAM_KEY)
    assert f"cannot listen on 127.0.0.1 port {port}" in text
    assert "RELAY_PORT" in text


@pytest.mark.integration
def test_an_address_that_is_not_ours_stops_serve(tmp_path: Path) -> None:
    """An address of another machine cannot be taken, and that is said in words."""
    assert "cannot listen on 192.0.2.1" in refusal(tmp_path, RELAY_KEY=KEY, RELAY_HOST="192.0.2.1", RELAY_PORT="0")


def create(relay: Run, *arguments: str) -> str:
    """Make a key with `relay keys create` and return it."""
    code, shown, complaints = relay("keys", "create", "--file", "keys.yaml", *arguments)
    assert code == 0, complaints
    assert re.fullmatch(r"rk_[A-Za-z0-9_-]{43,}\n", shown)
    assert shown.strip() not in complaints
    return shown.strip()


def test_a_key_is_printed_once_and_kept_as_a_hash(relay: Run, tmp_path: Path) -> None:
    """`relay keys create` prints the key alone on standard output; the file, mode 0600, holds its digest only."""
    key = create(relay, "--id", "ci", "--scope", "canonical", "--scope", "actions")
    file = tmp_path / "keys.yaml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in file.read_text(encoding="utf-8")
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == {
        "keys": [{"id": "ci", "sha256": hash_key(key).hex(), "scopes": ["actions", "canonical"]}]
    }
    _, listed, _ = relay("keys", "list", "--file", "keys.yaml")
    assert key not in listed
    assert hash_key(key).hex() not in listed


def test_keys_are_listed_with_scopes_and_ends(relay: Run) -> None:
    """`relay keys list` shows each key's id, scopes and end."""
    create(relay, "--id", "ci", "--scope", "canonical")
    create(relay, "--id", "gpt", "--scope", "actions", "--scope", "proxy", "--expires", "2030-01-02")
    code, shown, _ = relay("keys", "list", "--file", "keys.yaml")
    assert code == 0
    first = next(line for line in shown.splitlines() if "ci" in line)
    second = next(line for line in shown.splitlines() if "gpt" in line)
    assert "canonical" in first
    assert "never" in first
    assert "actions proxy" in second
    assert "2030-01-02T00:00:00+00:00" in second


def test_long_ids_are_listed_whole(relay: Run) -> None:
    """What `relay keys list` shows can be searched and pasted into `revoke`, also when it goes through a pipe."""
    key_id = "a-team-whose-name-is-as-long-as-the-rules-for-ids-allow-it-to-be"
    assert len(key_id) == 64
    create(
        relay,
        "--id",
        key_id,
        *(argument for scope in Scope for argument in ("--scope", scope)),
        "--expires",
        "2030-01-02",
    )
    _, shown, _ = relay("keys", "list", "--file", "keys.yaml")
    assert key_id in shown


def test_a_revoked_key_is_gone(relay: Run, tmp_path: Path) -> None:
    """`relay keys revoke` takes one key out and leaves the others."""
    create(relay, "--id", "goes", "--scope", "canonical")
    create(relay, "--id", "stays", "--scope", "canonical")
    code, shown, complaints = relay("keys", "revoke", "--file", "keys.yaml", "--id", "goes")
    assert (code, shown) == (0, "")
    assert "`goes`" in complaints
    assert [key.id for key in read_key_file(tmp_path / "keys.yaml")] == ["stays"]


def test_the_file_may_come_from_the_environment(relay: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`RELAY_KEY_FILE` names the file for the key commands as it does for the relay."""
    monkeypatch.setenv("RELAY_KEY_FILE", str(tmp_path / "other.yaml"))
    code, _, complaints = relay("keys", "create", "--id", "ci", "--scope", "canonical")
    assert code == 0, complaints
    assert [key.id for key in read_key_file(tmp_path / "other.yaml")] == ["ci"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "--file", "keys.yaml", "--id", "ci"],
        ["create", "--file", "keys.yaml", "--scope", "canonical"],
        ["create", "--id", "ci", "--scope", "canonical"],
        ["create", "--file", "keys.yaml", "--id", "ci", "--scope", "everything"],
        ["create", "--file", "keys.yaml", "--id", "bad id", "--scope", "canonical"],
        ["create", "--file", "keys.yaml", "--id", "bootstrap", "--scope", "canonical"],
        ["create", "--file", "keys.yaml", "--id", "ci", "--scope", "canonical", "--expires", "tomorrow"],
        ["create", "--file", "absent/keys.yaml", "--id", "ci", "--scope", "canonical"],
        ["create", "--file", ".", "--id", "ci", "--scope", "canonical"],
        ["list", "--file", "keys.yaml"],
        ["revoke", "--file", "keys.yaml", "--id", "ci"],
    ],
)
def test_a_key_command_that_cannot_work_makes_nothing(relay: Run, tmp_path: Path, arguments: list[str]) -> None:
    """Missing and wrong arguments, folders that are not there and files that do not exist end with 2 in words."""
    code, shown, complaints = relay("keys", *arguments)
    assert code == 2
    assert shown == ""
    assert complaints
    assert "Traceback" not in complaints
    assert list(tmp_path.iterdir()) == []


def test_a_taken_id_makes_no_second_key(relay: Run, tmp_path: Path) -> None:
    """The id of a key is its own; a second one is refused and the file stays as it was."""
    create(relay, "--id", "ci", "--scope", "canonical")
    before = (tmp_path / "keys.yaml").read_bytes()
    code, shown, complaints = relay("keys", "create", "--file", "keys.yaml", "--id", "ci", "--scope", "canonical")
    assert (code, shown) == (2, "")
    assert "`ci` is taken" in complaints
    assert (tmp_path / "keys.yaml").read_bytes() == before
