"""
Takes a WebSocket handshake: match, authenticate, authorise, limits, query, upstream; only then is the upgrade accepted.

Until then every refusal is a plain HTTP reply, and no refusal but the upstream's own has opened a connection to it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send
from websockets.frames import CloseCode

from codegen.contract import Contract, Operation
from handlers.runtime.access import Caller, authorise
from handlers.runtime.addresses import narrow
from handlers.runtime.connection import ClientGone, new_request_id
from handlers.runtime.counts import ANSWERED, CLIENT_GONE, status_class
from handlers.runtime.errors import ERROR_TABLE, error_to_reply
from handlers.runtime.exceptions import (
    InternalError,
    InvalidParameter,
    MalformedRequest,
    MethodNotAllowed,
    Overloaded,
    RelayError,
    SocketLimitReached,
    UnknownOperation,
)
from handlers.runtime.headers import request_headers
from handlers.runtime.messages import Header, Reply
from handlers.runtime.observation import OBSERVATION, Observation
from handlers.runtime.routes import Route
from handlers.runtime.services import Services
from handlers.runtime.socket_protocol import DRAIN
from handlers.runtime.socket_session import Cause, Ending, Session
from handlers.runtime.upstream_sockets import SUBPROTOCOL, UpstreamSocket, UpstreamSockets
from handlers.runtime.wrapped_calls import UpstreamRefusal

SWITCHING = 101
# Where upstream's sockets are, whichever name of the relay a client has used.
UPSTREAM_OPERATION = "connectRealtime"
SUBPROTOCOL_SCHEME = "relaySubprotocol"
KEY_SUBPROTOCOL = "openai-insecure-api-key."  # a browser can set no header; OpenAI's own form

_log = structlog.get_logger("relay")


@dataclass(slots=True)
class _Handshake:
    """What is known of one connection, for its log line."""

    request_id: str
    observation: Observation
    fields: dict[str, object] = field(default_factory=dict)
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class SocketRelay:
    """
    The ASGI app of all sockets of one relay.

    Args:
        services: The index and the keys are the same as those of requests.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._upstream = UpstreamSockets(services.settings, services.upstream.circuit)
        self._upstream_path = services.contract.operations[UPSTREAM_OPERATION].path
        self._by_subprotocol = operations_with(services.contract, SUBPROTOCOL_SCHEME)
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one handshake with a refusal or with a whole session, and write its one log line."""
        started = time.perf_counter()
        handshake = _Handshake(new_request_id(), Observation(self._services.counts.unmatched))
        before = OBSERVATION.set(handshake.observation)
        try:
            outcome = await self._serve(scope, receive, send, handshake)
        except (ClientGone, OSError):
            outcome = CLIENT_GONE
        except UpstreamRefusal as refusal:
            outcome = await _deny(send, refusal.reply, handshake, ANSWERED)
        except Exception as error:  # noqa: BLE001 - the last place that can turn a defect into a reply
            if not isinstance(error, RelayError):
                _log.error("defect", request_id=handshake.request_id, exc_info=error)
            rule = ERROR_TABLE[type(error) if isinstance(error, RelayError) else InternalError]
            outcome = await _deny(send, error_to_reply(error), handshake, rule.code)
        finally:
            OBSERVATION.reset(before)
        seconds = time.perf_counter() - started
        self._count(handshake, outcome, seconds)
        _log.info(
            "request",
            request_id=handshake.request_id,
            method="GET",
            status=handshake.status,
            outcome=outcome,
            bytes_in=handshake.bytes_in,
            bytes_out=handshake.bytes_out,
            ms=round(seconds * 1000, 1),
            **{**handshake.fields, **handshake.observation.fields()},
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send, handshake: _Handshake) -> str:
        caller = self._admit(scope, handshake)
        with self._place(caller):
            await receive()  # the handshake itself, as ASGI tells it
            upstream = await _while_present(receive, self._connect(scope))
            session = Session(receive, send, upstream, self._services.settings, self._end_of(caller))
            try:
                await send(_acceptance(scope, upstream, handshake))
                handshake.status = SWITCHING
                with self._services.counts.socket():
                    ending = await session.run()
            finally:
                await upstream.close(CloseCode.GOING_AWAY, "")
        self._services.counts.socket_ends[ending.cause.value, _code_label(ending.code)] += 1
        _note(session, ending, handshake)
        return CLIENT_GONE if ending.cause is Cause.CLIENT_GONE else ANSWERED

    def _admit(self, scope: Scope, handshake: _Handshake) -> Caller:
        """
        All checks of a handshake, in the order of a request.

        Raises:
            RelayError: The first that fails.
        """
        match = self._services.index.match(scope["raw_path"].decode("latin-1"))
        if match is None:
            raise UnknownOperation
        route = match.methods.get("GET")
        if route is None:
            raise MethodNotAllowed(headers=[("allow", ", ".join(sorted(match.methods)))])
        operation = route.operation
        counts = handshake.observation.counts = self._services.counts.of(operation.id, operation.bucket.value)
        handshake.fields.update(operation=counts.operation, bucket=counts.bucket)
        headers: list[Header] = [*scope["headers"]]
        if operation.id in self._by_subprotocol:
            headers += _keys_among(scope["subprotocols"])
        rules = self._services.addresses
        opened = rules.check_address(scope, operation) if rules is not None else None
        caller = self._services.keys.authenticate(headers)
        handshake.fields["key"] = caller.key_id
        authorise(operation, caller)
        if opened is not None:
            caller = narrow(caller, opened, operation)
        if not is_socket(operation):
            raise InvalidParameter(
                "The operation is no WebSocket: send the request without `Upgrade`.", param="Upgrade"
            )
        if self._open[caller.key_id] >= self._services.settings.RELAY_MAX_SOCKETS_PER_KEY:
            raise SocketLimitReached
        _check_query(route, scope["query_string"])
        return caller

    async def _connect(self, scope: Scope) -> UpstreamSocket:
        return await self._upstream.open(
            self._upstream_path,
            query=scope["query_string"],
            headers=request_headers(scope["headers"]),
            subprotocols=scope["subprotocols"],
        )

    def _count(self, handshake: _Handshake, outcome: str, seconds: float) -> None:
        observation = handshake.observation
        observation.counts.requests[outcome, status_class(handshake.status)] += 1
        observation.counts.duration.add(seconds)
        observation.counts.bytes_in += handshake.bytes_in
        observation.counts.bytes_out += handshake.bytes_out
        if outcome not in {ANSWERED, CLIENT_GONE}:
            self._services.counts.refuse(outcome, upstream_calls=observation.calls)

    @contextmanager
    def _place(self, caller: Caller) -> Iterator[None]:
        """One of the sockets that a key may have, from before the upstream is asked until the session is over."""
        self._open[caller.key_id] += 1
        try:
            yield
        finally:
            self._open[caller.key_id] -= 1
            if not self._open[caller.key_id]:
                del self._open[caller.key_id]

    def _end_of(self, caller: Caller) -> float | None:
        expires = next((key.expires for key in self._services.keys.keys if key.id == caller.key_id), None)
        if expires is None:
            return None
        return asyncio.get_running_loop().time() + (expires - datetime.now(UTC)).total_seconds()


def is_socket(operation: Operation) -> bool:
    """Whether an operation switches protocols."""
    return str(SWITCHING) in operation.responses


def operations_with(contract: Contract, scheme: str) -> frozenset[str]:
    """Ids of the operations that a security scheme opens."""
    return frozenset(
        operation.id
        for operation in contract
        if any(
            scheme in alternative
            for alternative in contract.document["paths"][operation.path][operation.method.lower()].get("security", ())
        )
    )


def _keys_among(subprotocols: list[str]) -> list[Header]:
    """Keys that came as subprotocols, in the form that the key ring reads."""
    return [
        (b"x-relay-key", name.removeprefix(KEY_SUBPROTOCOL).encode())
        for name in subprotocols
        if name.startswith(KEY_SUBPROTOCOL)
    ]


def _check_query(route: Route, query: bytes) -> None:
    """Beyond the checks of a request: what stands twice could mean one thing here and another upstream."""
    if b"#" in query:
        raise InvalidParameter("The query must be percent-encoded.")
    values: Mapping[str, list[str]] = route.validator.check_query(query)
    for parameter in route.operation.parameters_in("query"):
        if len(values.get(parameter.name, ())) > 1:
            raise InvalidParameter(f"`{parameter.name}` must stand there once.", param=parameter.name)


async def _while_present(receive: Receive, opening: Coroutine[Any, Any, UpstreamSocket]) -> UpstreamSocket:
    """
    Open the upstream's socket unless the client leaves first.

    Raises:
        ClientGone: It has left; nothing stays open.
        Overloaded: The relay stops (503).
        MalformedRequest: It has sent messages before its handshake was answered (400).
    """
    connecting = asyncio.ensure_future(opening)
    waiting = asyncio.ensure_future(receive())
    both: set[asyncio.Future[Any]] = {connecting, waiting}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return connecting.result()
        if waiting.result()["type"] != "websocket.disconnect":
            raise MalformedRequest("Messages must wait for the answer to the handshake.")
        if DRAIN in waiting.result():
            raise Overloaded("The relay restarts; try again shortly.")
        raise ClientGone
    finally:
        waiting.cancel()
        if waiting.done() or not connecting.done():
            connecting.cancel()
            (opened,) = await asyncio.gather(connecting, return_exceptions=True)
            if isinstance(opened, UpstreamSocket):
                await opened.close(CloseCode.GOING_AWAY, "")


def _acceptance(scope: Scope, upstream: UpstreamSocket, handshake: _Handshake) -> Message:
    request_id = handshake.request_id.encode()
    headers = [*upstream.headers, (b"x-relay-request-id", request_id)]
    if all(name != b"x-request-id" for name, _ in headers):
        headers.append((b"x-request-id", request_id))
    # A browser gives up when it has named subprotocols and none is chosen.
    chosen = upstream.subprotocol or (SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None)
    return {"type": "websocket.accept", "subprotocol": chosen, "headers": headers}


async def _deny(send: Send, reply: Reply, handshake: _Handshake, outcome: str) -> str:
    """Answer a handshake with a plain reply, unless it has been accepted or nobody is there any more."""
    if handshake.status:
        return outcome
    request_id = handshake.request_id.encode()
    headers = [*reply.headers, (b"x-relay-request-id", request_id)]
    if all(name != b"x-request-id" for name, _ in headers):
        headers.append((b"x-request-id", request_id))
    body = reply.body if isinstance(reply.body, bytes) else b""
    try:
        await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    except OSError:
        return CLIENT_GONE
    handshake.status = reply.status
    handshake.bytes_out = len(body)
    return outcome


def _code_label(code: int) -> str:
    """What metrics call a close code: those that applications make up are one each thousand."""
    return str(int(code)) if code < 3000 else f"{code // 1000}xxx"


def _note(session: Session, ending: Ending, handshake: _Handshake) -> None:
    handshake.bytes_in, handshake.bytes_out = session.from_client.size, session.from_upstream.size
    handshake.fields.update(
        ended=ending.cause.value,
        close_code=int(ending.code),
        messages_in=session.from_client.messages,
        messages_out=session.from_upstream.messages,
    )
