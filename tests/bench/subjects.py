"""
What is measured: the relay in its forms, and what it is held against that needs nothing but this project and nginx.

Others' gateways are in `tests.bench.peers`. A subject passes requests on to one upstream and runs on a core of its own.
"""

import importlib.metadata
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

from tests.bench.nginx import running_nginx
from tests.bench.processes import HOST, SUBJECT_CORE, WORKER_CORES, free_port, inherited, running
from tests.bench.tools import Tools
from tests.support.documents import ROOT
from tests.support.nginx import find_nginx

# Workloads, by the word for --workload.
JSON_32 = "json"
JSON_1 = "json-1"
JSON_100K = "json-100k"
EMBEDDINGS = "embeddings"
SSE = "sse"
UPLOAD = "upload"
DOWNLOAD = "download"
PROXY = "proxy"
WRAPPER = "wrapper"
MCP = "mcp"
GENERAL = frozenset({JSON_32, JSON_1, JSON_100K, EMBEDDINGS, SSE, UPLOAD, DOWNLOAD})
OWN = frozenset({PROXY, WRAPPER, MCP})  # what only the relay has

# Made up for each run; the upstreams of a benchmark look at no key.
RELAY_KEY = f"rk_bench-{secrets.token_hex(32)}"
UPSTREAM_KEY = f"sk-bench-{secrets.token_hex(16)}"


@dataclass(frozen=True)
class Started:
    """
    A subject that answers.

    Args:
        url: Without `/v1`.
        pid: Of the root of its process tree; `None` when there is no process to measure.
        headers: What each request needs beside its media type.
        paths: Workload to path, where that is another one than everybody's.
        ready_seconds: From the start of its process to its first answer.
    """

    url: str
    pid: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    ready_seconds: float | None = None


class Subject(Protocol):
    """Something that requests pass through."""

    @property
    def name(self) -> str:
        """The word for --only."""

    @property
    def title(self) -> str:
        """As it stands in the table."""

    @property
    def workloads(self) -> frozenset[str]:
        """What it can be measured with."""

    @property
    def version(self) -> str:
        """Of what runs, known once it is installed; empty where the page says it elsewhere."""

    def install(self, tools: Tools) -> None:
        """
        Install what it takes.

        Raises:
            CannotInstall: With the reason; the subject is then named as not measured.
        """

    def start(self, upstream_url: str, folder: Path) -> AbstractContextManager[Started]:
        """
        Run it on the subjects' core until the block ends.

        Args:
            upstream_url: Without `/v1`.
            folder: An empty one for its files and its output.

        Raises:
            DidNotStart: With the end of its output.
        """


@dataclass(frozen=True)
class Direct:
    """The upstream itself: what every other subject adds to."""

    name: ClassVar[str] = "direct"
    title: ClassVar[str] = "direct, no gateway"
    workloads: ClassVar[frozenset[str]] = GENERAL
    version: ClassVar[str] = ""

    def install(self, tools: Tools) -> None:
        """Nothing to install."""

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Nothing to run."""
        del folder
        yield Started(upstream_url, None, {"Authorization": f"Bearer {UPSTREAM_KEY}"})


@dataclass(frozen=True)
class NginxProxy:
    """
    nginx with `proxy_pass`: the limit of what a gateway can cost.

    Args:
        keeping: Whether it keeps its connections to the upstream. Without that, as `proxy_pass` works unless it is told
            more, each request makes a connection.
    """

    name: str
    title: str
    keeping: bool
    workloads: ClassVar[frozenset[str]] = GENERAL

    @property
    def version(self) -> str:
        """That of the program."""
        told = subprocess.run([find_nginx(), "-v"], capture_output=True, text=True, check=True).stderr
        return told.rpartition("/")[2].split()[0]

    def install(self, tools: Tools) -> None:
        """Install nginx."""
        tools.debian("nginx", "nginx-light")

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Run it."""
        url = f"http://{HOST}:{free_port()}"
        kept = 'proxy_http_version 1.1; proxy_set_header Connection "";' if self.keeping else ""
        servers = f"""
    upstream bench {{ server {_address(upstream_url)}; {"keepalive 256;" if self.keeping else ""} }}
    server {{
        listen {_address(url)} backlog=1024;
        location / {{ proxy_pass http://bench; proxy_buffering off; {kept} }}
        location /v1/files {{
            proxy_pass http://bench; proxy_request_buffering off; proxy_max_temp_file_size 0;
            proxy_http_version 1.1; proxy_set_header Connection "";
        }}
        location = /livez {{ return 200; }}
    }}"""
        with running_nginx(folder, servers, f"{url}/livez") as process:
            yield Started(url, process.pid, {"Authorization": f"Bearer {UPSTREAM_KEY}"}, {}, process.ready_seconds)


