"""`contract check`: the shipped contract keeps every rule, and what breaks one is found with its place. No sockets."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.check import check
from codegen.document_rules import FIELD_RULES
from codegen.findings import Finding
from codegen.policy_cases import CASES
from tests.support.documents import ROOT

FULL = "spec/openapi.full.yaml"
ACTIONS = "spec/openapi.actions.yaml"
LOCK = "spec/upstream.lock.tsv"
BATCHES = f"{CASES}/team_runs_batches_through_the_proxy.yaml"
MAX_SECONDS = 3
DOCUMENTS = (FULL, ACTIONS, LOCK, "spec/policy.schema.yaml")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout with the shipped contract and its policy cases, to be edited."""
    (tmp_path / "spec").mkdir()
    shutil.copytree(ROOT / CASES, tmp_path / CASES)
    for file in DOCUMENTS:
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def line_of(path: Path, *patterns: str) -> int:
    """The first line that matches the last pattern, searched behind those that match the ones before; from 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    for pattern in patterns:
        number = next(n for n, line in enumerate(lines[number:], number + 1) if re.fullmatch(pattern, line))
    return number


def test_the_shipped_contract_keeps_every_rule_quickly() -> None:
    """No finding, within the time that a hook before a commit may take."""
    started = time.perf_counter()
    assert check(ROOT) == []
    assert time.perf_counter() - started < MAX_SECONDS


MODELS = (r"  /v1/models:", r"    get:")
EDITS: dict[str, tuple[str, str, str, str, str, tuple[str, ...]]] = {
    "a bucket gone": (
        FULL,
        r"(operationId: listModels\n) +x-policy-bucket.*\n",
        r"\1",
        "bucket-total",
        "GET /v1/models",
        MODELS,
    ),
    "another bucket": (
        FULL,
        r"(operationId: listModels\n +x-policy-bucket: )ACTIONS_DIRECT",
        r"\1EXCLUDED\n      x-policy-reason: No.\n      x-policy-exclusion: internal",
        "internal-unpublished",
        "GET /v1/models",
        MODELS,
    ),
    "gone from the Actions document": (
        ACTIONS,
        r"(?s)  /v1/models:\n.*?(?=  # ── Files)",
        "",
        "actions-match",
        "GET /v1/models",
        MODELS,
    ),
    "a field mistyped in the Actions document": (
        ACTIONS,
        r"(operationId: listModels\n)",
        r"\1      x-policy-public: true\n",
        "closed-vocabulary",
        "GET /v1/models",
        MODELS,
    ),
    "another path": (FULL, "/v1/models:", "/v1/models/*:", "no-wildcard", "/v1/models/*", (r"  /v1/models/\*:",)),
    "a review lost": (FULL, r"  paid_job:", "  other_job:", "proxy-reviewed", "", ()),
    "a version of its own": (
        ACTIONS,
        r"  version: .*",
        "  version: 0.0.1",
        "one-version",
        "info version",
        ("  version: 0.0.1",),
    ),
    "a review's day": (
        FULL,
        r'(?s)(  paid_job:.*?since: )"[^"]*"',
        r'\1"2026-02-30"',
        "proxy-reviewed",
        "x-policy-reviews paid_job",
        ("  paid_job:",),
    ),
    "a reference lost": (FULL, r"schemas/ErrorEnvelope\b", "schemas/Nothing", "document-loads", "", ()),
    "a line of the lock gone": (LOCK, r"GET\t/v1/models\t.*\n", "", "upstream-classified", "GET /v1/models", ()),
    "a line of the lock new": (
        LOCK,
        r"(GET\t/v1/models\t.*\n)",
        "GET\t/v1/invented\tinvented\t-\tapplication/json\t-\n\\1",
        "upstream-classified",
        "GET /v1/invented",
        (r"GET\t/v1/invented\t.*",),
    ),
    "an allowed case gone": (
        BATCHES,
        r"(?s)  - operation: retrieveBatch\n.*?(?=  - )",
        "",
        "proxy-cases",
        "GET /v1/batches/{batch_id}",
        (r"  /v1/batches/\{batch_id\}:", r"    get:"),
    ),
    "a case of an operation that is renamed": (
        BATCHES,
        r"operation: cancelBatch\n",
        "operation: stopBatch\n",
        "proxy-cases",
        "case team_runs_batches_through_the_proxy::5",
        (r"  - operation: stopBatch",),
    ),
    "a field mistyped in a case": (
        BATCHES,
        r"(operation: cancelBatch\n    )method:",
        r"\1verb:",
        "proxy-cases",
        "the file",
        (r"  - operation: cancelBatch",),
    ),
}


@pytest.mark.parametrize("file, old, new, rule, subject, place", EDITS.values(), ids=EDITS.keys())
def test_an_edit_is_found_at_its_place(
    copy: Path, file: str, old: str, new: str, rule: str, subject: str, place: tuple[str, ...]
) -> None:
    """A finding names rule, file, the operation and its line, and says what to do next."""
    text, count = re.subn(old, new, (copy / file).read_text(encoding="utf-8"), count=1)
    assert count == 1
    (copy / file).write_text(text, encoding="utf-8")
    findings = [f for f in check(copy) if f.rule == rule and subject in f.subject]
    assert findings
    for finding in findings:
        assert finding.line > 0
        assert finding.problem
        assert finding.next_step[0].isupper()
        assert not finding.next_step.endswith(".")
    if place:
        assert [f.line for f in findings] == [line_of(copy / f.file, *place) for f in findings]


DAMAGES: dict[str, tuple[str, Callable[[str], str], int]] = {
    "not YAML": (FULL, lambda text: text.replace("\npaths:\n", "\npaths: [\n", 1), 1),
    "a key twice": (FULL, lambda text: text + "components: {}\n", 1),
    "a list": (ACTIONS, lambda _: "- one\n", 0),
    "empty": (ACTIONS, lambda _: "", 0),
    "a schema that is none": ("spec/policy.schema.yaml", lambda _: "$defs: {operation: {type: 5}}\n", 0),
    "a lock without its head": (LOCK, lambda text: text.split("\n", 1)[1], 1),
    "a lock line of three cells": (LOCK, lambda text: text + "GET\t/v1/x\tx\n", 1),
    "an empty lock": (LOCK, lambda _: "", 0),
    "a schema without cases": (
        "spec/policy.schema.yaml",
        lambda text: text.replace("\n  cases:\n", "\n  others:\n", 1),
        0,
    ),
    "cases that are not YAML": (BATCHES, lambda text: text + "[\n", 1),
    "cases without a situation": (BATCHES, lambda text: text.partition("\n")[2], 1),
}


@pytest.mark.parametrize("file, damage, least_line", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_gives_findings(copy: Path, file: str, damage: Callable[[str], str], least_line: int) -> None:
    """A file that does not load is a finding, with the line where one is known, instead of a traceback."""
    (copy / file).write_text(damage((copy / file).read_text(encoding="utf-8")), encoding="utf-8")
    findings = check(copy)
    assert findings
    assert max(finding.line for finding in findings) >= least_line
    assert not any(str(copy) in finding.problem for finding in findings)


@pytest.mark.parametrize("file", DOCUMENTS)
def test_a_missing_file_is_a_finding(copy: Path, file: str) -> None:
    """Whichever file is gone, the finding names it."""
    (copy / file).unlink()
    assert [(finding.file, finding.subject) for finding in check(copy)] == [(file, "the file")]


def test_the_other_document_is_still_checked(copy: Path) -> None:
    """What is wrong in one document does not hide what is wrong in the other."""
    (copy / ACTIONS).write_text("[", encoding="utf-8")
    text = (copy / FULL).read_text(encoding="utf-8")
    (copy / FULL).write_text(
        text.replace("x-policy-bucket: ACTIONS_DIRECT", "x-policy-bucket: ANY", 1), encoding="utf-8"
    )
    assert {(f.file, f.rule) for f in check(copy)} == {(ACTIONS, "document-loads"), (FULL, "bucket-total")}


def test_rules_are_named_as_in_governance(copy: Path) -> None:
    """Each name that a finding may carry has its row in GOVERNANCE.md."""
    rows = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "GOVERNANCE.md").read_text(encoding="utf-8"), re.MULTILINE))
    source = "".join(
        (ROOT / "codegen" / f"{name}.py").read_text("utf-8")
        for name in ("rules", "document_rules", "case_rules", "check")
    )
    named = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source)) | set(FIELD_RULES.values())
    assert {name for name in named if not name.startswith("x-")} <= rows


def test_findings_are_sorted_and_single(copy: Path) -> None:
    """The same checkout gives the same list, each finding once."""
    text = (copy / FULL).read_text(encoding="utf-8")
    (copy / FULL).write_text(text.replace("x-policy-bucket: EXCLUDED", "x-policy-bucket: NONE"), encoding="utf-8")
    findings: list[Finding] = check(copy)
    assert findings == sorted(set(findings))
