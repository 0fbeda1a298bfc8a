"""
Holds what contributors are given (hooks, owners, templates, the form of a proposal) against what it speaks of.

Not for: workflows (`test_workflows`). Opens no sockets.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from codegen.proposals import Proposal, read_proposals
from codegen.reader import read_yaml
from tests.support.documents import POLICY_SCHEMA, ROOT
from tests.support.project_calls import unknown_calls

RISKS = POLICY_SCHEMA["$defs"]["proposal"]["properties"]["risk"]["items"]["enum"]
PROPOSALS = ROOT / "spec" / "proposals"
TEMPLATE = (PROPOSALS / "TEMPLATE.md").read_text(encoding="utf-8")
PULL_REQUEST = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
OWNERS = (ROOT / ".github" / "CODEOWNERS").read_text(encoding="utf-8")
CONTRACT_OWNERS = "@chatgpt-team-relay/contract-owners"
HOOKS: list[dict[str, Any]] = [
    hook for repository in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]
]
SYSTEM_HOOKS = {hook["id"]: hook for hook in HOOKS if hook["language"] == "system"}
SUBJECT = next(re.compile(hook["entry"], re.MULTILINE | re.DOTALL) for hook in HOOKS if hook["id"] == "subject")


def files() -> Iterable[str]:
    """Files of the project that a hook may be given."""
    for folder in (".github", "codegen", "handlers", "spec", "tests"):
        yield from (path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file())
    yield "pyproject.toml"


class TestHooks:
    @pytest.mark.parametrize("name", SYSTEM_HOOKS)
    def test_hooks_run_tools_of_the_lock(self, name: str) -> None:
        """A hook calls a tool of `.venv` that is there, and for `contract` a command that exists."""
        entry = SYSTEM_HOOKS[name]["entry"]
        tool = entry.split()[0]
        assert tool.startswith(".venv/bin/")
        assert (Path(sys.executable).parent / Path(tool).name).is_file()
        assert unknown_calls(entry) == []

    @pytest.mark.parametrize("name", SYSTEM_HOOKS)
    def test_hooks_fit_files(self, name: str) -> None:
        """No hook waits for files that the project does not have."""
        hook = SYSTEM_HOOKS[name]
        assert hook.get("types") == ["python"] or any(re.search(hook["files"], file) for file in files())

    @pytest.mark.parametrize("name", SYSTEM_HOOKS)
    def test_what_hooks_run_is_checked_for_everybody(self, name: str) -> None:
        """Hooks are a convenience: `scripts/check`, and so CI, runs the same command."""
        check = (ROOT / "scripts" / "check").read_text(encoding="utf-8")
        words = SYSTEM_HOOKS[name]["entry"].removeprefix(".venv/bin/").split()
        wanted = [word for word in words if word not in {"--force-exclude", "--fix"}]
        assert set(wanted) <= set(re.findall(r"[\w.-]+", check))

    def test_a_hook_that_calls_nothing_is_found(self) -> None:
        """A renamed command of `contract` does not stay behind in a hook."""
        assert unknown_calls(".venv/bin/contract approve") == ["contract approve is no command"]

    @pytest.mark.parametrize(
        "message",
        [
            "spec: list new operations of upstream",
            "simulated upstream: answer in pieces\n\nBecause real ones do.\n",
            "x: " + "y" * 69,
            "fixup! spec: list new operations of upstream",
            "Merge branch 'main' into change",
        ],
    )
    def test_good_subjects_pass(self, message: str) -> None:
        """The form of CONTRIBUTING.md passes, and so does what Git itself writes."""
        assert SUBJECT.search(message)

    @pytest.mark.parametrize(
        "message",
        [
            "list new operations",
            "spec: list new operations.",
            "spec: list new operations.\n\nspec: and more",
            "Spec: list new operations",
            "spec:list new operations",
            "spec: ",
            "x: " + "y" * 70,
            "x: " + "y" * 70 + "\n\nspec: list new operations",
            "\nspec: list new operations",
        ],
    )
    def test_bad_subjects_are_refused(self, message: str) -> None:
        """No area, a full stop, a long line: the body cannot make up for it."""
        assert not SUBJECT.search(message)


def problems_of_owners(text: str) -> list[str]:
    """Lines of a `CODEOWNERS` file that fit nothing or ask nobody."""
    problems = []
    for line in (line for line in text.splitlines() if line and not line.startswith("#")):
        pattern, *owners = line.split()
        if pattern != "*" and not (ROOT / pattern.strip("/")).exists():
            problems.append(f"{pattern} is not there")
        if not owners or not all(re.fullmatch(r"@[\w-]+/[\w-]+", owner) for owner in owners):
            problems.append(f"{pattern} needs teams")
    return problems


class TestOwners:
    def test_owners_are_asked_about_what_exists(self) -> None:
        """Every line fits something and names a team."""
        assert problems_of_owners(OWNERS) == []

    def test_a_line_that_fits_nothing_is_found(self) -> None:
        """A moved file or a line without an owner would silently ask nobody."""
        lines = "/handlers/moved.py @team/owners\n/spec/\n/codegen/ somebody@example.com\n"
        assert problems_of_owners(lines) == [
            "/handlers/moved.py is not there",
            "/spec/ needs teams",
            "/codegen/ needs teams",
        ]

    @pytest.mark.parametrize("path", ["/spec/", "/tests/policy_cases/", "/handlers/runtime/headers.py"])
    def test_contract_owners_are_asked_about_the_contract(self, path: str) -> None:
        """Whoever changes what the contract allows meets a contract owner."""
        assert dict(line.split()[:2] for line in OWNERS.splitlines() if line.startswith("/"))[path] == CONTRACT_OWNERS


class TestTemplates:
    @pytest.mark.parametrize("text", [TEMPLATE, PULL_REQUEST], ids=["proposal", "pull request"])
    def test_templates_name_every_risk_class(self, text: str) -> None:
        """The risk classes are those of `spec/policy.schema.yaml`."""
        assert [risk for risk in RISKS if not re.search(rf"\b{risk}\b", text)] == []

    @pytest.mark.parametrize(
        "text, questions",
        [
            (TEMPLATE, ["Endpoints", "Risk class", "Abuse and what stops it", "Test plan", "Alternatives rejected"]),
            (PULL_REQUEST, ["Test plan", "Operations and buckets", "Abuse", "Version level", "Proposal", "policy.tsv"]),
        ],
        ids=["proposal", "pull request"],
    )
    def test_templates_ask_what_governance_asks(self, text: str, questions: list[str]) -> None:
        """Sections 8 and 10 of GOVERNANCE.md say what a change has to answer for."""
        assert [question for question in questions if question not in text] == []


class TestProposals:
    def read(self, folder: Path, text: str) -> tuple[list[Proposal], list[str]]:
        """Read a text as the only proposal."""
        (folder / "streams.md").write_text(text, encoding="utf-8")
        return read_proposals(folder, POLICY_SCHEMA)

    def test_the_template_is_a_proposal(self, tmp_path: Path) -> None:
        """Who fills in the template gets a head that `contract diff` can read."""
        proposals, problems = self.read(tmp_path, TEMPLATE)
        assert problems == []
        assert [proposal.risk for proposal in proposals] == [tuple(RISKS)]

    def test_the_folder_proposes_nothing_by_itself(self) -> None:
        """Template and explanation are no proposals, and what is one can be read."""
        proposals, problems = read_proposals(PROPOSALS, POLICY_SCHEMA)
        assert problems == []
        assert "operationIdFromTheContract" not in {name for proposal in proposals for name in proposal.operations}

    @pytest.mark.parametrize(
        "old, new", [("reads, writes", "reads, shouts"), ("title:", "name:"), ("[operationIdFromTheContract]", "[]")]
    )
    def test_a_head_in_another_form_is_refused(self, tmp_path: Path, old: str, new: str) -> None:
        """An unknown risk class, a missing title and no operation are found."""
        assert old in TEMPLATE
        proposals, problems = self.read(tmp_path, TEMPLATE.replace(old, new))
        assert (proposals, len(problems)) == ([], 1)

    def test_proposals_are_not_in_the_package(self) -> None:
        """The wheel carries the contract, which a proposal is not."""
        hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
        carried = hatch["build"]["targets"]["wheel"]["only-include"]
        assert [path for path in carried if PROPOSALS.is_relative_to(ROOT / path)] == []
