"""What `scripts/contract_diff` compares, on real Git histories. Opens no sockets."""

import pytest

from tests.support.script_checkouts import ScriptCheckout


def compared(checkout: ScriptCheckout) -> list[str]:
    """The revisions that `contract diff` was given."""
    return [call.removeprefix("diff ").removesuffix(" --format markdown") for call in checkout.calls("contract")]


def branch(checkout: ScriptCheckout, file: str = "spec/openapi.full.yaml") -> str:
    """Leave main for a branch with one change; returns the commit where it was left."""
    left = checkout.git("rev-parse", "HEAD")
    checkout.git("checkout", "--quiet", "-b", "change")
    checkout.commit({file: "changed\n"})
    return left


def test_a_branch_is_compared_with_where_it_left_main(checkout: ScriptCheckout) -> None:
    """What happened on main since then is nobody's change here."""
    left = branch(checkout)
    checkout.git("checkout", "--quiet", "main")
    checkout.commit({"spec/openapi.full.yaml": "changed by others\n"})
    checkout.pushed()
    checkout.git("checkout", "--quiet", "change")
    result = checkout.script("contract_diff")
    assert compared(checkout) == [f"{left} HEAD"]
    assert (result.returncode, result.stdout) == (0, f"contract diff {left} HEAD --format markdown\n")


def test_a_merge_is_compared_with_the_main_that_it_merges(checkout: ScriptCheckout) -> None:
    """GitHub checks out the merge of a pull request: it stands on the main of that moment, not on a newer one."""
    branch(checkout)
    checkout.git("checkout", "--quiet", "main")
    merged = checkout.commit({"README.md": "changed by others\n"})
    checkout.git("checkout", "--quiet", "--detach")
    checkout.git("merge", "--quiet", "--no-edit", "--no-ff", "change")
    merge = checkout.git("rev-parse", "HEAD")
    checkout.git("checkout", "--quiet", "main")
    checkout.commit({"spec/openapi.full.yaml": "changed later\n"})
    checkout.pushed()
    checkout.git("checkout", "--quiet", merge)
    assert checkout.script("contract_diff", "origin/main").returncode == 0
    assert compared(checkout) == [f"{merged} HEAD"]


@pytest.mark.parametrize("file", ["spec/proposals/streams.md", "tests/policy_cases/models.yaml"])
def test_cases_and_proposals_count(checkout: ScriptCheckout, file: str) -> None:
    """A case or a proposal can turn the verdict, so a change of one is compared as well."""
    left = branch(checkout, file)
    assert checkout.script("contract_diff").returncode == 0
    assert compared(checkout) == [f"{left} HEAD"]


def test_other_changes_have_no_report(checkout: ScriptCheckout) -> None:
    """A branch that leaves the contract alone passes without a set-up and with nothing to post."""
    branch(checkout, "README.md")
    result = checkout.script("contract_diff")
    assert (result.returncode, result.stdout, compared(checkout), checkout.calls("setup")) == (0, "", [], [])


@pytest.mark.parametrize("status", [1, 2])
def test_the_verdict_is_that_of_the_command(checkout: ScriptCheckout, status: int) -> None:
    """The gate's exit code reaches the caller, and so does its report."""
    branch(checkout)
    checkout.double(".venv/bin/contract", f"echo report\nexit {status}")
    result = checkout.script("contract_diff")
    assert (result.returncode, result.stdout) == (status, "report\n")


def test_a_missing_history_is_not_a_pass(checkout: ScriptCheckout) -> None:
    """Where the two have nothing in common, or the base is not there, the comparison fails and says what to do."""
    result = checkout.script("contract_diff", "origin/release")
    assert (result.returncode, result.stdout) == (2, "")
    assert "git fetch origin" in result.stderr


def test_a_failed_setup_is_not_a_verdict(checkout: ScriptCheckout) -> None:
    """Exit code 1 is kept for the gate."""
    branch(checkout)
    checkout.double("scripts/setup", "exit 1")
    assert checkout.script("contract_diff").returncode == 2
