"""
Processes that want the same slots of a store at the same moment; run as a program, one of them.

The program takes a store's URL and a number of slots, reads from a line of input when to begin, tries to take each slot
at its own moment and prints when it began, when it ended and the numbers of those that it was first with. It holds them
for a second of the year 1970.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from handlers.runtime.idempotency import Claim, open_sql_store
from tests.support.documents import ROOT

FINGERPRINT = "f" * 64
PATIENCE_SECONDS = 60.0
_READY = "ready"
_BEGIN_SECONDS = 0.2
_STEP_SECONDS = 0.005


def claim(slot: int, owner: str = "somebody") -> Claim:
    """A claim as a store gets it."""
    return Claim(slot=f"{slot:064}", fingerprint=FINGERPRINT, owner=owner)


@contextmanager
def racers(url: str, count: int, slots: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have opened the store and wait."""
    command = [sys.executable, "-m", "tests.support.store_race", url, str(slots)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == _READY
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@dataclass(frozen=True, slots=True)
class Race:
    """What one process has to tell: seconds since 1970, and the slots that it took."""

    began: float
    ended: float
    won: list[int]


def start(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Let all begin at the same moment."""
    begin = time.time() + _BEGIN_SECONDS
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{begin}\n")
        process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> Race:
    """Wait for a process to end."""
    began, ended, *won = process.communicate(timeout=PATIENCE_SECONDS)[0].split()
    return Race(float(began), float(ended), [*map(int, won)])


async def _race(url: str, slots: int) -> Race:
    store = await open_sql_store(url)
    print(_READY, flush=True)  # noqa: T201 - whoever started this waits for it
    begin = float(await asyncio.to_thread(sys.stdin.readline))
    won = []
    began = time.time()
    for slot in range(slots):
        await asyncio.sleep(begin + slot * _STEP_SECONDS - time.time())
        if await store.take(claim(slot), 0.0, 1.0) is None:
            won.append(slot)
    ended = time.time()
    await store.close()
    return Race(began, ended, won)


if __name__ == "__main__":
    race = asyncio.run(_race(sys.argv[1], int(sys.argv[2])))
    print(race.began, race.ended, *race.won, flush=True)  # noqa: T201 - the result
