"""
Holds the workflows in `.github/workflows` against what keeps them safe: what their tokens may do, and what they run.

Not for: their form (`scripts/check` holds them against GitHub's schema) or what their longer steps do
(`test_workflow_steps`). Opens no sockets.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from codegen.reader import read_yaml
from tests.support.documents import ROOT
from tests.support.project_calls import SCRIPTS, unknown_calls

Workflow = Mapping[Any, Any]

WORKFLOWS = {path.name: read_yaml(path) for path in sorted((ROOT / ".github" / "workflows").iterdir())}
NAMES = {workflow["name"] for workflow in WORKFLOWS.values()}
MAX_MINUTES = 60


def jobs(workflow: Workflow) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Jobs of a workflow with their names."""
    yield from workflow["jobs"].items()


def steps(job: Mapping[str, Any], action: str = "") -> list[Mapping[str, Any]]:
    """Steps of a job that use an action, or those that run a shell."""
    wanted = f"{action}@" if action else ""
    return [step for step in job["steps"] if (step.get("uses", "").startswith(wanted) if action else "run" in step)]


def triggers(workflow: Workflow) -> Mapping[str, Any]:
    """What starts it; YAML 1.1 reads the key `on` as true."""
    found = workflow[True]
    assert isinstance(found, dict)
    return found


def may_write(job: Mapping[str, Any]) -> bool:
    """Whether the job's token may change anything."""
    permissions = job.get("permissions", {})
    return isinstance(permissions, str) or "write" in permissions.values()


def reads_at_most(workflow: Workflow) -> Iterator[str]:
    """A workflow starts with a token that reads the code or nothing; jobs add what they need by name."""
    if workflow.get("permissions") not in ({}, {"contents": "read"}):
        yield "permissions of the workflow must be `contents: read` or `{}`"
    for name, job in jobs(workflow):
        if isinstance(job.get("permissions", {}), str):
            yield f"{name}: permissions must be named one by one"


def writes_without_code(workflow: Workflow) -> Iterator[str]:
    """A token that may write never meets code of a checkout."""
    for name, job in jobs(workflow):
        code = [step for step in steps(job) if re.search(r"scripts/|\.venv/|\bpip\b", step["run"])]
        if may_write(job) and (code or steps(job, "actions/checkout")):
            yield f"{name}: a job that may write must not check out or run the project"


def ends(workflow: Workflow) -> Iterator[str]:
    """Every job has an end, and runs that make each other obsolete know of each other."""
    for name, job in jobs(workflow):
        if not 0 < job.get("timeout-minutes", 0) <= MAX_MINUTES:
            yield f"{name}: timeout-minutes must be at most {MAX_MINUTES}"
    if "group" not in workflow.get("concurrency", {}):
        yield "concurrency must name a group"


def injects_nothing(workflow: Workflow) -> Iterator[str]:
    """What comes from an event reaches a shell through its environment, never as a part of its program."""
    for name, job in jobs(workflow):
        for step in steps(job):
            if "${{" in step["run"]:
                yield f"{name}: `run` must take values from `env`"
            if step["run"].count("\n") > 1 and not step["run"].startswith("set -euo pipefail\n"):
                yield f"{name}: a longer `run` must start with `set -euo pipefail`"


def forgets_credentials(workflow: Workflow) -> Iterator[str]:
    """No checkout leaves a token in the folder where the project's code runs."""
    for name, job in jobs(workflow):
        for step in steps(job, "actions/checkout"):
            if step.get("with", {}).get("persist-credentials") is not False:
                yield f"{name}: checkout must have `persist-credentials: false`"


def distrusts_forks(workflow: Workflow) -> Iterator[str]:
    """No code of a fork runs with this repository's token; what follows such a run only reads its report."""
    if "pull_request_target" in triggers(workflow):
        yield "pull_request_target must not be used"
    if (followed := triggers(workflow).get("workflow_run")) is None:
        return
    if not set(followed["workflows"]) <= NAMES:
        yield "workflow_run must name workflows that exist"
    for name, job in jobs(workflow):
        if steps(job, "actions/checkout"):
            yield f"{name}: must not check out anything"


def uses_githubs_actions(workflow: Workflow) -> Iterator[str]:
    """Actions come from GitHub itself, by major tag or by commit."""
    for name, job in jobs(workflow):
        for step in job["steps"]:
            if "uses" in step and not re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", step["uses"]):
                yield f"{name}: {step['uses']} must be `actions/<name>@v<major>` or a commit of it"


def calls_what_exists(workflow: Workflow) -> Iterator[str]:
    """Scripts that a workflow calls can be run, commands of `contract` are known."""
    for name, job in jobs(workflow):
        for step in steps(job):
            yield from (f"{name}: {problem}" for problem in unknown_calls(step["run"]))


RULES = [
    reads_at_most,
    writes_without_code,
    ends,
    injects_nothing,
    forgets_credentials,
    distrusts_forks,
    uses_githubs_actions,
    calls_what_exists,
]


