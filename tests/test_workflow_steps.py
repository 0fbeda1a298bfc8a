"""
Runs the two workflow steps that write to the repository's pages, with a double of `gh`, in an empty folder.

They stand in their workflows, since the jobs that may write check nothing out (`test_workflows`). Opens no sockets.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from codegen.reader import read_yaml
from tests.support.documents import ROOT
from tests.support.script_checkouts import ScriptCheckout, script_checkout

GH = """case "$*" in
  "run download"*) mkdir report && cp -P -- "$ANSWERS"/report/* report/ ;;
  "api repos/o/r/pulls/"*) cat -- "$ANSWERS/head" ;;
  "api --paginate"*) cat -- "$ANSWERS/comments" ;;
  "issue list"*) cat -- "$ANSWERS/issues" ;;
esac"""
PULL_REQUEST = {
    "HEAD_REPOSITORY": "fork/r",
    "HEAD_SHA": "a1",
    "REPOSITORY": "o/r",
    "RUN_ID": "5",
    "RUN_URL": "https://github.com/o/r/actions/runs/5",
}


@dataclass(frozen=True, slots=True)
class Step:
    """
    A workflow's last step and what GitHub answers it.

    Attributes:
        folder: Where it runs.
        answers: What `gh` finds: `head`, `comments`, `issues` and the folder `report`.
    """

    checkout: ScriptCheckout
    folder: Path
    answers: Path

    def run(self, workflow: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the last step of a workflow's last job."""
        job = list(read_yaml(ROOT / ".github" / "workflows" / workflow)["jobs"].values())[-1]
        return self.checkout.shell(job["steps"][-1]["run"], self.folder, {**environment, "ANSWERS": str(self.answers)})

    def written(self) -> list[str]:
        """Calls of `gh` that change something."""
        reading = ("run download", "api repos", "api --paginate", "issue list")
        return [call for call in self.checkout.calls("gh") if not call.startswith(reading)]


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A pull request without comments whose report says `Minor.`, and no open issue."""
    checkout = script_checkout(tmp_path)
    checkout.double("gh", GH)
    step = Step(checkout, tmp_path / "work", tmp_path / "answers")
    step.folder.mkdir()
    (step.answers / "report").mkdir(parents=True)
    for name, text in {
        "report/number": "12",
        "report/report.md": "Minor.\n",
        "head": "open a1 fork/r\n",
        "comments": "",
        "issues": "",
    }.items():
        (step.answers / name).write_text(text, encoding="utf-8")
    return step


class TestComment:
    def test_a_first_report_is_posted(self, step: Step) -> None:
        """One comment, with the mark by which the next run finds it and a link to the run."""
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 0
        assert step.written() == ["api --silent --method POST repos/o/r/issues/12/comments --field body=@comment.md"]
        comment = (step.folder / "comment.md").read_text(encoding="utf-8")
        assert comment.startswith("<!-- contract-diff -->\nMinor.\n")
        assert PULL_REQUEST["RUN_URL"] in comment

    def test_the_next_report_replaces_it(self, step: Step) -> None:
        """There is never more than one comment; the oldest is kept."""
        (step.answers / "comments").write_text("77\n78\n", encoding="utf-8")
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 0
        assert step.written() == ["api --silent --method PATCH repos/o/r/issues/comments/77 --field body=@comment.md"]

    @pytest.mark.parametrize(
        "comments, calls", [("", []), ("77\n", ["api --method DELETE repos/o/r/issues/comments/77"])]
    )
    def test_no_report_leaves_no_comment(self, step: Step, comments: str, calls: list[str]) -> None:
        """A pull request that leaves the contract alone, or does so again, has no comment about it."""
        (step.answers / "comments").write_text(comments, encoding="utf-8")
        (step.answers / "report" / "report.md").write_text("", encoding="utf-8")
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 0
        assert step.written() == calls

    @pytest.mark.parametrize(
        "head",
        ["open b2 fork/r", "open a1 other/r", "closed a1 fork/r"],
        ids=["newer commits", "another's pull request", "closed"],
    )
    def test_a_report_for_something_else_is_not_posted(self, step: Step, head: str) -> None:
        """The number in a report counts only for the open pull request whose commit was compared."""
        (step.answers / "head").write_text(f"{head}\n", encoding="utf-8")
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 0
        assert step.written() == []

    @pytest.mark.parametrize("number", ["", "12/../../13", "012", "12\n13", "1" * 11, "$(id)"])
    def test_what_is_no_number_ends_the_job(self, step: Step, number: str) -> None:
        """Nothing is asked of GitHub with a number that is none."""
        (step.answers / "report" / "number").write_text(number, encoding="utf-8")
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 1
        assert len(step.checkout.calls("gh")) == 1

    @pytest.mark.parametrize("name", ["number", "report.md"])
    def test_a_link_is_not_followed(self, step: Step, name: str) -> None:
        """A report cannot show a file of the runner."""
        target = step.answers / "report" / name
        target.rename(step.answers / name)
        target.symlink_to(step.answers / name)
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 1
        assert step.written() == []

    def test_a_report_notifies_nobody_and_fits(self, step: Step) -> None:
        """Mentions are broken, and what is too long for GitHub is cut."""
        (step.answers / "report" / "report.md").write_text("@everybody " + "x" * 100_000, encoding="utf-8")
        assert step.run("contract-diff-comment.yml", PULL_REQUEST).returncode == 0
        comment = (step.folder / "comment.md").read_text(encoding="utf-8")
        assert "@\N{ZERO WIDTH SPACE}everybody" in comment
        assert len(comment) < 65_536


class TestIssue:
    RUN_URL = "https://github.com/o/r/actions/runs/6"

    def run(self, step: Step, status: str, issues: str) -> int:
        """Run the step after a comparison, with the issues that are open."""
        (step.folder / "report.md").write_text("One new operation.\n", encoding="utf-8")
        (step.answers / "issues").write_text(issues, encoding="utf-8")
        environment = {"GH_REPO": "o/r", "RUN_URL": self.RUN_URL, "STATUS": status}
        return step.run("drift.yml", environment).returncode

    @pytest.mark.parametrize("status, words", [("1", "something to look at"), ("2", "a served operation breaks")])
    def test_drift_opens_an_issue(self, step: Step, status: str, words: str) -> None:
        """The title says how bad it is, the body is the report with a link to its run."""
        assert self.run(step, status, "") == 0
        label, issue = step.written()
        assert label.startswith("label create upstream-drift --force")
        assert issue == f"issue create --label upstream-drift --title Upstream drift: {words} --body-file issue.md"
        body = (step.folder / "issue.md").read_text(encoding="utf-8")
        assert body.startswith("One new operation.\n")
        assert self.RUN_URL in body

    def test_more_drift_updates_the_issue(self, step: Step) -> None:
        """There is never more than one open issue."""
        assert self.run(step, "2", "9\n") == 0
        assert step.written() == ["issue edit 9 --title Upstream drift: a served operation breaks --body-file issue.md"]

    @pytest.mark.parametrize(
        "issues, calls", [("", []), ("9\n", ["issue close 9 --comment Nothing is left to look at: "])]
    )
    def test_no_drift_leaves_no_issue(self, step: Step, issues: str, calls: list[str]) -> None:
        """Once the contract has caught up, the issue is closed."""
        assert self.run(step, "0", issues) == 0
        assert step.written() == [call + self.RUN_URL for call in calls]

    @pytest.mark.parametrize("status", ["3", "", "22"])
    def test_a_failed_comparison_changes_nothing(self, step: Step, status: str) -> None:
        """No report means no news, good or bad."""
        assert self.run(step, status, "9\n") == 1
        assert step.written() == []
