"""Event streams through a subject: how soon the first event comes, whether all come, how late, and what one costs."""

import json
from collections.abc import Mapping

from tests.bench.client_process import run_client
from tests.bench.events import message
from tests.bench.stream_client import StreamFigures
from tests.bench.subjects import SSE, Started
from tests.support.raw_http import raw_request

PATH = "/v1/chat/completions"
STREAMS = 200
EVENTS = 300
INTERVAL_MS = 20
SINGLES = 100
SINGLE_EVENTS = 2  # so that the end does not come along with the first one
SINGLE_INTERVAL_MS = 5
LATE_SECONDS = 30.0  # that a slow subject may take longer
START_SECONDS = 15.0


def measure_streams(
    started: Started,
    *,
    model: str = "gpt-4.1",
    streams: int = STREAMS,
    events: int = EVENTS,
    interval_ms: int = INTERVAL_MS,
    singles: int = SINGLES,
) -> StreamFigures:
    """
    Open streams one after another, then many at once, through a subject whose upstream is `tests.bench.events`.

    Args:
        streams: At once.
        events: Of each of them; they must last longer than the subject takes to open all.
        interval_ms: Between two events of a stream.
        singles: How many streams one after another.

    Raises:
        ClientFailed: A stream was refused, or one of the single ones broke off.
    """
    limit_seconds = events * interval_ms / 1000 + LATE_SECONDS
    plan = {
        "url": started.url,
        "pid": started.pid,
        "single": _request(started, model, SINGLE_EVENTS, SINGLE_INTERVAL_MS),
        "singles": singles,
        "many": _request(started, model, events, interval_ms),
        "streams": streams,
        "events": events,
        "limit_seconds": limit_seconds,
    }
    answer = run_client("tests.bench.stream_client", plan, START_SECONDS + singles + limit_seconds)
    return StreamFigures(**answer)


def _request(started: Started, model: str, events: int, interval_ms: int) -> str:
    asking = {"role": "user", "content": message(events, interval_ms)}
    body = json.dumps({"model": model, "messages": [asking], "stream": True}).encode()
    headers: Mapping[str, str] = {**started.headers, "Content-Type": "application/json"}
    return raw_request("POST", started.paths.get(SSE, PATH), headers.items(), body).decode("latin-1")
