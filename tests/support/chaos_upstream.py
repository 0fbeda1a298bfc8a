"""Faults of the upstream, as `scripts/chaos` puts them to a running relay."""

import http.client
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.support.chaos_bench import (
    BREAKER_SECONDS,
    IDLE_SECONDS,
    Bench,
    Fault,
    Observed,
    in_background,
    wait_for,
)
from tests.support.rude_upstream import GIGABYTES_3, TRICKLED
from tests.support.transfers import MIB, PeakMemory

REFUSED_CALLS = 30
REPEATED_CALLS = 20
LARGE_GROWTH_MIB = 32
READ_WHOLE_MIB = 200  # where an answer is read whole before it goes on
READ_SECONDS = 60
CODE = {"lost": "upstream_protocol_error", "late": "upstream_timeout", "refused": "upstream_unreachable"}


def _killed_in_mid_call(bench: Bench) -> Observed:
    result = in_background(lambda: bench.ask("silent"))
    wait_for(lambda: bench.upstream.statistics()["active"])
    bench.upstream.kill()
    try:
        seen = result()
        return str(seen), seen.code == CODE["lost"]
    finally:
        bench.upstream.start()


def _killed_in_mid_read(bench: Bench) -> Observed:
    result = in_background(lambda: bench.ask(method="GET", path="/v1/files/file-rude-silent"))
    wait_for(lambda: bench.upstream.statistics()["active"])
    printed = len(bench.relay.printed())
    bench.upstream.kill()
    try:
        seen = result()
    finally:
        bench.upstream.start()
    repeated = re.search(r'"retries":(\d+)', bench.relay.printed()[printed:])
    observed = f"{seen}, sent again {repeated[1] if repeated else 0} times"
    return observed, seen.code == CODE["refused"] and repeated is not None


def _refused(bench: Bench) -> Observed:
    bench.upstream.kill()
    try:
        first = bench.ask()
        others = [bench.ask() for _ in range(REFUSED_CALLS)]
    finally:
        bench.upstream.start()
    began = time.monotonic()
    wait_for(lambda: bench.ask().status == 200)
    back = time.monotonic() - began
    last = others[-1]
    observed = f"{first}, later {last} after {last.seconds * 1000:.0f} ms, 200 again {back:.1f} s after its return"
    met = first.code == CODE["refused"] and last.code == "upstream_circuit_open" and last.retry_after
    return observed, met and last.seconds < 0.5 and back < BREAKER_SECONDS + 1


def _frozen(bench: Bench) -> Observed:
    with bench.upstream.frozen():
        seen = bench.ask()
    met = seen.code == CODE["late"] and IDLE_SECONDS <= seen.seconds < IDLE_SECONDS + 2
    return f"{seen} after {seen.seconds:.1f} s", met


def _frozen_in_stream(bench: Bench) -> Observed:
    result = in_background(lambda: bench.ask("events-200-20", stream=True))
    wait_for(lambda: bench.upstream.statistics()["active"])
    time.sleep(0.5)  # a few events are to pass
    with bench.upstream.frozen():
        seen = result()
    met = seen.status == 200 and not seen.complete and b'"number": 0' in seen.body
    return f"{seen} after {seen.body.count(b'data:')} events", met and seen.seconds < IDLE_SECONDS + 3


def _answered(mode: str, *codes: str, method: str = "POST", path: str = "/v1/responses") -> Callable[[Bench], Observed]:
    """A call that is to end with one of these codes."""

    def work(bench: Bench) -> Observed:
        seen = bench.ask(mode, method, path)
        return str(seen), seen.code in codes

    return work


def _broken_off(mode: str, *codes: str) -> Callable[[Bench], Observed]:
    """A call whose reply has begun, so that it can only be broken off; its client must not take it for whole."""

    def work(bench: Bench) -> Observed:
        seen = bench.ask(mode)
        return str(seen), seen.code in codes or (seen.status in {0, 200} and not (seen.status and seen.complete))

    return work


def _trickle(bench: Bench) -> Observed:
    seen = bench.ask("trickle")
    return f"{seen} after {seen.seconds:.1f} s", seen.status == 200 and seen.body == TRICKLED and seen.complete


def _sends_more(bench: Bench) -> Observed:
    replies = [bench.ask("sends-more") for _ in range(REPEATED_CALLS)]
    honest = sum(seen.body == b"{}" or seen.code == CODE["lost"] for seen in replies)
    polite = [bench.ask() for _ in range(REPEATED_CALLS)]
    mixed = sum(b"lie" in seen.body for seen in [*replies, *polite])
    observed = f"{honest} of {REPEATED_CALLS} as announced, {mixed} of {2 * REPEATED_CALLS} replies with the surplus"
    return observed, honest == REPEATED_CALLS and not mixed and all(seen.status == 200 for seen in polite)


