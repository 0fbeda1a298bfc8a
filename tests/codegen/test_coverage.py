import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from codegen.contract import Bucket, Exclusion
from codegen.coverage import coverage
from codegen.coverage_report import UNKNOWN, Coverage, Gap, Problem, Row
from codegen.evidence import COMMAND, EVIDENCE
from codegen.exceptions import ContractError, InvalidContract
from codegen.naming import snake_case
from codegen.pin import LOCK
from handlers.runtime.binding import bind_functions
from tests.codegen.test_cli import run
from tests.support.covered_checkout import CONTRACT, LOCK_LINES, SPEC, replace_once, write_covered_checkout
from tests.support.documents import ROOT, first

Edit = Callable[[Path], object]
OWN = next(o for o in CONTRACT if not o.mirrored)
MIRRORED = next(o for o in CONTRACT if o.mirrored and o.bucket is Bucket.PROXY_HARNESS)
UNSUPPORTED = CONTRACT.operations[first(CONTRACT, Bucket.EXCLUDED, Exclusion.UNSUPPORTED)]
MODULE = f"handlers/{snake_case(OWN.tag)}.py"
VARIANT = "?beta=true"
DECISION = "      x-policy-bucket: "
HANDLER = "\n\nasync def {name}(request: Request) -> Reply:\n    return Reply.json({{}})\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in which everything is covered."""
    return write_covered_checkout(tmp_path)


def only(found: Coverage) -> tuple[Row, Problem]:
    """The single problem of a report, with its row."""
    (row,) = (row for row in found.rows if row.problems)
    (problem,) = row.problems
    return row, problem


def rename(operation_id: str) -> Edit:
    """An edit that takes the function of an operation of our own out of the public names."""
    name = snake_case(operation_id)
    return lambda root: replace_once(root / MODULE, f"async def {name}(", f"async def _{name}(")


def append(file: str, name: str) -> Edit:
    """An edit that adds a public handler to a module, or makes one."""

    def edit(root: Path) -> None:
        with (root / file).open("a", encoding="utf-8") as module:
            module.write(HANDLER.format(name=name))

    return edit


def without_bucket(operation_id: str) -> Edit:
    """An edit that deletes the bucket of an operation."""

    def edit(root: Path) -> None:
        text = (root / SPEC).read_text(encoding="utf-8")
        text, count = re.subn(rf"(operationId: {operation_id}\n) +x-policy-bucket: \w+\n", r"\1", text)
        assert count == 1
        (root / SPEC).write_text(text, encoding="utf-8")

    return edit


def without_line(file: Path, matches: Callable[[str], bool]) -> Edit:
    """An edit that deletes the first line that matches."""

    def edit(root: Path) -> None:
        lines = (root / file).read_text(encoding="utf-8").splitlines(keepends=True)
        lines.remove(next(line for line in lines if matches(line)))
        (root / file).write_text("".join(lines), encoding="utf-8")

    return edit


def remark(operation_id: str, answered: str, refused: str) -> Edit:
    """An edit that gives an operation other marks in the table of evidence."""

    def edit(root: Path) -> None:
        text = (root / EVIDENCE).read_text(encoding="utf-8")
        text, count = re.subn(
            rf"^{operation_id}\t[✔-]\t[✔-]\t", f"{operation_id}\t{answered}\t{refused}\t", text, flags=re.MULTILINE
        )
        assert count == 1
        (root / EVIDENCE).write_text(text, encoding="utf-8")

    return edit


def without_operation(operation_id: str) -> Edit:
    """An edit that deletes an operation, and its path with it."""

    def edit(root: Path) -> None:
        text = (root / SPEC).read_text(encoding="utf-8")
        path = CONTRACT.operations[operation_id].path
        text, count = re.subn(rf"^  {re.escape(path)}:\n(    .*\n)+", "", text, flags=re.MULTILINE)
        assert count == 1
        (root / SPEC).write_text(text, encoding="utf-8")

    return edit


