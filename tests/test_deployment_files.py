"""
Holds the files in `docs/deployment/` against the schemas of those who read them, and their parts against each other.

Not for: how they run the relay (`test_deployment`). Opens no sockets.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path

import jsonschema_rs
import orjson
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema  # type: ignore[import-untyped]  # it ships no types

from handlers.runtime.server import Server
from handlers.runtime.settings import Settings
from tests.support.deployments import EXAMPLES, FOLDER, SETTING, Document, image_of
from tests.support.documents import ROOT

GUIDE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
UNIT = (FOLDER / "relay.service").read_text(encoding="utf-8")
KUBERNETES = orjson.loads((ROOT / "tests" / "data" / "kubernetes" / "v1.37.json").read_bytes())
SYSTEMD = shutil.which("systemd-analyze")
MAX_EXPOSURE = 2.0  # by systemd's own measure, from 0 to 10
READ_BY_UNIT = ("EnvironmentFile", "LoadCredential", "ExecStart")


def compose_errors(compose: Document) -> list[str]:
    """What the Compose specification says against it."""
    validator = jsonschema_rs.validator_for(get_builtin_schema("vendor.compose-spec"))
    return [error.message for error in validator.iter_errors(compose)]


def kubernetes_errors(entry: Document) -> list[str]:
    """What Kubernetes' API says against an object."""
    schema = KUBERNETES["kinds"].get(f"{entry['apiVersion']} {entry['kind']}")
    if schema is None:
        return ["no such kind"]
    validator = jsonschema_rs.validator_for({**schema, "$defs": KUBERNETES["$defs"]})
    return [error.message for error in validator.iter_errors(entry)]


def test_the_compose_file_fits_its_specification() -> None:
    """The Compose specification knows every field; one that it does not know is found."""
    assert compose_errors(EXAMPLES.compose) == []
    changed = deepcopy(EXAMPLES.compose)
    changed["services"]["relay"]["readonly"] = True
    assert compose_errors(changed)


class TestKubernetes:
    def test_objects_fit_the_api(self) -> None:
        """Kubernetes knows every field of every object; one that it does not know is found, at any depth."""
        assert [error for entry in EXAMPLES.kubernetes for error in kubernetes_errors(entry)] == []
        changed = deepcopy(EXAMPLES)
        changed.container["readinessProb"] = {}
        assert kubernetes_errors(changed.kind("Deployment"))
        assert kubernetes_errors({"apiVersion": "extensions/v1beta1", "kind": "Ingress"})

    def test_objects_find_each_other(self) -> None:
        """Service, budget, network policy and Deployment select the same pods; ports and Secrets have one name each."""
        labels = EXAMPLES.kind("Deployment")["spec"]["template"]["metadata"]["labels"]
        budget, policy = EXAMPLES.kind("PodDisruptionBudget")["spec"], EXAMPLES.kind("NetworkPolicy")["spec"]
        selectors = [
            EXAMPLES.kind("Deployment")["spec"]["selector"]["matchLabels"],
            EXAMPLES.kind("Service")["spec"]["selector"],
            budget["selector"]["matchLabels"],
            policy["podSelector"]["matchLabels"],
        ]
        assert all(selector == labels for selector in selectors)
        assert budget["minAvailable"] < EXAMPLES.kind("Deployment")["spec"]["replicas"]
        (port,) = EXAMPLES.container["ports"]
        image = image_of(EXAMPLES.stages)
        assert str(port["containerPort"]) == image.environment["RELAY_PORT"]
        (offered,) = EXAMPLES.kind("Service")["spec"]["ports"]
        assert offered["targetPort"] == port["name"] == policy["ingress"][0]["ports"][0]["port"]
        volumes = {volume["name"] for volume in EXAMPLES.pod["volumes"]}
        assert {mount["name"] for mount in EXAMPLES.container["volumeMounts"]} == volumes

    def test_no_service_speaks_into_the_settings(self) -> None:
        """A Service named `relay` would set RELAY_PORT and others to addresses, so service links are off."""
        assert EXAMPLES.kind("Service")["metadata"]["name"] == "relay"
        assert EXAMPLES.pod["enableServiceLinks"] is False

    def test_the_settings_of_the_secret_are_named(self) -> None:
        """The comment at the Secret names what the relay needs from it, and the guide makes it so."""
        block = re.search(r"^cat >secret\.env <<END\n(.*?)^END$", GUIDE, re.MULTILINE | re.DOTALL)
        assert block is not None
        made = {line.partition("=")[0] for line in block[1].splitlines()}
        assert EXAMPLES.secret == {name for name in made if SETTING.fullmatch(name)}


class TestRender:
    def test_it_builds_what_is_there(self) -> None:
        """The Dockerfile is where the blueprint says, and the port is the one that Render asks at."""
        (only,) = EXAMPLES.render["services"]
        assert (ROOT / only["dockerfilePath"]).is_file()
        assert EXAMPLES.runs()["render.yaml"].literal["RELAY_PORT"] == "10000"


