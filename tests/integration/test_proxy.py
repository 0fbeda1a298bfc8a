"""`/v1/proxy` in front of a real upstream: what it carries, what it refuses, and that no target leads it astray."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import aiohttp
import httpx
import orjson
import pytest
import uvloop

from codegen.contract import FULL, Bucket, Operation, Scope, load_contract
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.errors import ERROR_TABLE
from handlers.runtime.validation import SchemaSource
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.contract_requests import contract_requests, plain_path
from tests.support.hostile_targets import HostileTarget, HostileTargets, named_operation
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.relay_errors import assert_relay_error
from tests.support.servers import RelayProcess, ServerThread, running_relay
from tests.support.valid_requests import ValidRequest, read_sample
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

CONTRACT = load_contract(GENERATED, FULL)
VERDICT = SchemaSource(CONTRACT).at("#/components/schemas/ProxyVerdict")
PROXIED = [operation for operation in CONTRACT if operation.bucket is Bucket.PROXY_HARNESS]
SAMPLE = Path(__file__).parents[1] / "data" / "valid_requests.jsonl"
DRAWN = 4_500
CLIENTS = 16
MARK = "x-client-request-id"  # crosses to the upstream, so that each request there can be told from the others


@dataclass(frozen=True)
class Keyed:
    """A relay with one key per scope."""

    relay: RelayProcess
    keys: dict[str, MadeKey]

    def client(self, scope: Scope) -> httpx.Client:
        """A client whose key has one scope."""
        return httpx.Client(base_url=self.relay.url, headers=self.keys[scope].headers, timeout=10)


@pytest.fixture(scope="module")
def keyed(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """One key per scope."""
    folder = tmp_path_factory.mktemp("proxy")
    made = {scope.value: make_key(scope.value, scope) for scope in Scope}
    write_keys(folder / "keys.yaml", made.values())
    with running_relay(folder, upstream_server.url, {"RELAY_KEY_FILE": str(folder / "keys.yaml")}) as relay:
        yield Keyed(relay, made)


@pytest.fixture(scope="module")
def caller(keyed: Keyed) -> Iterator[httpx.Client]:
    """A client whose key has the scope `proxy` and no other."""
    with keyed.client(Scope.PROXY) as caller:
        yield caller


@pytest.fixture(scope="module")
def direct(keyed: Keyed) -> Iterator[httpx.Client]:
    """A client whose key has the scope `canonical` and no other."""
    with keyed.client(Scope.CANONICAL) as direct:
        yield direct


def samples() -> dict[str, list[ValidRequest]]:
    """The valid requests of the stored sample that the proxy has to carry, by operationId."""
    found: dict[str, list[ValidRequest]] = {operation.id: [] for operation in PROXIED}
    for request in read_sample(SAMPLE):
        operation = named_operation(CONTRACT, request.method, request.path)
        body = json.loads(request.body or "{}")
        if operation and operation.id in found and isinstance(body, dict) and not body.get("stream"):
            found[operation.id].append(request)
    return found


SAMPLES = samples()


def envelope_of(request: ValidRequest) -> dict[str, Any]:
    """The same request for the proxy."""
    envelope: dict[str, Any] = {"method": request.method, "path": request.path}
    if request.query:
        envelope["query"] = parse_qs(request.query, keep_blank_values=True)
    if request.body is not None:
        envelope["body"] = json.loads(request.body)
    return envelope


def arrived(upstream: SimulatedUpstream) -> tuple[RecordedRequest, object]:
    """The one request that reached the upstream, and its JSON; forgotten afterwards."""
    (record,) = upstream.recorder.requests
    wait_until(lambda: record.status is not None)
    upstream.recorder.clear()
    return record, json.loads(record.body_start) if record.body_size else None


@pytest.mark.parametrize("operation", PROXIED, ids=lambda operation: operation.id)
def test_every_reviewed_operation_works_like_a_direct_call(
    operation: Operation, caller: httpx.Client, direct: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """Method, path, query and body reach the upstream as by a direct call, and the answer is of the same kind."""
    assert SAMPLES[operation.id]
    for request in SAMPLES[operation.id]:
        envelope = envelope_of(request)
        proxied = caller.post("/v1/proxy", json=envelope)
        through, through_body = arrived(upstream)
        # The relay writes the query by itself; only names in another order would be another request.
        query = urlencode(envelope.get("query", {}), doseq=True, quote_via=quote)
        headers = {"content-type": "application/json"} if request.body is not None else {}
        url = httpx.URL(request.path, query=query.encode()) if query else request.path
        answer = direct.request(request.method, url, content=request.body, headers=headers)
        straight, straight_body = arrived(upstream)
        assert through.operation_id == operation.id
        assert (through.method, through.path, through.query) == (straight.method, straight.path, straight.query)
        assert through_body == straight_body
        assert through.header("content-type") == straight.header("content-type")
        assert proxied.status_code == answer.status_code
        assert proxied.headers.get("content-type") == answer.headers.get("content-type")
        for name in ("deprecation", "sunset"):
            assert proxied.headers.get(name) == answer.headers.get(name)


@pytest.mark.parametrize("operation", PROXIED, ids=lambda operation: operation.id)
def test_a_dry_run_of_a_reviewed_operation_calls_nobody(
    operation: Operation, caller: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """It says that the call is allowed, by which review and why."""
    request = SAMPLES[operation.id][0]
    reply = caller.post("/v1/proxy", json={**envelope_of(request), "dry_run": True})
    verdict = reply.json()
    VERDICT.validate(verdict)
    assert (reply.status_code, verdict["allowed"], verdict["error"]) == (200, True, None)
    assert (verdict["operation_id"], verdict["review"]) == (operation.id, operation.review)
    assert verdict["reason"] == CONTRACT.reviews[operation.review].requirement
    assert upstream.recorder.count == 0


@pytest.mark.parametrize("scope", Scope)
def test_the_scope_proxy_alone_opens_the_proxy(scope: Scope, keyed: Keyed, upstream: SimulatedUpstream) -> None:
    """No other scope does, and `proxy` opens nothing else: not even what may be called through it."""
    call = {"method": "GET", "path": "/v1/batches"}
    with keyed.client(scope) as client:
        reply = client.post("/v1/proxy", json=call)
        if scope is Scope.PROXY:
            assert reply.status_code == 200
            assert upstream.recorder.count == 1
            assert_relay_error(client.get("/v1/batches"), exc.InsufficientScope)
            assert upstream.recorder.count == 1
        else:
            assert_relay_error(reply, exc.InsufficientScope)
            assert_relay_error(client.post("/v1/proxy", json={**call, "dry_run": True}), exc.InsufficientScope)
            assert upstream.recorder.count == 0


def test_a_body_that_does_not_fit_is_refused_as_a_direct_call_is(
    caller: httpx.Client, direct: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """For every reviewed operation with a body: one error, with the place inside the call's own body."""
    for operation in PROXIED:
        if operation.body is None:
            continue
        request = next(contract_requests(CONTRACT, operation))
        bodies: list[dict[str, Any]] = [{}, {name: [[]] for name in json.loads(request.content or b"{}")}]
        for content in bodies:
            call = {"method": operation.method, "path": request.path, "body": content}
            verdict = caller.post("/v1/proxy", json={**call, "dry_run": True}).json()
            if verdict["allowed"]:
                continue
            proxied = caller.post("/v1/proxy", json=call)
            straight = direct.request(request.method, request.path, json=content)
            error = assert_relay_error(straight, exc.InvalidBody)
            assert assert_relay_error(proxied, exc.InvalidBody) == verdict["error"]
            assert verdict["error"]["param"] == ".".join(filter(None, ("body", error["param"])))
    assert upstream.recorder.count == 0


