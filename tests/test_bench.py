"""The benchmark's own work: what it reads from wrk, its medians, its bars, its order, its page, its arguments."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bench import __main__ as command
from tests.bench.bars import BARS, judge
from tests.bench.load import LoadFailed, parse, script
from tests.bench.machine import Machine
from tests.bench.page import HEADER, render
from tests.bench.results import (
    CPU_US,
    FIRST_EVENT_MS,
    GROWTH_MIB,
    LOST,
    MB_PER_SECOND,
    MEMORY_MB,
    P50_MS,
    P99_MS,
    PER_SECOND,
    REORDERED,
    Results,
    rotated,
)
from tests.bench.scaling import LOAD_CORES, READY_SECONDS, RSS_MB, START, WORKERS, scale, whole_ratio
from tests.bench.session import EXTRAS, ORDER, Plan
from tests.bench.subjects import (
    DIRECT,
    DOWNLOAD,
    JSON_1,
    JSON_32,
    MCP,
    NGINX,
    NGINX_PLAIN,
    OWN_SUBJECTS,
    PASS_THROUGH,
    PASS_THROUGH_AIOHTTP,
    RELAY,
    RELAY_TWO_WORKERS,
    SSE,
    UPLOAD,
)
from tests.bench.upstream import server_blocks
from tests.bench.workloads import LARGE_BYTES, WORKLOADS
from tests.support.documents import ROOT

TOLD = "bench: requests=20000 microseconds=5000000 connect=0 read=0 write=0 timeout=0 status=0 p50=7600 p99=12345"
PLAN = Plan({"relay": frozenset({JSON_32})}, frozenset(), 3, 2.0, 100, 3, 3)
MACHINE = Machine("a processor, 2 cores")
# A run in which every bar is met by a little.
GOOD: Mapping[tuple[str, str, str], float] = {
    (RELAY.name, JSON_32, CPU_US): 250.0,
    (RELAY.name, JSON_32, MEMORY_MB): 99.0,
    (PASS_THROUGH.name, JSON_32, CPU_US): 200.0,
    ("fastapi", JSON_32, CPU_US): 3300.0,
    ("portkey", JSON_32, CPU_US): 1475.0,
    ("litellm", JSON_32, CPU_US): 11800.0,
    (NGINX_PLAIN.name, JSON_32, CPU_US): 28.0,
    (DIRECT.name, JSON_1, P50_MS): 0.05,
    (RELAY.name, JSON_1, P50_MS): 0.6,
    (DIRECT.name, SSE, FIRST_EVENT_MS): 0.1,
    (RELAY.name, SSE, FIRST_EVENT_MS): 1.0,
    (RELAY.name, SSE, CPU_US): 39.0,
    (RELAY.name, SSE, LOST): 0.0,
    (RELAY.name, SSE, REORDERED): 0.0,
    (NGINX.name, UPLOAD, MB_PER_SECOND): 1000.0,
    (RELAY.name, UPLOAD, MB_PER_SECOND): 600.0,
    (RELAY.name, UPLOAD, GROWTH_MIB): 2.0,
    (NGINX.name, DOWNLOAD, MB_PER_SECOND): 1000.0,
    (RELAY.name, DOWNLOAD, MB_PER_SECOND): 600.0,
    (RELAY.name, DOWNLOAD, GROWTH_MIB): 2.0,
    (RELAY.name, START, READY_SECONDS): 1.2,
    (RELAY.name, START, RSS_MB): 90.0,
    (RELAY.name, WORKERS, PER_SECOND): 4000.0,
    (RELAY_TWO_WORKERS.name, WORKERS, PER_SECOND): 7400.0,
    (RELAY_TWO_WORKERS.name, WORKERS, LOAD_CORES): 0.0,
}


def results_of(figures: Mapping[tuple[str, str, str], float]) -> Results:
    """A run of three passes with these medians."""
    results = Results()
    for (subject, workload, figure), value in figures.items():
        for factor in (1.1, 0.9, 1.0) if value else (0.0,):
            results.add(subject, workload, figure, value * factor)
    return results


def options(*arguments: str) -> argparse.Namespace:
    """The command's options."""
    return command._parser().parse_args(arguments)


