import asyncio
from typing import Any

import httpx
import orjson
import pytest

from handlers.responses import create_response_stream
from handlers.runtime.app import create_services
from handlers.runtime.exceptions import ContractViolation
from handlers.runtime.settings import Settings
from handlers.runtime.validation import RequestValidator, SchemaSource
from tests.handlers.conftest import MakeRequest
from tests.handlers.runtime.asgi import UpstreamDouble

EXAMPLE = {"model": "gpt-6-luna", "input": "Say hello.", "brand_new": {"a": [1.5, "ü"]}}


@pytest.fixture
def ask(request_of: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks for a stream and returns the request that reached the upstream with its body."""
    double = UpstreamDouble()
    monkeypatch.setattr("handlers.runtime.upstream.Transport", lambda *_: double)
    services = create_services(Settings.model_validate({"OPENAI_BASE_URL": "https://api.example/v1"}))

    def send(raw: bytes, **fields: Any) -> tuple[httpx.Request, bytes]:
        operation = services.contract.operations["createResponseStream"]
        body = RequestValidator(operation, SchemaSource(services.contract)).parse_json(raw)
        request = request_of("createResponseStream", services=services, raw_body=raw, body=body, **fields)
        asyncio.run(_drained(request))
        return double.requests[-1], double.bodies[-1]

    return send


async def _drained(request: Any) -> None:
    reply = await create_response_stream(request)
    assert not isinstance(reply.body, bytes)
    async for _ in reply.body:
        pass


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": True}, {"stream": None}], ids=repr)
def test_the_upstream_is_asked_to_stream_whatever_the_body_says(ask: Any, stream: dict[str, object]) -> None:
    """The request becomes `createResponse` with `stream: true` and everything else as it was."""
    request, body = ask(orjson.dumps({**EXAMPLE, **stream}))
    assert (request.method, str(request.url)) == ("POST", "https://api.example/v1/responses")
    assert orjson.loads(body) == {**EXAMPLE, "stream": True}


def test_query_and_headers_travel_as_on_every_operation(ask: Any) -> None:
    """The query goes on, allowed headers go on, the rest stays behind, and the length is that of the new body."""
    headers = [(b"content-type", b"application/json"), (b"cookie", b"a=b"), (b"content-length", b"9999")]
    request, body = ask(orjson.dumps(EXAMPLE), query=b"include[]=a", headers=headers)
    assert request.url.params.get_list("include[]") == ["a"]
    assert "cookie" not in request.headers
    assert request.headers["content-length"] == str(len(body))


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"12345678901234567890123", b"0.1", b"1E5"])
def test_what_is_sent_is_json_again(ask: Any, number: bytes) -> None:
    """Any body that is accepted reaches the upstream as JSON with the same values."""
    raw = b'{"model": "a", "input": "b", "brand_new": ' + number + b"}"
    try:
        _, body = ask(raw)
    except ContractViolation:
        return
    assert b"Infinity" not in body
    assert float(body.split(b'"brand_new": ')[1].split(b",")[0]) == float(number)
