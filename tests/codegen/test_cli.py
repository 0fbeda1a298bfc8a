import shutil
import sys
from pathlib import Path

import orjson
import pytest

from codegen.cli import main
from codegen.pin import LOCK
from codegen.reader import read_yaml
from codegen.render import GENERATED
from tests.support.documents import ROOT, document, operation


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    """Run `contract` in a folder and return its exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["contract", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    return code if isinstance(code, int) else 0


def test_help_names_every_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`contract --help` works anywhere and lists the commands; `contract render --help` tells its exit codes."""
    assert run(monkeypatch, tmp_path, "--help") == 0
    assert "render" in capsys.readouterr().out
    assert run(monkeypatch, tmp_path, "render", "--help") == 0
    shown = capsys.readouterr().out
    assert "--check" in shown
    assert "Exit codes" in shown


def test_render_says_what_it_wrote(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`contract render` names each file that changed, and nothing when nothing did."""
    assert run(monkeypatch, checkout, "render") == 0
    assert set(capsys.readouterr().out.splitlines()) == {
        f"wrote {path.relative_to(checkout)}" for path in (checkout / GENERATED).iterdir()
    }
    assert run(monkeypatch, checkout, "render") == 0
    assert capsys.readouterr().out == ""


def test_render_for_a_public_address_prints_or_writes_one_document_and_leaves_the_generated_files_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`contract render --public-url` prints the document, or writes it to the file that is named, and nothing else."""
    shutil.copytree(ROOT / "spec", tmp_path / "spec", ignore=shutil.ignore_patterns("generated"))
    assert run(monkeypatch, tmp_path, "render", "--public-url", "https://relay.example.org") == 0
    assert orjson.loads(capsys.readouterr().out)["servers"] == [{"url": "https://relay.example.org"}]
    arguments = ("render", "--public-url", "https://relay.example.org", "--output", "import.yaml")
    assert run(monkeypatch, tmp_path, *arguments) == 0
    assert capsys.readouterr().out == "wrote import.yaml\n"
    assert read_yaml(tmp_path / "import.yaml")["servers"] == [{"url": "https://relay.example.org"}]
    assert not (tmp_path / GENERATED).exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--public-url", "http://relay.example.org"], "--public-url: `http://relay.example.org` is no plain https"),
        (["--public-url", "https://relay.example.org", "--check"], "--check: is about spec/generated"),
        (["--output", "import.json"], "--output: goes with --public-url"),
        (["--public-url", "https://relay.example.org", "--output", "import.txt"], "must end in .json, .yaml, .yml"),
        (["--public-url", "https://relay.example.org", "--output", "none/import.json"], "cannot be written: No such"),
    ],
)
def test_what_render_cannot_do_ends_with_2_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    """An address that importers refuse and options that do not go together are told apart, in one line."""
    shutil.copytree(ROOT / "spec", tmp_path / "spec", ignore=shutil.ignore_patterns("generated"))
    assert run(monkeypatch, tmp_path, "render", *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert len(shown.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["spec"]
    assert not (tmp_path / GENERATED).exists()


def test_check_passes_on_a_fresh_checkout_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`contract render --check` ends with 0 when the files are up to date."""
    run(monkeypatch, checkout, "render")
    capsys.readouterr()
    assert run(monkeypatch, checkout, "render", "--check") == 0
    assert capsys.readouterr().out == "spec/generated is up to date\n"


def test_check_fails_on_stale_files_with_the_diff_and_the_command_that_mends_them(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`contract render --check` ends with 1, shows what differs, says what to run, and leaves the files alone."""
    run(monkeypatch, checkout, "render")
    (checkout / "spec" / "openapi.full.yaml").write_bytes(
        orjson.dumps(document({"/v1/things": {"get": operation()}, "/v1/others": {"get": operation("retrieveOther")}}))
    )
    before = (checkout / GENERATED / "policy.tsv").read_bytes()
    capsys.readouterr()
    assert run(monkeypatch, checkout, "render", "--check") == 1
    shown = capsys.readouterr()
    assert "+GET\t/v1/others\tretrieveOther" in shown.out
    assert "stale: openapi.full.json, policy.html, policy.md, policy.tsv" in shown.err
    assert "`contract render`" in shown.err
    assert (checkout / GENERATED / "policy.tsv").read_bytes() == before


def test_a_contract_that_breaks_its_rules_ends_with_2_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken contract is reported on standard error, one line per finding, with exit code 2."""
    broken = {"/v1/things": {"get": operation("same"), "post": operation("same")}}
    (checkout / "spec" / "openapi.full.yaml").write_bytes(orjson.dumps(document(broken)))
    for arguments in (["render"], ["render", "--check"]):
        assert run(monkeypatch, checkout, *arguments) == 2
        shown = capsys.readouterr()
        assert shown.err.splitlines() == [
            "spec/openapi.full.yaml: POST /v1/things: operationId `same` is taken by /v1/things; choose another."
        ]
        assert shown.out == ""


def test_outside_a_checkout_the_command_says_where_to_run_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder without a contract the command ends with 2, says what it missed, and makes nothing there."""
    assert run(monkeypatch, tmp_path, "render", "--check") == 2
    assert "Run this in the project's folder." in capsys.readouterr().err
    assert run(monkeypatch, tmp_path, "render") == 2
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_contract_passes_check_and_lint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this checkout both commands end with 0 and say so in one line."""
    for command in ("check", "lint"):
        assert run(monkeypatch, ROOT, command) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "lint"])
def test_findings_end_with_1_and_are_shown_in_both_forms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """A broken contract is told to people with the next step, and to GitHub as annotations."""
    shutil.copytree(ROOT / "spec", tmp_path / "spec")
    path = tmp_path / "spec" / "openapi.actions.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("openapi: 3.1.0", "openapi: 3.0.3", 1), encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write("x-policy-unheard_of: true\n")
    full = tmp_path / "spec" / "openapi.full.yaml"
    full.write_text(full.read_text(encoding="utf-8").replace("operationId: listModels\n", "operationId: List\n", 1))
    assert run(monkeypatch, tmp_path, command) == 1
    assert "spec/openapi." in capsys.readouterr().out
    assert run(monkeypatch, tmp_path, command, "--format", "github") == 1
    assert capsys.readouterr().out.startswith("::error file=spec/openapi.")


def test_the_inventory_is_pinned_and_drift_is_weighed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pin` writes the lock of the document that it is given; `drift` reports what changed and ends with its weight."""
    shutil.copytree(ROOT / "spec", tmp_path / "spec")
    upstream = tmp_path / "upstream.json"
    node = {"operationId": "listThings", "responses": {"200": {"content": {"application/json": {}}}}}
    upstream.write_bytes(orjson.dumps({"openapi": "3.1.0", "info": {}, "paths": {"/things": {"get": node}}}))
    assert run(monkeypatch, tmp_path, "drift", str(upstream), "--format", "json") == 2
    assert "listThings" in capsys.readouterr().out
    assert run(monkeypatch, tmp_path, "pin", str(upstream)) == 0
    assert (tmp_path / LOCK).read_text(encoding="utf-8").splitlines()[1].startswith("GET\t/v1/things\tlistThings\t")
    assert run(monkeypatch, tmp_path, "drift", str(tmp_path / "absent.json")) == 3
    capsys.readouterr()


def test_an_unknown_command_or_option_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the command does not know is an error, never ignored."""
    assert run(monkeypatch, tmp_path, "paint") == 2
    assert run(monkeypatch, tmp_path, "render", "--quietly") == 2
    capsys.readouterr()