def test_operations_of_other_buckets_are_refused_whatever_comes_along(
    caller: httpx.Client, upstream: SimulatedUpstream
) -> None:
    """All of them that are below `/v1/`, with each body of their own that JSON can say."""
    for operation in CONTRACT:
        if operation.bucket is Bucket.PROXY_HARNESS or not operation.path.startswith("/v1/"):
            continue
        call = {"method": operation.method, "path": plain_path(operation)}
        bodies = [r.content for r in contract_requests(CONTRACT, operation)] if operation.body else []
        for body in [None, *(json.loads(c) for c in bodies if c and c.startswith(b"{"))]:
            if body and body.get("stream"):
                continue
            whole = call if body is None else {**call, "body": body}
            error = assert_relay_error(caller.post("/v1/proxy", json=whole), _refusal(operation))
            verdict = caller.post("/v1/proxy", json={**whole, "dry_run": True}).json()
            VERDICT.validate(verdict)
            assert (verdict["rule"], verdict["error"]) == ("proxy-bucket", error)
    assert upstream.recorder.count == 0


def _refusal(operation: Operation) -> type[exc.RelayError]:
    # A method that the envelope does not know is no question of the bucket.
    return exc.OperationNotProxied if operation.method in {"DELETE", "GET", "POST"} else exc.InvalidBody


def test_internal_operations_look_like_unknown_ones(caller: httpx.Client, upstream: SimulatedUpstream) -> None:
    """The reply to a call of one is that to a path that nobody has, letter by letter; also in a dry run."""
    internal = [operation for operation in CONTRACT if not operation.published]
    assert internal
    for operation in internal:
        for path in (operation.path, f"/v1{operation.path}", operation.path.replace("/actions/", "/v1/actions/")):
            for extra in ({}, {"dry_run": True}):
                call = {"method": operation.method, "path": path, **extra}
                known = caller.post("/v1/proxy", json=call)
                unknown = caller.post("/v1/proxy", json={**call, "path": path.replace("system", "unheard_of")})
                assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
                assert operation.id not in known.text
                assert set(known.headers) == set(unknown.headers)
    assert upstream.recorder.count == 0


