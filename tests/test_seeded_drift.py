"""
The proof of `contract drift`: its changes of a small document are reported rightly, and a wrong report fails it.

Not for: `contract drift` itself (`codegen/test_drift`) or the real document, which is not part of the project. Opens no
sockets.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from codegen.drift_report import Kind, Level, Weight
from codegen.reader import Document, read_json
from tests.support import seeded_drift
from tests.support.documents import ROOT
from tests.support.seeded_changes import Expected, Plan
from tests.support.seeded_drift import MIN_SEEDS, differences, planted
from tests.support.seeded_plans import PLANS
from tests.support.upstream_documents import write_checkout, write_upstream

SOURCE = (ROOT / "tests" / "support" / "seeded_plans.py").read_text(encoding="utf-8")
UNTRUE = Expected(Kind.NEWLY_DEPRECATED, Level.LOOK, Weight.EXPOSED, "nobody")
SILENT = Plan("reported beside it", lambda _: (lambda d: d["paths"]["/things"]["get"].update(deprecated=True), ()))
IDLE = Plan("not reported", lambda _: (lambda _: None, (UNTRUE,)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout that agrees with the small document beside it."""
    return write_checkout(tmp_path)


@pytest.fixture
def document(root: Path) -> Document:
    """The small document, unchanged."""
    return read_json(write_upstream(root))


def proof(root: Path, plans: Sequence[Plan] = PLANS) -> int:
    """The exit code of the command for the small document."""
    return seeded_drift.main(["--document", str(root / "upstream.json")], root, plans)


def fitting(root: Path, document: Document) -> list[Plan]:
    """The plans for which the small document has an operation."""
    missing = planted(root, document, PLANS)[1]
    return [plan for plan in PLANS if plan.name not in missing]


def test_each_change_of_the_small_document_is_reported_rightly(root: Path, document: Document) -> None:
    """What fits the small document is reported with kind, level, weight and suggestion."""
    alone = [seed for plan in PLANS for seed in planted(root, document, [plan])[0]]
    assert len(alone) >= MIN_SEEDS
    for seed in alone:
        assert differences(root, document, [seed]) == [], seed.name


def test_changes_of_different_operations_are_reported_together(root: Path, document: Document) -> None:
    """Each operation is changed by one plan only, so the report of all changes is that of each, added up."""
    seeds, _ = planted(root, document, PLANS)
    assert len({expected.operation_id for seed in seeds for expected in seed.expected}) == len(seeds)
    assert differences(root, document, seeds) == []


def test_there_are_enough_changes() -> None:
    """As many as the proof asks for, each with a name of its own, and every kind that drift knows among them."""
    assert len(PLANS) >= MIN_SEEDS
    assert len({plan.name for plan in PLANS}) == len(PLANS)
    assert {kind for kind in Kind if f"Kind.{kind.name}" not in SOURCE} == set()


@pytest.mark.parametrize("plan", [SILENT, IDLE], ids=lambda plan: plan.name)
def test_a_report_that_says_too_much_or_too_little_fails(
    root: Path, document: Document, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    """A change beside the expected ones and one that is missing are named, and the exit code is 1."""
    assert proof(root, [*fitting(root, document), plan]) == 1
    printed = capsys.readouterr().out
    assert f"    {plan.name}: " in printed
    assert f"all together: {plan.name}: " in printed


def test_another_level_is_told_apart(root: Path, document: Document) -> None:
    """A change that is reported with another level than expected is both missing and too much."""
    wrong = Plan(
        "gone",
        lambda _: (
            lambda d: d["paths"]["/things/{thing_id}"].pop("get"),
            (Expected(Kind.REMOVED_OPERATION, Level.LOOK, Weight.EXPOSED, "retrieveThing"),),
        ),
    )
    seeds, _ = planted(root, document, [wrong])
    found = differences(root, document, seeds)
    assert [line.split(":")[0] for line in found] == ["not reported", "reported beside it", "exit code 2 instead of 1"]


def test_a_plan_without_an_operation_fails(root: Path, document: Document, capsys: pytest.CaptureFixture[str]) -> None:
    """A change that cannot be made is said to be one, and counts as wrong."""
    assert planted(root, document, PLANS)[1]
    assert proof(root) == 1
    assert "no operation fits" in capsys.readouterr().out


def test_changes_that_are_all_reported_rightly_pass(
    root: Path, document: Document, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 0 and the last line counts; with too few changes it proves nothing and is 1."""
    plans = fitting(root, document)
    monkeypatch.setattr(seeded_drift, "MIN_SEEDS", len(plans))
    assert proof(root, plans) == 0
    assert capsys.readouterr().out.endswith(f"{len(plans)} seeded changes, 0 wrong\n")
    monkeypatch.setattr(seeded_drift, "MIN_SEEDS", len(plans) + 1)
    assert proof(root, plans) == 1


def test_another_document_than_the_pinned_one_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changes are only told apart from a document without any; the exit code is 2."""
    write_upstream(root, lambda d: d["paths"].pop("/pictures"))
    assert proof(root) == 2
    assert "must be given the pinned document" in capsys.readouterr().err
