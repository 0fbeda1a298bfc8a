"""
An upstream of event streams that costs next to nothing: each event carries its number and when it was made.

How many events and how far apart stands in the message itself, the one part of a request that every gateway forwards
as it is. Run by the benchmark as `python -m tests.bench.events --port PORT`; prints its URL once it listens.
"""

import argparse
import asyncio
import gc
import re
import sys
import time
from collections.abc import Sequence
from typing import cast

import httptools
import uvloop

HOST = "127.0.0.1"
LAST_EVENT = b"data: [DONE]\n\n"
# Streams of one pace take turns, else all of their events would come at once and be handled in one go.
TURNS = 20

_ASKED = re.compile(rb"(\d+) events, (\d+) ms apart")
_STREAM = re.compile(rb'"stream":\s*true')
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"x-request-id: req_0123456789\r\nopenai-processing-ms: 12\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_REFUSAL = b'{"error":{"message":"The message must say: N events, M ms apart.","type":"invalid_request_error"}}'
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_REFUSAL)
) + _REFUSAL
_EVENT = (
    b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,'
    b'"model":"gpt-4.1-2025-04-14","service_tier":"default","system_fingerprint":"fp_f7d56a8a2c","choices":[{"index":0,'
    b'"delta":{"content":"%010d %020d"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def message(events: int, interval_ms: int) -> str:
    """What a message has to say to get so many events."""
    return f"Please send {events} events, {interval_ms} ms apart."


def asked(body: bytes) -> tuple[int, int] | None:
    """Number of events and milliseconds between them that a request asks for; `None` when it asks for no stream."""
    found = _ASKED.search(body)
    if found is None or _STREAM.search(body) is None:
        return None
    events, interval_ms = int(found[1]), int(found[2])
    return (events, interval_ms) if events and interval_ms else None


def event_bytes(number: int, stamp_ns: int) -> bytes:
    """
    One event.

    Args:
        stamp_ns: Of `time.monotonic_ns`, which all processes of a machine share.
    """
    return _EVENT % (number, stamp_ns)


class Pace:
    """
    All streams whose events are equally far apart: one timer, and one event made for all whose turn it is.

    Args:
        interval_ms: Between two events of a stream.
    """

    def __init__(self, interval_ms: int) -> None:
        count = min(TURNS, interval_ms)  # the loop's timers know whole milliseconds
        self._turn_seconds = interval_ms / 1000 / count
        self._turns: list[dict[StreamConnection, None]] = [{} for _ in range(count)]
        self._numbers = [0] * count
        self._next = 0
        self._due: float | None = None

    def join(self, stream: "StreamConnection") -> int:
        """
        Send it every event from now on.

        Returns:
            The turn it got, for `leave`.
        """
        turn = min(range(len(self._turns)), key=lambda each: len(self._turns[each]))
        stream.send(self._event(turn))
        if not stream.ended:
            self._turns[turn][stream] = None
            if self._due is None:
                loop = asyncio.get_running_loop()
                self._due = loop.time() + self._turn_seconds
                loop.call_at(self._due, self._tick)
        return turn

    def leave(self, stream: "StreamConnection", turn: int) -> None:
        """Send it nothing more."""
        self._turns[turn].pop(stream, None)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._due is not None
        while self._due <= loop.time():
            self._send(self._next)
            self._next = (self._next + 1) % len(self._turns)
            self._due += self._turn_seconds
        if any(self._turns):
            loop.call_at(self._due, self._tick)
        else:
            self._due = None

    def _send(self, turn: int) -> None:
        streams = self._turns[turn]
        if not streams:
            return
        self._numbers[turn] += 1
        piece = self._event(turn)
        for stream in tuple(streams):
            stream.send(piece)
            if stream.ended:
                del streams[stream]

    def _event(self, turn: int) -> bytes:
        event = event_bytes(self._numbers[turn], time.monotonic_ns())
        return b"%x\r\n%b\r\n" % (len(event), event)


class StreamConnection(asyncio.Protocol):
    """
    One connection of a client: a request, its stream, the next request.

    Args:
        paces: Those in use, by their interval in milliseconds.
    """

    def __init__(self, paces: dict[int, Pace]) -> None:
        self.ended = True
        self._paces = paces
        self._joined: tuple[Pace, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        if self._joined is not None:
            pace, turn = self._joined
            pace.leave(self, turn)

    def send(self, piece: bytes) -> None:
        """Send an event; the end of the stream follows the last one."""
        self._transport.write(piece)
        self._left -= 1
        if not self._left:
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST_EVENT), LAST_EVENT))
            self.ended = True

    def on_message_begin(self) -> None:
        """The parser has found the beginning of a request."""
        self._body: list[bytes] = []

    def on_body(self, piece: bytes) -> None:
        """The parser has found part of a body."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The parser has found the end of a request."""
        wanted = asked(b"".join(self._body))
        if wanted is None:
            self._transport.write(_BAD_REQUEST)
            return
        self._left, interval_ms = wanted
        self.ended = False
        self._transport.write(_HEAD)
        pace = self._paces.setdefault(interval_ms, Pace(interval_ms))
        self._joined = pace, pace.join(self)


async def _serve(port: int) -> None:
    paces: dict[int, Pace] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: StreamConnection(paces), HOST, port, backlog=1024)
    sys.stdout.write(f"http://{HOST}:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.events", description="Serves paced event streams.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    port: int = parser.parse_args(arguments).port
    gc.disable()  # a pause here would look like one of the subject's
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(port))


if __name__ == "__main__":
    main()