def exposure(unit: str, folder: Path) -> tuple[str, float]:
    """What systemd says against a unit, and how exposed it is by its own measure, from 0 to 10."""
    assert SYSTEMD is not None
    file = folder / "relay.service"
    # The program of the example is not on this machine.
    file.write_text(unit.replace("/opt/relay/bin/relay", "/bin/true"), encoding="utf-8")
    calls = (["verify", "--man=no", str(file)], ["security", "--offline=true", "--no-pager", str(file)])
    verify, security = (
        subprocess.run([SYSTEMD, *call], capture_output=True, text=True, check=False, timeout=60) for call in calls
    )
    found = re.search(r"exposure level for relay\.service: ([0-9.]+)", security.stdout)
    assert found, security.stderr
    return verify.stdout + verify.stderr, float(found[1])


class TestUnit:
    @pytest.mark.skipif(SYSTEMD is None, reason="this system has no systemd to ask")
    def test_systemd_takes_it(self, tmp_path: Path) -> None:
        """Systemd knows every line and finds the service well shut in; a misspelt or a missing line is found."""
        complaints, exposed = exposure(UNIT, tmp_path)
        assert complaints == ""
        assert exposed < MAX_EXPOSURE
        assert exposure(UNIT.replace("TimeoutStopSec", "TimeoutStop"), tmp_path)[0]
        assert exposure(re.sub(r"(?m)^(SystemCall|Protect|Restrict|Private).*\n", "", UNIT), tmp_path)[1] > MAX_EXPOSURE

    def test_its_files_are_those_of_the_guide(self) -> None:
        """What the unit reads, the guide tells to make."""
        named = {value.partition(":")[2] or value for _, name, value in EXAMPLES.unit if name in READ_BY_UNIT}
        assert len(named) == len(READ_BY_UNIT)
        assert [path for path in named if path not in GUIDE] == []


def seconds(text: str) -> int:
    """A time as nginx writes it."""
    return int(text.removesuffix("s"))


def bytes_of(text: str) -> int:
    """A size as nginx writes it."""
    units = {"k": 2**10, "m": 2**20, "g": 2**30}
    return int(text[:-1]) * units[text[-1]]


def passes_on(nginx: Mapping[str, str], kept_alive_seconds: int) -> Iterator[str]:
    """
    What stands in front must not end, hold back or refuse what the relay would not.

    Args:
        nginx: Directives and their values, or annotations of the same names.
        kept_alive_seconds: How long the relay keeps an idle connection.
    """
    idle = Settings.model_fields["RELAY_IDLE_TIMEOUT_SECONDS"].default
    if nginx["proxy_buffering"].lower() not in {"off", "false"}:
        yield "events must not be held back"
    for name in ("proxy_read_timeout", "proxy_send_timeout"):
        if seconds(nginx[name]) <= idle:
            yield f"{name} must be longer than RELAY_IDLE_TIMEOUT_SECONDS, {idle:g}"
    if bytes_of(nginx["client_max_body_size"]) < Settings.model_fields["RELAY_MAX_UPLOAD_BYTES"].default:
        yield "client_max_body_size must be RELAY_MAX_UPLOAD_BYTES"
    if seconds(nginx.get("keepalive_timeout", "60s")) >= kept_alive_seconds:
        yield f"idle connections must be given up before the relay does, after {kept_alive_seconds} seconds"


def directives(text: str) -> dict[str, str]:
    """Directives of nginx with their values."""
    return dict(re.findall(r"^\s*([a-z_]+) ([^;{]+);", text, re.MULTILINE))


def annotations(ingress: Document) -> dict[str, str]:
    """Annotations of an Ingress under the names of nginx's directives."""
    found = ingress["metadata"]["annotations"]
    return {name.partition("/")[2].replace("-", "_"): value for name, value in found.items()}


def kept_alive_seconds() -> int:
    """How long the relay keeps an idle connection."""
    return Server(lambda: None, "127.0.0.1", 0, signals=False).config.timeout_keep_alive


def test_what_stands_in_front_lets_everything_pass() -> None:
    """Nginx and the Ingress neither hold events back nor end or refuse what the relay would not."""
    front = directives(EXAMPLES.nginx)
    assert list(passes_on(front, kept_alive_seconds())) == []
    assert list(passes_on(annotations(EXAMPLES.kind("Ingress")), kept_alive_seconds())) == []
    for name, value in {
        "proxy_buffering": "on",
        "proxy_read_timeout": "60s",
        "proxy_send_timeout": "60s",
        "client_max_body_size": "1m",
        "keepalive_timeout": "75s",
    }.items():
        assert len(list(passes_on({**front, name: value}, kept_alive_seconds()))) == 1, name
