import os
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from codegen import revision
from codegen.exceptions import UnreadableDocument
from codegen.revision import WORKING_TREE, read_side
from tests.support.documents import document
from tests.support.git_history import History, git_environment

CASES = {
    "situation": "It is tried.",
    "surface": "proxy",
    "scopes": ["proxy"],
    "cases": [{"operation": "retrieveThing", "method": "GET", "path": "/v1/things", "verdict": "allowed"}],
}
PROPOSAL = b"---\ntitle: Open it\noperations: [retrieveThing]\nrisk: [reads]\n---\n"


@pytest.fixture
def history(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """A small contract with a case and a proposal, as the first commit of a repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in git_environment().items():
        monkeypatch.setenv(name, value)
    for file, content in {
        "tests/policy_cases/it_is_tried.yaml": orjson.dumps(CASES),
        "spec/proposals/open_it.md": PROPOSAL,
        "spec/generated/openapi.full.json": b"{}",
    }.items():
        path = checkout / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    history = History(checkout)
    history.commit("spec: a contract")
    history.git("tag", "first")
    return history


def write_version(checkout: Path, version: str) -> None:
    """Write another version into both documents."""
    for name in ("openapi.full", "openapi.actions"):
        text = orjson.dumps(document(info={"title": "things", "version": version}))
        (checkout / "spec" / f"{name}.yaml").write_bytes(text)


def test_a_revision_is_read_as_it_was(history: History) -> None:
    """What lies in the checkout today does not show in an older revision; without a name it is the checkout."""
    write_version(history.folder, "2.0.0")
    first = read_side("first", history.folder)
    assert (first.label, first.full.version, first.actions.version) == ("first", "1.2.3", "1.2.3")
    assert [case.operation for case in first.cases] == ["retrieveThing"]
    assert [proposal.title for proposal in first.proposals] == ["Open it"]
    assert first.problems == ()
    now = read_side(None, history.folder)
    assert (now.label, now.full.version) == (WORKING_TREE, "2.0.0")


@pytest.mark.parametrize("name", ["first", "main", "HEAD", "main~0", "refs/heads/main", "first^{commit}", "HEAD@{0}"])
def test_every_way_to_name_a_revision_works(history: History, name: str) -> None:
    """Tags, branches, and what git computes from them."""
    assert read_side(name, history.folder).full.version == "1.2.3"


def test_a_checkout_below_the_top_of_its_repository_is_read_from_there(tmp_path: Path, history: History) -> None:
    """The current folder is the project, wherever its repository begins."""
    project = history.folder / "inner" / "project"
    shutil.copytree(history.folder / "spec", project / "spec")
    write_version(project, "3.0.0")
    history.commit("a project inside")
    assert read_side("HEAD", project).full.version == "3.0.0"
    assert read_side("HEAD", history.folder).full.version == "1.2.3"


@pytest.mark.parametrize(
    "path",
    [
        lambda checkout: checkout,
        lambda checkout: checkout / "spec",
        lambda checkout: checkout / "spec" / "openapi.full.yaml",
        lambda checkout: checkout / "spec" / "openapi.actions.yaml",
        lambda checkout: Path("spec"),
        lambda checkout: Path("spec/openapi.full.yaml"),
    ],
)
def test_a_folder_or_a_document_is_read_with_what_lies_beside_it(
    history: History, path: Callable[[Path], Path]
) -> None:
    """A checkout, its `spec`, or one of the documents: each finds the other files, without git."""
    shutil.rmtree(history.folder / ".git")
    found = read_side(str(path(history.folder)), history.folder)
    assert (found.full.version, len(found.cases), len(found.proposals)) == ("1.2.3", 1, 1)


def test_two_documents_alone_are_enough(history: History, tmp_path: Path) -> None:
    """A folder that holds nothing but the documents has no cases, no proposals and no schema."""
    folder = tmp_path / "saved"
    folder.mkdir()
    for name in ("openapi.full.yaml", "openapi.actions.yaml"):
        shutil.copy(history.folder / "spec" / name, folder)
    found = read_side("saved", tmp_path)
    assert (found.full.version, found.cases, found.proposals, found.schema) == ("1.2.3", (), (), {})


def test_links_and_other_files_of_a_revision_are_left_alone(history: History, tmp_path: Path) -> None:
    """Only plain files of the contract are written to the temporary folder, so nothing can point out of it."""
    secret = tmp_path / "secret.md"
    secret.write_bytes(PROPOSAL)
    (history.folder / "spec" / "proposals" / "linked.md").symlink_to(secret)
    history.commit("a link")
    assert len(read_side("HEAD", history.folder).proposals) == 1


@pytest.mark.parametrize(
    "name", ["absent", "--all", "-h", "first:spec", "first^{tree}", "a\0b", "first first", "../first"]
)
def test_what_names_nothing_is_told_with_the_next_step(history: History, name: str) -> None:
    """A name that is neither a folder nor a revision is refused, also when it looks like an option of git."""
    with pytest.raises(UnreadableDocument, match=r"is neither a folder with the two documents nor a revision"):
        read_side(name, history.folder)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(history: History, name: str) -> None:
    """A variable that is not set must not compare the checkout with itself."""
    with pytest.raises(UnreadableDocument, match="must not be empty"):
        read_side(name, history.folder)


def test_outside_a_repository_a_revision_cannot_be_read(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's own words stand in the message."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(UnreadableDocument, match=r"elsewhere \(fatal: not a git repository"):
        read_side("first", folder)


def test_without_git_the_message_says_so(history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without git still compares folders, and says why it compares no revisions."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_side(str(history.folder), history.folder).full.version == "1.2.3"
    with pytest.raises(UnreadableDocument, match="git cannot be asked"):
        read_side("first", history.folder)


def test_a_git_that_hangs_is_given_up(history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command ends after a bounded time."""
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\nexec /bin/sleep 30\n", encoding="utf-8")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(revision, "_GIT_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UnreadableDocument, match="git cannot be asked"):
        read_side("first", history.folder)


def test_a_revision_without_the_documents_is_told(history: History) -> None:
    """Before the contract there is nothing to compare."""
    shutil.rmtree(history.folder / "spec")
    history.commit("gone")
    with pytest.raises(UnreadableDocument, match=r"HEAD: holds no spec/openapi\.full\.yaml and no spec/openapi"):
        read_side("HEAD", history.folder)


@pytest.mark.parametrize("text", [b"paths: [", b"[]", b"{}", b"\xff\xfe\x00"])
def test_a_document_that_does_not_load_is_told_by_side_and_file(history: History, text: bytes) -> None:
    """The message names revision and file as people know them, not the temporary folder."""
    (history.folder / "spec" / "openapi.full.yaml").write_bytes(text)
    history.commit("broken")
    with pytest.raises(UnreadableDocument, match=r"^HEAD: spec/openapi\.full\.yaml: ") as caught:
        read_side("HEAD", history.folder)
    assert "contract-" not in str(caught.value)


def test_cases_that_cannot_be_read_are_a_problem_of_the_side(history: History) -> None:
    """The documents are compared all the same; the cases count for nothing."""
    (history.folder / "tests" / "policy_cases" / "it_is_tried.yaml").write_bytes(b"cases: 5\n")
    history.commit("broken cases")
    found = read_side("HEAD", history.folder)
    assert found.cases == ()
    (problem,) = found.problems
    assert problem.startswith("HEAD: tests/policy_cases/it_is_tried.yaml:")