@dataclass(frozen=True)
class PassThrough:
    """
    A bare ASGI application on uvicorn that sends what comes on, and what comes back: no policy, no validation, no log.

    Args:
        module: Where its `app` is.
    """

    name: str
    title: str
    module: str
    workloads: ClassVar[frozenset[str]] = GENERAL

    @property
    def version(self) -> str:
        """Those of the server and the client."""
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("uvicorn", "aiohttp"))

    def install(self, tools: Tools) -> None:
        """Nothing to install: it stands on what the relay stands on."""

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Run it."""
        port = free_port()
        url = f"http://{HOST}:{port}"
        command = [sys.executable, "-m", "uvicorn", "--host", HOST, "--port", str(port), "--loop", "uvloop"]
        command += ["--http", "httptools", "--no-access-log", "--lifespan", "off", "--log-level", "warning"]
        environment = {**inherited(), "BENCH_UPSTREAM_URL": upstream_url, "PYTHONPATH": str(ROOT)}
        command.append(f"{self.module}:app")
        with running(command, f"{url}/livez", folder / "output.log", environment, folder=folder) as process:
            headers = {"Authorization": f"Bearer {UPSTREAM_KEY}"}
            yield Started(url, process.pid, headers, {}, process.ready_seconds)


@dataclass(frozen=True)
class Relay:
    """
    `relay serve` as in production: the whole contract, JSON logs into a file.

    Args:
        module: What is run; another than the command's own changes the relay for the measurement.
        workers: Processes that share its address. Several may use every core.
    """

    name: str
    title: str
    module: str = "handlers.cli"
    workers: int = 1
    workloads: ClassVar[frozenset[str]] = GENERAL | OWN

    @property
    def version(self) -> str:
        """That of the project."""
        return importlib.metadata.version("chatgpt-team-relay")

    def install(self, tools: Tools) -> None:
        """Nothing to install: it is this project."""

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Run it."""
        port = free_port()
        url = f"http://{HOST}:{port}"
        settings = {
            "OPENAI_API_KEY": UPSTREAM_KEY,
            "OPENAI_BASE_URL": f"{upstream_url}/v1",
            "RELAY_KEY": RELAY_KEY,
            "RELAY_HOST": HOST,
            "RELAY_PORT": str(port),
            "RELAY_LOG_FORMAT": "json",
            "RELAY_SHUTDOWN_TIMEOUT_SECONDS": "2",
            "PYTHONPATH": str(ROOT),
        }
        if self.workers > 1:  # what several workers must share
            settings |= {
                "RELAY_WORKERS": str(self.workers),
                "RELAY_STORE_URL": f"sqlite+aiosqlite:///{folder}/relay.sqlite3",
                "RELAY_ARTIFACT_URL": (folder / "files").as_uri(),
                "RELAY_ARTIFACT_SECRET": secrets.token_hex(32),
            }
        cores = (SUBJECT_CORE,) if self.workers == 1 else WORKER_CORES
        command = [sys.executable, "-m", self.module, "serve"]
        environment = {**inherited(), **settings}
        output = folder / "output.log"
        with running(command, f"{url}/livez", output, environment, cores=cores, folder=folder) as process:
            yield Started(url, process.pid, {"Authorization": f"Bearer {RELAY_KEY}"}, {}, process.ready_seconds)


DIRECT = Direct()
NGINX = NginxProxy("nginx", "nginx `proxy_pass`, connections kept", keeping=True)
NGINX_PLAIN = NginxProxy("nginx-plain", "nginx `proxy_pass` as it comes", keeping=False)
PASS_THROUGH = PassThrough("pass-through", "bare ASGI, httpx types over aiohttp", "tests.bench.pass_through")
PASS_THROUGH_TUNED = PassThrough(
    "pass-through-tuned", "bare ASGI, the relay's transport", "tests.bench.pass_through_tuned"
)
PASS_THROUGH_AIOHTTP = PassThrough("pass-through-aiohttp", "bare ASGI, aiohttp", "tests.bench.pass_through_aiohttp")
RELAY = Relay("relay", "**relay**")
RELAY_UNVALIDATED = Relay("relay-unvalidated", "relay without validation", "tests.bench.unvalidated_relay")
RELAY_TWO_WORKERS = Relay("relay-2", "relay, two workers", workers=2)
# Each is measured alike; two workers have a measurement of their own.
OWN_SUBJECTS: tuple[Subject, ...] = (
    DIRECT,
    NGINX,
    NGINX_PLAIN,
    PASS_THROUGH,
    PASS_THROUGH_TUNED,
    PASS_THROUGH_AIOHTTP,
    RELAY,
    RELAY_UNVALIDATED,
)


def _address(url: str) -> str:
    return urlsplit(url).netloc
