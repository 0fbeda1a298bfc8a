"""
Holds how the Dockerfile and the examples in `docs/deployment/` run the relay against what keeps it safe.

Not for: the form of the files (`test_deployment_files`), or whether they run: `scripts/replay_dockerfile` carries the
Dockerfile out, `integration/test_behind_nginx.py` runs nginx; nothing was at hand for the rest. Opens no sockets.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any, cast

import pytest

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.exceptions import InvalidSettings
from handlers.runtime.settings import Settings, read_settings
from tests.support.deployments import EXAMPLES, FOLDER, OUTSIDE, SETTING, Examples, Run, image_of
from tests.support.dockerfile import Stage, Step, context_files, copied, parse_dockerfile
from tests.support.documents import ROOT

GUIDES = [ROOT / "docs" / "deployment.md", ROOT / "docs" / "runbook.md"]
FILES = [*sorted(FOLDER.iterdir()), ROOT / "Dockerfile", *GUIDES]
OPEN_PATHS = {operation.path for operation in load_contract(GENERATED, FULL) if not operation.scopes}
SECRETS = frozenset({"OPENAI_API_KEY", "RELAY_KEY", "RELAY_ARTIFACT_SECRET"})
PASSWORD = re.compile(r"://[^/@]+:[^/@]+@")
GOODBYE_SECONDS = 5  # after the last request: connections, the store


def takes_settings(run: Run) -> Iterator[str]:
    """The relay would start with the settings, and says what it keeps where."""
    environment = run.environment()
    try:
        read_settings(environment)
    except InvalidSettings as error:
        yield str(error)
    for name in ("OPENAI_API_KEY", "RELAY_PUBLIC_URL"):
        if name not in environment:
            yield f"{name} must be set"
    if not environment.keys() & {"RELAY_KEY", "RELAY_KEY_FILE"}:
        yield "nobody would have a key"
    if "RELAY_ARTIFACT_URL" in environment and "RELAY_ARTIFACT_SECRET" not in environment:
        yield "RELAY_ARTIFACT_SECRET must be set with RELAY_ARTIFACT_URL"


def holds_no_secret(run: Run) -> Iterator[str]:
    """Secrets are given when it is deployed."""
    for name, value in run.literal.items():
        if (name in SECRETS and not OUTSIDE.search(value)) or PASSWORD.search(OUTSIDE.sub("", value)):
            yield f"{name} must not stand in the file"


def ends_in_time(run: Run) -> Iterator[str]:
    """Requests that run may take as long as the relay lets them, and the relay may say good-bye."""
    name = "RELAY_SHUTDOWN_TIMEOUT_SECONDS"
    allowed = int(run.literal.get(name, Settings.model_fields[name].default))
    if run.stop_seconds < allowed + GOODBYE_SECONDS:
        yield f"it is killed after {run.stop_seconds:g} seconds; {name} is {allowed}"


def is_caged(run: Run) -> Iterator[str]:
    """It is not root, cannot become it, cannot change itself, and cannot take all memory."""
    if run.root:
        yield "it is root, or could become it"
    if run.writable:
        yield "it could change its own program"
    if not run.bounded:
        yield "it could take all memory"


def asks_health(run: Run) -> Iterator[str]:
    """Probes ask at operations that need no key."""
    yield from (f"{path} is no open operation" for path in run.probes - OPEN_PATHS)


def shares_state(run: Run) -> Iterator[str]:
    """Where there are several, none keeps what the others need."""
    environment = run.environment()
    if run.replicas > 1:
        if not environment.get("RELAY_STORE_URL", "").startswith("postgresql"):
            yield "RELAY_STORE_URL must be a server's"
        if not environment.get("RELAY_ARTIFACT_URL", "").startswith("s3:"):
            yield "RELAY_ARTIFACT_URL must be a bucket"


def builds_clean(stages: Sequence[Stage], context: Sequence[str]) -> Iterator[str]:
    """
    What the Dockerfile itself has to keep.

    Args:
        stages: Of the Dockerfile.
        context: Files that the engine is given.
    """
    last = stages[-1]
    if any(step.instruction == "COPY" and "from" not in step.flags for step in last.steps):
        yield "the last stage must take files from another stage only"
    if any(re.search(r"\b(pip|apt-get|curl|wget)\b", step.text) for step in last.steps if step.instruction == "RUN"):
        yield "the last stage must install nothing"
    runs = [step for stage in stages for step in stage.steps if step.instruction == "RUN"]
    for part in chain.from_iterable(step.text.split("&&") for step in runs):
        if " install " in part and "--require-hashes" not in part and "--no-index" not in part:
            yield f"{part.strip()!r} must have --require-hashes, or --no-index for what was built here"
    if SECRETS & image_of(stages).environment.keys():
        yield "the image must hold no secret"
    taken = [source for step in _copies(stages) for source in copied(step, {})[0]]
    for name in context:
        if not any(name == source or name.startswith(f"{source}/") for source in taken):
            yield f"{name} enters the build context and nobody copies it"


def _copies(stages: Sequence[Stage]) -> Iterator[Step]:
    for stage in stages:
        yield from (step for step in stage.steps if step.instruction == "COPY" and "from" not in step.flags)


RULES = [takes_settings, holds_no_secret, ends_in_time, is_caged, asks_health, shares_state]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_settings_exist(path: Path) -> None:
    """No file names a setting that the relay does not have: it would refuse to start."""
    assert set(SETTING.findall(path.read_text(encoding="utf-8"))) <= set(Settings.model_fields)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", EXAMPLES.runs())
def test_examples_run_the_relay_as_they_should(rule: Callable[[Run], Iterator[str]], name: str) -> None:
    """Every example keeps every rule."""
    assert list(rule(EXAMPLES.runs()[name])) == []


def unit_without(examples: Examples, name: str) -> None:
    """Take a line out of the unit."""
    cast("list[tuple[str, str, str]]", examples.unit)[:] = [line for line in examples.unit if line[1] != name]


CARELESS: dict[str, tuple[Any, str, Callable[[Examples], object]]] = {
    "a setting that is none": (
        takes_settings,
        "compose.yaml",
        lambda e: e.service["environment"].update(RELAY_NO_SUCH="1"),
    ),
    "no key for anybody": (
        takes_settings,
        "compose.yaml",
        lambda e: e.service["environment"].pop("RELAY_KEY_FILE"),
    ),
    "no public address": (
        takes_settings,
        "render.yaml",
        lambda e: e.blueprint["envVars"].pop(2),
    ),
    "links that nobody can sign again": (
        takes_settings,
        "compose.yaml",
        lambda e: e.service["environment"].pop("RELAY_ARTIFACT_SECRET"),
    ),
    "a key in the file": (
        holds_no_secret,
        "compose.yaml",
        lambda e: e.service["environment"].update(OPENAI_API_KEY="sk-live"),
    ),
    "a password in the file": (
        holds_no_secret,
        "kubernetes.yaml",
        lambda e: e.container["env"].append(
            {"name": "RELAY_STORE_URL", "value": "postgresql+asyncpg://relay:x@db/relay"}
        ),
    ),
    "ten seconds to end": (ends_in_time, "compose.yaml", lambda e: e.service.pop("stop_grace_period")),
    "a pause that eats the time": (
        ends_in_time,
        "kubernetes.yaml",
        lambda e: e.container["lifecycle"]["preStop"]["sleep"].update(seconds=20),
    ),
    "Render's own time": (
        ends_in_time,
        "render.yaml",
        lambda e: e.blueprint.pop("maxShutdownDelaySeconds"),
    ),
    "capabilities kept": (is_caged, "compose.yaml", lambda e: e.service.pop("cap_drop")),
    "a tree to write to": (is_caged, "compose.yaml", lambda e: e.service.pop("read_only")),
    "root": (is_caged, "kubernetes.yaml", lambda e: e.pod["securityContext"].update(runAsUser=0)),
    "no bound for memory": (is_caged, "kubernetes.yaml", lambda e: e.container["resources"].pop("limits")),
    "new rights": (is_caged, "relay.service", lambda e: unit_without(e, "NoNewPrivileges")),
    "a machine to write to": (is_caged, "relay.service", lambda e: unit_without(e, "ProtectSystem")),
    "a probe that needs a key": (
        asks_health,
        "kubernetes.yaml",
        lambda e: e.container["readinessProbe"]["httpGet"].update(path="/v1/health"),
    ),
    "replicas that do not know each other": (
        shares_state,
        "render.yaml",
        lambda e: e.blueprint.update(numInstances=2),
    ),
}


@pytest.mark.parametrize("rule, name, change", CARELESS.values(), ids=CARELESS)
def test_a_careless_change_is_found(
    rule: Callable[[Run], Iterator[str]], name: str, change: Callable[[Examples], object]
) -> None:
    """One careless change to a good example breaks the rule that it is about."""
    changed = deepcopy(EXAMPLES)
    change(changed)
    assert list(rule(changed.runs()[name]))


class TestDockerfile:
    def test_it_builds_clean(self) -> None:
        """Everything is locked, the last stage installs nothing and holds no secret, nothing else enters the build."""
        assert list(builds_clean(EXAMPLES.stages, list(self.context()))) == []

    @pytest.mark.parametrize(
        "line",
        [
            "COPY spec spec",
            "RUN pip install relay",
            "RUN apt-get update && true",
            "RUN /opt/relay/bin/python -m installer install a.whl",
            "ENV OPENAI_API_KEY=sk-x",
        ],
    )
    def test_a_careless_line_is_found(self, line: str) -> None:
        """A line that brings tools, code or secrets into the last stage is reported."""
        text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
        assert list(builds_clean(parse_dockerfile(f"{text}\n{line}\n"), []))

    def test_what_nobody_copies_is_found(self) -> None:
        """A file that enters the build context for nothing is reported."""
        assert list(builds_clean(EXAMPLES.stages, [".env"]))

    @staticmethod
    def context() -> Iterator[str]:
        """Files that an engine is given."""
        ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8")
        yield from map(str, context_files(ROOT, ignore))
