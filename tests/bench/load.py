"""Load from wrk: its script, one run, and what it tells; a reply that is no success fails the run."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.processes import LOAD_CORE, on_cores
from tests.bench.subjects import Started
from tests.bench.workloads import Workload

PROBE_SECONDS = 30.0
MARGIN_SECONDS = 30.0
WARMING_SECONDS = 1.0
FIRST_WARMING_SECONDS = 3.0  # after a start: Node.js costs twice as much until it has compiled what it runs
_AGENT = {"User-Agent": "OpenAI/Python 3.54.0", "Accept": "application/json", "Content-Type": "application/json"}
# Exact numbers instead of the rounded ones of its table.
_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("bench: requests=%d microseconds=%d connect=%d read=%d write=%d timeout=%d status=%d "
    .. "p50=%d p99=%d\\n", summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
    latency:percentile(50), latency:percentile(99)))
end
"""
_TOLD = re.compile(r"^bench: (.+)$", re.MULTILINE)
_FAILURES = ("connect", "read", "write", "timeout", "status")


class LoadFailed(Exception):
    """A subject refused, broke off or hung; the message says which and how often."""


@dataclass(frozen=True)
class LoadFigures:
    """
    What one run of wrk has seen.

    Args:
        requests: Answered ones.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def headers_of(started: Started, workload: Workload) -> dict[str, str]:
    """All headers of a request that a client of this subject sends."""
    return {**_AGENT, **workload.headers, **started.headers}


def path_of(started: Started, name: str, workload: Workload) -> str:
    """Where a subject takes the requests of a workload."""
    return started.paths.get(name, workload.path)


def probe(started: Started, name: str, workload: Workload) -> None:
    """
    Send one request and look at its reply.

    Raises:
        LoadFailed: It is not what the workload is about.
    """
    url = f"{started.url}{path_of(started, name, workload)}"
    headers = headers_of(started, workload)
    try:
        reply = httpx.post(url, content=workload.content, headers=headers, timeout=PROBE_SECONDS, trust_env=False)
    except httpx.TransportError as error:
        raise LoadFailed(f"{name}: no reply: {error!r}") from None
    if reply.status_code != httpx.codes.OK or workload.holds not in reply.text:
        raise LoadFailed(f"{name}: status {reply.status_code}: {reply.text[:500]}")


def script(body: bytes, headers: Mapping[str, str]) -> str:
    """The script of wrk that sends such requests and tells what came of them."""
    lines = [f"wrk.headers[ {_quoted(name)} ] = {_quoted(value)}" for name, value in headers.items()]
    return "\n".join(['wrk.method = "POST"', f"wrk.body = {_quoted(body.decode())}", *lines, _DONE])


def warm_up(started: Started, name: str, workload: Workload, folder: Path, *, first: bool = True) -> None:
    """
    Send requests for a moment; a slow subject may answer none of so many at once in that time.

    Args:
        first: Whether nothing has been asked since its start.

    Raises:
        LoadFailed: A request failed, or wrk did.
    """
    seconds = FIRST_WARMING_SECONDS if first else WARMING_SECONDS
    parse(_told_by_wrk(started, name, workload, seconds, folder), may_be_none=True)


def run_wrk(started: Started, name: str, workload: Workload, seconds: float, folder: Path) -> LoadFigures:
    """
    Send requests for so long, on the core of the load.

    Args:
        folder: For its script, which holds a key.

    Raises:
        LoadFailed: A request failed, none was answered, or wrk failed.
    """
    return parse(_told_by_wrk(started, name, workload, seconds, folder))


def parse(output: str, *, may_be_none: bool = False) -> LoadFigures:
    """
    Read what wrk has told.

    Args:
        may_be_none: No answered request is no failure.

    Raises:
        LoadFailed: A request failed, there was none, or the line is not there.
    """
    found = _TOLD.search(output)
    if found is None:
        raise LoadFailed(f"wrk did not finish: {output.strip()[-500:]}")
    told = {key: int(value) for key, _, value in (item.partition("=") for item in found[1].split())}
    failed = {kind: told[kind] for kind in _FAILURES if told[kind]}
    if failed or not (told["requests"] or may_be_none):
        counts = ", ".join(f"{count} {kind}" for kind, count in failed.items()) or "none was answered"
        raise LoadFailed(f"of {told['requests']} requests: {counts}")
    return LoadFigures(told["requests"], told["microseconds"] / 1e6, told["p50"] / 1000, told["p99"] / 1000)


def _told_by_wrk(started: Started, name: str, workload: Workload, seconds: float, folder: Path) -> str:
    file = folder / f"{name}.lua"
    file.write_text(script(workload.content, headers_of(started, workload)), encoding="utf-8")
    url = f"{started.url}{path_of(started, name, workload)}"
    # It takes whole seconds only, or, with a unit, minutes and hours.
    command = ["wrk", "-t1", f"-c{workload.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    with on_cores(LOAD_CORE):
        ended = subprocess.run(
            [*command, "-s", str(file), url],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + MARGIN_SECONDS,
        )
    return f"{ended.stdout}\n{ended.stderr}"


def _quoted(text: str) -> str:
    if "]==]" in text or text.startswith("\n"):
        raise ValueError("must be a text that Lua reads back as it is.")
    return f"[==[{text}]==]"
