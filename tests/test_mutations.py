"""
Shows that the checks of the contract catch what they own: every bad edit of the registry, and the proof's own failures.

Not for: each rule in detail (`test_spec_policy` and its neighbours, `codegen/test_lint`). Opens no sockets.
"""

import gc
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from codegen.contract import FULL
from codegen.document_rules import FIELD_RULES
from tests.support import mutation_proof
from tests.support.contract_edits import DIRECT, PROXY, give, lose, on
from tests.support.documents import ROOT, node_of
from tests.support.mutation_proof import MUTATIONS
from tests.support.mutations import (
    Checkout,
    Command,
    Mutation,
    Verdict,
    copy_checkout,
    outcome,
    parsed_once,
    unmutated,
)
from tests.support.yaml_edits import rewritten

LEAST = 60
CHECKERS = ("check", "rules", "document_rules", "case_rules")
HARMLESS = on(DIRECT, give({"summary": "Do it."}))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A copy of the contract; every mutation leaves it as it was."""
    with parsed_once():
        copy = copy_checkout(tmp_path_factory.mktemp("checkout"))
        gc.freeze()  # as the proof does, for time
        yield copy
        gc.unfreeze()


def owners(*commands: Command) -> set[str]:
    """The rules that own a mutation of these commands."""
    return {mutation.owner for mutation in MUTATIONS if mutation.command in commands}


def rules_in(pattern: str, *modules: str) -> set[str]:
    """Names of rules that modules of `codegen` write out."""
    texts = [(ROOT / "codegen" / f"{module}.py").read_text(encoding="utf-8") for module in modules]
    return {name for text in texts for name in re.findall(pattern, text) if not name.startswith("x-")}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_bad_edit_is_caught_by_the_rule_that_owns_it(checkout: Checkout, mutation: Mutation) -> None:
    """The edit changes a file, its command reports it under the rule's own name, and nothing of it is left behind."""
    result = outcome(mutation, checkout)
    assert result.verdict is Verdict.CAUGHT, str(result)
    assert checkout.current() == checkout.files


def test_without_an_edit_there_is_no_finding(checkout: Checkout) -> None:
    """What a mutation is caught by is due to the mutation alone."""
    assert unmutated(checkout) == []


def test_no_rule_is_without_a_mutation() -> None:
    """Each name that `contract check` and `contract lint` may report owns an edit, and so does each promised."""
    assert owners(Command.CHECK) == rules_in(r'"([a-z]+(?:-[a-z]+)+)"', *CHECKERS) | set(FIELD_RULES.values())
    assert owners(Command.LINT) == rules_in(r'"(importer-[a-z-]+)"', "lint", "lint_arguments", "lint_schemas")
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| `contract check`", (ROOT / "GOVERNANCE.md").read_text("utf-8"), re.M)
    assert rows
    assert set(rows) <= owners(Command.CHECK)


def test_the_registry_is_large_and_names_are_its_keys() -> None:
    """There are enough edits, and `--only` finds each by its name."""
    assert len(MUTATIONS) >= LEAST
    assert [name for name, count in Counter(mutation.name for mutation in MUTATIONS).items() if count > 1] == []


NOT_CAUGHT = {
    "survives": (Mutation("survives", "bucket-total", Command.CHECK, HARMLESS), Verdict.SURVIVED),
    "elsewhere": (
        Mutation("elsewhere", "one-version", Command.CHECK, on(PROXY, lose("x-policy-bucket"))),
        Verdict.ELSEWHERE,
    ),
    "unchanged": (Mutation("unchanged", "bucket-total", Command.CHECK, lambda _: None), Verdict.UNCHANGED),
}


@pytest.mark.parametrize("mutation, verdict", NOT_CAUGHT.values(), ids=NOT_CAUGHT.keys())
def test_the_proof_fails_for_what_is_not_caught(
    mutation: Mutation, verdict: Verdict, capsys: pytest.CaptureFixture[str]
) -> None:
    """An edit that survives, changes nothing or is caught by another rule alone gives exit code 1."""
    assert mutation_proof.main([], [mutation]) == 1
    printed = capsys.readouterr().out
    assert verdict in printed
    assert printed.endswith("1 mutations, 1 survived\n")


def test_the_proof_names_rule_and_line_of_what_it_finds(capsys: pytest.CaptureFixture[str]) -> None:
    """One edit by name: its row, a last line that counts, exit code 0."""
    assert mutation_proof.main(["--only", "unknown bucket"]) == 0
    row, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"unknown bucket +bucket-total +bucket-total spec/openapi\.full\.yaml:[1-9]\d*", row)
    assert last == "1 mutations, 0 survived"


def test_the_proof_lists_what_it_tries(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` shows every edit with its command and tries none; an unknown name is said to be one."""
    assert mutation_proof.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(MUTATIONS)
    assert mutation_proof.main(["--only", "nothing of the kind"]) == 2
    assert "--list" in capsys.readouterr().err


def test_a_contract_with_findings_of_its_own_is_not_mutated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong before the first edit would hide what is missed; the proof says so and ends with exit code 2."""
    broken = copy_checkout(tmp_path / "broken")
    HARMLESS(broken)
    monkeypatch.setattr(mutation_proof, "copy_checkout", lambda folder: copy_checkout(folder, broken.root))
    assert mutation_proof.main(["--only", "unknown bucket"]) == 2
    assert "generated-fresh" in capsys.readouterr().err


def test_an_edit_of_the_data_leaves_the_rest_of_the_text_alone(checkout: Checkout) -> None:
    """Lines and comments that are not edited stay as they are, so that findings name the lines of the real file."""
    path = checkout.root / "spec" / f"{FULL}.yaml"
    text = path.read_text(encoding="utf-8")
    assert rewritten(text, checkout.full.document, lambda _: None) == text
    bucket = "      x-policy-bucket: ACTIONS_DIRECT"
    node = node_of(checkout.full.document, DIRECT(checkout.full).id)
    before = text[: text.index(f"operationId: {node['operationId']}\n")].count("\n") + 1
    with checkout.restored():
        on(DIRECT, lose("x-policy-bucket"))(checkout)
        lines = path.read_text(encoding="utf-8").splitlines()
    assert [*lines[:before], bucket, *lines[before:]] == text.splitlines()


@pytest.mark.parametrize(
    "key, value, wanted",
    [
        ("b", 5, "# head\na: 1\nb: 5\n# tail\nc:\n  d: {e: 1}\n"),
        ("c", {"d": {"e": 2}}, "# head\na: 1\nb: 2\n# tail\nc:\n  d:\n    e: 2\n"),
        ("c", {"d": {"e": 1}, "f": [None]}, "# head\na: 1\nb: 2\n# tail\nc:\n  d: {e: 1}\n  f:\n  - null\n"),
    ],
)
def test_an_edit_writes_only_what_is_new(key: str, value: object, wanted: str) -> None:
    """Values are replaced and keys added at their depth; comments stay where they are."""
    text = "# head\na: 1\nb: 2\n# tail\nc:\n  d: {e: 1}\n"
    assert rewritten(text, yaml.safe_load(text), lambda d: d.update({key: value})) == wanted
