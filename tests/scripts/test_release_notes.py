"""Which tags `scripts/release_notes` lets through, on real Git histories. Opens no sockets."""

from collections.abc import Callable, Mapping

import pytest

from tests.support.script_checkouts import ScriptCheckout

Prepare = Callable[[ScriptCheckout], object]


def release_files(version: str, **other: str) -> Mapping[str, str]:
    """Files of a release that says its version everywhere, but for what is given otherwise by name."""
    told = {"package": version, "full": version, "actions": version, "changelog": version, **other}
    return {
        "pyproject.toml": f'[project]\nversion = "{told["package"]}"\n',
        "spec/openapi.full.yaml": f"info: {{version: {told['full']}}}\n",
        "spec/openapi.actions.yaml": f"info: {{version: {told['actions']}}}\n",
        "CHANGELOG.md": f"## {told['changelog']} - 2026-11-22\n\nNews.\n\n## 0.9.0 - 2026-01-01\n\nOld.\n",
    }


def release(checkout: ScriptCheckout, version: str, **other: str) -> None:
    """Commit a release to main and tag it."""
    checkout.commit(release_files(version, **other))
    checkout.git("tag", f"v{version}")
    checkout.pushed()


def test_the_notes_of_a_first_release(checkout: ScriptCheckout) -> None:
    """They are the changelog's entry and nobody else's, and say that there was no release before."""
    release(checkout, "1.0.0")
    result = checkout.script("release_notes", "v1.0.0")
    assert (result.returncode, result.stderr) == (0, "")
    assert "News." in result.stdout
    assert "Old." not in result.stdout
    assert "nothing to compare" in result.stdout
    assert checkout.calls("contract") == []


def test_the_notes_of_the_next_release(checkout: ScriptCheckout) -> None:
    """They end with the contract's diff since the tag before, however many commits lie between."""
    release(checkout, "1.0.0")
    checkout.commit({"README.md": "between\n"})
    release(checkout, "1.1.0")
    result = checkout.script("release_notes", "v1.1.0")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.index("News.") < result.stdout.index("contract diff v1.0.0 v1.1.0")


def beside_main(checkout: ScriptCheckout) -> None:
    """Tag a commit that never was on main."""
    checkout.git("checkout", "--quiet", "-b", "aside")
    checkout.commit(release_files("1.1.0"))
    checkout.git("tag", "v1.1.0")


def later_commit(checkout: ScriptCheckout) -> None:
    """Check out what comes after the tag."""
    release(checkout, "1.1.0")
    checkout.commit({"README.md": "later\n"})


def gate_fails(checkout: ScriptCheckout) -> None:
    """Let the contract's diff since the last release fail."""
    release(checkout, "1.0.0")
    release(checkout, "1.1.0")
    checkout.double(".venv/bin/contract", "exit 1")


REFUSED: dict[str, tuple[Prepare, str, str]] = {
    "no version": (lambda c: release(c, "1.1.0"), "main", "must be `v` and a version"),
    "a shell's words": (lambda c: release(c, "1.1.0"), "v1.1.0;true", "must be `v` and a version"),
    "no such tag": (lambda c: release(c, "1.1.0"), "v1.2.0", "there is no tag v1.2.0"),
    "something else checked out": (later_commit, "v1.1.0", "must be checked out"),
    "never on main": (beside_main, "v1.1.0", "must be a commit of main"),
    "the package says another": (lambda c: release(c, "1.1.0", package="1.0.0"), "v1.1.0", "1.0.0, 1.1.0, 1.1.0"),
    "a document says another": (lambda c: release(c, "1.1.0", full="1.0.0"), "v1.1.0", "1.1.0, 1.0.0, 1.1.0"),
    "the other document says another": (
        lambda c: release(c, "1.1.0", actions="1.0.0"),
        "v1.1.0",
        "1.1.0, 1.1.0, 1.0.0",
    ),
    "no entry in the changelog": (lambda c: release(c, "1.1.0", changelog="1.1.1"), "v1.1.0", "CHANGELOG.md has no"),
    "the gate fails": (gate_fails, "v1.1.0", "`contract diff v1.0.0 v1.1.0` does not pass"),
}


@pytest.mark.parametrize("prepare, tag, reason", REFUSED.values(), ids=REFUSED)
def test_a_tag_that_may_not_be_released_is_refused(
    checkout: ScriptCheckout, prepare: Prepare, tag: str, reason: str
) -> None:
    """A tag that is not what it says stops the release, with the reason."""
    prepare(checkout)
    result = checkout.script("release_notes", tag)
    assert result.returncode == 1
    assert reason in result.stderr
