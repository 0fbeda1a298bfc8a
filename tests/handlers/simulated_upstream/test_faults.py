import asyncio
import gzip
import time

import httpx
import pytest

from handlers.simulated_upstream import ConnectionCut, Fault, SimulatedUpstream

from .asgi import Exchange, until


async def test_a_fault_hits_its_operation_as_often_as_asked(
    upstream: SimulatedUpstream, client: httpx.AsyncClient
) -> None:
    """Other operations are spared, and afterwards the service works again."""
    upstream.faults.add(Fault(operation_id="listModels", times=2, status=503))
    assert (await client.get("/v1/files")).status_code == 200
    assert [(await client.get("/v1/models")).status_code for _ in range(3)] == [503, 503, 200]


async def test_status_body_and_headers(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """A fault may say the whole reply; without a body it is OpenAI's error envelope."""
    upstream.faults.add(Fault(times=1, status=429, body={"odd": 1}, headers={"Retry-After": "7"}))
    reply = await client.get("/v1/models")
    assert (reply.status_code, reply.json(), reply.headers["retry-after"]) == (429, {"odd": 1}, "7")
    upstream.faults.add(Fault(status=500))
    assert (await client.get("/v1/nothing")).json()["error"]["type"] == "server_error"
    upstream.faults.clear()
    assert (await client.get("/v1/models")).status_code == 200


async def test_delay(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """The headers come late."""
    upstream.faults.add(Fault(delay_seconds=0.05))
    started = time.monotonic()
    await client.get("/v1/models")
    assert time.monotonic() - started >= 0.05


async def test_cut(upstream: SimulatedUpstream) -> None:
    """So many bytes are sent, then the application fails, which makes the server drop the connection."""
    upstream.faults.add(Fault(cut_after_bytes=10))
    exchange = Exchange(upstream, "GET", "/v1/models")
    with pytest.raises(ConnectionCut):
        await exchange.task
    assert sum(map(len, exchange.messages)) == 10
    assert exchange.sent[-1]["more_body"] is True


@pytest.mark.parametrize(
    "fault,messages,size",
    [
        (Fault(silent=True), 0, 0),
        (Fault(silent_after_bytes=0), 1, 0),
        (Fault(silent_after_bytes=7), 2, 7),
        (Fault(delay_seconds=3600), 0, 0),
    ],
)
async def test_silence_until_the_client_leaves(
    upstream: SimulatedUpstream, fault: Fault, messages: int, size: int
) -> None:
    """Nothing more is sent; the moment at which the client leaves is recorded and the work ends."""
    upstream.faults.add(fault)
    exchange = Exchange(upstream, "GET", "/v1/models")
    await until(lambda: len(exchange.sent) == messages)
    await asyncio.sleep(0.01)
    assert (len(exchange.sent), sum(map(len, exchange.messages))) == (messages, size)
    (record,) = upstream.recorder.requests
    assert record.disconnected_at is None
    exchange.leave()
    await asyncio.wait_for(exchange.task, 1)
    assert record.disconnected_at is not None
    assert record.finished_at is not None


async def test_leaving_in_mid_stream_is_seen(upstream: SimulatedUpstream) -> None:
    """A client that leaves between two events ends the stream."""
    upstream._event_interval_seconds = 3600
    body = b'{"model": "m", "input": "x", "stream": true}'
    exchange = Exchange(upstream, "POST", "/v1/responses", body=(body,))
    await until(lambda: len(exchange.messages) == 1)
    exchange.leave()
    await asyncio.wait_for(exchange.task, 1)
    assert upstream.recorder.requests[0].disconnected_at is not None
    assert len(exchange.messages) == 1


async def test_leaving_in_mid_body_is_seen(upstream: SimulatedUpstream) -> None:
    """A client that leaves before its request is complete is recorded as gone."""
    exchange = Exchange(upstream, "POST", "/v1/responses", body=())
    exchange.leave()
    await asyncio.wait_for(exchange.task, 1)
    assert upstream.recorder.requests[0].disconnected_at is not None
    assert exchange.sent == []


async def test_a_complete_reply_is_no_disconnect(upstream: SimulatedUpstream) -> None:
    """Leaving after the reply is what clients do."""
    exchange = Exchange(upstream, "GET", "/v1/models")
    await exchange.task
    exchange.leave()
    record = upstream.recorder.requests[0]
    assert (record.disconnected_at, record.status) == (None, 200)


async def test_gzip_only_where_accepted(upstream: SimulatedUpstream) -> None:
    """JSON is compressed when the request allows it."""
    upstream.faults.add(Fault(gzip=True))
    key = (b"authorization", b"Bearer k")
    plain = Exchange(upstream, "GET", "/v1/models", headers=(key,))
    packed = Exchange(upstream, "GET", "/v1/models", headers=(key, (b"accept-encoding", b"br, gzip")))
    await asyncio.gather(plain.task, packed.task)
    assert gzip.decompress(packed.messages[0]) == plain.messages[0]
    assert (b"content-encoding", b"gzip") in packed.sent[0]["headers"]


async def test_echoed_credentials(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """The error repeats the header that came, as some services do."""
    upstream.faults.add(Fault(echo_credentials=True))
    reply = await client.get("/v1/models")
    assert reply.status_code == 401
    assert "Bearer sk-made-up" in reply.json()["error"]["message"]


async def test_a_body_of_any_size(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """A JSON reply is blown up to exactly the size asked for and stays JSON."""
    upstream.faults.add(Fault(repeat_body_to_bytes=1_000_000))
    reply = await client.get("/v1/models")
    assert len(reply.content) == 1_000_000 == int(reply.headers["content-length"])
    assert reply.json()["object"] == "list"


async def test_a_file_of_any_size(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """Generated bytes of whatever type take the place of the reply."""
    upstream.faults.add(Fault(content_bytes=300, headers={"Content-Type": "audio/wav"}))
    reply = await client.get("/v1/models")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "audio/wav")
    assert reply.content == bytes(n % 256 for n in range(300))


async def test_slow_reading(upstream: SimulatedUpstream) -> None:
    """The body is taken in no faster than asked for."""
    upstream.faults.add(Fault(slow_read_bytes_per_second=1000))
    started = time.monotonic()
    await Exchange(upstream, "POST", "/v1/responses", body=(b'{"model":', b'"m","input":"' + b"x" * 40 + b'"}')).task
    assert time.monotonic() - started >= 0.05


class TestControl:
    async def test_requests_are_shown_counted_and_forgotten(
        self, upstream: SimulatedUpstream, anonymous_client: httpx.AsyncClient
    ) -> None:
        """Other processes see what came in; control requests are not among it."""
        await anonymous_client.post("/v1/responses?a=1&a=2", content=b"{}", headers=[("x-a", "1"), ("x-a", "2")])
        (record,) = (await anonymous_client.get("/_simulated/requests")).json()
        assert (record["path"], record["query"], record["body_start"]) == ("/v1/responses", "a=1&a=2", "e30=")
        assert [value for name, value in record["headers"] if name == "x-a"] == ["1", "2"]
        assert (await anonymous_client.get("/_simulated/count")).json() == {"count": 1}
        await anonymous_client.delete("/_simulated/requests")
        assert (await anonymous_client.get("/_simulated/count")).json() == {"count": 0}
        assert upstream.recorder.requests == []

    async def test_faults_are_added_and_cleared(self, client: httpx.AsyncClient) -> None:
        """A fault comes as JSON with the fields of `Fault`; unknown fields are refused."""
        assert (await client.post("/_simulated/faults", json={"status": 418})).status_code == 200
        assert (await client.get("/v1/models")).status_code == 418
        await client.delete("/_simulated/faults")
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.post("/_simulated/faults", json={"sttus": 418})).status_code == 400
        assert (await client.post("/_simulated/faults", content=b"{")).status_code == 400
        assert (await client.get("/_simulated/other")).status_code == 404


async def test_events_of_ones_own(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """Any texts come as an event stream, one after the other, with a pause between them."""
    texts = ["data: a\n\n", "no event", "\ufeff"]
    upstream.faults.add(Fault(events=texts, event_interval_seconds=0.05, times=1))
    started = time.monotonic()
    reply = await client.post("/v1/responses", json={"model": "m", "input": "x"})
    assert time.monotonic() - started >= 0.1
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert (reply.status_code, reply.content.decode()) == (200, "".join(texts))
    assert (await client.get("/v1/models")).headers["content-type"] == "application/json"


async def test_work_that_takes_its_time(upstream: SimulatedUpstream, client: httpx.AsyncClient) -> None:
    """What one request creates may be in progress longer than everything else."""
    upstream.faults.add(Fault(operation_id="createBatch", background_seconds=3600, times=1))
    batch = {"input_file_id": "file-1", "endpoint": "/v1/responses", "completion_window": "24h"}
    slow, fast = [(await client.post("/v1/batches", json=batch)).json()["id"] for _ in range(2)]
    assert (await client.get(f"/v1/batches/{slow}")).json()["status"] == "validating"
    assert (await client.get(f"/v1/batches/{fast}")).json()["status"] == "completed"