def test_what_is_not_json_stays_behind(caller: httpx.Client, upstream: SimulatedUpstream) -> None:
    """An event stream or a file that the upstream answers unasked becomes an error; its own errors pass."""
    call = {"method": "GET", "path": "/v1/batches"}
    for media_type in ("text/event-stream", "application/octet-stream"):
        upstream.faults.add(Fault(headers={"content-type": media_type}, times=1))
        assert_relay_error(caller.post("/v1/proxy", json=call), exc.UpstreamProtocolError)
    upstream.faults.add(Fault(status=503, body={"from": "upstream"}, times=1))
    failed = caller.post("/v1/proxy", json=call)
    assert (failed.status_code, failed.json()) == (503, {"from": "upstream"})
    assert caller.post("/v1/proxy", json=call).json()["object"] == "list"
    assert upstream.recorder.count == 4


def test_refusals_about_an_operation_that_ends_say_so_and_others_do_not(caller: httpx.Client) -> None:
    """The headers are those of the target of this call, also behind a call of another one."""
    for path, ends in (("/v1/evals", True), ("/v1/batches", False), ("/v1/evals", True), ("/v1/batches", False)):
        for extra in ({}, {"query": {"limit": "x"}}, {"dry_run": True}):
            reply = caller.post("/v1/proxy", json={"method": "GET", "path": path, **extra})
            assert ("deprecation" in reply.headers, "sunset" in reply.headers) == (ends, ends)


def test_the_log_names_operation_and_target(caller: httpx.Client, keyed: Keyed) -> None:
    """One line a request: through which operation it came and which one was called or refused."""
    for path, target in (("/v1/batches/batch_secret_name", "retrieveBatch"), ("/v1/models", "listModels")):
        request_id = caller.post("/v1/proxy", json={"method": "GET", "path": path}).headers["x-relay-request-id"]
        line = _logged(keyed.relay, request_id)
        assert (line["operation"], line["target"], line["key"]) == ("forwardRequest", target, "proxy")
    assert "batch_secret_name" not in keyed.relay.printed()


def _logged(relay: RelayProcess, request_id: str) -> dict[str, Any]:
    """The line that the relay logged about a request."""
    wait_until(lambda: request_id in relay.printed())
    (line,) = (json.loads(line) for line in relay.printed().splitlines() if request_id in line)
    logged: dict[str, Any] = line
    return logged


def test_operators_see_the_routes_that_are_bound(keyed: Keyed) -> None:
    """Every operation of the contract with its function, in the contract's order; only for operators."""
    with keyed.client(Scope.OPERATOR) as operator:
        listed = operator.get("/actions/system/routes").json()["data"]
    assert [(r["method"], r["path"], r["operation_id"]) for r in listed] == [(o.method, o.path, o.id) for o in CONTRACT]
    functions = {route["operation_id"]: route["function"] for route in listed}
    assert functions["forwardRequest"] == "handlers.proxy.forward_request"
    assert {functions[operation.id] for operation in PROXIED} == {"handlers.runtime.forwarder.forward"}
    with keyed.client(Scope.CANONICAL) as other:
        assert_relay_error(other.get("/actions/system/routes"), exc.InsufficientScope)


@dataclass(frozen=True)
class Outcome:
    """What became of one target: of the call, and of a dry run of it."""

    target: HostileTarget
    status: int
    content: bytes
    reached: tuple[RecordedRequest, ...]
    dry_status: int
    dry_content: bytes


@pytest.fixture(scope="module")
def outcomes(keyed: Keyed, upstream_app: SimulatedUpstream) -> list[Outcome]:
    """All hostile targets, sent once each, after a dry run of each."""
    upstream_app.recorder.clear()
    upstream_app.faults.clear()
    made = HostileTargets(CONTRACT, PROXIED)
    targets = [*made.systematic(), *made.drawn(DRAWN)]
    dry = uvloop.run(_send_all(keyed, [_dry(target) for target in targets]))
    assert upstream_app.recorder.count == 0, "a dry run reached the upstream"
    real = uvloop.run(_send_all(keyed, targets))
    reached: dict[str, list[RecordedRequest]] = {}
    for record in upstream_app.recorder.requests:
        reached.setdefault(str(record.header(MARK)), []).append(record)
    assert sum(map(len, reached.values())) == upstream_app.recorder.count, "the recorder must not have dropped any"
    return [
        Outcome(target, *real[number], tuple(reached.get(str(number), ())), *dry[number])
        for number, target in enumerate(targets)
    ]


