"""Processes of a benchmark: each pinned to a core, its output in a file, ended with all that it has started."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

HOST = "127.0.0.1"
START_SECONDS = 90.0  # LiteLLM imports for twenty on a busy machine
STOP_SECONDS = 10.0
POLL_SECONDS = 0.002
_ALL_CORES = sorted(os.sched_getaffinity(0))
SUBJECT_CORE = _ALL_CORES[0]
LOAD_CORE = _ALL_CORES[-1]  # of the load generator and the upstream
WORKER_CORES = tuple(_ALL_CORES[:2])  # of two workers; where there are only two, one of them is that of the load, too
CORES = len(_ALL_CORES)


class DidNotStart(Exception):
    """A process ended, or did not answer in time; the message has the end of its output."""


@dataclass(frozen=True)
class Running:
    """
    A process that answers.

    Args:
        pid: Of the root of its process tree.
        ready_seconds: From the start of the process to its first answer.
    """

    pid: int
    ready_seconds: float


@contextmanager
def on_cores(*cores: int) -> Iterator[None]:
    """Let this process, and whatever it starts meanwhile, run on these cores only, until the block ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    ready_url: str,
    output: Path,
    environment: Mapping[str, str] | None = None,
    *,
    cores: Sequence[int] = (SUBJECT_CORE,),
    folder: Path | None = None,
) -> Iterator[Running]:
    """
    Run a server until the block ends.

    Args:
        ready_url: Asked until it answers, whatever the status below 500.
        output: File for all that it prints.
        environment: Its whole environment; this process's without the relay's settings by default.
        folder: Where it runs.

    Raises:
        DidNotStart: It ended, or did not answer in time.
    """
    began = time.monotonic()
    with output.open("ab") as sink, on_cores(*cores):
        process = subprocess.Popen(
            command,
            env=inherited() if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait_for_answer(process, ready_url, output, began)
        yield Running(process.pid, time.monotonic() - began)
    finally:
        _end(process)


def inherited() -> dict[str, str]:
    """The environment of this process without anything that a relay, a peer or a client would take as a setting."""
    return {k: v for k, v in os.environ.items() if not k.upper().startswith(("RELAY_", "OPENAI_", "LITELLM_"))}


def _wait_for_answer(process: subprocess.Popen[bytes], url: str, output: Path, began: float) -> None:
    parts = urlsplit(url)
    while time.monotonic() - began < START_SECONDS:
        if process.poll() is not None:
            raise DidNotStart(f"it ended with {process.returncode}:\n{_end_of(output)}")
        connection = http.client.HTTPConnection(parts.netloc, timeout=START_SECONDS)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", parts.path or "/")
            if connection.getresponse().status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return
        time.sleep(POLL_SECONDS)
    raise DidNotStart(f"it did not answer within {START_SECONDS:g} s:\n{_end_of(output)}")


def _end_of(output: Path) -> str:
    return output.read_text(encoding="utf-8", errors="replace")[-2000:]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):  # what it left behind
        os.killpg(process.pid, signal.SIGKILL)
