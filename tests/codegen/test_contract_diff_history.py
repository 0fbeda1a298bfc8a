"""Seeded changes of the real contract, each a commit on a real git history, with the verdict that it must get."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from codegen.contract import Contract
from codegen.contract_diff import ContractDiff, compare
from codegen.diff_gate import (
    EVIDENCE_READABLE,
    ONE_VERSION,
    PROPOSAL_GIVEN,
    PROXY_REVIEWED,
    VERSION_SAYS_SO,
    gate,
)
from codegen.revision import Side, read_side
from codegen.semver import Level, read_version
from tests.support.contract_seeds import (
    ESCALATIONS,
    MAJOR,
    MAJORS,
    MINOR,
    MINORS,
    PATCH,
    PATCHES,
    SEEDS,
    Edit,
    Seed,
    new_word,
    reword,
    shown,
)
from tests.support.documents import ROOT
from tests.support.git_history import History, git_environment


@dataclass(frozen=True)
class World:
    """The repository with its base, read once."""

    history: History
    base: Side
    revision: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A copy of the real contract as the first commit; no git setting of whoever runs the test counts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        for name, value in git_environment().items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("history")
        history = History(folder)
        for part in ("spec", "tests/policy_cases"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("generated", "proposals"))
        revision = history.commit("spec: the contract as it stands")
        history.git("tag", "base")
        yield World(history, read_side("base", folder), revision)


def write(folder: Path, edit: Edit) -> None:
    """Write the edited contract; JSON is YAML."""
    files = {"spec/openapi.full.yaml": edit.full, "spec/openapi.actions.yaml": edit.actions, **edit.files}
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))


def proposal(*operations: str) -> bytes:
    """A proposal that names operations."""
    listed = "".join(f"  - {name}\n" for name in operations)
    return f"---\ntitle: Let it be\noperations:\n{listed}risk: [reads]\n---\nWhy, and what could go wrong.\n".encode()


def said(diff: ContractDiff) -> set[tuple[str, str, str]]:
    """What is reported: document, kind, subject."""
    return {(change.document.removeprefix("openapi."), change.kind, change.subject) for change in diff.changes}


@pytest.mark.parametrize("planted", SEEDS, ids=[planted.name for planted in SEEDS])
def test_a_seeded_change_gets_its_verdict_and_nothing_else_is_reported(world: World, planted: Seed) -> None:
    """With version, cases and proposal a commit passes; without any one of them the gate names just that."""
    edit = Edit(deepcopy(world.base.full.document), deepcopy(world.base.actions.document))
    planted.edit(edit)
    planted.evidence(edit)
    for document in (edit.full, edit.actions):
        document["info"]["version"] = str(read_version(world.base.full.version, "base").raised(planted.level))
    if planted.proposed:
        edit.files["spec/proposals/let_it_be.md"] = proposal(*planted.proposed)
    world.history.branch(planted.name, "base")
    write(world.history.folder, edit)
    world.history.commit(planted.name)
    diff = compare(world.base, read_side(planted.name, world.history.folder))
    assert diff.level is planted.level
    assert said(diff) == planted.changes
    assert gate(diff) == []

    old_version = with_version(diff.head, world.base.full.version)
    assert rules_of(diff, old_version) == {VERSION_SAYS_SO}
    assert rules_of(diff, replace(diff.head, proposals=())) == ({PROPOSAL_GIVEN} if planted.proposed else set())
    assert rules_of(diff, replace(old_version, proposals=(), cases=world.base.cases)) == {
        VERSION_SAYS_SO,
        *planted.rules,
    }
    if planted.level > PATCH:
        too_low = str(read_version(world.base.full.version, "base").raised(Level(planted.level - 1)))
        assert rules_of(diff, with_version(diff.head, too_low)) == {VERSION_SAYS_SO}


def with_version(side: Side, version: str) -> Side:
    """A side whose documents carry another version."""

    def renumbered(contract: Contract) -> Contract:
        info = {**contract.document["info"], "version": version}
        return replace(contract, document={**contract.document, "info": info})

    return replace(side, full=renumbered(side.full), actions=renumbered(side.actions))


def rules_of(diff: ContractDiff, head: Side) -> set[str]:
    """Rules by which the gate would refuse the same change with another head."""
    return {finding.rule for finding in gate(replace(diff, head=head))}


def test_an_addition_to_the_proxy_without_review_fails(world: World) -> None:
    """A new operation of the proxy that names no review is found by the gate, whatever its version and cases say."""
    edit = Edit(deepcopy(world.base.full.document), deepcopy(world.base.actions.document))
    edit.add("/v1/moons", "listMoons", "Batch", **{"x-policy-review": None})
    shown("listMoons", "/v1/moons")(edit)
    for document in (edit.full, edit.actions):
        document["info"]["version"] = "99.0.0"
    world.history.branch("unreviewed", "base")
    write(world.history.folder, edit)
    (finding,) = gate(compare(world.base, read_side(world.history.commit("unreviewed"), world.history.folder)))
    assert (finding.rule, finding.subject) == (PROXY_REVIEWED, "GET /v1/moons")


def test_the_seeds_cover_every_verdict() -> None:
    """At least 25 changes, and at least five each of patch, minor, major and those that somebody else has to allow."""
    assert len(SEEDS) >= 25
    for level, group in ((PATCH, PATCHES), (MINOR, MINORS), (MAJOR, MAJORS)):
        assert len(group) >= 5
        assert {planted.level for planted in group} == {level}
    assert sum(bool(planted.proposed) for planted in ESCALATIONS) >= 5
    assert len({planted.name for planted in SEEDS}) == len(SEEDS)


def test_a_revision_and_itself_differ_in_nothing(world: World) -> None:
    """Read twice from git, and once from the checkout, one revision is one contract; the gate passes."""
    world.history.branch("same", "base")
    for head in (read_side("base", world.history.folder), read_side(None, world.history.folder)):
        diff = compare(world.base, head)
        assert diff.changes == ()
        assert diff.level is Level.NONE
        assert gate(diff) == []


def test_a_version_may_rise_further_but_both_documents_must_carry_it(world: World) -> None:
    """A higher version than needed passes; two versions, a fallen one and one that is none do not."""

    def rules(full: str, actions: str) -> set[str]:
        edit = Edit(deepcopy(world.base.full.document), deepcopy(world.base.actions.document))
        edit.full["info"]["version"], edit.actions["info"]["version"] = full, actions
        world.history.branch("versions", "base")
        write(world.history.folder, edit)
        head = read_side(world.history.commit("versions"), world.history.folder)
        return {finding.rule for finding in gate(compare(world.base, head))}

    assert rules("9.0.0", "9.0.0") == set()
    assert rules("9.0.0", "9.0.1") == {ONE_VERSION}
    assert rules("0.9.0", "0.9.0") == {VERSION_SAYS_SO}
    assert rules("soon", "soon") == {VERSION_SAYS_SO}


def test_a_new_word_of_the_policy_needs_an_operation_that_is_proposed(world: World) -> None:
    """A bucket, exclusion or scope that the schema adds without any use cannot pass, whatever is proposed."""
    edit = Edit(deepcopy(world.base.full.document), deepcopy(world.base.actions.document))
    new_word(edit)
    edit.files["spec/proposals/let_it_be.md"] = proposal("listModels")
    world.history.branch("words", "base")
    write(world.history.folder, edit)
    (finding,) = gate(compare(world.base, read_side(world.history.commit("words"), world.history.folder)))
    assert finding.rule == PROPOSAL_GIVEN
    assert "secret" in finding.problem


def run(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in the checkout."""
    command = Path(sys.executable).parent / "contract"
    return subprocess.run(
        [command, "diff", *arguments],
        cwd=world.history.folder,
        env=git_environment(),
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_the_command_ends_with_the_verdict_of_the_gate(world: World) -> None:
    """0 when the gate passes, 1 when it fails, 2 when a proposal cannot be read; the report is printed each time."""
    world.history.branch("command", "base")
    done = run(world, "base")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Gate: passes" in done.stdout
    edit = Edit(deepcopy(world.base.full.document), deepcopy(world.base.actions.document))
    reword(edit.node("listBatches"), "summary")
    write(world.history.folder, edit)
    done = run(world, "base")
    assert done.returncode == 1
    assert VERSION_SAYS_SO in done.stdout
    edit.files["spec/proposals/broken.md"] = b"# No head\n"
    write(world.history.folder, edit)
    world.history.commit("a proposal without a head")
    done = run(world, "base", "command", "--format", "json")
    assert done.returncode == 2
    report = orjson.loads(done.stdout)
    assert report["exit_code"] == 2
    assert {finding["rule"] for finding in report["findings"]} == {VERSION_SAYS_SO, EVIDENCE_READABLE}


@pytest.mark.parametrize(
    "arguments, said_to_people",
    [
        (("unheard_of",), "unheard_of: is neither a folder"),
        (("--", "--output=stolen"), "--output=stolen: is neither a folder"),
        (("",), "must not be empty"),
        (("base", "empty"), "holds no spec/openapi.full.yaml and no spec/openapi.actions.yaml"),
        (("broken",), "broken: spec/openapi.full.yaml: is not YAML"),
    ],
)
def test_what_cannot_be_read_ends_with_2_and_the_next_step(
    world: World, arguments: tuple[str, ...], said_to_people: str
) -> None:
    """An unknown revision, one without documents or with broken ones is told in a line, without a traceback."""
    folder = world.history.folder
    world.history.branch("empty", "base")
    shutil.rmtree(folder / "spec")
    world.history.commit("nothing left")
    world.history.branch("broken", "base")
    (folder / "spec" / "openapi.full.yaml").write_text("paths: [", encoding="utf-8")
    world.history.commit("broken")
    world.history.branch("unread", "base")
    done = run(world, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said_to_people in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "stolen").exists()