def _dry(target: HostileTarget) -> HostileTarget:
    content = target.content
    if target.method is not None and target.path is not None and b"dry_run" not in content:
        content = content.removesuffix(b"}") + b',"dry_run":true}'
    return HostileTarget(target.kind, content, target.method, target.path, target.headers)


async def _send_all(keyed: Keyed, targets: list[HostileTarget]) -> list[tuple[int, bytes]]:
    replies: list[tuple[int, bytes]] = [(0, b"")] * len(targets)
    numbers = iter(range(len(targets)))

    async def client(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            headers = {"content-type": "application/json", **targets[number].headers, MARK: str(number)}
            async with session.post("/v1/proxy", data=targets[number].content, headers=headers) as reply:
                replies[number] = (reply.status, await reply.read())

    async with aiohttp.ClientSession(keyed.relay.url, headers=keyed.keys[Scope.PROXY].headers) as session:
        await asyncio.gather(*(client(session) for _ in range(CLIENTS)))
    return replies


def test_no_target_reaches_anything_but_the_operation_that_it_names(outcomes: list[Outcome]) -> None:
    """Of 10,000 hostile targets each is refused by the relay, or is one call of a reviewed operation, exactly."""
    assert len({(o.target.content, tuple(o.target.headers.items())) for o in outcomes}) >= 10_000
    codes = {rule.code: rule.status for rule in ERROR_TABLE.values()}
    passed: Counter[str] = Counter()
    for outcome in outcomes:
        target = outcome.target
        if not outcome.reached:
            error = orjson.loads(outcome.content)["error"]
            assert str(error["type"]).startswith("relay_"), target
            assert outcome.status == codes[error["code"]], target
            assert outcome.status in {400, 403, 404, 413}, (target, error)
            continue
        (record,) = outcome.reached
        operation = named_operation(CONTRACT, target.method, target.path)
        assert operation is not None, target
        assert operation.bucket is Bucket.PROXY_HARNESS, target
        assert (record.method, record.path) == (target.method, target.path), target
        assert record.operation_id == operation.id, target
        assert not record.header("x-http-method-override"), target
        passed[target.kind] += 1
    assert {"own example", "override", "hidden in values"} <= set(passed), "strange, but allowed"


def test_some_kinds_never_pass(outcomes: list[Outcome]) -> None:
    """Escapes, separators, control characters, other scripts, foreign hosts, streams and nested calls: not one."""
    never = {
        *(
            "encoded",
            "encoded twice",
            "overlong",
            "encoded separator",
            "slashes",
            "control characters",
            "other scripts",
        ),
        *("dot segments", "homoglyph", "authority", "no leading slash", "made-up method", "stream", "nested"),
        *("nested twice", "unknown field", "broken JSON", "two names", "stream in a text", "object and text"),
    }
    assert never <= {outcome.target.kind for outcome in outcomes}
    assert [outcome.target for outcome in outcomes if outcome.target.kind in never and outcome.reached] == []


def test_a_text_travels_as_the_one_object_that_it_holds(outcomes: list[Outcome]) -> None:
    """Whatever reads the text as strictly as JSON is defined, a name that stands twice included, reads the same."""

    def pairs_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    travelled = 0
    for outcome in outcomes:
        if outcome.reached and outcome.target.kind in {"strange text", "hidden in values"}:
            envelope = json.loads(outcome.target.content)
            (record,) = outcome.reached
            if "body_json" in envelope:
                wanted = json.loads(envelope["body_json"], object_pairs_hook=pairs_once)
                assert isinstance(wanted, dict)
                assert json.loads(record.body_start) == wanted, outcome.target
                travelled += 1
            if "query_json" in envelope:
                wanted = json.loads(envelope["query_json"], object_pairs_hook=pairs_once)
                assert set(parse_qs(record.query, keep_blank_values=True)) == set(wanted), outcome.target
                travelled += 1
    assert travelled > 0


def test_a_dry_run_says_what_the_call_does(outcomes: list[Outcome]) -> None:
    """Allowed is what was sent on, the error is that of the call, and the operation is the one literally named."""
    judged = 0
    for outcome in outcomes:
        target = outcome.target
        verdict = orjson.loads(outcome.dry_content)
        if outcome.dry_status != 200:  # the envelope itself does not fit
            assert not outcome.reached, target
            assert (outcome.dry_status, outcome.dry_content) == (outcome.status, outcome.content), target
            continue
        judged += 1
        operation = named_operation(CONTRACT, target.method, target.path)
        assert verdict["allowed"] == bool(outcome.reached), target
        if not outcome.reached:
            assert verdict["error"] == orjson.loads(outcome.content)["error"], target
        if verdict["operation_id"] is not None:
            assert operation is not None, target
            assert (verdict["operation_id"], verdict["bucket"]) == (operation.id, operation.bucket), target
    assert judged > len(outcomes) / 4
