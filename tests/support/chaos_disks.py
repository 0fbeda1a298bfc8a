"""Full disks, as `scripts/chaos` puts them under a running relay: its store, its files for assistants, its log."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.chaos_bench import Left, Observed, Seen, exchange, wait_for
from tests.support.chaos_processes import a_folder, request_for
from tests.support.rude_upstream import UpstreamProcess
from tests.support.servers import RelayProcess, running_relay

SMALL_DISK = "4m"
SPEECH = "/v1/actions/audio/speech"
LOGGED_CALLS = 20


def _full_store() -> Observed:
    with a_folder() as folder, _small_disk(folder) as disk, UpstreamProcess() as upstream:
        environment = {"RELAY_STORE_URL": f"sqlite+aiosqlite:///{disk}/relay.db"}
        with running_relay(folder, upstream.url, environment) as relay:
            keyed = [_speak(relay, idempotency_key="before")]
            with _filled(disk):
                keyed.append(_speak(relay, idempotency_key="meanwhile"))
                others = [_speak(relay), exchange(relay.url, request_for(relay, "polite"))]
            keyed.append(_speak(relay, idempotency_key="after"))
    observed = f"with a key {', '.join(map(str, keyed))}; others {', '.join(map(str, others))}"
    return observed, [seen.code or seen.status for seen in [*keyed, *others]] == [
        200,
        "store_unavailable",
        200,
        200,
        200,
    ]


def _full_artifacts() -> Observed:
    with a_folder() as folder, _small_disk(folder) as disk, UpstreamProcess() as upstream:
        environment = {"RELAY_ARTIFACT_URL": f"file://{disk}/artifacts", "RELAY_ARTIFACT_SECRET": "s" * 32}
        with running_relay(folder, upstream.url, environment) as relay:
            files = [_speak(relay)]
            with _filled(disk):
                files.append(_speak(relay))
                other = exchange(relay.url, request_for(relay, "polite"))
            files.append(_speak(relay))
    observed = f"with a file {', '.join(map(str, files))}; others {other}"
    return observed, [seen.code or seen.status for seen in [*files, other]] == [200, "artifact_store_full", 200, 200]


def _full_log() -> Observed:
    """The relay's own output goes to the disk that is full."""
    with (
        a_folder() as folder,
        _small_disk(folder) as disk,
        UpstreamProcess() as upstream,
        running_relay(disk, upstream.url) as relay,
    ):
        request = request_for(relay, "polite")
        with _filled(disk):
            seen = [exchange(relay.url, request) for _ in range(LOGGED_CALLS)]
        lines = relay.printed().count('"event"')
        after = exchange(relay.url, request)
        logged = wait_for(lambda: relay.printed().count('"event"') > lines)
    good = sum(reply.status == 200 for reply in seen)
    observed = f"{good} of {LOGGED_CALLS} answered, {after} once there is room, {'' if logged else 'NOT '}logged again"
    return observed, good == LOGGED_CALLS and after.status == 200 and logged


DISK_FAULTS: tuple[tuple[str, str, Callable[[], Observed]], ...] = (
    (
        "full disk for the store",
        "with `idempotency_key` 503 `store_unavailable`, others 200; 200 once there is room",
        _full_store,
    ),
    (
        "full disk for artifacts",
        "503 `artifact_store_full`, others 200; 200 once there is room",
        _full_artifacts,
    ),
    ("full disk for the log", "all calls answered; logged again once there is room", _full_log),
)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `SMALL_DISK` in memory."""
    disk = folder / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        raise Left("needs `mount` and `umount`")
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0700", "tmpfs", str(disk)]
    done = subprocess.run([mount, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Left("needs root, to mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run([umount, "--lazy", str(disk)], check=True)


@contextlib.contextmanager
def _filled(disk: Path) -> Iterator[None]:
    """Not a byte is left on the disk for as long as the block lasts."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    try:
        yield
    finally:
        filler.unlink()


def _speak(relay: RelayProcess, **fields: str) -> Seen:
    """A call of a wrapper whose reply is a link to a file that the relay keeps."""
    return exchange(relay.url, request_for(relay, "recording", SPEECH, **fields))
