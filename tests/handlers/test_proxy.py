import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest

from codegen.contract import FULL, Bucket, Contract, Exclusion, Scope, load_contract
from codegen.reader import Document
from handlers.proxy import forward_request
from handlers.runtime import exceptions as exc
from handlers.runtime.app import GENERATED
from handlers.runtime.errors import describe_error
from handlers.runtime.matching import OperationIndex
from handlers.runtime.messages import Reply, Request
from handlers.runtime.routes import build_routes
from handlers.runtime.services import Services
from handlers.runtime.validation import SchemaSource
from tests.handlers.conftest import MakeRequest
from tests.handlers.runtime.transports import Pieces, Transport, upstream
from tests.support.contract_requests import plain_path
from tests.support.documents import decide, edited

CONTRACT = load_contract(GENERATED, FULL)
VERDICT = SchemaSource(CONTRACT).at("#/components/schemas/ProxyVerdict")
MARK = "zq7mark"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}
BATCH = {"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h"}
UNFIT = {**BATCH, "endpoint": 5}
HUGE = {**BATCH, "x": float("inf")}
ENDLESS = "x" * 40_000
WRAPPED = {"model": "m", "input": "Hello."}

Call = Callable[..., Request]


def to(method: str, path: str, **rest: Any) -> dict[str, Any]:
    """A `ProxyRequest`."""
    return {"method": method, "path": path, **rest}


