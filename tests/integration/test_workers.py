"""Several workers behind one address, and the end of one or several: nobody pays for another's misfortune."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.raw_http import RawConnection, raw_request
from tests.support.servers import RelayProcess, ServerThread, running_relay
from tests.support.steady_load import BODY, steady_load
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CLIENTS = 8
WORK_SECONDS = 0.03  # of the upstream for each request, so that some are always in progress
SILENCE_SECONDS = 2
END_SECONDS = 15.0
DYING = """
import os, sys, time
from handlers.runtime.supervisor import Supervisor

def work(beat):
    with open(sys.argv[1], "a") as log:
        log.write(f"{time.monotonic()}\\n")
    if sys.argv[2] == "serve":
        beat()
    os._exit(7)

Supervisor(work, 1, lambda: None, silence_seconds=5, shutdown_seconds=1).run()
"""


@contextmanager
def running_workers(folder: Path, upstream_url: str, workers: int) -> Iterator[RelayProcess]:
    """A relay with so many workers, and with what they must share."""
    (folder / "files").mkdir(exist_ok=True)
    environment = {
        "RELAY_WORKERS": str(workers),
        "RELAY_WORKER_SILENCE_SECONDS": str(SILENCE_SECONDS),
        "RELAY_SHUTDOWN_TIMEOUT_SECONDS": "8",
        "RELAY_STORE_URL": f"sqlite+aiosqlite:///{folder}/relay.db",
        "RELAY_ARTIFACT_URL": (folder / "files").as_uri(),
        "RELAY_ARTIFACT_SECRET": "made-up-" + "0123456789" * 4,
    }
    with running_relay(folder, upstream_url, environment) as relay:
        yield relay


@pytest.fixture(scope="module")
def shared_workers(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """Two workers."""
    with running_workers(tmp_path_factory.mktemp("workers"), upstream_server.url, 2) as relay:
        yield relay


@pytest.fixture
def two_workers(shared_workers: RelayProcess, upstream: SimulatedUpstream) -> RelayProcess:
    """The same, both alive, before an upstream that takes its time."""
    upstream.faults.add(Fault("createResponse", delay_seconds=WORK_SECONDS))
    wait_until(lambda: len(workers_of(shared_workers)) == 2)
    return shared_workers


def workers_of(relay: RelayProcess) -> dict[int, psutil.Process]:
    """The living workers by their process id."""
    children = psutil.Process(relay.pid).children()
    return {child.pid: child for child in children if child.status() != psutil.STATUS_ZOMBIE}


def clients_of(worker: psutil.Process, relay: RelayProcess) -> int:
    """How many connections of clients a worker holds."""
    port = int(relay.url.rpartition(":")[2])
    return sum(c.laddr.port == port and bool(c.raddr) for c in worker.net_connections(kind="tcp"))


async def until_replaced(relay: RelayProcess, gone: int) -> None:
    """Wait until two workers run and one of them is new."""
    async with asyncio.timeout(END_SECONDS):
        while gone in (workers := workers_of(relay)) or len(workers) < 2:
            await asyncio.sleep(0.05)


def test_workers_show_once_what_they_serve(two_workers: RelayProcess) -> None:
    """The summary is not repeated, and both workers get something to do."""
    assert two_workers.printed().count("SDK clients") == 1
    with ExitStack() as connections:

        def both_serve() -> bool:
            connection = connections.enter_context(RawConnection(two_workers.url))
            assert connection.exchange("GET", "/livez").status == 200
            return all(clients_of(worker, two_workers) for worker in workers_of(two_workers).values())

        wait_until(both_serve)


async def test_a_killed_worker_costs_only_its_own_requests(two_workers: RelayProcess) -> None:
    """SIGKILL under load: at most one failure for each of its connections, none after that, and it is replaced."""
    async with steady_load(two_workers, CLIENTS) as load:
        await load.wait_for(100)
        assert load.failed == []
        workers = workers_of(two_workers)
        victim = max(workers.values(), key=lambda worker: clients_of(worker, two_workers))
        held = clients_of(victim, two_workers)
        assert held
        began = time.monotonic()
        victim.kill()
        await until_replaced(two_workers, victim.pid)
        assert time.monotonic() - began < 5.0
        await load.wait_for(50)
        failed = len(load.failed)
        assert failed <= held, load.failed
        await load.wait_for(100)
    assert len(load.failed) == failed, load.failed
    assert '"outcome":"died"' in two_workers.printed()


async def test_a_worker_that_hangs_is_replaced(two_workers: RelayProcess) -> None:
    """Who does not answer for too long is killed; the other one serves all the while."""
    victim = next(iter(workers_of(two_workers).values()))
    victim.suspend()
    await until_replaced(two_workers, victim.pid)
    assert '"outcome":"hangs"' in two_workers.printed()
    async with steady_load(two_workers, CLIENTS) as load:
        await load.wait_for(50)
    assert load.failed == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_end_fails_no_request(
    workers: int, upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """SIGTERM under load: each request that was taken is answered, kept connections are told, exit code 0."""
    upstream.faults.add(Fault("createResponse", delay_seconds=WORK_SECONDS))
    with running_workers(tmp_path, upstream_server.url, workers) as relay:
        async with steady_load(relay, CLIENTS, until_gone=True) as load:
            await load.wait_for(100)
            relay.process.send_signal(signal.SIGTERM)
        assert load.failed == []
        assert load.unconnected == CLIENTS
        assert await asyncio.to_thread(relay.process.wait, END_SECONDS) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_ends_before_the_relay_does(
    workers: int, upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """What runs when SIGTERM comes is finished; nobody new is let in; who asks on an open connection is told."""
    upstream.faults.add(Fault("createResponse", event_interval_seconds=0.2))
    with (
        running_workers(tmp_path, upstream_server.url, workers) as relay,
        RawConnection(relay.url) as idle,
        httpx.Client(base_url=relay.url, headers=relay.headers, timeout=END_SECONDS) as client,
    ):
        assert idle.exchange("GET", "/readyz").status == 200
        with client.stream("POST", "/v1/responses", json={**BODY, "stream": True}) as reply:
            lines = reply.iter_lines()
            received = [next(lines)]
            relay.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.ConnectError):
                _connect_until_refused(relay)
            probe = idle.exchange("GET", "/readyz")
            assert (probe.status, probe.header("connection")) == (503, "close")
            received += lines
        assert received[-2].startswith("data:")
        assert "response.completed" in "".join(received)
        assert relay.process.wait(END_SECONDS) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_does_not_end_is_cut(
    workers: int, upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """The relay ends within its limit, whatever the upstream does; the upstream's part of the work ends too."""
    upstream.faults.add(Fault("createResponse", silent=True))
    with running_workers(tmp_path, upstream_server.url, workers) as relay, RawConnection(relay.url) as connection:
        headers = {**relay.headers, "Content-Type": "application/json"}
        connection.send(raw_request("POST", "/v1/responses", headers.items(), b'{"model": "m", "input": "x"}'))
        wait_until(lambda: upstream.recorder.count == 1)
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.wait(END_SECONDS) == 0
        wait_until(lambda: upstream.recorder.requests[0].disconnected_at)