def _closing(bench: Bench) -> Observed:
    """Every second call meets a kept connection that ends just then."""
    before = bench.upstream.statistics().get("closing", 0)
    read = [bench.ask("closing", "GET", "/v1/files/file-rude-closing") for _ in range(REPEATED_CALLS)]
    middle = bench.upstream.statistics()["closing"] - before
    written = [bench.ask("closing") for _ in range(REPEATED_CALLS)]
    sent = bench.upstream.statistics()["closing"] - before - middle
    good = sum(seen.status == 200 for seen in written)
    told = sum(seen.code == CODE["lost"] for seen in written)
    observed = (
        f"{sum(seen.status == 200 for seen in read)} of {REPEATED_CALLS} GET answered in {middle} calls; of "
        f"{REPEATED_CALLS} POST {good} answered, {told} told so, {sent} calls"
    )
    met = all(seen.status == 200 for seen in read) and good + told == REPEATED_CALLS == sent
    return observed, met


def _huge_file(bench: Bench) -> Observed:
    parts = urlsplit(bench.relay.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=READ_SECONDS)
    received = 0
    with PeakMemory(bench.relay.pid) as memory:
        connection.request("GET", "/v1/files/file-rude-huge/content", headers=bench.relay.headers)
        response = connection.getresponse()
        while piece := response.read(MIB):
            received += len(piece)
    connection.close()
    observed = f"{received / 10**9:g} GB arrived, memory grew by {memory.growth_mib:.0f} MiB"
    return observed, received == GIGABYTES_3 and memory.growth_mib < LARGE_GROWTH_MIB


def _huge_error(bench: Bench) -> Observed:
    with PeakMemory(bench.relay.pid) as memory:
        seen = bench.ask("huge-error")
    observed = f"{seen}, memory grew by {memory.growth_mib:.0f} MiB"
    return observed, seen.code == "upstream_error_withheld" and memory.growth_mib < LARGE_GROWTH_MIB


def _huge_for_wrapper(bench: Bench) -> Observed:
    with PeakMemory(bench.relay.pid) as memory:
        seen = bench.ask(method="GET", path="/v1/actions/responses/rude-huge")
    observed = f"{seen} after {seen.seconds:.1f} s, memory grew by {memory.growth_mib:.0f} MiB"
    return observed, seen.status == 502 and memory.growth_mib < READ_WHOLE_MIB


def _huge_event(bench: Bench) -> Observed:
    with PeakMemory(bench.relay.pid) as memory:
        seen = bench.ask("huge-event", path="/v1/actions/responses/stream")
    observed = f"{seen} after {seen.seconds:.1f} s, memory grew by {memory.growth_mib:.0f} MiB"
    return observed, seen.status == 502 and memory.growth_mib < READ_WHOLE_MIB


FAULTS = (
    Fault("upstream killed during a POST", f"502 `{CODE['lost']}`, not sent again", _killed_in_mid_call),
    Fault(
        "upstream killed during a GET",
        f"sent again, then 502 `{CODE['refused']}`",
        _killed_in_mid_read,
    ),
    Fault(
        f"upstream gone for {REFUSED_CALLS} calls, then back",
        f"502 `{CODE['refused']}`, then 503 `upstream_circuit_open` at once; 200 within {BREAKER_SECONDS + 1} s",
        _refused,
    ),
    Fault("upstream frozen before its headers", f"504 `{CODE['late']}` after {IDLE_SECONDS} s", _frozen),
    Fault("upstream frozen in mid-stream", f"broken off after {IDLE_SECONDS} s, visibly", _frozen_in_stream),
    Fault("upstream resets before its headers", f"502 `{CODE['lost']}`", _answered("reset", CODE["lost"])),
    Fault("upstream resets after its headers", "broken off, visibly", _broken_off("reset-after-headers")),
    Fault("upstream resets in mid-JSON", "broken off, visibly", _broken_off("reset-in-body")),
    Fault("upstream resets in mid-stream", "broken off, visibly", _broken_off("reset-in-stream")),
    Fault("upstream trickles 1 byte/s", "whole, however slow", _trickle),
    Fault("upstream announces more than it sends", "broken off, visibly", _broken_off("announces-more")),
    Fault(
        "upstream sends more than it announces",
        "as announced, or 502; the surplus is nobody's reply",
        _sends_more,
    ),
    Fault("upstream answers garbage", f"502 `{CODE['lost']}`", _answered("garbage", CODE["lost"])),
    Fault(
        "upstream's chunks are garbage",
        f"502 `{CODE['lost']}`, or broken off, visibly",
        _broken_off("garbage-in-body", CODE["lost"]),
    ),
    Fault("upstream's headers never end", f"502 `{CODE['lost']}`", _answered("headers", CODE["lost"])),
    Fault(
        "upstream closes kept connections as a call comes",
        "every GET answered; every POST sent once, answered or told so",
        _closing,
    ),
    Fault("upstream sends a file of 3 GB", f"whole, memory below {LARGE_GROWTH_MIB} MiB more", _huge_file),
    Fault("upstream sends an error of 3 GB", "502 `upstream_error_withheld`, not read whole", _huge_error),
    Fault(
        "upstream sends JSON of 3 GB to a wrapper", f"502, memory below {READ_WHOLE_MIB} MiB more", _huge_for_wrapper
    ),
    Fault("upstream sends an event of 3 GB to a wrapper", f"502, memory below {READ_WHOLE_MIB} MiB more", _huge_event),
)