class TestLoad:
    def test_what_wrk_tells_is_read(self) -> None:
        """Requests, seconds and latencies are those that it counted."""
        figures = parse(f"Running 5s test @ http://127.0.0.1\n{TOLD}\n")
        assert (figures.requests, figures.per_second) == (20000, 4000.0)
        assert (figures.p50_ms, figures.p99_ms) == (7.6, 12.345)

    @pytest.mark.parametrize("kind", ["connect", "read", "write", "timeout", "status"])
    def test_one_failed_request_fails_the_run(self, kind: str) -> None:
        """A subject that refuses is fast; its figures must not be taken for those of one that answers."""
        with pytest.raises(LoadFailed, match=f"of 20000 requests: 1 {kind}"):
            parse(TOLD.replace(f"{kind}=0", f"{kind}=1"))

    def test_a_run_without_an_answer_fails(self) -> None:
        """Nothing to divide by is no result."""
        with pytest.raises(LoadFailed, match="none was answered"):
            parse(TOLD.replace("requests=20000", "requests=0"))

    def test_warming_up_may_end_without_an_answer(self) -> None:
        """A slow subject is measured all the same; one that fails is not."""
        assert parse(TOLD.replace("requests=20000", "requests=0"), may_be_none=True).requests == 0
        with pytest.raises(LoadFailed, match="1 status"):
            parse(TOLD.replace("status=0", "status=1"), may_be_none=True)

    def test_a_run_that_did_not_finish_fails(self) -> None:
        """What wrk said instead is told."""
        with pytest.raises(LoadFailed, match="unable to connect"):
            parse("unable to connect to 127.0.0.1:1 Connection refused")

    def test_a_script_holds_body_and_headers_as_they_are(self) -> None:
        """Quotes and backslashes of JSON reach the subject unchanged."""
        text = script(b'{"a": "\\n\\""}', {"Content-Type": "application/json"})
        assert 'wrk.body = [==[{"a": "\\n\\""}]==]' in text
        assert "wrk.headers[ [==[Content-Type]==] ] = [==[application/json]==]" in text

    def test_a_text_that_lua_would_read_otherwise_is_refused(self) -> None:
        """No subject is measured with another body than is meant."""
        with pytest.raises(ValueError, match="Lua"):
            script(b"]==]", {})


class TestWorkloads:
    def test_the_long_one_has_the_size_that_it_says(self) -> None:
        """100 KB, give or take one turn of the chat."""
        assert abs(len(WORKLOADS["json-100k"].content) - LARGE_BYTES) < 2000

    def test_a_reply_that_nginx_would_change_is_refused(self) -> None:
        """A dollar sign would be a variable there."""
        replies = dict.fromkeys(("chat", "responses", "files", "embeddings"), b"{}")
        with pytest.raises(ValueError, match="dollar"):
            server_blocks("http://127.0.0.1:1", {**replies, "chat": b'{"price": "$1"}'}, ROOT)


class TestResults:
    def test_a_figure_has_median_and_spread(self) -> None:
        """One value that strays does not move the median, and shows in the spread."""
        results = Results()
        for value in (250.0, 900.0, 240.0):
            results.add("relay", JSON_32, CPU_US, value)
        series = results.of("relay", JSON_32, CPU_US)
        assert series is not None
        assert (series.median, series.low, series.high) == (250.0, 240.0, 900.0)

    def test_what_was_not_measured_is_nothing(self) -> None:
        """And not zero."""
        assert Results().of("relay", JSON_32, CPU_US) is None
        assert Results().median("relay", JSON_32, CPU_US) is None

    def test_passes_begin_with_another_subject_each(self) -> None:
        """All are there in every pass, and each has been first after as many passes as there are."""
        orders = [rotated("abc", number) for number in range(3)]
        assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]
        assert rotated("", 1) == []


class TestBars:
    def test_a_good_run_meets_all(self) -> None:
        """Every bar has a figure of this run."""
        assert [verdict for verdict in judge(results_of(GOOD)) if not verdict.met] == []

    @pytest.mark.parametrize("cell", GOOD)
    def test_a_missing_figure_is_not_met(self, cell: tuple[str, str, str]) -> None:
        """Whatever was not measured cannot be met in silence."""
        verdicts = judge(results_of({key: value for key, value in GOOD.items() if key != cell}))
        lacking = [verdict for verdict in verdicts if verdict.measured == "not measured"]
        assert lacking
        assert not any(verdict.met for verdict in lacking)

    @pytest.mark.parametrize(
        "cell",
        [cell for cell in GOOD if cell[0] == RELAY.name and cell[2] not in {MB_PER_SECOND, PER_SECOND}],
    )
    def test_a_worse_figure_is_not_met(self, cell: tuple[str, str, str]) -> None:
        """Every figure of the relay can fail a bar by itself."""
        worse = GOOD[cell] * 20 or 1.0
        assert not all(verdict.met for verdict in judge(results_of({**GOOD, cell: worse})))

    @pytest.mark.parametrize("cell", [cell for cell in GOOD if cell[0] != DIRECT.name and cell[2] == MB_PER_SECOND])
    def test_less_throughput_is_not_met(self, cell: tuple[str, str, str]) -> None:
        """Half of nginx's throughput is the least; nginx has to be measured as well."""
        factor = 0.5 if cell[0] == RELAY.name else 2
        assert not all(verdict.met for verdict in judge(results_of({**GOOD, cell: GOOD[cell] * factor})))

    def test_events_that_were_lost_once_count(self) -> None:
        """A median of none does not hide one pass with a loss."""
        results = results_of(GOOD)
        results.add(RELAY.name, SSE, LOST, 1.0)
        results.add(RELAY.name, SSE, LOST, 0.0)
        assert [verdict.what for verdict in judge(results) if not verdict.met] == [
            "events lost or reordered, 200 streams at once, worst pass"
        ]

    def test_rules_say_the_limit(self) -> None:
        """People read the rule beside the figure."""
        assert {bar.rule for bar in BARS} >= {"at most 1.3 times", "at most 0.6 ms", "at least 1.8 times"}


