"""
The command `scripts/bench`: reads arguments, runs a session, prints or writes the page.

Progress goes to standard error.
"""

import argparse
import fcntl
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.bars import judge
from tests.bench.client_process import ClientFailed
from tests.bench.load import LoadFailed
from tests.bench.machine import this_machine
from tests.bench.page import render
from tests.bench.peers import PEERS
from tests.bench.processes import CORES, DidNotStart
from tests.bench.session import EXTRAS, ORDER, Plan, Session
from tests.bench.subjects import (
    DIRECT,
    DOWNLOAD,
    JSON_1,
    JSON_32,
    NGINX,
    OWN_SUBJECTS,
    PASS_THROUGH_AIOHTTP,
    PASS_THROUGH_TUNED,
    RELAY,
    RELAY_UNVALIDATED,
    SSE,
    UPLOAD,
    Subject,
)
from tests.bench.tools import CannotInstall, Tools
from tests.support.documents import ROOT

DOCS_PAGE = ROOT / "docs" / "performance.md"
TOOLS_FOLDER = ROOT / ".bench"
SUBJECTS: tuple[Subject, ...] = (*OWN_SUBJECTS, *PEERS)
MIN_PASSES = 3
COULD_NOT_RUN = 2

# Five minutes: what the bars need, and nothing that only adds to the picture.
_QUICK_LEFT_OUT = frozenset({PASS_THROUGH_AIOHTTP.name, PASS_THROUGH_TUNED.name, RELAY_UNVALIDATED.name})
_QUICK = {
    JSON_1: frozenset({DIRECT.name, RELAY.name}),
    SSE: frozenset({DIRECT.name, RELAY.name}),
    UPLOAD: frozenset({NGINX.name, RELAY.name}),
    DOWNLOAD: frozenset({NGINX.name, RELAY.name}),
}


def plan_of(options: argparse.Namespace) -> Plan:
    """
    Decide what is measured.

    Args:
        options: Of the command.
    """
    wanted = frozenset(options.workload or (*ORDER, *EXTRAS))
    cells: dict[str, frozenset[str]] = {}
    for subject in SUBJECTS:
        if options.only and subject.name not in options.only:
            continue
        workloads = subject.workloads & wanted
        if options.quick and not options.workload:
            if subject.name in _QUICK_LEFT_OUT and not options.only:
                continue
            quick = {name for name, subjects in _QUICK.items() if subject.name in subjects}
            workloads &= {JSON_32, *quick}
        if workloads:
            cells[subject.name] = workloads
    return Plan(
        cells=cells,
        extras=frozenset(EXTRAS) & wanted if not options.only or RELAY.name in options.only else frozenset(),
        passes=options.passes,
        seconds=options.seconds or (2.0 if options.quick else 6.0),
        events=150 if options.quick else 300,
        repetitions=3 if options.quick else 5,
        starts=3 if options.quick else 5,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Measure, and print or write the page.

    Returns:
        Exit code: 0 when all bars are met, 1 when one is not, 2 when it could not run.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.docs and (options.quick or options.only or options.workload):
        parser.error("--docs takes a whole run: without --quick, --only and --workload.")
    if CORES < 2:
        return _refuse("needs two cores: one for the subject, one for load and upstream.")
    plan = plan_of(options)
    if not plan.cells and not plan.extras:
        return _refuse("none of these subjects has any of these workloads.")
    session = Session(plan, SUBJECTS, Tools(TOOLS_FOLDER, _say), _say)
    try:
        with _alone(TOOLS_FOLDER):
            session.install()
            results = session.run()
    except (BlockingIOError, CannotInstall, DidNotStart, LoadFailed, ClientFailed) as error:
        return _refuse(str(error))
    verdicts = judge(results)
    subjects = [subject for subject in SUBJECTS if subject.name in plan.cells]
    page = render(results, verdicts, subjects, plan, this_machine())
    output = DOCS_PAGE if options.docs else options.output
    if output is None:
        sys.stdout.write(page)
    else:
        output.write_text(page, encoding="utf-8")
        _say(f"written: {output}")
    return 0 if all(verdict.met for verdict in verdicts) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the relay beside other gateways on loopback and prints one Markdown page of bars and "
        "figures. Installs what it needs. Exit codes: 0 all bars are met, 1 one is not or was not measured, 2 it could "
        "not run.",
    )
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--quick", action="store_true", help="five minutes: short cells, only what the bars need")
    parser.add_argument("--only", nargs="+", metavar="SUBJECT", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument(
        "--workload",
        nargs="+",
        metavar="WORKLOAD",
        choices=(*ORDER, *EXTRAS),
        help=f"of {', '.join((*ORDER, *EXTRAS))}",
    )
    parser.add_argument("--passes", type=_passes, default=MIN_PASSES, help="over all subjects; 3 or more")
    parser.add_argument("--seconds", type=_seconds, help="of each cell; whole ones")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--output", type=Path, metavar="FILE", help="where the page goes instead of standard output")
    target.add_argument("--docs", action="store_true", help=f"write it to {DOCS_PAGE.relative_to(ROOT)}")
    return parser


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """
    Keep other runs of this checkout away: they would measure each other.

    Raises:
        BlockingIOError: There is one.
    """
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError("another run of scripts/bench is under way in this checkout.") from None
        yield


def _passes(text: str) -> int:
    number = int(text)
    if number < MIN_PASSES:
        raise argparse.ArgumentTypeError(f"must be {MIN_PASSES} or more, or the median means nothing.")
    return number


def _seconds(text: str) -> float:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more.")
    return float(number)


def _refuse(why: str) -> int:
    _say(why)
    return COULD_NOT_RUN


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)  # noqa: T201 - a command prints


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(COULD_NOT_RUN))  # what was started is ended on the way out
    sys.exit(main())
