import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from codegen.contract import FULL, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.exceptions import UpstreamErrorWithheld, UpstreamProtocolError
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.multipart import MultipartBody
from handlers.runtime.services import Services
from handlers.runtime.wrapped_calls import UpstreamRefusal, call, call_json, read_whole

CONTRACT = load_contract(GENERATED, FULL)
SECRET = b"sk-made-up"
RECEIVED = [
    (b"authorization", b"Bearer rk_of_the_client"),
    (b"x-relay-key", b"rk_of_the_client"),
    (b"cookie", b"a=b"),
    (b"content-type", b"application/json"),
    (b"content-length", b"17"),
    (b"accept-encoding", b"gzip"),
    (b"range", b"bytes=0-1"),
    (b"user-agent", b"somebody/1"),
    (b"x-stainless-timeout", b"60"),
]


@dataclass
class Sent:
    """An upstream that remembers what it was sent and answers as it was told."""

    reply: Reply
    calls: list[tuple[str, str, bytes, list[Header], bytes | None]] = field(default_factory=list)
    closed: int = 0

    async def send(
        self, method: str, path: str, *, query: bytes = b"", headers: list[Header], content: Any = None
    ) -> Reply:
        """Answer one call."""
        if content is not None and not isinstance(content, bytes):
            content = b"".join([piece async for piece in content])
        self.calls.append((method, path, query, headers, content))
        return replace(self.reply, close=self._close)

    def check_echo(self, content: bytes) -> None:
        """As the client of the upstream does."""
        if SECRET in content:
            raise UpstreamErrorWithheld

    async def _close(self) -> None:
        self.closed += 1


@dataclass
class Parts:
    """The services that a wrapped call uses."""

    upstream: Sent
    contract: Any = CONTRACT


def request_to(upstream: Sent) -> Request:
    """A wrapper's request with a client's headers."""
    return Request(
        id="rly_0123456789",
        operation=CONTRACT.operations["startResponse"],
        path="/v1/actions/responses",
        path_params={},
        query=b"",
        headers=list(RECEIVED),
        caller=None,
        services=cast("Services", Parts(upstream)),
    )


async def pieces(*texts: bytes) -> AsyncIterator[bytes]:
    """A body that comes piece by piece."""
    for text in texts:
        yield text


def test_the_contract_says_where_an_operation_lies() -> None:
    """Method and path come from the contract, and a value can never become another path."""
    upstream = Sent(Reply.json({"id": "resp_1"}))
    path_params = {"response_id": "resp_1/../../models?x=#y"}
    asyncio.run(call_json(request_to(upstream), "getResponse", path_params=path_params, query=b"a=1"))
    assert upstream.calls[0][:3] == ("GET", "/v1/responses/resp_1%2F..%2F..%2Fmodels%3Fx%3D%23y", b"a=1")


def test_of_the_clients_headers_only_its_name_travels() -> None:
    """Credentials, cookies and whatever describes the client's own body and wishes stay behind."""
    upstream = Sent(Reply.json({}))
    asyncio.run(call_json(request_to(upstream), "createResponse", body={"model": "m", "input": "i"}))
    assert sorted(upstream.calls[0][3]) == [
        (b"accept-encoding", b"identity"),
        (b"content-type", b"application/json"),
        (b"user-agent", b"somebody/1"),
        (b"x-stainless-timeout", b"60"),
    ]
    assert upstream.calls[0][4] == b'{"model": "m", "input": "i"}'


def test_a_multipart_body_is_streamed_with_its_boundary_and_length() -> None:
    """The content type is the body's own, and the length is told when it is known."""
    upstream = Sent(Reply.json({}))
    body = MultipartBody([("purpose", "user_data")], [])
    asyncio.run(call_json(request_to(upstream), "createFile", body=body))
    headers, content = dict(upstream.calls[0][3]), upstream.calls[0][4]
    assert headers[b"content-type"] == body.content_type.encode()
    assert content is not None
    assert int(headers[b"content-length"]) == len(content)


def test_an_error_of_the_upstream_is_raised_as_it_came() -> None:
    """Status and body reach whoever answers the client."""
    upstream = Sent(Reply.json({"error": {"message": "no"}}, status=429))
    with pytest.raises(UpstreamRefusal) as refusal:
        asyncio.run(call(request_to(upstream), "createResponse", body={}))
    assert (refusal.value.reply.status, refusal.value.reply.body) == (429, b'{"error":{"message":"no"}}')


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"<html>", b'{"a":1,"a":2}', b"\xff"], ids=repr)
def test_anything_but_a_json_object_is_the_upstreams_fault(body: bytes) -> None:
    """The client hears of a bad gateway, never of a mistake of its own, and the answer is closed."""
    upstream = Sent(Reply(200, [], pieces(body)))
    with pytest.raises(UpstreamProtocolError):
        asyncio.run(call_json(request_to(upstream), "createResponse", body={}))
    assert upstream.closed == 1


def test_an_answer_that_never_ends_is_given_up() -> None:
    """Reading stops at the limit, and the rest is closed."""
    upstream = Sent(Reply(200, [], pieces(*[b"x" * 100] * 100)))

    async def read() -> None:
        await read_whole(await call(request_to(upstream), "getResponse", path_params={"response_id": "r"}), 500)

    with pytest.raises(UpstreamProtocolError):
        asyncio.run(read())
    assert upstream.closed == 1


def test_an_answer_that_repeats_the_relays_key_is_withheld() -> None:
    """A job that failed may say why in the words of an error, with status 200."""
    upstream = Sent(Reply.json({"status": "failed", "error": {"message": f"bad key {SECRET.decode()}"}}))
    with pytest.raises(UpstreamErrorWithheld):
        asyncio.run(call_json(request_to(upstream), "createResponse", body={}))