def test_workers_end_with_their_parent(upstream_server: ServerThread, tmp_path: Path) -> None:
    """Nothing serves on when the process that looks after all of them was killed."""
    with running_workers(tmp_path, upstream_server.url, 2) as relay:
        wait_until(lambda: len(workers_of(relay)) == 2)
        workers = workers_of(relay)
        relay.process.kill()
        relay.process.wait(END_SECONDS)
        _, left = psutil.wait_procs(workers.values(), timeout=END_SECONDS)
        assert left == []


def test_what_workers_must_share_is_asked_for(tmp_path: Path) -> None:
    """With a store in memory or files of one process, several workers do not start; the message says what to set."""
    command = [sys.executable, "-m", "handlers.cli", "serve", "--workers", "2"]
    environment = {"RELAY_KEY": "rk_" + "0" * 32, "PATH": "", "HOME": str(tmp_path), "RELAY_PORT": "0"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=END_SECONDS)
    assert ended.returncode == 2
    assert "relay: RELAY_STORE_URL: must be" in ended.stderr
    assert "relay: RELAY_ARTIFACT_URL: must be" in ended.stderr
    assert ended.stdout == ""


def test_an_app_that_cannot_start_ends_the_start(tmp_path: Path) -> None:
    """Exit code 2, said once, whatever the number of workers."""
    environment = {
        "RELAY_KEY": "rk_" + "0" * 32,
        "RELAY_PORT": "0",
        "RELAY_STORE_URL": f"sqlite+aiosqlite:///{tmp_path}/missing/relay.db",
        "RELAY_ARTIFACT_URL": tmp_path.as_uri(),
        "RELAY_ARTIFACT_SECRET": "0" * 40,
    }
    for workers in ("1", "2"):
        command = [sys.executable, "-m", "handlers.cli", "serve", "--workers", workers]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=END_SECONDS)
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.count("relay: the server could not start") == 1


@pytest.mark.parametrize("manner", ["serve", "fail"])
def test_a_worker_that_dies_again_and_again_is_not_hurried(manner: str, tmp_path: Path) -> None:
    """The first death is replaced at once, the next ones later each time; who never served ends the start."""
    log = tmp_path / "starts"
    command = [sys.executable, "-c", DYING, str(log), manner]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as supervisor:
        if manner == "fail":
            assert supervisor.wait(END_SECONDS) != 0
            assert len(log.read_text().split()) == 1
            return
        try:
            wait_until(lambda: log.exists() and len(log.read_text().split()) >= 4)
        finally:
            supervisor.terminate()
        assert supervisor.wait(END_SECONDS) == 0
    first, second, third, fourth, *_ = map(float, log.read_text().split())
    assert second - first < third - second < fourth - third


def _connect_until_refused(relay: RelayProcess) -> None:
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        httpx.get(f"{relay.url}/livez", timeout=END_SECONDS)