# Every way to be refused: what is asked, the error, its `param`, and the rule that a dry run names.
REFUSALS: dict[str, tuple[dict[str, Any], type[exc.RelayError], str | None, str]] = {
    "unknown path": (to("GET", "/v1/unheard_of"), exc.UnknownOperation, None, "proxy-bucket"),
    "unknown method": (to("DELETE", "/v1/batches"), exc.UnknownOperation, None, "proxy-bucket"),
    "path that is not plain": (to("GET", "/v1/batches/a%2Fb"), exc.UnknownOperation, None, "proxy-bucket"),
    "path of a page": (to("GET", "/health"), exc.UnknownOperation, None, "proxy-bucket"),
    "for assistants": (to("GET", "/v1/models"), exc.OperationNotProxied, None, "proxy-bucket"),
    "multipart": (to("POST", "/v1/files"), exc.OperationNotProxied, None, "proxy-bucket"),
    "custom verb": (to("POST", "/v1/responses:stream", body={}), exc.OperationNotProxied, None, "proxy-bucket"),
    "binary": (to("GET", "/v1/files/file-1/content"), exc.OperationNotProxied, None, "proxy-bucket"),
    "unsupported": (to("GET", "/v1/organization/users"), exc.OperationNotProxied, None, "proxy-bucket"),
    "wrapper": (to("POST", "/v1/actions/responses", body=WRAPPED), exc.OperationNotProxied, None, "proxy-bucket"),
    "itself": (to("POST", "/v1/proxy", body=to("GET", "/v1/batches")), exc.OperationNotProxied, None, "proxy-bucket"),
    "query value": (to("GET", "/v1/batches", query={"limit": "x"}), exc.InvalidParameter, "limit", "proxy-as-direct"),
    "query number": (to("GET", "/v1/batches", query={"limit": 1.5}), exc.InvalidParameter, "limit", "proxy-as-direct"),
    "query size": (to("GET", "/v1/batches", query={"a": ENDLESS}), exc.InvalidParameter, None, "proxy-as-direct"),
    "body value": (to("POST", "/v1/batches", body=UNFIT), exc.InvalidBody, "body.endpoint", "proxy-as-direct"),
    "body field": (to("POST", "/v1/batches", body={}), exc.InvalidBody, "body", "proxy-as-direct"),
    "no body": (to("POST", "/v1/batches"), exc.MissingBody, None, "proxy-as-direct"),
    "needless body": (to("GET", "/v1/batches", body={}), exc.InvalidBody, "body", "proxy-as-direct"),
    "huge number": (to("POST", "/v1/batches", body=HUGE), exc.InvalidBody, None, "proxy-as-direct"),
    "text that is no JSON": (
        to("GET", "/v1/batches", query_json="limit=5"),
        exc.MalformedJson,
        "query_json",
        "proxy-as-direct",
    ),
    "text with nothing in it": (
        to("POST", "/v1/batches", body_json=""),
        exc.MalformedJson,
        "body_json",
        "proxy-as-direct",
    ),
    "text nested too deep": (
        to("POST", "/v1/batches", body_json='{"a":' * 300 + "1" + "}" * 300),
        exc.MalformedJson,
        "body_json",
        "proxy-as-direct",
    ),
    "text with a name twice": (
        to("POST", "/v1/batches", body_json='{"metadata": {"a": "b", "\\u0061": "c"}}'),
        exc.DuplicateKey,
        "body_json",
        "proxy-as-direct",
    ),
    "text of a list": (to("GET", "/v1/batches", query_json="[]"), exc.InvalidBody, "query_json", "proxy-as-direct"),
    "text of null": (to("POST", "/v1/batches", body_json="null"), exc.InvalidBody, "body_json", "proxy-as-direct"),
    "text of a text": (to("POST", "/v1/batches", body_json='"{}"'), exc.InvalidBody, "body_json", "proxy-as-direct"),
    "text of a number": (to("POST", "/v1/batches", body_json="1"), exc.InvalidBody, "body_json", "proxy-as-direct"),
    "both queries": (
        to("GET", "/v1/batches", query={}, query_json="{}"),
        exc.InvalidBody,
        "query_json",
        "proxy-as-direct",
    ),
    "both bodies": (
        to("POST", "/v1/batches", body=BATCH, body_json="{}"),
        exc.InvalidBody,
        "body_json",
        "proxy-as-direct",
    ),
    "text of a query with an object": (
        to("GET", "/v1/batches", query_json='{"limit": {"a": 1}}'),
        exc.InvalidBody,
        "query",
        "proxy-as-direct",
    ),
    "text of a query with null": (
        to("GET", "/v1/batches", query_json='{"limit": null}'),
        exc.InvalidBody,
        "query",
        "proxy-as-direct",
    ),
    "text of a query that does not fit": (
        to("GET", "/v1/batches", query_json='{"limit": "x"}'),
        exc.InvalidParameter,
        "limit",
        "proxy-as-direct",
    ),
    "text of a query that is too long": (
        to("GET", "/v1/batches", query_json=orjson.dumps({"a": "%" * 15_000}).decode()),
        exc.InvalidParameter,
        None,
        "proxy-as-direct",
    ),
    "text of a body that does not fit": (
        to("POST", "/v1/batches", body_json=orjson.dumps(UNFIT).decode()),
        exc.InvalidBody,
        "body.endpoint",
        "proxy-as-direct",
    ),
    "text of a needless body": (to("GET", "/v1/batches", body_json="{}"), exc.InvalidBody, "body", "proxy-as-direct"),
    "text of a huge number": (
        to("POST", "/v1/batches", body_json=orjson.dumps(BATCH).decode().replace("}", ', "x": 1e999}')),
        exc.InvalidBody,
        None,
        "proxy-as-direct",
    ),
    "text for nobody": (to("POST", "/v1/unheard_of", body_json="{}"), exc.UnknownOperation, None, "proxy-bucket"),
    "text for a wrapper": (
        to("POST", "/v1/actions/responses", body_json=orjson.dumps(WRAPPED).decode()),
        exc.OperationNotProxied,
        None,
        "proxy-bucket",
    ),
    "stream": (
        to("POST", "/v1/chat/completions", body={**CHAT, "stream": True}),
        exc.StreamingNotAllowed,
        "body.stream",
        "proxy-unstreamed",
    ),
}


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Transport:
    """What stands for the upstream; it answers JSON."""
    made = Transport()
    made.answer = lambda: httpx.Response(200, headers={"content-type": "application/json"}, content=b'{"a": 1}')
    monkeypatch.setattr("handlers.runtime.upstream.Transport", lambda *_: made)
    return made


@pytest.fixture
def services(own_services: Services, transport: Transport) -> Services:
    """Services of a relay before that transport."""
    del transport
    return replace(own_services, upstream=upstream())


@pytest.fixture
def call(request_of: MakeRequest, services: Services) -> Call:
    """Makes a request to the proxy; its body fits the contract."""

    def make(body: dict[str, Any], services: Services = services, **fields: Any) -> Request:
        services.routes["forwardRequest"].validator.check_body(body)
        return request_of("forwardRequest", services=services, body=body, **fields)

    return make


async def content_of(reply: Reply) -> bytes:
    """The whole body of a reply."""
    return reply.body if isinstance(reply.body, bytes) else b"".join([piece async for piece in reply.body])


