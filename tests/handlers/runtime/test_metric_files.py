from pathlib import Path

import pytest
from structlog.testing import capture_logs

from handlers.runtime.metric_families import Snapshot, merged
from handlers.runtime.metric_files import MetricFiles

REFUSALS = "relay_refusals_total"
WORKERS = "relay_workers"


def numbers(refusals: int) -> Snapshot:
    """What a worker has counted."""
    return {REFUSALS: {("invalid_key",): [refusals]}, WORKERS: {(): [1]}}


def opened(folder: Path, name: str, refusals: int) -> MetricFiles:
    """A worker that has written once."""
    files = MetricFiles(folder)
    files.open(name)
    files.write(numbers(refusals))
    return files


def told_by(files: MetricFiles, own: int) -> tuple[float, float]:
    """Refusals and workers, as this worker tells them."""
    running, ended = files.read_others()
    whole = merged([numbers(own), *running], ended)
    return whole[REFUSALS][("invalid_key",)][0], whole[WORKERS][()][0]


def test_each_worker_tells_the_numbers_of_all(tmp_path: Path) -> None:
    """Whoever is asked answers for all of them."""
    one, other = opened(tmp_path, "1", 3), opened(tmp_path, "2", 4)
    assert told_by(one, 3) == told_by(other, 4) == (7, 2)


def test_a_worker_that_ended_goes_on_counting(tmp_path: Path) -> None:
    """Its counters stay while its successor starts and after that; as a worker it is gone."""
    one, other = opened(tmp_path, "1", 3), opened(tmp_path, "2", 4)
    other.close()
    assert told_by(one, 3) == (7, 1)
    successor = opened(tmp_path, "3", 0)
    assert told_by(one, 3) == told_by(successor, 0) == (7, 2)


def test_a_process_id_that_comes_again_starts_from_nothing(tmp_path: Path) -> None:
    """The numbers of its former owner are neither lost nor counted twice."""
    one = opened(tmp_path, "1", 3)
    opened(tmp_path, "2", 4).close()
    again = opened(tmp_path, "2", 5)
    assert told_by(one, 3) == told_by(again, 5) == (12, 2)


def test_workers_that_die_leave_one_file(tmp_path: Path) -> None:
    """A worker that dies at every start does not fill the folder."""
    for name in range(20):
        opened(tmp_path, str(name), 1).close()
    last = opened(tmp_path, "last", 1)
    assert told_by(last, 1) == (21, 1)
    assert len(list(tmp_path.iterdir())) == 4  # the lock, those that ended, and two of the last


def test_a_worker_without_numbers_yet_is_none(tmp_path: Path) -> None:
    """Between a worker's start and its first numbers there is nothing to add."""
    one = opened(tmp_path, "1", 3)
    MetricFiles(tmp_path).open("2")
    assert told_by(one, 3) == (3, 1)


def test_a_full_disk_costs_only_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go on; the log says what is wrong."""
    files = opened(tmp_path, "1", 3)

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with capture_logs() as lines:
        files.write(numbers(4))
    assert [(line["event"], line["reason"]) for line in lines] == [("metrics", "No space left on device")]
