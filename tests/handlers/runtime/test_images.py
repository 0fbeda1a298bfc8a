import base64
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from handlers.runtime.artifacts import FILE_BYTES, ArtifactStore
from handlers.runtime.exceptions import ArtifactStoreFull, UpstreamProtocolError
from handlers.runtime.images import image_links, image_type
from handlers.runtime.messages import Request
from handlers.runtime.services import Services
from tests.handlers.conftest import MakeRequest
from tests.support.artifacts import PATH, SECRET, content_of
from tests.support.images import MAGIC, image, images_answer

ROOM_BYTES = 4_000_000
PNG = base64.b64encode(image("image/png")).decode()


@pytest.fixture
async def store() -> AsyncIterator[ArtifactStore]:
    """A store in memory with little room."""
    async with ArtifactStore("memory:///", SECRET, path=PATH, max_total_bytes=ROOM_BYTES) as store:
        yield store


@pytest.fixture
def asking(store: ArtifactStore, own_services: Services, request_of: MakeRequest) -> Request:
    """A request of an assistant."""
    return request_of("generateImages", services=replace(own_services, artifacts=store))


@pytest.mark.parametrize("media_type", MAGIC)
def test_an_image_is_told_by_its_first_bytes(media_type: str) -> None:
    """Each kind that the upstream makes is known, however short the image is."""
    kind, ending = image_type(MAGIC[media_type])
    assert kind == media_type
    assert ending in {"png", "jpg", "webp"}


@pytest.mark.parametrize("head", [b"", b"\x89PNG", b"RIFF\x10\x00\x00\x00WAVE", b"<svg>", b"GIF89a"])
def test_what_is_not_known_is_not_guessed(head: bytes) -> None:
    """Anything else is just bytes, which no browser shows."""
    assert image_type(head) == ("application/octet-stream", "")


@pytest.mark.parametrize("size", [13, 786_431, 786_432, 786_433, 3_000_000])
async def test_every_byte_is_kept_whatever_the_size(size: int, asking: Request, store: ArtifactStore) -> None:
    """Sizes around the pieces in which the text is decoded."""
    content = image("image/webp", size)
    (link,) = (await image_links(asking, images_answer([content])))["data"]
    assert link["bytes"] == size
    assert await content_of(store, link["url"].rpartition("/")[2]) == content


async def test_the_text_of_an_image_is_dropped_once_it_is_kept(asking: Request) -> None:
    """While the last image is kept, the others are gone from the answer; only links are left."""
    answer = images_answer([image("image/png", 1000, seed) for seed in range(4)], usage={"input_tokens": 1})
    items = list(answer["data"])
    links = await image_links(asking, answer)
    assert "data" not in answer
    assert all("b64_json" not in item for item in items)
    assert [link["name"] for link in links["data"]] == [f"image-{number}.png" for number in range(1, 5)]
    assert links["usage"] == {"input_tokens": 1}


async def test_bytes_that_are_no_image_are_kept_as_bytes(asking: Request) -> None:
    """They were paid for, so they are handed out, under a type with which nothing can happen."""
    (link,) = (await image_links(asking, images_answer([b"<svg onload=alert(1)>"])))["data"]
    assert (link["name"], link["mime_type"]) == ("image-1", "application/octet-stream")


async def test_what_the_upstream_leaves_out_is_left_out(asking: Request) -> None:
    """Only the time is filled in, since the contract promises one."""
    before = int(time.time())
    links = await image_links(asking, {"data": [{"b64_json": PNG, "revised_prompt": None}], "created": "x"})
    assert before <= links["created"] <= time.time()
    assert "usage" not in links
    assert "revised_prompt" not in links["data"][0]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": ["text"]},
        {"data": [{}]},
        {"data": [{"b64_json": ""}]},
        {"data": [{"b64_json": "AAA"}]},
        {"data": [{"b64_json": "AAAA\nAAAA"}]},
        {"data": [{"b64_json": "\N{SNOWMAN}" * 20}]},
        {"data": [{"b64_json": PNG + "!"}]},
        {"data": [{"b64_json": "A" * 2**21 + "===="}]},
        {"data": [{"url": 5}]},
        {"data": [{"url": "ftp://images.example/a.png"}]},
        {"data": [{"url": "https://images.example/" + "a" * 5000}]},
        {"data": [{"url": "https://images.example/a\n](javascript:"}]},
    ],
    ids=lambda answer: str(answer)[:40],
)
async def test_what_cannot_be_read_is_the_upstreams_fault(answer: dict[str, Any], asking: Request) -> None:
    """Nothing is made of it, and what an assistant is told does not repeat it."""
    with pytest.raises(UpstreamProtocolError) as caught:
        await image_links(asking, answer)
    assert caught.value.message.startswith("The upstream answered no image")


async def test_a_full_store_says_so(asking: Request) -> None:
    """Images for which there is no room are not handed out in part."""
    content = image("image/png", ROOM_BYTES - FILE_BYTES - 1000)
    with pytest.raises(ArtifactStoreFull):
        await image_links(asking, images_answer([content, content]))