async def verdict_on(request: Request) -> Any:
    """What a dry run of the same call says."""
    dry = replace(request, body={**request.body, "dry_run": True})
    reply = await forward_request(dry)
    assert reply.status == 200
    verdict = orjson.loads(await content_of(reply))
    VERDICT.validate(verdict)
    return verdict


def bound(services: Services, contract: Contract) -> Services:
    """The same relay with another contract."""
    routes = build_routes(contract)
    index = OperationIndex((route.operation, route) for route in routes.values())
    return replace(services, contract=contract, routes=routes, index=index)


async def test_an_allowed_call_goes_upstream_like_a_direct_one(call: Call, transport: Transport) -> None:
    """Method, path, query and body are those that were named; headers cross by the same list."""
    received = [(b"content-type", b"application/json; charset=utf-8"), (b"cookie", b"a=b"), (b"idempotency-key", b"k")]
    body = to("POST", "/v1/batches", query={"beta": "true"}, body=BATCH)
    reply = await forward_request(call(body, headers=received))
    (sent,), (content,) = transport.requests, transport.bodies
    assert (sent.method, str(sent.url)) == ("POST", "https://api.example/v1/batches?beta=true")
    assert orjson.loads(content) == BATCH
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["content-length"] == str(len(content))
    assert sent.headers["idempotency-key"] == "k"
    assert "cookie" not in sent.headers
    assert (reply.status, await content_of(reply)) == (200, b'{"a": 1}')


async def test_objects_may_come_as_texts(call: Call, transport: Transport) -> None:
    """Query and body that were written into strings go upstream like those that were not."""
    query, content = {"limit": 5, "a": ["x", True]}, {**BATCH, "metadata": {"a": "\u00fc"}}
    plain = to("POST", "/v1/batches", query=query, body=content)
    texts = to("POST", "/v1/batches", query_json=orjson.dumps(query).decode(), body_json=orjson.dumps(content).decode())
    for body in (plain, texts, {**plain, "dry_run": True}, {**texts, "dry_run": True}):
        await forward_request(call(body))
    assert len(transport.requests) == 2
    assert transport.requests[0].url == transport.requests[1].url
    assert transport.bodies[0] == transport.bodies[1]
    assert orjson.loads(transport.bodies[0]) == content
    verdicts = [await verdict_on(call(body)) for body in (plain, texts)]
    assert verdicts[0] == verdicts[1]


async def test_a_call_without_a_body_sends_none(call: Call, transport: Transport) -> None:
    """The envelope's own body and its media type stay behind."""
    body = to("POST", "/v1/batches/Batch_1.a:B/cancel")
    await forward_request(call(body, headers=[(b"content-type", b"application/json")]))
    assert transport.requests[0].url.path == body["path"], "letter for letter"
    assert transport.bodies == [b""]
    assert not {"content-type", "content-length", "transfer-encoding"} & set(transport.requests[0].headers)


@pytest.mark.parametrize(
    "query, expected",
    [
        ({"limit": 5}, "limit=5"),
        ({"a": ["x", "y"], "b": "z"}, "a=x&a=y&b=z"),
        ({"a": True, "b": [False, 0, 2.5]}, "a=true&b=false&b=0&b=2.5"),
        ({"a": "x y&z=1#?/;+%41", "b[c]": "ü"}, "a=x%20y%26z%3D1%23%3F%2F%3B%2B%2541&b%5Bc%5D=%C3%BC"),
        ({"a": "\r\nHost: x\0"}, "a=%0D%0AHost%3A%20x%00"),
        ({"a": []}, ""),
        ({"stream": False}, "stream=false"),
    ],
    ids=str,
)
async def test_the_query_is_written_by_the_relay(
    call: Call, transport: Transport, query: dict[str, Any], expected: str
) -> None:
    """Names and values are encoded, so that none can become another parameter, a path or a header."""
    await forward_request(call(to("GET", "/v1/batches", query=query)))
    assert transport.requests[0].url.query.decode() == expected


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_is_refused_stays_here_and_dry_run_and_call_agree(
    call: Call, transport: Transport, case: tuple[dict[str, Any], type[exc.RelayError], str | None, str]
) -> None:
    """The call raises, the dry run answers the very same error with the rule's name, and no upstream is asked."""
    body, error, param, rule = case
    request = call(body)
    with pytest.raises(error) as caught:
        await forward_request(request)
    assert caught.value.param == param
    verdict = await verdict_on(request)
    assert (verdict["allowed"], verdict["rule"]) == (False, rule)
    assert verdict["error"] == describe_error(caught.value)
    assert verdict["reason"] == verdict["error"]["message"]
    assert transport.requests == []


