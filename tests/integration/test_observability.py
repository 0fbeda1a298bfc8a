"""What a running relay tells operators: numbers, log lines, probes and traces."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from codegen.contract import FULL, Scope, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.counts import UNMATCHED
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.documents import ROOT
from tests.support.key_files import make_key, write_keys
from tests.support.metrics import Scrape, scraper
from tests.support.otlp import attributes, running_collector
from tests.support.raw_http import RawConnection
from tests.support.servers import HOST, UPSTREAM_KEY, RelayProcess, ServerThread, running_relay
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
RESPONSE = {"model": "m", "input": "x"}
OPERATOR = make_key("operator", Scope.OPERATOR)
REQUESTS = "relay_requests_total"
CALLS = "relay_upstream_calls_total"
OPERATIONS = ROOT / "docs" / "operations"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def port() -> int:
    """Of the scraper."""
    return free_port()


@pytest.fixture(scope="module")
def watched(
    upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory, port: int
) -> Iterator[RelayProcess]:
    """A relay with an operator's key and a port for scrapers."""
    folder = tmp_path_factory.mktemp("watched")
    write_keys(folder / "keys.yaml", [OPERATOR])
    environment = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_METRICS_PORT": str(port),
        "RELAY_IDLE_TIMEOUT_SECONDS": "1",
    }
    with running_relay(folder, upstream_server.url, environment) as relay:
        yield relay


@pytest.fixture
def scrape(watched: RelayProcess, upstream: SimulatedUpstream) -> Callable[[], Scrape]:
    """Scrapes the relay."""
    del upstream
    return scraper(watched, OPERATOR.headers)


@pytest.fixture
def client(watched: RelayProcess) -> Iterator[httpx.Client]:
    """A client with the relay's key."""
    with httpx.Client(base_url=watched.url, headers=watched.headers, timeout=10) as client:
        yield client


def lines_of(relay: RelayProcess) -> list[dict[str, Any]]:
    """Lines about requests, as the relay has logged them."""
    lines = [json.loads(line) for line in relay.printed().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "request"]


