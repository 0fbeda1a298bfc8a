import re

from prometheus_client.parser import text_string_to_metric_families

from handlers.runtime.counts import DURATION_BOUNDS, Histogram
from handlers.runtime.metric_families import FAMILIES, Kind, Snapshot, histogram_sample, merged
from handlers.runtime.metrics_text import metrics_text
from tests.support.documents import ROOT

REQUESTS = "relay_requests_total"
SECONDS = "relay_request_duration_seconds"
LABELS = ("listModels", "PROXY_HARNESS", "answered", "2xx")


def worker(requests: float, running: float, started: float = 5.0) -> Snapshot:
    """What one worker has counted."""
    histogram = Histogram()
    histogram.add(0.2)
    return {
        REQUESTS: {LABELS: [requests]},
        SECONDS: {("listModels",): histogram_sample(histogram)},
        "relay_running_requests": {(): [running]},
        "relay_start_time_seconds": {(): [started]},
        "relay_artifact_bytes": {(): [started]},
    }


def test_names_follow_the_conventions_of_prometheus() -> None:
    """All have the prefix, only counters end in `_total`, and units are base units."""
    for family in FAMILIES:
        assert re.fullmatch(r"relay(_[a-z]+)+", family.name)
        assert family.name.endswith("_total") is (family.kind is Kind.COUNTER)
        assert not family.name.endswith(("_ms", "_kb", "_minutes"))
        assert family.meaning.endswith(".")


def test_labels_are_few_and_never_a_clients_words() -> None:
    """What a label may hold comes from the contract, the table of errors or a list in the program."""
    allowed = {"operation", "bucket", "outcome", "status", "code", "state", "check", "cause", "close_code", "version"}
    assert {label for family in FAMILIES for label in family.labels} <= allowed


def test_workers_add_up_and_those_that_ended_keep_their_counters() -> None:
    """Counters and histograms of a dead worker stay, so that no counter goes backwards; its gauges are over."""
    whole = merged([worker(3, 1, 7.0), worker(4, 2)], [worker(10, 50, 1.0)])
    assert whole[REQUESTS] == {LABELS: [17]}
    assert sum(whole[SECONDS][("listModels",)][:-1]) == 3
    assert whole["relay_running_requests"] == {(): [3]}
    assert whole["relay_start_time_seconds"] == {(): [5.0]}
    assert whole["relay_artifact_bytes"] == {(): [7.0]}  # of one store that both know


def test_what_another_version_has_written_is_left_out() -> None:
    """An unknown name in a file of numbers is no metric."""
    assert merged([{"relay_of_tomorrow": {(): [1]}}]) == {}


def test_the_text_is_what_prometheus_reads() -> None:
    """Every family is there with type and help, also without a sample; buckets of a histogram are cumulative."""
    text = metrics_text(worker(3, 1)).decode()
    assert re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE) == [(f.name, f.kind.value) for f in FAMILIES]
    parsed = {sample.name: sample for family in text_string_to_metric_families(text) for sample in family.samples}
    assert parsed[REQUESTS].value == 3
    assert parsed[REQUESTS].labels["operation"] == "listModels"
    buckets = re.findall(rf'^{SECONDS}_bucket{{le="(\S+)",operation="listModels"}} (\S+)$', text, re.MULTILINE)
    assert [float(number) for _, number in buckets] == [0, 0, 0] + [1] * (len(DURATION_BOUNDS) - 2)
    assert (buckets[-1][0], parsed[f"{SECONDS}_sum"].value) == ("+Inf", 0.2)


def test_the_guide_lists_every_metric_and_no_other() -> None:
    """The table in docs/operations.md is this list, line by line."""
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(relay_\w+)` \| (\w+) \| (.+?) \| (.+) \|$", guide, re.MULTILINE)
    assert rows == [
        (f.name, f.kind.value, ", ".join(f"`{label}`" for label in f.labels) or "none", f.meaning) for f in FAMILIES
    ]
