"""
The numbers of several workers of one relay, one file each, in a folder that only they read.

A worker holds a lock on its file while it lives, so nobody has to guess whether it does: the kernel lets go of it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import structlog

from handlers.runtime.metric_families import Snapshot, merged

_ENDED = "ended.json"
_LOCK = "lock"
_log = structlog.get_logger("relay")


class MetricFiles:
    """
    The files of one relay, as one of its workers sees them; `open` comes first.

    Args:
        folder: Private to the relay's user, and empty when the first worker starts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / "nobody.json"
        self._held: int | None = None

    def open(self, name: str) -> None:
        """
        Take this worker's file, and put the numbers of workers that have ended into one.

        Args:
            name: No other running worker has it.
        """
        self._own = self._folder / f"{name}.json"
        with self._locked(fcntl.LOCK_EX):
            self._fold()
            self._held = _hold(self._own.with_suffix(".held"))

    def write(self, snapshot: Snapshot) -> None:
        """Replace this worker's numbers at once; a full disk is told and costs nothing but numbers."""
        fresh = self._own.with_suffix(".fresh")
        try:
            fresh.write_bytes(_encoded(snapshot))
            fresh.replace(self._own)
        except OSError as error:
            _log.error("metrics", reason=error.strerror)

    def read_others(self) -> tuple[list[Snapshot], list[Snapshot]]:
        """The numbers of the other workers: of those that run, and of those that have ended."""
        with self._locked(fcntl.LOCK_SH):
            running, ended = self._others()
            return [_read(path) for path in running], [_read(path) for path in [*ended, self._folder / _ENDED]]

    def close(self) -> None:
        """Count as ended from now on."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _fold(self) -> None:
        """Keep one file of all that have ended, or a worker that dies at every start would fill the folder."""
        _, ended = self._others()
        if not ended:
            return
        together = merged((), [_read(path) for path in [*ended, self._folder / _ENDED]])
        fresh = self._folder / "ended.fresh"
        fresh.write_bytes(_encoded(together))
        fresh.replace(self._folder / _ENDED)
        for path in ended:
            for suffix in (".json", ".held", ".fresh"):
                path.with_suffix(suffix).unlink(missing_ok=True)

    def _others(self) -> tuple[list[Path], list[Path]]:
        running: list[Path] = []
        ended: list[Path] = []
        for held in sorted(self._folder.glob("*.held")):
            path = held.with_suffix(".json")
            if self._held is None or path != self._own:
                (running if _is_held(held) else ended).append(path)
        return running, ended

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, kind)
            yield
        finally:
            os.close(lock)


def _hold(path: Path) -> int:
    held = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return held


def _is_held(path: Path) -> bool:
    with suppress(FileNotFoundError):
        probe = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(probe)
    return False


def _encoded(snapshot: Snapshot) -> bytes:
    return orjson.dumps({name: [[[*labels], numbers] for labels, numbers in s.items()] for name, s in snapshot.items()})


def _read(path: Path) -> Snapshot:
    """What a file holds; nothing where its worker has not written yet."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return {name: {tuple(labels): numbers for labels, numbers in samples} for name, samples in content.items()}