def test_an_answered_request_is_counted_once(scrape: Callable[[], Scrape], client: httpx.Client) -> None:
    """With operation, bucket, outcome and status class, its bytes both ways, and its one call to the upstream."""
    before = scrape()
    reply = client.post("/v1/responses", json=RESPONSE)
    after = scrape()

    def grown(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    labels = {"operation": "createResponse"}
    assert grown(REQUESTS, **labels, bucket="ACTIONS_DIRECT", outcome="answered", status="2xx") == 1
    assert grown(CALLS, **labels, status="2xx") == grown(CALLS) == 1
    assert grown("relay_sent_bytes_total", **labels) == len(reply.content)
    assert grown("relay_received_bytes_total", **labels) == len(reply.request.content)
    for name in ("relay_request_duration_seconds", "relay_upstream_duration_seconds"):
        assert grown(f"{name}_count", **labels) == grown(f"{name}_bucket", **labels, le="300.0") == 1
    assert grown("relay_refusals_total") == 0


@pytest.mark.parametrize(
    "method, path, headers, operation, code",
    [
        ("POST", "/v1/responses", {}, "createResponse", "invalid_body"),
        ("GET", "/v1/models", {"Authorization": "Bearer wrong"}, "listModels", "invalid_key"),
        ("GET", "/v1/organization/users", {}, "list-users", "operation_unsupported"),
        ("GET", "/v1/unheard_of", {}, UNMATCHED, "unknown_operation"),
    ],
)
def test_a_refusal_is_counted_by_its_code(
    scrape: Callable[[], Scrape],
    client: httpx.Client,
    method: str,
    path: str,
    headers: dict[str, str],
    operation: str,
    code: str,
) -> None:
    """And among those that never reached the upstream."""
    before = scrape()
    client.request(method, path, headers=headers, json={"model": 5} if method == "POST" else None)
    after = scrape()
    for name in ("relay_refusals_total", "relay_refused_before_upstream_total"):
        assert after.sum(name) - before.sum(name) == 1
        assert after.sum(name, code=code) - before.sum(name, code=code) == 1
    labels = {"operation": operation, "outcome": code, "status": "4xx"}
    assert after.sum(REQUESTS, **labels) - before.sum(REQUESTS, **labels) == 1
    assert after.sum(CALLS) == before.sum(CALLS)


def test_broken_http_is_counted(scrape: Callable[[], Scrape], watched: RelayProcess) -> None:
    """What never became a request is a refusal as well."""
    before = scrape()
    with RawConnection(watched.url) as connection:
        connection.send(b"this is no HTTP\r\n\r\n")
        assert connection.reply().status == 400
    after = scrape()
    labels = {"code": "malformed_request"}
    name = "relay_refused_before_upstream_total"
    assert after.sum(name, **labels) - before.sum(name, **labels) == 1


@pytest.mark.parametrize(
    "fault, outcome, upstream_status",
    [(Fault(status=500), "answered", "5xx"), (Fault(silent=True), "upstream_timeout", "failed")],
)
def test_a_failing_upstream_is_told_from_a_refusal(
    scrape: Callable[[], Scrape],
    client: httpx.Client,
    upstream: SimulatedUpstream,
    fault: Fault,
    outcome: str,
    upstream_status: str,
) -> None:
    """Its own errors are answers; what the relay makes of its silence is an error after a call."""
    before = scrape()
    upstream.faults.add(fault)
    client.post("/v1/responses", json=RESPONSE)
    after = scrape()
    for name, labels in (
        (REQUESTS, {"outcome": outcome, "status": "5xx", "operation": "createResponse"}),
        (CALLS, {"status": upstream_status, "operation": "createResponse"}),
    ):
        assert after.sum(name, **labels) - before.sum(name, **labels) == 1
    name = "relay_refused_before_upstream_total"
    assert after.sum(name) == before.sum(name)


def test_an_open_stream_shows_and_a_client_that_leaves_is_counted(
    scrape: Callable[[], Scrape], client: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Gauges go up while it runs and down when it is over."""
    before = scrape()
    upstream.faults.add(Fault(silent_after_bytes=10))
    with client.stream("POST", "/v1/responses:stream", json=RESPONSE) as reply:
        assert reply.status_code == 200
        wait_until(lambda: scrape().sum("relay_open_event_streams") == 1)
        during = scrape()
        assert during.sum("relay_running_requests") == 2  # and the scrape itself
        assert during.sum("relay_upstream_slots_used") == 1
    labels = {"operation": "createResponseStream", "outcome": "client_gone"}
    wait_until(lambda: scrape().sum(REQUESTS, **labels) == before.sum(REQUESTS, **labels) + 1)
    wait_until(lambda: scrape().sum("relay_open_event_streams") == 0)
    wait_until(lambda: scrape().sum("relay_upstream_slots_used") == 0)


def test_labels_hold_names_of_the_contract_only(scrape: Callable[[], Scrape], client: httpx.Client) -> None:
    """However many paths, models and keys clients make up, no label grows."""
    for number in range(20):
        client.get(f"/v1/made_up_{number}")
        client.get(f"/v1/models/made_up_{number}")
        client.post("/v1/responses", json={"model": f"made_up_{number}", "input": "x"})
        client.get("/v1/models", headers={"Authorization": f"Bearer rk_made_up_{number}"})
    text = scrape()
    assert "made_up" not in text.text
    assert text.values_of("operation") <= {*CONTRACT.operations, UNMATCHED}


def test_the_port_of_the_scraper_asks_for_no_key(
    scrape: Callable[[], Scrape], port: int, watched: RelayProcess
) -> None:
    """It says the same as the operation, and nothing else lies behind it; the operation keeps asking for its scope."""
    url = f"http://{HOST}:{port}"
    reply = httpx.get(f"{url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert Scrape(reply.text).names() == scrape().names()
    assert httpx.head(f"{url}/metrics").content == b""
    for method, path in (("GET", "/"), ("GET", "/actions/system/info"), ("POST", "/metrics"), ("GET", "/v1/models")):
        assert httpx.request(method, url + path).status_code == 404
    assert httpx.get(f"{watched.url}/metrics").status_code == 401
    assert httpx.get(f"{watched.url}/metrics", headers=watched.headers).status_code == 403


def test_a_port_that_is_taken_stops_the_start() -> None:
    """The message names the setting."""
    with socket.create_server((HOST, 0)) as taken:
        finished = start_and_fail({"RELAY_METRICS_PORT": str(taken.getsockname()[1])})
    assert "RELAY_METRICS_PORT" in finished
    assert "Traceback" not in finished


def test_dashboard_and_alerts_use_names_that_are_there(scrape: Callable[[], Scrape]) -> None:
    """Every metric and every label in both files exists in a real answer of `/metrics`."""
    known = scrape()
    rules = yaml.safe_load((OPERATIONS / "alerts.yaml").read_text(encoding="utf-8"))
    dashboard = json.loads((OPERATIONS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    expressions += [item["definition"] for item in dashboard["templating"]["list"] if "definition" in item]
    used = {name for expression in expressions for name in re.findall(r"\brelay_\w+", expression)}
    empty_histograms = {f"{name}_bucket" for name in known.names()}
    assert len(used) > 15
    assert used <= known.names() | empty_histograms


def test_the_guide_lists_every_field_of_the_log(
    client: httpx.Client, watched: RelayProcess, upstream: SimulatedUpstream
) -> None:
    """Requests of every kind log fields of the table only, and those that stand there always are always there."""
    client.post("/v1/responses", json=RESPONSE)
    client.get("/v1/unheard_of")
    client.post("/v1/proxy", json={"method": "GET", "path": "/v1/batches"})
    client.post("/v1/responses:stream", json=RESPONSE)
    upstream.faults.add(Fault(status=500))
    client.get("/v1/models")
    with RawConnection(watched.url) as connection:
        connection.send(b"this is no HTTP\r\n\r\n")
        connection.reply()
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = guide.partition("| Field | When | Meaning |")[2].partition("\n\n")[0]
    fields = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE))
    wait_until(lambda: lines_of(watched)[-1]["outcome"] == "malformed_request")
    lines = lines_of(watched)
    for line in lines:
        assert line.keys() <= fields.keys()
        assert {name for name, when in fields.items() if when == "always"} <= line.keys()
    read = [line for line in lines if "method" in line]
    assert all({name for name, when in fields.items() if when == "request read"} <= line.keys() for line in read)
    seen = {name for line in lines for name in line}
    elsewhere = {
        "socket",
        "tool called",
        "tool refused",
        "reply not kept",
        "call repeated",
    }  # each has tests of its own
    assert {name for name, when in fields.items() if when not in elsewhere} <= seen


def test_the_line_of_an_answered_request_is_complete(client: httpx.Client, watched: RelayProcess) -> None:
    """It names what an operator asks for: key, operation, bucket, sizes, times and the upstream's id."""
    reply = client.post("/v1/responses", json=RESPONSE)
    request_id = reply.headers["x-relay-request-id"]
    wait_until(lambda: any(line["request_id"] == request_id for line in lines_of(watched)))
    (line,) = (line for line in lines_of(watched) if line["request_id"] == request_id)
    assert (line["key"], line["operation"], line["bucket"]) == ("bootstrap", "createResponse", "ACTIONS_DIRECT")
    assert (line["bytes_in"], line["bytes_out"]) == (len(reply.request.content), len(reply.content))
    assert (line["upstream_calls"], line["upstream_status"]) == (1, 200)
    assert line["upstream_request_id"] == reply.headers["x-request-id"]
    assert 0 < line["upstream_ms"] <= line["ms"] + 0.1


def test_system_info_tells_what_runs(watched: RelayProcess) -> None:
    """Process, load, checks and settings; of credentials whether they are set."""
    info = httpx.get(f"{watched.url}/actions/system/info", headers=OPERATOR.headers).json()
    assert info["worker"]["pid"] == watched.pid
    assert info["worker"]["uptime_seconds"] > 0
    assert info["load"]["requests"] == 1
    assert info["settings"]["OPENAI_API_KEY"] == info["settings"]["RELAY_KEY"] == "set"
    assert info["settings"]["RELAY_IDLE_TIMEOUT_SECONDS"] == 1.0
    assert UPSTREAM_KEY not in json.dumps(info)


def test_readiness_sees_the_upstream_without_asking_it(
    watched: RelayProcess, client: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """A connection is tried in the background, and no request of the API is made."""
    wait_until(lambda: client.get("/readyz").json()["checks"]["upstream"] == "ok")
    assert upstream.recorder.count == 0


def test_a_relay_stays_up_before_an_upstream_that_is_gone(tmp_path: Path) -> None:
    """It is live and ready, and says what is wrong."""
    with running_relay(tmp_path, f"http://{HOST}:{free_port()}") as relay:
        wait_until(lambda: httpx.get(f"{relay.url}/readyz").json()["checks"]["upstream"] == "failing")
        assert httpx.get(f"{relay.url}/readyz").json()["status"] == "ok"
        assert httpx.get(f"{relay.url}/livez").json() == {"status": "ok"}


def workers_of(relay: RelayProcess) -> list[int]:
    """Process ids of a relay's workers."""
    return [child.pid for child in psutil.Process(relay.pid).children()]


def test_workers_answer_together_and_a_dead_one_takes_nothing_back(
    upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """Whichever worker is asked tells the sum; after SIGKILL counters stay, gauges and workers are those that run."""
    write_keys(tmp_path / "keys.yaml", [OPERATOR])
    port = free_port()
    environment = {
        "RELAY_WORKERS": "2",
        "RELAY_KEY_FILE": str(tmp_path / "keys.yaml"),
        "RELAY_STORE_URL": f"sqlite+aiosqlite:///{tmp_path}/relay.db",
        "RELAY_ARTIFACT_URL": f"file://{tmp_path}/artifacts",
        "RELAY_ARTIFACT_SECRET": "made-up-0123456789abcdef0123456789abcdef",
        "RELAY_METRICS_PORT": str(port),
    }
    labels = {"operation": "listModels"}

    def scraped() -> Scrape:
        return Scrape(httpx.get(f"http://{HOST}:{port}/metrics", timeout=10).raise_for_status().text)

    with running_relay(tmp_path, upstream_server.url, environment) as relay:
        wait_until(lambda: scraped().sum("relay_workers") == 2)
        for _ in range(40):  # a connection each, so that both workers get some
            assert httpx.get(f"{relay.base_url}/models", headers=relay.headers).status_code == 200
        wait_until(lambda: scraped().sum(REQUESTS, **labels) == 40)
        victim = workers_of(relay)[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in workers_of(relay) and len(workers_of(relay)) == 2)
        wait_until(lambda: scraped().sum("relay_workers") == 2)
        assert scraped().sum(REQUESTS, **labels) == 40
        assert httpx.get(f"{relay.base_url}/models", headers=relay.headers).status_code == 200
        wait_until(lambda: scraped().sum(REQUESTS, **labels) == 41)


def test_traces_and_numbers_reach_a_collector(
    upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """A request continues its client's trace, its call to the upstream hangs below it, and goes on from there."""
    with running_collector() as collector:
        environment = {"RELAY_OTEL": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with running_relay(tmp_path, upstream_server.url, environment) as relay:
            headers = {
                **relay.headers,
                "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01",
                "tracestate": "vendor=canary",
                "baggage": "user=canary",
            }
            assert httpx.get(f"{relay.base_url}/models", headers=headers).status_code == 200
            (sent,) = upstream.recorder.requests
            assert httpx.get(f"{relay.base_url}/unheard_of", headers=relay.headers).status_code == 404
    spans = {span.name: span for span in collector.spans()}
    server, call, refused = spans["listModels"], spans["listModels upstream"], spans[UNMATCHED]
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert (call.trace_id, call.parent_span_id) == (server.trace_id, server.span_id)
    assert sent.header("traceparent") == f"00-{TRACE_ID}-{call.span_id.hex()}-01"
    assert sent.header("tracestate") is None
    assert sent.header("baggage") is None
    assert attributes(server)["relay.outcome"] == "answered"
    assert attributes(server)["http.response.status_code"] == attributes(call)["http.response.status_code"] == 200
    assert attributes(refused)["relay.outcome"] == "unknown_operation"
    assert refused.trace_id != server.trace_id
    assert collector.services() == {"chatgpt-team-relay"}
    assert {
        "http.server.request.duration",
        "http.client.request.duration",
        "relay_requests",
    } <= collector.metric_names()
    told = b"".join(collector.raw) + "".join(collector.headers).encode()
    for secret in (relay.key, UPSTREAM_KEY, "canary"):
        assert secret.encode() not in told


def test_without_opentelemetry_no_traceparent_goes_through(client: httpx.Client, upstream: SimulatedUpstream) -> None:
    """A client's trace is none of the upstream's business."""
    client.get("/v1/models", headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"})
    (sent,) = upstream.recorder.requests
    assert sent.header("traceparent") is None


def test_a_collector_that_is_gone_harms_nobody(
    upstream_server: ServerThread, upstream: SimulatedUpstream, tmp_path: Path
) -> None:
    """Requests are answered, and the end of the relay does not wait for it."""
    environment = {"RELAY_OTEL": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{free_port()}"}
    with running_relay(tmp_path, upstream_server.url, environment) as relay:
        assert httpx.get(f"{relay.base_url}/models", headers=relay.headers).status_code == 200
    assert relay.process.returncode == 0


def start_and_fail(settings: dict[str, str], *arguments: str) -> str:
    """Start a relay that cannot run, and return what it says."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "OPENAI_"))}
    finished = subprocess.run(
        [sys.executable, *(arguments or ("-m", "handlers.cli", "serve"))],
        env={**inherited, "RELAY_PORT": "0", "RELAY_KEY": "rk_made-up-0123456789abcdef", **settings},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert finished.returncode == 2
    return finished.stderr


def test_a_missing_extra_stops_the_start() -> None:
    """The message says what to install."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None; sys.argv[1:] = ['serve']; import handlers.cli as c; c.main()"
    )
    said = start_and_fail({"RELAY_OTEL": "true"}, "-c", code)
    assert "chatgpt-team-relay[otel]" in said
    assert "Traceback" not in said


def test_a_tool_that_is_called_is_counted_as_one(
    scrape: Callable[[], Scrape], client: httpx.Client, watched: RelayProcess
) -> None:
    """The call inside is a request of its own; its line leads to the request that brought it."""
    before = scrape()
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "listModels", "arguments": {}},
    }
    reply = client.post("/mcp", json=message, headers={"Accept": "application/json, text/event-stream"})
    assert reply.status_code == 200
    after = scrape()
    labels = {"operation": "listModels", "outcome": "answered"}
    for name in ("relay_tool_calls_total", REQUESTS):
        assert after.sum(name, **labels) - before.sum(name, **labels) == 1
    assert any(line.get("within") == reply.headers["x-relay-request-id"] for line in lines_of(watched))
