"""
Others' gateways, and the usual way to build one: what the relay is held against that is not its own kind.

Each runs as its documentation says for production: one worker, no database, no verbose log, no call to the outside.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.bench.processes import HOST, free_port, running
from tests.bench.subjects import (
    DOWNLOAD,
    EMBEDDINGS,
    GENERAL,
    JSON_1,
    JSON_32,
    JSON_100K,
    SSE,
    UPLOAD,
    UPSTREAM_KEY,
    Started,
    Subject,
)
from tests.bench.tools import Tools
from tests.support.documents import ROOT

# The only place for the versions of what is held against the relay: the newest of November 2026, but for LiteLLM, whose
# next ones up to 1.109.1 demand a release of certifi that was not to be had.
LITELLM_VERSION = "1.106.2"
PORTKEY_VERSION = "1.15.2"
HONO_SERVER_VERSION = (
    "1.14.1"  # of those that Portkey takes, the last that its streams and files work with (its issue 1389)
)
FASTAPI_VERSION = "0.165.0"
HTTPX_VERSION = "0.28.1"
UVICORN_VERSION = "0.54.0"

_GATEWAY_KEY = f"sk-bench-{secrets.token_hex(32)}"  # LiteLLM takes no other prefix
_JSON = frozenset({JSON_32, JSON_1, JSON_100K, EMBEDDINGS, SSE})
_FILES = frozenset({UPLOAD, DOWNLOAD})


class FastApiHttpx:
    """`tests.bench.fastapi_app` on uvicorn with all that `uvicorn[standard]` brings, its access log in a file."""

    name: ClassVar[str] = "fastapi"
    title: ClassVar[str] = "FastAPI + httpx"
    workloads: ClassVar[frozenset[str]] = GENERAL
    version: ClassVar[str] = f"FastAPI {FASTAPI_VERSION}, httpx {HTTPX_VERSION}, uvicorn {UVICORN_VERSION}"

    def __init__(self) -> None:
        self._python = Path()

    def install(self, tools: Tools) -> None:
        """Make its environment."""
        requirements = [
            f"fastapi=={FASTAPI_VERSION}",
            f"httpx=={HTTPX_VERSION}",
            f"uvicorn[standard]=={UVICORN_VERSION}",
        ]
        self._python = tools.venv("fastapi", requirements)

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Run it."""
        port = free_port()
        url = f"http://{HOST}:{port}"
        command = [str(self._python), "-m", "uvicorn", "--host", HOST, "--port", str(port), "--app-dir", str(ROOT)]
        environment = {
            **_environment(folder),
            "BENCH_UPSTREAM_URL": upstream_url,
            "BENCH_UPSTREAM_KEY": UPSTREAM_KEY,
            "BENCH_GATEWAY_KEY": _GATEWAY_KEY,
        }
        command.append("tests.bench.fastapi_app:app")
        with running(command, f"{url}/livez", folder / "output.log", environment, folder=folder) as process:
            yield Started(url, process.pid, {"Authorization": f"Bearer {_GATEWAY_KEY}"}, {}, process.ready_seconds)