async def test_a_dry_run_of_an_allowed_call_names_the_review_and_calls_nobody(call: Call, transport: Transport) -> None:
    """The contract's own example of a dry run is answered with its own example of a verdict."""
    examples = CONTRACT.document["components"]["examples"]
    reply = await forward_request(call(examples["proxyDryRun"]["value"]))
    assert orjson.loads(await content_of(reply)) == examples["proxyVerdict"]["value"]
    assert transport.requests == []


async def test_the_bucket_alone_decides(call: Call, transport: Transport) -> None:
    """Of all operations below `/v1/` exactly those that are PROXY_HARNESS get past the question of the bucket."""
    for operation in CONTRACT:
        if operation.path.startswith("/v1/"):
            verdict = await verdict_on(call(to(operation.method, plain_path(operation))))
            proxied = operation.bucket is Bucket.PROXY_HARNESS
            assert (verdict["rule"] != "proxy-bucket") == proxied, operation.id
            assert (verdict["operation_id"], verdict["bucket"]) == (operation.id, operation.bucket)
            assert verdict["review"] == (operation.review if proxied else None)
            assert verdict["allowed"] or verdict["error"]["code"] in {"operation_not_proxied", "missing_body"}
    assert transport.requests == []


async def test_a_refusal_says_what_to_do_instead(call: Call) -> None:
    """It names operation, bucket, and the way that is open: a scope, the wrapper, or none with the reason."""
    directly = "Call it directly, with a key that has the scope"
    reason = CONTRACT.operations["list-users"].reason
    for method, path, who, instead in (
        ("GET", "/v1/models", "`listModels` is ACTIONS_DIRECT", f"{directly} `actions` or `canonical`."),
        ("POST", "/v1/responses", "`createResponse` is ACTIONS_DIRECT", f"{directly} `actions` or `canonical`."),
        ("POST", "/v1/containers/a/files", "`CreateContainerFile` is WRAPPER_REQUIRED", f"{directly} `canonical`."),
        ("POST", "/v1/files", "`createFile` is WRAPPER_REQUIRED", "Call its wrapper `uploadFile` instead."),
        ("POST", "/v1/actions/files/upload", "`uploadFile` is ACTIONS_DIRECT", f"{directly} `actions`."),
        ("POST", "/v1/proxy", "`forwardRequest` is ACTIONS_DIRECT", f"{directly} `proxy`."),
        ("DELETE", "/v1/models/m", "`deleteModel` is EXCLUDED", f"{directly} `canonical`."),
        (
            "GET",
            "/v1/organization/users",
            "`list-users` is EXCLUDED",
            f"This relay does not serve the operation. {reason}",
        ),
    ):
        with pytest.raises(exc.OperationNotProxied) as caught:
            await forward_request(call(to(method, path)))
        assert caught.value.message == f"{who}; the proxy carries PROXY_HARNESS only. {instead}"


async def test_an_internal_operation_looks_like_an_unknown_one(call: Call, services: Services) -> None:
    """Error, dry run and log say nothing that they would not say about a path that nobody has."""

    def make_internal(document: Document) -> None:
        node = decide(
            document, "listBatches", bucket=Bucket.EXCLUDED, exclusion=Exclusion.INTERNAL, reason="For a test."
        )
        node["security"] = [{"relayBearer": [Scope.OPERATOR]}]

    relay = bound(services, edited(CONTRACT, make_internal))
    seen = []
    for path in ("/v1/batches", "/v1/unheard_of"):
        request = call(to("GET", path), relay)
        with pytest.raises(exc.UnknownOperation) as caught:
            await forward_request(request)
        seen.append((describe_error(caught.value), await verdict_on(request), request.log, request.reply_headers))
    assert seen[0] == seen[1]
    assert seen[0][2] == {}


