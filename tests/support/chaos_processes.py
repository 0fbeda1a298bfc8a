"""Faults around the relay's own processes: a worker is killed, it ends under load, the clock jumps."""

import contextlib
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from codegen.contract import Scope
from tests.support.chaos_bench import Left, Line, Observed, exchange, in_background, wait_for
from tests.support.key_files import make_key, write_keys
from tests.support.load import Load
from tests.support.raw_http import RawConnection, raw_request
from tests.support.rude_upstream import UpstreamProcess
from tests.support.servers import RelayProcess, running_relay

CLIENTS = 20
WARM_SECONDS = 1.0
REPLACED_SECONDS = 3.0
SHUTDOWN_SECONDS = 10
SILENCE_SECONDS = 2.0
_STREAM_EVENTS = 60
_LIBRARY = "libfaketime.so.1"


def _killed_worker() -> Observed:
    with a_folder() as folder, UpstreamProcess() as upstream, _workers(folder, upstream) as relay:
        before = _both_workers(relay)
        with Load(relay.url, request_for(relay, "slow"), CLIENTS) as load:
            time.sleep(WARM_SECONDS)
            victim = max(before, key=lambda worker: len(_client_ports(worker, relay)))
            victim.suspend()  # so that what it has does not change while it is looked at
            had = _client_ports(victim, relay)
            victim.kill()
            killed_at = time.monotonic()
            replaced = wait_for(lambda: set(_workers_of(relay)) - set(before), REPLACED_SECONDS)
            seconds = time.monotonic() - killed_at
            time.sleep(WARM_SECONDS)
        lost = [failure for failure in load.failures if failure.port not in had]
    observed = (
        f"it had {len(had)} of {CLIENTS} connections; {len(load.failures)} requests failed, {len(lost)} of them on "
        f"others; {load.answered} answered; replaced after {seconds:.1f} s"
    )
    return observed, replaced and not lost and 0 < len(load.failures) <= len(had) < CLIENTS


def _ended(workers: int) -> Callable[[], Observed]:
    def work() -> Observed:
        with a_folder() as folder, UpstreamProcess() as upstream, _workers(folder, upstream, workers) as relay:
            stream = in_background(lambda: exchange(relay.url, request_for(relay, f"events-{_STREAM_EVENTS}-50")))
            with Load(relay.url, request_for(relay, "slow"), CLIENTS) as load:
                time.sleep(WARM_SECONDS)
                relay.process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                code = relay.process.wait(SHUTDOWN_SECONDS + 5)
                seconds = time.monotonic() - began
            seen = stream()
        whole = seen.complete and seen.body.count(b"data:") == _STREAM_EVENTS
        observed = (
            f"{load.answered} answered, {len(load.failures)} failed{_kinds(load)}, open stream "
            f"{'whole' if whole else 'NOT whole'}, exit code {code} after {seconds:.1f} s"
        )
        return observed, not load.failures and load.answered > 0 and whole and code == 0

    return work


def _clock() -> Observed:
    found = sorted(Path("/usr/lib").glob(f"*/faketime/{_LIBRARY}"))
    if not found:
        raise Left("needs libfaketime (Debian: `apt-get install faketime`)")
    with a_folder() as folder, UpstreamProcess() as upstream:
        clock = folder / "clock"
        clock.write_text("+0")
        hourly = make_key("hourly", Scope.CANONICAL, expires=datetime.now(UTC) + timedelta(hours=1))
        write_keys(folder / "keys.yaml", [hourly])
        environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # nor does the kernel set that clock
            "DONT_FAKE_MONOTONIC": "1",
            "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        }
        with running_relay(folder, upstream.url, environment) as relay:
            request = raw_request("GET", "/v1/models", {**hourly.headers, "Connection": "close"}.items())
            stream = in_background(lambda: exchange(relay.url, request_for(relay, f"events-{_STREAM_EVENTS}-80")))
            statuses: list[str] = []
            for days in (1, -1, 0):
                clock.write_text(f"{days:+d}d")
                jumped = wait_for(partial(_shows, relay, days))
                if not jumped:
                    return f"the clock of the relay did not move by {days} d", False
                keyed = exchange(relay.url, request, "GET")
                statuses.append(f"{days:+d} d: {exchange(relay.url, request_for(relay, 'polite'))}, {keyed}")
            seen = stream()
            negative = len(re.findall(r'"ms":-', relay.printed()))
    whole = seen.complete and seen.body.count(b"data:") == _STREAM_EVENTS
    observed = f"{'; '.join(statuses)}; stream {'whole' if whole else 'NOT whole'}, {negative} negative durations"
    expected = ["+1 d: 200, 401 `invalid_key`", "-1 d: 200, 200", "+0 d: 200, 200"]
    return observed, statuses == expected and whole and not negative