class LiteLlm:
    """The proxy of LiteLLM with a model list of its own file; models are looked up in what it brings along."""

    name: ClassVar[str] = "litellm"
    title: ClassVar[str] = "LiteLLM proxy"
    workloads: ClassVar[frozenset[str]] = _JSON | _FILES
    version: ClassVar[str] = LITELLM_VERSION

    def __init__(self) -> None:
        self._python = Path()

    def install(self, tools: Tools) -> None:
        """Make its environment."""
        self._python = tools.venv("litellm", [f"litellm[proxy]=={LITELLM_VERSION}"])

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Run it."""
        port = free_port()
        url = f"http://{HOST}:{port}"
        configuration = folder / "litellm.json"  # JSON is YAML, too
        configuration.write_text(json.dumps(litellm_configuration(upstream_url)), encoding="utf-8")
        command = [str(self._python.with_name("litellm")), "--config", str(configuration), "--host", HOST]
        command += ["--port", str(port), "--num_workers", "1"]
        environment = {
            **_environment(folder),
            "OPENAI_API_KEY": UPSTREAM_KEY,
            "LITELLM_MASTER_KEY": _GATEWAY_KEY,
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "DISABLE_ADMIN_UI": "True",
            # It would fetch these from the Internet; with them, it asks nobody but the upstream (traced with strace).
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
            "LITELLM_LOCAL_BLOG_POSTS": "True",
        }
        ready = f"{url}/health/liveliness"
        with running(command, ready, folder / "output.log", environment, folder=folder) as process:
            yield Started(url, process.pid, {"Authorization": f"Bearer {_GATEWAY_KEY}"}, {}, process.ready_seconds)


class Portkey:
    """
    Portkey's gateway on Node.js; each request says in its headers where it goes.

    It checks no key of its own and listens on every address of a machine; here, it is held to loopback.
    """

    name: ClassVar[str] = "portkey"
    title: ClassVar[str] = "Portkey gateway"
    workloads: ClassVar[frozenset[str]] = _JSON | _FILES

    def __init__(self) -> None:
        self._packages = Path()
        self._node = ""

    @property
    def version(self) -> str:
        """Its own, that of its server, and that of Node.js once that is known."""
        own = f"{PORTKEY_VERSION}, @hono/node-server {HONO_SERVER_VERSION}"
        if not self._node:
            return own
        node = subprocess.run([self._node, "--version"], capture_output=True, text=True, check=True).stdout
        return f"{own}, Node.js {node.strip().removeprefix('v')}"

    def install(self, tools: Tools) -> None:
        """Install it and Node.js."""
        packages = {"@portkey-ai/gateway": PORTKEY_VERSION, "@hono/node-server": HONO_SERVER_VERSION}
        self._packages = tools.npm("portkey", packages)
        self._node = tools.debian("node", "nodejs")

    @contextmanager
    def start(self, upstream_url: str, folder: Path) -> Iterator[Started]:
        """Run it."""
        port = free_port()
        url = f"http://{HOST}:{port}"
        held = folder / "loopback.cjs"
        held.write_text(_LOOPBACK, encoding="utf-8")
        program = self._packages / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        command = [self._node, "--require", str(held), str(program), f"--port={port}", "--headless"]
        environment = {**_environment(folder), "NODE_ENV": "production"}
        headers = {
            "Authorization": f"Bearer {UPSTREAM_KEY}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{upstream_url}/v1",
        }
        with running(command, url, folder / "output.log", environment, folder=folder) as process:
            yield Started(url, process.pid, headers, {}, process.ready_seconds)


PEERS: tuple[Subject, ...] = (FastApiHttpx(), Portkey(), LiteLlm())

# Runs once, before it listens; requests do not come past it.
_LOOPBACK = f"""
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {{
  return listen.call(this, {{ host: "{HOST}", port }}, ...rest.filter((part) => typeof part === "function"));
}};
"""


def litellm_configuration(upstream_url: str) -> dict[str, object]:
    """
    What LiteLLM is told: two models and the files of one upstream; keys come from its environment.

    Args:
        upstream_url: Without `/v1`.
    """
    target = {"api_base": f"{upstream_url}/v1", "api_key": "os.environ/OPENAI_API_KEY"}
    models = ("gpt-4.1", "text-embedding-3-small")
    return {
        "model_list": [
            {"model_name": model, "litellm_params": {"model": f"openai/{model}", **target}} for model in models
        ],
        "litellm_settings": {"set_verbose": False, "request_timeout": 600},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
        "files_settings": [{"custom_llm_provider": "openai", **target}],
    }


def _environment(home: Path) -> dict[str, str]:
    """Nothing of this process's but the PATH: no key, no setting, no proxy, which leads nowhere on loopback."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}
