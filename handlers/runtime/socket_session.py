"""
One session: passes messages both ways until an end, a vanished side or a limit, and says to each side how it ended.

Every message is awaited out on one side before the next is read on the other, so a slow side holds up the other one and
little is kept here. Not for: who may connect (`handlers.runtime.sockets`).
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.types import Receive, Send
from websockets.exceptions import ConnectionClosed
from websockets.frames import EXTERNAL_CLOSE_CODES, CloseCode

from handlers.runtime.exceptions import UpstreamErrorWithheld
from handlers.runtime.settings import Settings
from handlers.runtime.socket_protocol import CLOSE_TIMEOUT_SECONDS, DRAIN
from handlers.runtime.upstream_sockets import UpstreamSocket

# An upstream in the middle of an answer may not look up for long, and answers nobody.
GONE_PATIENCE_SECONDS = 0.1


class Cause(StrEnum):
    """What ended a session."""

    CLIENT = "client_closed"
    UPSTREAM = "upstream_closed"
    CLIENT_GONE = "client_gone"
    UPSTREAM_GONE = "upstream_gone"
    WITHHELD = "upstream_error_withheld"
    IDLE = "idle_timeout"
    TOTAL = "total_timeout"
    KEY_EXPIRED = "key_expired"
    DRAIN = "drained"


@dataclass(frozen=True, slots=True)
class Ending:
    """
    How a session ends.

    Args:
        code: What the side that did not end it is told, or both.
        reason: The same.
    """

    cause: Cause
    code: int
    reason: str = ""


@dataclass(slots=True)
class Traffic:
    """Messages and their bytes in one direction."""

    messages: int = 0
    size: int = 0

    def add(self, message: str | bytes) -> None:
        """Count one message."""
        self.messages += 1
        self.size += len(message.encode()) if isinstance(message, str) and not message.isascii() else len(message)


@dataclass(slots=True)
class Session:
    """
    Runs one session between an accepted client and an open upstream socket.

    Args:
        expires_at: When the caller's key does, as the event loop counts; `None` when it never does.
    """

    receive: Receive
    send: Send
    upstream: UpstreamSocket
    settings: Settings
    expires_at: float | None
    from_client: Traffic = field(default_factory=Traffic)
    from_upstream: Traffic = field(default_factory=Traffic)
    _last: float = 0.0
    _waiting: int = 0  # messages that one side has not taken yet

    async def run(self) -> Ending:
        """Pass messages on until the session ends; both sides have been told when this returns."""
        ending = Ending(Cause.DRAIN, CloseCode.SERVICE_RESTART, "the relay stops")
        tasks = [
            asyncio.create_task(work)
            for work in (self._to_upstream(), self._to_client(), self._keep_limits(), self._keep_asking())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ending = next(task for task in tasks if task.done()).result()
        except asyncio.CancelledError:
            pass  # the time to stop is over; it remains to say so
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(self._close_client(ending), self._close_upstream(ending))
        return ending

    async def _to_upstream(self) -> Ending:
        while True:
            event = await self.receive()
            if event["type"] == "websocket.disconnect":
                return _client_ending(event.get("code", 0), event.get("reason", ""), drained=DRAIN in event)
            text = event.get("text")
            message: str | bytes = text if text is not None else event["bytes"]
            self._note(self.from_client, message)
            try:
                await self.upstream.send(message)
            except ConnectionClosed:
                return self._upstream_ending()
            self._waiting -= 1

    async def _to_client(self) -> Ending:
        while True:
            try:
                message = await self.upstream.receive()
            except ConnectionClosed:
                return self._upstream_ending()
            except UpstreamErrorWithheld:
                return Ending(Cause.WITHHELD, CloseCode.BAD_GATEWAY, "a message repeated the relay's credentials")
            self._note(self.from_upstream, message)
            kind = "text" if isinstance(message, str) else "bytes"
            try:
                await self.send({"type": "websocket.send", kind: message})
            except OSError:  # uvicorn's word for a client that has left
                return Ending(Cause.CLIENT_GONE, CloseCode.GOING_AWAY)
            self._waiting -= 1

    async def _keep_limits(self) -> Ending:
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        idle_seconds = self.settings.RELAY_SOCKET_IDLE_TIMEOUT_SECONDS
        total_seconds = self.settings.RELAY_SOCKET_TOTAL_TIMEOUT_SECONDS
        ends = [(self._last + total_seconds, Ending(Cause.TOTAL, CloseCode.GOING_AWAY, "the session lasted too long"))]
        if self.expires_at is not None:
            expired = Ending(Cause.KEY_EXPIRED, CloseCode.POLICY_VIOLATION, "the relay key has expired")
            ends.append((self.expires_at, expired))
        while True:
            idle = Ending(Cause.IDLE, CloseCode.GOING_AWAY, "no message for too long")
            moment, ending = min([*ends, (self._last + idle_seconds, idle)], key=lambda end: end[0])
            left = moment - loop.time()
            if left <= 0:
                return ending
            await asyncio.sleep(left)

    async def _keep_asking(self) -> Ending:
        """Ask the upstream whether it is there; a side that is held up cannot say, and ends by its idle limit."""
        while True:
            await asyncio.sleep(self.settings.RELAY_SOCKET_PING_INTERVAL_SECONDS)
            before = self.from_upstream.messages
            answered = await self.upstream.answers(self.settings.RELAY_SOCKET_PING_TIMEOUT_SECONDS)
            if not answered and not self._waiting and self.from_upstream.messages == before:
                return Ending(Cause.UPSTREAM_GONE, CloseCode.BAD_GATEWAY, "the upstream does not answer")

    def _note(self, traffic: Traffic, message: str | bytes) -> None:
        traffic.add(message)
        self._waiting += 1
        self._last = asyncio.get_running_loop().time()

    def _upstream_ending(self) -> Ending:
        code, reason = self.upstream.ending
        if code == CloseCode.NO_STATUS_RCVD:
            return Ending(Cause.UPSTREAM, CloseCode.NORMAL_CLOSURE, reason)
        if _may_be_sent(code):
            return Ending(Cause.UPSTREAM, code, reason)
        return Ending(Cause.UPSTREAM_GONE, CloseCode.BAD_GATEWAY, "the connection to the upstream broke")

    async def _close_client(self, ending: Ending) -> None:
        if ending.cause in {Cause.CLIENT, Cause.CLIENT_GONE}:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self.send({"type": "websocket.close", "code": ending.code, "reason": ending.reason})
        except (TimeoutError, OSError, RuntimeError):  # it reads nothing, has left, or was told by the server
            return

    async def _close_upstream(self, ending: Ending) -> None:
        if ending.cause in {Cause.CLIENT, Cause.KEY_EXPIRED}:
            await self.upstream.close(ending.code, ending.reason)
        else:  # to the upstream all else is a client that goes away
            patience = GONE_PATIENCE_SECONDS if ending.cause is Cause.CLIENT_GONE else CLOSE_TIMEOUT_SECONDS
            await self.upstream.close(CloseCode.GOING_AWAY, "", patience_seconds=patience)


def _client_ending(code: int, reason: str, *, drained: bool) -> Ending:
    if drained:
        return Ending(Cause.DRAIN, CloseCode.SERVICE_RESTART, "the relay restarts; connect again")
    if code == CloseCode.NO_STATUS_RCVD:
        return Ending(Cause.CLIENT, CloseCode.NORMAL_CLOSURE)
    if _may_be_sent(code):
        return Ending(Cause.CLIENT, code, reason)
    return Ending(Cause.CLIENT_GONE, CloseCode.GOING_AWAY)


def _may_be_sent(code: int) -> bool:
    """Whether a close frame may carry the code (RFC 6455, section 7.4)."""
    return code in EXTERNAL_CLOSE_CODES or 3000 <= code < 5000
