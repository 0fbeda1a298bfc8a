from pathlib import Path

import pytest

from codegen.proposals import naming, read_proposals
from tests.support.documents import POLICY_SCHEMA

GOOD = "---\ntitle: Open it\noperations: [listModels, deleteModel]\nrisk: [reads, deletes]\n---\n\nWhy.\n\n---\n"


def read(folder: Path, **files: str) -> tuple[list[str], list[str]]:
    """Titles of the proposals that hold these texts, and what is wrong with the others."""
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    proposals, problems = read_proposals(folder, POLICY_SCHEMA)
    return [proposal.title for proposal in proposals], problems


def test_the_head_of_a_proposal_is_read(tmp_path: Path) -> None:
    """Title, operations and risk stand between two lines of dashes; the page below is free."""
    (tmp_path / "open_it.md").write_bytes(GOOD.replace("\n", "\r\n").encode())
    proposals, problems = read_proposals(tmp_path, POLICY_SCHEMA)
    assert problems == []
    assert naming(proposals) == dict.fromkeys(("listModels", "deleteModel"), "spec/proposals/open_it.md")
    assert proposals[0].risk == ("reads", "deletes")


def test_templates_and_the_page_of_the_folder_are_no_proposals(tmp_path: Path) -> None:
    """They name no operation, whatever they hold; a missing folder holds nothing."""
    assert read(tmp_path, README="# Proposals\n", TEMPLATE=GOOD) == ([], [])
    assert read_proposals(tmp_path / "absent", POLICY_SCHEMA) == ([], [])


@pytest.mark.parametrize(
    "text, problem",
    [
        ("# Open it\n", "must begin with YAML between two lines `---`"),
        ("\n" + GOOD, "must begin with YAML"),
        ("---\ntitle: Open it\n", "must begin with YAML"),
        ("---\n---\n", "must begin with YAML"),
        ("---\n- a\n---\n", "the root must be a mapping"),
        ("---\ntitle: [\n---\n", "is not YAML"),
        (GOOD.replace("risk: [reads", "risk: [charms"), "`risk.0` is wrong"),
        (GOOD.replace("operations: [listModels, deleteModel]", "operations: []"), "`operations` is wrong"),
        (GOOD.replace("title: Open it\n", ""), '`the head` is wrong: "title" is a required property'),
        (GOOD.replace("title:", "status: merged\ntitle:"), "`the head` is wrong"),
        (GOOD.replace("title:", "operations: [x]\ntitle:"), "the key `operations` stands twice"),
    ],
)
def test_a_malformed_head_is_a_problem_and_names_nothing(tmp_path: Path, text: str, problem: str) -> None:
    """Half a proposal accepts nothing; the others still count."""
    titles, problems = read(tmp_path, good=GOOD, bad=text)
    assert titles == ["Open it"]
    assert len(problems) == 1
    assert problems[0].startswith("spec/proposals/bad.md: ")
    assert problem in problems[0]


def test_other_files_are_problems(tmp_path: Path) -> None:
    """What is no Markdown file might be a proposal with a wrong name."""
    (tmp_path / "open_it.yaml").write_text("title: Open it\n", encoding="utf-8")
    (tmp_path / "folder.md").mkdir()
    assert [problem.split(":")[0] for problem in read_proposals(tmp_path, POLICY_SCHEMA)[1]] == [
        "spec/proposals/folder.md",
        "spec/proposals/open_it.yaml",
    ]


def test_without_a_schema_no_proposal_counts(tmp_path: Path) -> None:
    """An edition whose schema does not describe proposals cannot hold any."""
    (tmp_path / "open_it.md").write_text(GOOD, encoding="utf-8")
    assert read_proposals(tmp_path, {}) == ([], ["spec/proposals: spec/policy.schema.yaml must have `$defs/proposal`."])
