"""
Several processes that serve one address: starts them, replaces those that die or hang, and ends them together.

Workers are forked from a process that has built everything and runs no loop and no thread: a new one serves at once.
Not for: what a worker does, and whether what workers must share is shared (`check_shared`).
"""

import mmap
import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess

import structlog
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from handlers.runtime.exceptions import InvalidSettings, StartupError
from handlers.runtime.settings import Settings

LOOK_SECONDS = 0.2
START_SECONDS = 60.0  # of a worker, until it serves
SETTLED_SECONDS = 10.0  # a worker that dies sooner is replaced more slowly each time
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 30.0
MARGIN_SECONDS = 5.0  # of a worker beyond its time to finish what runs
STARTUP_EXIT_CODE = 2

_BEAT = struct.Struct("d")
_log = structlog.get_logger("relay")


def check_shared(settings: Settings) -> None:
    """
    Refuse settings under which several workers would each keep what must be one.

    Raises:
        InvalidSettings: With one line per setting.
    """
    problems = []
    try:
        store = make_url(settings.RELAY_STORE_URL.get_secret_value())
    except ArgumentError:
        store = None  # the start says so itself
    if store is not None and store.drivername.startswith("sqlite") and store.database in {None, "", ":memory:"}:
        problems.append(
            "RELAY_STORE_URL: must be a file or PostgreSQL with RELAY_WORKERS above 1, or a call with the same "
            "`idempotency_key` would be done anew by another worker; sqlite+aiosqlite:////folder/relay.db is one"
        )
    if not settings.RELAY_ARTIFACT_URL.get_secret_value():
        problems.append(
            "RELAY_ARTIFACT_URL: must be set with RELAY_WORKERS above 1, and RELAY_ARTIFACT_SECRET with it, or links "
            "to files would work in one worker only; file:///folder is one"
        )
    if problems:
        raise InvalidSettings("\n".join(problems))


@dataclass
class _Worker:
    """One place for a process; whoever dies there is followed by another."""

    number: int
    process: ForkProcess | None = None
    started_at: float = 0.0
    deaths: int = 0  # in a row, each soon after the start
    due_at: float = 0.0


class Supervisor:
    """
    Runs workers until SIGTERM or SIGINT.

    Args:
        work: Called in each worker with a function that it must call at least every second while it is well. It ends
            by itself on SIGTERM.
        listening: Closed by `close_listeners` in this process when the end begins: workers have them as well.
        silence_seconds: A worker that does not say so for that long is killed.
        shutdown_seconds: How long workers may take for what runs.
    """

    def __init__(
        self,
        work: Callable[[Callable[[], None]], None],
        workers: int,
        close_listeners: Callable[[], None],
        *,
        silence_seconds: float,
        shutdown_seconds: float,
    ) -> None:
        self._work = work
        self._close_listeners = close_listeners
        self._silence_seconds = silence_seconds
        self._shutdown_seconds = shutdown_seconds
        self._workers = [_Worker(number) for number in range(workers)]
        self._beats = mmap.mmap(-1, _BEAT.size * workers)  # of memory that all of them see
        self._fork = multiprocessing.get_context("fork")
        self._ending = 0

    def run(self) -> None:
        """
        Start all workers and look after them until the end.

        Raises:
            StartupError: The first worker could not start.
        """
        if threading.active_count() > 1:
            raise StartupError("workers cannot be forked: something has started a thread before them.")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_end)
        try:
            self._start_first(self._workers[0])
            while not self._ending:
                for worker in self._workers:
                    self._look_after(worker)
                wait(self._sentinels(), LOOK_SECONDS)
        finally:
            self._end()

    def _start_first(self, worker: _Worker) -> None:
        """Let one show whether it can be done, so that what is wrong is said once."""
        self._start(worker)
        while not self._beat_of(worker) and not self._ending:
            wait(self._sentinels(), LOOK_SECONDS)
            process = worker.process
            if process is not None and process.exitcode is not None and not self._beat_of(worker):
                raise StartupError("the first worker could not start; see the lines above.")
            if time.monotonic() - worker.started_at > START_SECONDS:
                raise StartupError(f"the first worker did not start within {START_SECONDS:g} s.")

    def _look_after(self, worker: _Worker) -> None:
        now = time.monotonic()
        process = worker.process
        if process is None:
            if now >= worker.due_at:
                self._start(worker)
            return
        if process.exitcode is None:
            beat = self._beat_of(worker)
            limit = self._silence_seconds if beat else START_SECONDS
            if now - (beat or worker.started_at) > limit:
                _log.error("worker", outcome="hangs", pid=process.pid)
                process.kill()
            return
        settled = now - worker.started_at > SETTLED_SECONDS
        worker.deaths = 0 if settled else worker.deaths + 1
        # The first death costs no time: a worker that was killed from outside has nothing wrong with it.
        delay = 0.0 if worker.deaths < 2 else min(FIRST_DELAY_SECONDS * 2 ** (worker.deaths - 2), MAX_DELAY_SECONDS)
        worker.due_at = now + delay
        worker.process = None
        _log.error("worker", outcome="died", pid=process.pid, exit_code=process.exitcode, again_in_seconds=delay)
        process.close()
        if not delay:
            self._start(worker)

    def _start(self, worker: _Worker) -> None:
        _BEAT.pack_into(self._beats, worker.number * _BEAT.size, 0.0)
        worker.started_at = time.monotonic()
        worker.process = self._fork.Process(target=self._run_worker, args=(worker.number,))
        worker.process.start()

    def _run_worker(self, number: int) -> None:
        """Be a worker."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_DFL)
        parent = os.getppid()

        def beat() -> None:
            _BEAT.pack_into(self._beats, number * _BEAT.size, time.monotonic())
            if os.getppid() != parent:  # nobody is left to look after this one, or to end it
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            self._work(beat)
        except StartupError as error:
            for line in str(error).splitlines():
                sys.stderr.write(f"relay: {line}\n")
            sys.exit(STARTUP_EXIT_CODE)

    def _end(self) -> None:
        """Let all workers finish within the limit, then kill the rest."""
        self._close_listeners()  # or clients would go on to connect to nobody
        running = [worker.process for worker in self._workers if worker.process is not None]
        self._signal(running, signal.SIGTERM)
        deadline = time.monotonic() + self._shutdown_seconds + MARGIN_SECONDS
        asked = self._ending
        while any(process.exitcode is None for process in running):
            if self._ending > max(asked, 1):  # a second Ctrl-C
                asked = self._ending
                self._signal(running, signal.SIGINT)
            if time.monotonic() > deadline:
                for process in running:
                    process.kill()
            wait([process.sentinel for process in running if process.exitcode is None], LOOK_SECONDS)

    def _signal(self, processes: Sequence[ForkProcess], number: signal.Signals) -> None:
        for process in processes:
            if process.exitcode is None and process.pid is not None:
                os.kill(process.pid, number)

    def _note_end(self, *_: object) -> None:
        self._ending += 1

    def _beat_of(self, worker: _Worker) -> float:
        beat: float = _BEAT.unpack_from(self._beats, worker.number * _BEAT.size)[0]
        return beat

    def _sentinels(self) -> list[int]:
        return [worker.process.sentinel for worker in self._workers if worker.process is not None]