NOT_PLAIN = (
    *("/v1/batches/", "/v1//batches", "/v1/batches?limit=1", "/v1/batches#a", "/v1/batches/%62", "/v1/./batches"),
    *("/v1/models/../batches", "/v1/batches;a=b", "/v1/batches\n", "/v1/batches\\a", "/v1/b\u00e4tches", "/v1/\uff42"),
    *("/v1", "/v1/", "", "/", "v1/batches", "/V1/batches", "/batches", "//v1/batches", " /v1/batches", "/v1/batches "),
    *("https://api.example/v1/batches", "//evil.test/v1/batches", "/v1/:cancel", "/v1/.batches", "/v1/batches\0"),
    *("/v1/batches/\u0661", "/v1/batches\u2028", "/v1/batches\r\nHost: a"),
)


@pytest.mark.parametrize("path", NOT_PLAIN, ids=ascii)
async def test_a_path_that_is_not_plain_names_nothing(call: Call, transport: Transport, path: str) -> None:
    """It is refused as unknown before anything else is looked at, and the message says what a path may hold."""
    for rest in ({}, {"body": {"stream": True}}, {"body_json": "no JSON"}):
        request = call(to("GET", path, **rest))
        with pytest.raises(
            exc.UnknownOperation, match="plain segments: no percent-encoding, no dot segments, no query"
        ):
            await forward_request(request)
        verdict = await verdict_on(request)
        assert (verdict["rule"], verdict["operation_id"]) == ("proxy-bucket", None)
        assert request.log == {}
    assert transport.requests == []


@pytest.mark.parametrize("place", ["body", "query"])
@pytest.mark.parametrize("value", [True, "true", "false", 1, 0, "", [True], [False]], ids=repr)
@pytest.mark.parametrize("name", ["stream", "stream[]"])
async def test_a_stream_is_refused_before_the_target_is_looked_at(
    call: Call, transport: Transport, place: str, value: object, name: str
) -> None:
    """Whatever its type, on every target alike; only false and null do not ask for one."""
    for path in ("/v1/chat/completions", "/v1/organization/users", "/v1/unheard_of"):
        text = orjson.dumps({name: value}).decode()
        for fields in ({place: {name: value}}, {f"{place}_json": text}):
            with pytest.raises(exc.StreamingNotAllowed) as caught:
                await forward_request(call(to("POST", path, **fields)))
            assert caught.value.param == f"{place}.stream"
    assert transport.requests == []


@pytest.mark.parametrize("value", [False, None], ids=repr)
async def test_no_stream_may_be_asked_for_in_words(call: Call, transport: Transport, value: object) -> None:
    """`stream: false` and `stream: null` travel on."""
    await forward_request(call(to("POST", "/v1/chat/completions", body={**CHAT, "stream": value})))
    assert orjson.loads(transport.bodies[0]) == {**CHAT, "stream": value}


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8"])
async def test_json_comes_back_in_its_original_bytes(call: Call, transport: Transport, media_type: str) -> None:
    """The answer is passed on as it comes, and its status with it."""
    transport.answer = lambda: httpx.Response(201, headers={"content-type": media_type}, content=b' {"b":1.10}')
    reply = await forward_request(call(to("GET", "/v1/batches")))
    assert (reply.status, await content_of(reply)) == (201, b' {"b":1.10}')


@pytest.mark.parametrize(
    "status, headers, pieces",
    [
        (200, {"content-type": "text/event-stream"}, [b"data: x\n\n"]),
        (200, {"content-type": "application/octet-stream"}, [b"x"]),
        (200, {"content-type": "application/jsonl"}, [b"{}\n{}"]),
        (200, {"content-type": "text/html"}, []),
        (200, {}, [b"", b"x"]),
        (302, {"content-type": "text/html"}, [b"moved"]),
    ],
)
async def test_nothing_but_json_comes_back(
    call: Call, transport: Transport, status: int, headers: dict[str, str], pieces: list[bytes]
) -> None:
    """Events, files, pages and what does not say its type are given up, and their connection is closed."""
    body = Pieces(*pieces)
    transport.answer = lambda: httpx.Response(status, headers=headers, stream=body)
    with pytest.raises(exc.UpstreamProtocolError):
        await forward_request(call(to("GET", "/v1/batches")))
    assert body.closed == 1