def _frozen_worker() -> Observed:
    environment = {"RELAY_WORKER_SILENCE_SECONDS": str(SILENCE_SECONDS)}
    with a_folder() as folder, UpstreamProcess() as upstream, _workers(folder, upstream, 2, environment) as relay:
        before = _both_workers(relay)
        with Load(relay.url, request_for(relay, "slow"), CLIENTS) as load:
            time.sleep(WARM_SECONDS)
            victim = max(before, key=lambda worker: len(_client_ports(worker, relay)))
            victim.suspend()
            had = _client_ports(victim, relay)
            frozen_at = time.monotonic()
            replaced = wait_for(lambda: set(_workers_of(relay)) - set(before), SILENCE_SECONDS + REPLACED_SECONDS)
            seconds = time.monotonic() - frozen_at
            time.sleep(WARM_SECONDS)
        # Connections that come while it is frozen may wait for it in vain; they are not among these.
        failed = len(load.failures)
    observed = f"{failed} of its {len(had)} requests failed; {load.answered} answered; replaced after {seconds:.1f} s"
    return observed, replaced and 0 < failed <= len(had)


def _killed_supervisor() -> Observed:
    with a_folder() as folder, UpstreamProcess() as upstream, _workers(folder, upstream) as relay:
        workers = _both_workers(relay)
        result = in_background(lambda: exchange(relay.url, request_for(relay, "events-20-50")))
        wait_for(lambda: upstream.statistics()["active"])
        relay.process.kill()
        relay.process.wait()
        killed_at = time.monotonic()
        ended = wait_for(lambda: not any(worker.is_running() for worker in workers), SHUTDOWN_SECONDS)
        seconds = time.monotonic() - killed_at
        seen = result()
    observed = f"open stream {seen}, workers {'ended' if ended else 'GO ON'} after {seconds:.1f} s"
    return observed, ended and seen.status == 200 and seen.complete


PROCESS_FAULTS: tuple[tuple[str, str, Callable[[], Observed]], ...] = (
    (
        "SIGKILL of one of two workers under load",
        f"only what it had fails; replaced within {REPLACED_SECONDS:g} s",
        _killed_worker,
    ),
    (
        "one of two workers freezes under load",
        f"only what it had fails; replaced after {SILENCE_SECONDS:g} s",
        _frozen_worker,
    ),
    ("SIGKILL of the supervisor", "its workers finish what they have and end", _killed_supervisor),
    ("SIGTERM under load, one worker", "0 failed, open stream whole, exit code 0", _ended(1)),
    ("SIGTERM under load, two workers", "0 failed, open stream whole, exit code 0", _ended(2)),
    (
        "clock jumps a day forward, two back, one forward",
        "calls and a stream go on; a key of one hour ends and is good again; no negative duration",
        _clock,
    ),
)


def process_line(fault: str, expected: str, work: Callable[[], Observed]) -> Line:
    """Bring one of these about; each has a relay of its own."""
    try:
        observed, ok = work()
    except Left as reason:
        return Line(fault, expected, str(reason), None)
    except (OSError, AssertionError, LookupError, ValueError, subprocess.SubprocessError, psutil.Error) as error:
        return Line(fault, expected, f"{type(error).__name__}: {error}", False)
    return Line(fault, expected, observed, ok)


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """A folder for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _both_workers(relay: RelayProcess) -> list[psutil.Process]:
    """Both, once the second takes connections too; it starts when the first can be asked."""
    wait_for(lambda: len(_workers_of(relay)) == 2)
    time.sleep(WARM_SECONDS)
    return _workers_of(relay)


@contextlib.contextmanager
def _workers(
    folder: Path, upstream: UpstreamProcess, workers: int = 2, more: Mapping[str, str] | None = None
) -> Iterator[RelayProcess]:
    environment = {
        "RELAY_WORKERS": str(workers),
        "RELAY_STORE_URL": f"sqlite+aiosqlite:///{folder}/relay.db",
        "RELAY_ARTIFACT_URL": f"file://{folder}/artifacts",
        "RELAY_ARTIFACT_SECRET": "s" * 32,
        "RELAY_SHUTDOWN_TIMEOUT_SECONDS": str(SHUTDOWN_SECONDS),
        **(more or {}),
    }
    with running_relay(folder, upstream.url, environment) as relay:
        yield relay


def request_for(relay: RelayProcess, mode: str, path: str = "/v1/responses", **fields: str) -> bytes:
    """A request that the rude upstream answers in a way."""
    body = ",".join(
        f'"{name}": "{value}"' for name, value in {"model": f"rude-{mode}", "input": "Hello.", **fields}.items()
    )
    headers = {**relay.headers, "Content-Type": "application/json"}
    return raw_request("POST", path, headers.items(), f"{{{body}}}".encode())


def _shows(relay: RelayProcess, days: int) -> bool:
    """Whether the relay's clock is so many days off."""
    with RawConnection(relay.url) as connection:
        date = parsedate_to_datetime(connection.exchange("GET", "/livez").header("date") or "")
    return abs(date - datetime.now(UTC) - timedelta(days=days)) < timedelta(hours=1)


def _workers_of(relay: RelayProcess) -> list[psutil.Process]:
    return psutil.Process(relay.pid).children()


def _client_ports(worker: psutil.Process, relay: RelayProcess) -> set[int]:
    port = int(relay.url.rpartition(":")[2])
    with contextlib.suppress(psutil.Error):
        return {_port(c.raddr) for c in worker.net_connections(kind="tcp") if _port(c.raddr) and _port(c.laddr) == port}
    return set()


def _port(address: Any) -> int:
    return address.port if address else 0


def _kinds(load: Load) -> str:
    kinds = sorted({failure.kind for failure in load.failures})
    return f" ({', '.join(kinds)})" if kinds else ""