PATHS = Counter(o.path for o in CONTRACT)
ALONE = next(o for o in CONTRACT if PATHS[o.path] == LOCK_LINES[o.path, o.method] == 1)
TAKEN_AWAY: dict[str, tuple[Edit, Gap, str]] = {
    "handler": (rename(OWN.id), Gap.NO_HANDLER, f"`async def {snake_case(OWN.id)}` in {MODULE}"),
    "module of handlers with a custom verb": (
        lambda root: (root / "handlers/responses.py").unlink(), Gap.NO_HANDLER, "handlers/responses.py",
    ),
    "bucket of ours": (without_bucket(OWN.id), Gap.UNKNOWN_OPERATION, "`x-policy-bucket` must be one of"),
    "bucket of upstream": (without_bucket(MIRRORED.id), Gap.UNKNOWN_OPERATION, "`x-policy-bucket` must be one of"),
    "bucket that is not one": (
        lambda root: replace_once(root / SPEC, f"{OWN.id}\n{DECISION}", f"{OWN.id}\n{DECISION}NO_"),
        Gap.UNKNOWN_OPERATION, "`x-policy-bucket` must be one of",
    ),
    "line of the lock": (
        without_line(LOCK, lambda line: line.split("\t")[2] == MIRRORED.id), Gap.NO_LOCK_LINE, "`contract pin FILE`",
    ),
    "line of a variant": (without_line(LOCK, lambda line: VARIANT in line), Gap.OTHER_LOCK_LINES, COMMAND),
    "operation of upstream": (without_operation(ALONE.id), Gap.UNKNOWN_UPSTREAM, f"Classify it in {SPEC}"),
    "evidence of an answer": (remark(MIRRORED.id, "-", "✔"), Gap.NO_EVIDENCE, COMMAND),
    "evidence of a refusal": (remark(UNSUPPORTED.id, "-", "-"), Gap.NO_EVIDENCE, "test of the refusal"),
    "line of the evidence": (
        without_line(EVIDENCE, lambda line: line.startswith(f"{OWN.id}\t")), Gap.NO_EVIDENCE, COMMAND,
    ),
    "operation of a handler": (append(MODULE, "retrieve_nothing"), Gap.ORPHAN_HANDLER, MODULE),
    "tag of a handler": (append("handlers/nothing.py", "retrieve_nothing"), Gap.ORPHAN_HANDLER, "handlers/nothing.py"),
}  # fmt: skip


@pytest.mark.parametrize("edit, gap, next_step", TAKEN_AWAY.values(), ids=TAKEN_AWAY.keys())
def test_one_thing_taken_away_is_one_problem(edit: Edit, gap: Gap, next_step: str, checkout: Path) -> None:
    """Whatever is missing is reported once, under its own name and with the next step, and nothing beside it."""
    edit(checkout)
    found = coverage(checkout)
    row, problem = only(found)
    assert problem.gap is gap
    assert next_step in problem.next_step
    assert found.exit_code == 2
    assert (row.bucket == UNKNOWN) is (gap in {Gap.UNKNOWN_OPERATION, Gap.UNKNOWN_UPSTREAM, Gap.ORPHAN_HANDLER})
    assert row.status == gap
    assert found.to_markdown().splitlines()[-1].startswith(f"- {gap}: {problem.subject}: ")


def test_every_line_of_the_lock_is_missed(checkout: Path) -> None:
    """No line can leave the lock without a problem, whether its operation has variants or is one."""
    lock = checkout / LOCK
    text = lock.read_text(encoding="utf-8")
    _, *lines = text.splitlines(keepends=True)
    variants = {line.split("\t")[1].removesuffix(VARIANT) for line in lines if VARIANT in line}
    tried = [line for line in lines if line.split("\t")[1].removesuffix(VARIANT) in variants]
    assert len(tried) > len(variants)
    for line in tried:
        lock.write_text(text.replace(line, "", 1), encoding="utf-8")
        _, problem = only(coverage(checkout))
        assert problem.gap is (Gap.OTHER_LOCK_LINES if VARIANT in line else Gap.NO_LOCK_LINE)


def test_this_checkout_is_covered() -> None:
    """The shipped contract: nothing unknown, every served operation with evidence, no problem."""
    found = coverage(ROOT)
    assert found.problems == (), found.to_markdown()
    assert found.exit_code == 0
    assert [row.operation_id for row in found.rows] == [operation.id for operation in CONTRACT]
    assert all(row.evidence.answered for row in found.rows if row.served)


def test_functions_are_those_that_the_relay_binds(checkout: Path) -> None:
    """What is read from source text is what the relay finds by importing."""
    bound: Mapping[str, Any] = bind_functions(CONTRACT)
    found = {row.operation_id: row.function for row in coverage(checkout).rows}
    assert found == {key: f"{function.__module__}.{function.__qualname__}" for key, function in bound.items()}


def test_rows_tell_who_serves_and_who_reaches(checkout: Path) -> None:
    """A function, the forwarder or a refusal; a refused operation has no surface."""
    rows = {row.operation_id: row for row in coverage(checkout).rows}
    assert rows[OWN.id].served_by == f"handlers.{snake_case(OWN.tag)}.{snake_case(OWN.id)}"
    assert rows[MIRRORED.id].served_by == "forwarder"
    assert rows[MIRRORED.id].policy_cases > 0
    assert "Proxy" in rows[MIRRORED.id].surfaces
    assert rows[UNSUPPORTED.id].served_by == "refused"
    assert rows[UNSUPPORTED.id].surfaces == ()


