"""What images, recordings and videos cost in time when the upstream or a file's host does not answer."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from handlers.runtime.budget import DEADLINE_SECONDS
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_relay import TIMEOUT_SECONDS, FileRelay, running_file_relay
from tests.support.file_server import Exchange
from tests.support.images import image
from tests.support.servers import ServerThread
from tests.support.transfers import MIB

pytestmark = pytest.mark.integration

LATEST_SECONDS = 40.0  # of the 45 that ChatGPT waits
PROMPT: dict[str, Any] = {"prompt": "A lighthouse."}


@pytest.fixture(scope="module")
def running(upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileRelay]:
    """A relay that may fetch files from a server of this module."""
    with running_file_relay(tmp_path_factory.mktemp("deadline"), upstream_server.url) as running:
        yield running


def stopping(exchange: Exchange) -> None:
    """Send half a recording and then nothing."""
    exchange.start(200, {"Content-Type": "audio/mpeg", "Content-Length": str(2 * MIB)})
    exchange.send(bytes(MIB))
    exchange.wait_until_left()


async def test_every_wrapper_answers_before_an_assistant_gives_up(
    running: FileRelay, upstream: SimulatedUpstream
) -> None:
    """Silence, a stall in mid-answer and a file that stops coming all end in a reply in time, all at once."""
    cat = {"openaiFileIdRefs": [running.offer("cat.png", image("image/png"), "image/png")]}
    memo = {"openaiFileIdRefs": [running.offer("memo.mp3", b"made up", "audio/mpeg")]}
    running.files.answers["/stops.mp3"] = stopping
    calls: list[tuple[str, dict[str, Any]]] = [
        ("images/generations", PROMPT),
        ("images/edits", PROMPT | cat),
        ("images/variations", cat),
        ("audio/speech", {"input": "Hello."}),
        ("audio/speech", {"input": "Hello."}),
        ("audio/transcriptions", memo),
        ("audio/transcriptions", {"openaiFileIdRefs": [running.refer("stops.mp3", "audio/mpeg")]}),
        ("audio/translations", memo),
        ("videos", PROMPT),
        ("videos", PROMPT | cat),
        ("videos/video_1/remix", PROMPT),
    ]
    audio = {"content-type": "audio/mpeg"}
    upstream.faults.add(
        Fault("createSpeech", times=1, content_bytes=5 * MIB, headers=audio, silent_after_bytes=3 * MIB)
    )
    upstream.faults.add(Fault(silent=True))
    headers = running.keys["actions"].headers
    async with httpx.AsyncClient(base_url=running.relay.url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        began = time.monotonic()
        replies = await asyncio.gather(*(client.post(f"/v1/actions/{path}", json=body) for path, body in calls))
        seconds = time.monotonic() - began
    assert seconds < LATEST_SECONDS
    assert seconds > DEADLINE_SECONDS  # as long as somebody waits, the upstream may answer
    codes = [reply.json()["error"]["code"] for reply in replies]
    assert codes == ["file_unreachable" if "stops" in str(body) else "upstream_timeout" for _, body in calls]
