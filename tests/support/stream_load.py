"""
Many event streams at once through one worker, for a while: whether each event arrives in order, and what memory does.

Used by `scripts/chaos --streams`. Clients and the upstream are raw, in processes of their own, to spare the processor.
"""

import asyncio
import contextlib
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.chaos_bench import Line
from tests.support.raw_clients import RawReply, connected, read_body, read_head
from tests.support.raw_http import raw_request
from tests.support.rude_upstream import UpstreamProcess
from tests.support.servers import RelayProcess, running_relay

STREAMS = 500
SECONDS = 60
EVENT_MILLISECONDS = 250
OPENING_SECONDS = 5.0  # over which the clients come
STEADY_SHARE = 0.05
LATE_SECONDS = 30.0
_NUMBER = re.compile(rb'data: {"number": (\d+)}')


@dataclass
class Stream:
    """
    What one client has received.

    Args:
        in_order: How many events came, each the next one.
        wrong: How many came that were not.
        ended: Whether the stream came to its proper end.
    """

    in_order: int = 0
    wrong: int = 0
    ended: bool = False


def stream_lines(streams: int = STREAMS, seconds: int = SECONDS) -> list[Line]:
    """Run it, and tell what came of it as lines of a report."""
    events = seconds * 1000 // EVENT_MILLISECONDS
    with (
        tempfile.TemporaryDirectory() as name,
        UpstreamProcess() as upstream,
        running_relay(Path(name), upstream.url, {"RELAY_MAX_UPSTREAM_CONNECTIONS": str(streams)}) as relay,
    ):
        process = psutil.Process(relay.pid)
        process.cpu_percent()
        found, samples = asyncio.run(_run(relay, process, streams, events, seconds))
        busy = process.cpu_percent()
    whole = sum(stream.in_order == events and not stream.wrong and stream.ended for stream in found)
    lost = sum(events - stream.in_order for stream in found)
    wrong = sum(stream.wrong for stream in found)
    late = [mib for at, mib in samples if at >= seconds / 2]
    spread = (max(late) - min(late)) / min(late)
    what = f"{streams} event streams for {seconds} s, {1000 / EVENT_MILLISECONDS:g} events/s each"
    return [
        Line(
            what,
            f"{events} events each, in order, 0 lost",
            f"{whole} of {streams} whole, {lost} of {streams * events} events lost, {wrong} out of order",
            whole == streams and not lost and not wrong,
        ),
        Line(
            "memory of its worker meanwhile",
            f"last half within {STEADY_SHARE:.0%}",
            f"{min(late):.1f} to {max(late):.1f} MiB, {spread:.1%}; processor {busy:.0f} %",
            spread < STEADY_SHARE,
        ),
    ]


async def _run(
    relay: RelayProcess, process: psutil.Process, streams: int, events: int, seconds: int
) -> tuple[list[Stream], list[tuple[float, float]]]:
    body = f'{{"model": "rude-events-{events}-{EVENT_MILLISECONDS}", "input": "Hello.", "stream": true}}'.encode()
    headers = {**relay.headers, "Content-Type": "application/json"}
    request = raw_request("POST", "/v1/responses", headers.items(), body)
    samples: list[tuple[float, float]] = []
    sampling = asyncio.create_task(_sample(process, samples))
    try:
        apart = OPENING_SECONDS / streams
        limit = seconds + OPENING_SECONDS + LATE_SECONDS
        clients = (_receive(relay.url, request, number * apart, limit) for number in range(streams))
        # All are open from here to the end of the first.
        return await asyncio.gather(*clients), [s for s in samples if s[0] < seconds]
    finally:
        sampling.cancel()


async def _receive(url: str, request: bytes, delay_seconds: float, limit_seconds: float) -> Stream:
    stream = Stream()
    await asyncio.sleep(delay_seconds)
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(limit_seconds):
            reader, writer = await connected(url)
            try:
                writer.write(request)
                reply = RawReply()
                await read_head(reader, reply)
                rest = b""
                async for piece in read_body(reader, reply):
                    *whole, rest = (rest + piece).split(b"\n\n")
                    for event in whole:
                        _note(stream, event)
                stream.ended = reply.status == 200
            finally:
                writer.transport.abort()
    return stream


def _note(stream: Stream, event: bytes) -> None:
    found = _NUMBER.search(event)
    if found is None:
        return  # a comment
    if int(found[1]) == stream.in_order:
        stream.in_order += 1
    else:
        stream.wrong += 1


async def _sample(process: psutil.Process, samples: list[tuple[float, float]]) -> None:
    began = time.monotonic()
    while True:
        samples.append((time.monotonic() - began, process.memory_info().rss / 2**20))
        await asyncio.sleep(1.0)