class TestScale:
    def test_two_workers_are_held_against_the_cores_that_were_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a machine of two cores the load takes a share of theirs; with one to spare, nothing is added."""
        results = results_of({**GOOD, (RELAY_TWO_WORKERS.name, WORKERS, LOAD_CORES): 0.4})
        monkeypatch.setattr("tests.bench.scaling.WORKER_CORES", (0, 1))
        monkeypatch.setattr("tests.bench.scaling.LOAD_CORE", 1)
        assert scale(results) == pytest.approx(7400 / 4000 * 2 / 1.6)
        monkeypatch.setattr("tests.bench.scaling.LOAD_CORE", 2)
        assert scale(results) == whole_ratio(results) == 7400 / 4000


class TestPage:
    def test_a_page_has_bars_and_figures_with_their_spread(self) -> None:
        """Met or not met stands beside each bar, and medians have their spread."""
        results = results_of({**GOOD, (RELAY.name, JSON_32, PER_SECOND): 4000.0, (RELAY.name, JSON_32, P50_MS): 8.0})
        page = render(results, judge(results), OWN_SUBJECTS, PLAN, MACHINE)
        assert page.startswith(HEADER)
        assert f"Measured on {MACHINE.text}" in page
        assert "| time until ready | at most 1.5 s | 1.20 s | met |" in page
        assert "| small JSON, 32 connections | **relay** | 4,000 (3,600 to 4,400) | 8.00 (7.20 to 8.80) |" in page

    def test_a_bar_that_is_not_met_shouts(self) -> None:
        """Nobody overlooks it."""
        results = results_of({**GOOD, (RELAY.name, START, READY_SECONDS): 2.0})
        page = render(results, judge(results), OWN_SUBJECTS, PLAN, MACHINE)
        assert "| time until ready | at most 1.5 s | 2.00 s | NOT MET |" in page

    def test_what_was_left_out_is_named(self) -> None:
        """With the reason, instead of missing from the tables."""
        results = results_of({(DIRECT.name, JSON_32, P99_MS): 1.0})
        results.not_measured[NGINX.title] = "it could not be installed."
        page = render(results, judge(results), OWN_SUBJECTS, PLAN, MACHINE)
        assert f"- {NGINX.title}: **not measured**: it could not be installed." in page


class TestArguments:
    def test_everything_is_measured_by_default(self) -> None:
        """Every subject with all that it can do, and what has no rival."""
        plan = command.plan_of(options())
        assert plan.cells == {subject.name: subject.workloads for subject in command.SUBJECTS}
        assert plan.extras == frozenset(EXTRAS)
        assert plan.passes == 3

    def test_a_quick_run_leaves_no_bar_without_a_figure(self) -> None:
        """It may only leave out what no bar needs."""
        plan = command.plan_of(options("--quick"))
        assert plan.extras == frozenset(EXTRAS)
        for subject, workload, _ in GOOD:
            assert workload in EXTRAS or workload in plan.cells[subject]
        assert PASS_THROUGH_AIOHTTP.name not in plan.cells
        assert MCP not in plan.cells[RELAY.name]

    def test_subjects_and_workloads_can_be_chosen(self) -> None:
        """Only the cells that both name are measured."""
        plan = command.plan_of(options("--quick", "--only", "direct", "relay", "--workload", JSON_32))
        assert plan.cells == {"direct": {JSON_32}, "relay": {JSON_32}}
        assert plan.extras == frozenset()

    def test_what_has_no_rival_can_be_chosen_alone(self) -> None:
        """A start is measured without a pass."""
        plan = command.plan_of(options("--only", "relay", "--workload", START))
        assert plan.cells == {}
        assert plan.extras == {START}

    def test_nothing_to_measure_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An empty page would look like a result."""
        assert command.main(["--only", "nginx", "--workload", MCP]) == command.COULD_NOT_RUN
        assert "none of these subjects" in capsys.readouterr().err

    def test_two_runs_at_once_are_refused(self, tmp_path: Path) -> None:
        """They would measure each other."""
        with command._alone(tmp_path), pytest.raises(BlockingIOError, match="another run"), command._alone(tmp_path):
            pass
        with command._alone(tmp_path):
            pass

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--only", "apache"],
            ["--workload", "xml"],
            ["--passes", "2"],
            ["--seconds", "0"],
            ["--seconds", "0.5"],
            ["--docs", "--output", "page.md"],
            ["--docs", "--quick"],
            ["--docs", "--only", "relay"],
            ["--docs", "--workload", "json"],
        ],
        ids=" ".join,
    )
    def test_other_arguments_are_refused(self, arguments: list[str]) -> None:
        """What cannot be done is said before anything is installed."""
        with pytest.raises(SystemExit) as refusal:
            command.main(arguments)
        assert refusal.value.code == 2

    def test_workloads_have_one_word_each(self) -> None:
        """The words of the command line are those of the subjects."""
        assert set().union(*(subject.workloads for subject in command.SUBJECTS)) == set(ORDER)
        names = [subject.name for subject in command.SUBJECTS]
        assert len(set(names)) == len(names)