def test_coroutines_of_another_kind_are_no_handlers(checkout: Path) -> None:
    """A module of no tag may hold coroutines, as long as they return no reply."""
    (checkout / "handlers/tour.py").write_text(
        "async def run(console: Console) -> None: ...\nasync def _reply() -> Reply: ...\n", encoding="utf-8"
    )
    assert coverage(checkout).problems == ()


@pytest.mark.parametrize("text", ["def {name}(request): ...", "{name} = 5", "from elsewhere import {name}"])
def test_a_name_that_is_no_handler_hides_the_forwarder(text: str, checkout: Path) -> None:
    """As at the start of the relay: what has the operation's name in the module of its tag must be a coroutine."""
    module = checkout / f"handlers/{snake_case(MIRRORED.tag)}.py"
    with module.open("a", encoding="utf-8") as file:
        file.write(f"\n\n{text.format(name=snake_case(MIRRORED.id))}\n")
    row, problem = only(coverage(checkout))
    assert (row.operation_id, problem.gap) == (MIRRORED.id, Gap.NO_HANDLER)


def test_a_broken_operation_is_unknown_too(checkout: Path) -> None:
    """What the model refuses for another reason than its bucket is not classified either."""
    replace_once(checkout / SPEC, f"operationId: {OWN.id}\n", f"operationId: {OWN.id}\n      x-policy-mood: calm\n")
    row, problem = only(coverage(checkout))
    assert (row.operation_id, row.bucket, problem.gap) == (OWN.id, UNKNOWN, Gap.UNKNOWN_OPERATION)
    assert "spec/policy.schema.yaml" in problem.next_step


@pytest.mark.parametrize(
    "file, text",
    [
        (SPEC, "paths: ["),
        (SPEC, "tags: [{}]\npaths: {}"),
        (LOCK, "method"),
        (EVIDENCE, "operationId\tanswered"),
        (Path(MODULE), "async def ("),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_read_is_named(file: Path, text: str, checkout: Path) -> None:
    """A damaged file ends the command with its name, not with a table."""
    (checkout / file).write_text(text, encoding="utf-8")
    with pytest.raises(ContractError, match=re.escape(file.name)):
        coverage(checkout)


def test_a_document_that_is_broken_as_a_whole_is_not_covered(checkout: Path) -> None:
    """Where no single operation is at fault there is nothing to lay side by side."""
    replace_once(checkout / SPEC, "x-policy-reviews:\n", "x-policy-reviews:\n  json_read_again: {risk: None.}\n")
    with pytest.raises(InvalidContract, match="Review"):
        coverage(checkout)


def test_the_command_tells_by_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 when all is covered, 2 when something is not, 3 when a file cannot be read; `--help` says so."""
    assert run(monkeypatch, checkout, "coverage") == 0
    shown = capsys.readouterr()
    assert f"{len(CONTRACT.operations)} operations, 0 UNKNOWN, 0 problems." in shown.out
    assert shown.err == ""
    without_bucket(OWN.id)(checkout)
    assert run(monkeypatch, checkout, "coverage") == 2
    assert f"1 {UNKNOWN}, 1 problem." in capsys.readouterr().out
    (checkout / EVIDENCE).unlink()
    assert run(monkeypatch, checkout, "coverage") == 3
    shown = capsys.readouterr()
    assert COMMAND in shown.err
    assert shown.out == ""
    assert run(monkeypatch, checkout, "coverage", "--help") == 0
    assert "Exit codes: 0 all is covered, 2 something is not, 3 " in " ".join(capsys.readouterr().out.split())


def test_both_formats_tell_the_same(
    monkeypatch: pytest.MonkeyPatch, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON holds every row and every problem of the Markdown."""
    append(MODULE, "retrieve_nothing")(checkout)
    assert run(monkeypatch, checkout, "coverage", "--format", "json") == 2
    report = json.loads(capsys.readouterr().out)
    assert run(monkeypatch, checkout, "coverage", "--format", "markdown") == 2
    markdown = capsys.readouterr().out
    assert report["exit_code"] == 2
    assert report["relay"] is None
    assert sum(report["buckets"].values()) == len(report["operations"]) == len(CONTRACT.operations) + 1
    for row in report["operations"]:
        assert f"`{row['operation_id']}`" in markdown or not row["operation_id"]
    (problem,) = report["problems"]
    assert f"- {problem['gap']}: {problem['subject']}: {problem['problem']}. {problem['next_step']}." in markdown


def test_texts_of_others_stay_in_their_cells(checkout: Path) -> None:
    """A bar or a backtick in the lock cannot break the table."""
    with (checkout / LOCK).open("a", encoding="utf-8") as lock:
        lock.write("GET\t/v1/`|odd\todd|id\t-\t-\t-\n")
    table = [line for line in coverage(checkout).to_markdown().splitlines() if "odd" in line and line.startswith("|")]
    (row,) = table
    assert row.count("|") == 9