@pytest.mark.parametrize("status", [200, 204, 304])
async def test_an_answer_that_says_nothing_passes(call: Call, transport: Transport, status: int) -> None:
    """Without a media type and without a byte; the relay counts the length itself."""
    body = Pieces()
    headers = {"content-length": "0", "etag": "e"}
    transport.answer = lambda: httpx.Response(status, headers=headers, stream=body)
    reply = await forward_request(call(to("DELETE", "/v1/containers/c-1")))
    assert (reply.status, reply.headers, reply.body) == (status, [(b"etag", b"e")], b"")
    assert body.closed == 1


async def test_an_answer_that_breaks_off_is_closed(call: Call, transport: Transport) -> None:
    """Also when it would have said nothing."""
    body = Pieces(error=httpx.ReadError("gone"))
    transport.answer = lambda: httpx.Response(200, stream=body)
    with pytest.raises(exc.UpstreamProtocolError):
        await forward_request(call(to("GET", "/v1/batches")))
    assert body.closed == 1


@pytest.mark.parametrize("media_type", ["application/json", "text/html", "text/event-stream"])
async def test_errors_of_the_upstream_pass_whatever_they_are(call: Call, transport: Transport, media_type: str) -> None:
    """Status, media type and body of an error are the upstream's own."""
    transport.answer = lambda: httpx.Response(429, headers={"content-type": media_type}, content=b"slow down")
    reply = await forward_request(call(to("GET", "/v1/batches")))
    assert (reply.status, await content_of(reply)) == (429, b"slow down")
    assert (b"content-type", media_type.encode()) in reply.headers


async def test_an_operation_that_ends_says_so_through_the_proxy_too(call: Call) -> None:
    """`Deprecation` and `Sunset` of the target are on answers, verdicts and refusals; of the others there are none."""
    for path, body, refused in (("/v1/evals", {}, True), ("/v1/evals", None, False), ("/v1/batches", None, False)):
        method = "POST" if refused else "GET"
        request = call(to(method, path, **({} if body is None else {"body": body})))
        if refused:
            with pytest.raises(exc.InvalidBody):
                await forward_request(request)
        else:
            await forward_request(request)
        names = [name for name, _ in request.reply_headers]
        assert names == ([b"deprecation", b"sunset"] if path == "/v1/evals" else [])


async def test_the_log_names_the_target_and_nothing_that_was_sent(call: Call) -> None:
    """The line of the request says which operation was called or refused."""
    for method, path, target in (("GET", "/v1/batches/" + MARK, "retrieveBatch"), ("GET", "/v1/models", "listModels")):
        request = call(to(method, path, query={MARK: MARK}))
        try:
            await forward_request(request)
        except exc.OperationNotProxied:
            assert target == "listModels"
        assert request.log == {"target": target}


async def test_no_refusal_repeats_the_call(call: Call) -> None:
    """Names and values that a client made up stand in no message and no `param`."""
    marked = {MARK: MARK}
    for body in (
        to("GET", f"/v1/{MARK}", query=marked),
        to("GET", f"/v1/files/{MARK}"),
        to("GET", "/v1/batches", query={"limit": MARK}),
        to("GET", "/v1/batches", body=marked),
        to("POST", "/v1/batches", body={**marked, "endpoint": {MARK: MARK}}),
        to("POST", "/v1/batches", body={**BATCH, "metadata": {MARK: {MARK: MARK}}}),
        to("POST", "/v1/chat/completions", body={"stream": MARK}),
        to("GET", f"/v1/batches?{MARK}"),
        to("GET", "/v1/batches", query_json=f'{{"{MARK}": {{"{MARK}": "{MARK}"}}}}'),
        to("GET", "/v1/batches", query_json=MARK),
        to("POST", "/v1/batches", body_json=f'{{"{MARK}": 1, "{MARK}": 2}}'),
        to("POST", "/v1/batches", body_json=f'["{MARK}"]'),
    ):
        verdict = await verdict_on(call(body))
        assert not verdict["allowed"]
        assert MARK not in orjson.dumps(verdict).decode()


async def test_a_client_that_leaves_does_not_leave_the_answer_open(call: Call, transport: Transport) -> None:
    """An answer of unknown type is read to see whether it is empty; the end of the request closes it as well."""

    class Cancelled(Pieces):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            raise asyncio.CancelledError
            yield b""

    body = Cancelled()
    transport.answer = lambda: httpx.Response(200, stream=body)
    with pytest.raises(asyncio.CancelledError):
        await forward_request(call(to("GET", "/v1/batches")))
    assert body.closed == 1
