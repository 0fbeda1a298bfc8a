"""
The deployment examples, read, and in one form: how each of them would run the relay.

Not for: judging them; `tests/test_deployment.py` and `tests/test_deployment_files.py` do.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml

from codegen.reader import read_yaml
from tests.support.dockerfile import ImageState, Stage, parse_dockerfile
from tests.support.documents import ROOT

FOLDER = ROOT / "docs" / "deployment"
SETTING = re.compile(r"\b(?:RELAY|OPENAI)_[A-Z0-9_]+\b")
OUTSIDE = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")  # a value that is given when it is deployed

Document = dict[str, Any]
# Of a unit file: section, name, value, in the order of the file.
Unit = Sequence[tuple[str, str, str]]

# What somebody would put where an example leaves a gap.
_LIKELY = {"RELAY_PUBLIC_URL": "https://relay.example.com", "RELAY_STORE_URL": "postgresql+asyncpg://a:b@c/d"}
_UNGUESSABLE = "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Run:
    """
    One way to run the relay.

    Args:
        literal: Settings with the value that the example has for them.
        outside: Settings whose value is given when it is deployed.
        probes: Paths that its health is asked at.
        stop_seconds: From the signal to end until it is killed.
        replicas: How many there are at a time.
        root: Whether it is root, or could become it.
        writable: Whether it could change its own program; `None` where the platform leaves no choice.
        bounded: Whether its memory is.
    """

    literal: Mapping[str, str]
    outside: frozenset[str]
    probes: frozenset[str]
    stop_seconds: float
    replicas: int
    root: bool
    writable: bool | None
    bounded: bool

    def environment(self) -> dict[str, str]:
        """All settings, with something likely in every gap."""
        gaps = {name: _LIKELY.get(name, _UNGUESSABLE) for name in self.outside}
        return {**{name: OUTSIDE.sub(_UNGUESSABLE, value) for name, value in self.literal.items()}, **gaps}


@dataclass(frozen=True)
class Examples:
    """The files as they stand; tests of what is refused take a changed copy."""

    stages: list[Stage]
    compose: Document
    render: Document
    kubernetes: list[Document]
    unit: Unit
    variables: Mapping[str, str]
    nginx: str
    secret: frozenset[str]

    def runs(self) -> dict[str, Run]:
        """How each would run the relay."""
        image = image_of(self.stages)
        return {
            "compose.yaml": compose_run(self.compose, image),
            "render.yaml": render_run(self.render, image),
            "kubernetes.yaml": kubernetes_run(self.kubernetes, image, self.secret),
            "relay.service": unit_run(self.unit, self.variables),
        }

    def kind(self, name: str) -> Document:
        """The only Kubernetes object of a kind."""
        (found,) = [entry for entry in self.kubernetes if entry["kind"] == name]
        return found

    @property
    def service(self) -> Document:
        """The relay in the Compose file."""
        return cast("Document", self.compose["services"]["relay"])

    @property
    def blueprint(self) -> Document:
        """The only service of the Render blueprint."""
        return cast("Document", self.render["services"][0])

    @property
    def pod(self) -> Document:
        """What the Deployment says about its pods."""
        return cast("Document", self.kind("Deployment")["spec"]["template"]["spec"])

    @property
    def container(self) -> Document:
        """The only container of such a pod."""
        return cast("Document", self.pod["containers"][0])


def image_of(stages: Sequence[Stage]) -> ImageState:
    """What the last stage of a Dockerfile sets."""
    state = ImageState()
    for step in stages[-1].steps:
        state.apply(step)
    return state


def compose_run(compose: Document, image: ImageState) -> Run:
    """The service `relay` of a Compose file."""
    service = compose["services"]["relay"]
    literal, outside = _apart(service["environment"])
    caged = service.get("cap_drop") == ["ALL"] and "no-new-privileges:true" in service.get("security_opt", ())
    return Run(
        literal={**_settings(image.environment), **literal},
        outside=outside,
        probes=_paths(image.health),
        stop_seconds=_seconds(service.get("stop_grace_period", "10s")),
        replicas=1,
        root=not caged or image.user[0] == 0,
        writable=not service.get("read_only", False),
        bounded="mem_limit" in service,
    )


def render_run(blueprint: Document, image: ImageState) -> Run:
    """The only service of a Render blueprint."""
    (service,) = blueprint["services"]
    variables = {variable["key"]: variable.get("value") for variable in service["envVars"]}
    return Run(
        literal={**_settings(image.environment), **{name: value for name, value in variables.items() if value}},
        outside=frozenset(name for name, value in variables.items() if not value),
        probes=frozenset({service["healthCheckPath"]}),
        stop_seconds=service.get("maxShutdownDelaySeconds", 30),
        replicas=service.get("numInstances", 1),
        root=image.user[0] == 0,
        writable=None,
        bounded=True,  # by its plan
    )


def kubernetes_run(objects: Sequence[Document], image: ImageState, given: frozenset[str]) -> Run:
    """
    The Deployment among Kubernetes objects.

    Args:
        given: Settings that its Secret holds.
    """
    (spec,) = [entry["spec"] for entry in objects if entry["kind"] == "Deployment"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    caged = container.get("securityContext", {})
    probes = [container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")]
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return Run(
        literal={**_settings(image.environment), **{entry["name"]: entry["value"] for entry in container["env"]}},
        outside=given,
        probes=frozenset(probes),
        stop_seconds=pod.get("terminationGracePeriodSeconds", 30) - pause,
        replicas=spec["replicas"],
        root=not (
            pod["securityContext"].get("runAsNonRoot")
            and pod["securityContext"].get("runAsUser") == image.user[0]
            and caged.get("allowPrivilegeEscalation") is False
            and caged.get("capabilities") == {"drop": ["ALL"]}
        ),
        writable=not caged.get("readOnlyRootFilesystem", False),
        bounded="memory" in container["resources"].get("limits", {}),
    )


def unit_run(unit: Unit, variables: Mapping[str, str]) -> Run:
    """
    A systemd unit.

    Args:
        variables: Of its `EnvironmentFile`; those without a value are given when it is deployed.
    """
    found = {name: value for section, name, value in unit if section == "Service"}
    named = [value.partition("=") for section, name, value in unit if (section, name) == ("Service", "Environment")]
    folders = {"%d": "/run/credentials/relay.service", "%S": "/var/lib"}
    own = {name: re.sub("%[dS]", lambda match: folders[match[0]], value) for name, _, value in named}
    return Run(
        literal=_settings({**own, **{name: value for name, value in variables.items() if value}}),
        outside=frozenset(name for name, value in variables.items() if not value),
        probes=frozenset(),
        stop_seconds=_seconds(found.get("TimeoutStopSec", "90")),
        replicas=1,
        root=not (found.get("DynamicUser") == found.get("NoNewPrivileges") == "yes"),
        writable=found.get("ProtectSystem") != "strict",
        bounded="MemoryMax" in found,
    )


def read_unit(text: str) -> Unit:
    """The lines of a unit file."""
    found, section = [], ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.append((section, name, value))
    return found


def _apart(variables: Mapping[str, str]) -> tuple[dict[str, str], frozenset[str]]:
    """Variables with a value of their own, and those that are nothing but one from outside."""
    outside = frozenset(name for name, value in variables.items() if OUTSIDE.fullmatch(value))
    return {name: value for name, value in variables.items() if name not in outside}, outside


def _settings(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(("OPENAI_", "RELAY_"))}


def _paths(command: Sequence[str]) -> frozenset[str]:
    """Paths that a health check names in its program."""
    return frozenset(re.findall(r"'(/[a-z/]+)'", " ".join(command)))


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _assignments(text: str) -> dict[str, str]:
    """Lines `NAME=value`."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


EXAMPLES = Examples(
    stages=parse_dockerfile((ROOT / "Dockerfile").read_text(encoding="utf-8")),
    compose=read_yaml(FOLDER / "compose.yaml"),
    render=read_yaml(FOLDER / "render.yaml"),
    kubernetes=list(yaml.safe_load_all(_read("kubernetes.yaml"))),
    unit=read_unit(_read("relay.service")),
    variables=_assignments(_read("relay.env")),
    nginx=_read("nginx.conf"),
    secret=frozenset(SETTING.findall("".join(re.findall(r"# (.+)\n +envFrom:", _read("kubernetes.yaml"))))),
)