@pytest.mark.parametrize("name", WORKFLOWS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_workflows_are_safe(rule: Callable[[Workflow], Iterator[str]], name: str) -> None:
    """Every workflow keeps every rule."""
    assert list(rule(WORKFLOWS[name])) == []


def changed(workflow: str, change: Callable[[dict[Any, Any], dict[str, Any]], object]) -> Workflow:
    """A copy of a workflow with a change to it or to its first job."""
    copy = deepcopy(WORKFLOWS[workflow])
    change(copy, next(iter(copy["jobs"].values())))
    return copy


BAD_STEPS = {
    "an event in the shell": (injects_nothing, {"run": "echo ${{ github.event.pull_request.title }}"}),
    "a branch's name in the shell": (injects_nothing, {"run": "git log ${{ github.head_ref }}"}),
    "errors passed over": (injects_nothing, {"run": "false\ntrue\n"}),
    "credentials kept": (forgets_credentials, {"uses": "actions/checkout@v7"}),
    "somebody's action": (uses_githubs_actions, {"uses": "somebody/comment@v1"}),
    "a moving action": (uses_githubs_actions, {"uses": "actions/checkout@main"}),
    "no such script": (calls_what_exists, {"run": "scripts/no_such_script"}),
    "no such command": (calls_what_exists, {"run": ".venv/bin/contract approve"}),
}
BAD_FORMS: dict[str, tuple[Any, str, Callable[[dict[Any, Any], dict[str, Any]], object]]] = {
    "everything allowed": (reads_at_most, "ci.yml", lambda w, _: w.update(permissions="write-all")),
    "nothing said": (reads_at_most, "ci.yml", lambda w, _: w.pop("permissions")),
    "a job allowed everything": (reads_at_most, "ci.yml", lambda _, job: job.update(permissions="write-all")),
    "tests that may write": (
        writes_without_code,
        "ci.yml",
        lambda _, job: job.update(permissions={"contents": "write"}),
    ),
    "a comment by the project's code": (
        writes_without_code,
        "contract-diff-comment.yml",
        lambda _, job: job["steps"].append({"run": "scripts/contract_diff"}),
    ),
    "a job without an end": (ends, "ci.yml", lambda _, job: job.pop("timeout-minutes")),
    "runs that pile up": (ends, "ci.yml", lambda w, _: w.pop("concurrency")),
    "a fork's code with our token": (
        distrusts_forks,
        "contract-diff.yml",
        lambda w, _: w.update({True: {"pull_request_target": None}}),
    ),
    "a fork's code after its run": (
        distrusts_forks,
        "contract-diff-comment.yml",
        lambda _, job: job["steps"].append({"uses": "actions/checkout@v7", "with": {"persist-credentials": False}}),
    ),
    "follows nothing": (
        distrusts_forks,
        "contract-diff-comment.yml",
        lambda w, _: w[True]["workflow_run"].update(workflows=["Contract difference"]),
    ),
}


@pytest.mark.parametrize("rule, step", BAD_STEPS.values(), ids=BAD_STEPS)
def test_a_bad_step_is_found(rule: Callable[[Workflow], Iterator[str]], step: Mapping[str, Any]) -> None:
    """One careless step in a good workflow breaks the rule that it is about."""
    assert len(list(rule(changed("ci.yml", lambda _, job: job["steps"].append(step))))) == 1


@pytest.mark.parametrize("rule, name, change", BAD_FORMS.values(), ids=BAD_FORMS)
def test_a_bad_form_is_found(
    rule: Callable[[Workflow], Iterator[str]],
    name: str,
    change: Callable[[dict[Any, Any], dict[str, Any]], object],
) -> None:
    """One careless change to the form of a good workflow breaks the rule that it is about."""
    assert len(list(rule(changed(name, change)))) == 1


def versions_of(workflows: Mapping[str, Workflow]) -> dict[str, set[str]]:
    """Versions of each action, over all workflows."""
    found: dict[str, set[str]] = {}
    for workflow in workflows.values():
        for _, job in jobs(workflow):
            for step in (step for step in job["steps"] if "uses" in step):
                action, _, version = step["uses"].partition("@")
                found.setdefault(action, set()).add(version)
    return found


def test_an_action_has_one_version() -> None:
    """All workflows use the same version of an action; an old one that stayed behind in one of them is found."""
    assert {len(versions) for versions in versions_of(WORKFLOWS).values()} == {1}
    old = changed("ci.yml", lambda _, job: job["steps"].append({"uses": "actions/checkout@v4"}))
    assert len(versions_of({**WORKFLOWS, "ci.yml": old})["actions/checkout"]) == 2


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_scripts_call_what_exists(script: str) -> None:
    """Scripts call no script and no command of `contract` that is not there."""
    assert unknown_calls((ROOT / "scripts" / script).read_text(encoding="utf-8")) == []
