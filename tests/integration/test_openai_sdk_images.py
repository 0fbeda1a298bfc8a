import base64

import pytest
from openai import AsyncOpenAI

from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.recorder import RecordedRequest

pytestmark = pytest.mark.integration

MODEL = "gpt-image-2"
PNG = b"\x89PNG\r\n\x1a\n"  # how every PNG file begins
PICTURE = PNG + bytes(range(256)) * 40


def only_request(upstream: SimulatedUpstream) -> RecordedRequest:
    """The one request that has reached the upstream."""
    (request,) = upstream.recorder.requests
    return request


async def test_an_image_is_generated(sdk: AsyncOpenAI) -> None:
    """The image arrives as base64 of a PNG."""
    images = await sdk.images.generate(
        prompt="A lighthouse in a storm.",
        model=MODEL,
        n=1,
        size="1024x1024",
        quality="low",
        background="opaque",
        output_format="png",
        moderation="low",
        user="user-1",
    )
    assert images.data is not None
    assert base64.b64decode(images.data[0].b64_json or "").startswith(PNG)


async def test_a_generated_image_is_streamed(sdk: AsyncOpenAI) -> None:
    """Partial images come first, the complete one last."""
    stream = await sdk.images.generate(prompt="A lighthouse.", model=MODEL, stream=True, partial_images=2)
    events = [event async for event in stream]
    assert [event.type for event in events[:-1]] == ["image_generation.partial_image"] * (len(events) - 1)
    assert len(events) > 1
    assert events[-1].type == "image_generation.completed"
    assert base64.b64decode(events[-1].b64_json).startswith(PNG)


async def test_several_images_and_a_mask_are_edited(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The bytes of all images of a multipart request reach the upstream as they are."""
    images = await sdk.images.edit(
        image=[("a.png", PICTURE, "image/png"), ("b.png", PICTURE[::-1], "image/png")],
        mask=("mask.png", PNG, "image/png"),
        prompt="Calm the sea.",
        model=MODEL,
        input_fidelity="high",
        n=1,
    )
    assert images.data is not None
    assert images.data[0].b64_json
    sent = only_request(upstream).body_start
    assert sent.count(PICTURE) == 1
    assert sent.count(PICTURE[::-1]) == 1
    assert sent.count(b'name="image[]"') == 2


async def test_an_edited_image_is_streamed(sdk: AsyncOpenAI) -> None:
    """`stream` in a multipart body asks for events as well."""
    stream = await sdk.images.edit(
        image=("a.png", PICTURE), prompt="Calm the sea.", model=MODEL, stream=True, partial_images=1
    )
    events = [event async for event in stream]
    assert [event.type for event in events[:-1]] == ["image_edit.partial_image"] * (len(events) - 1)
    assert len(events) > 1
    assert events[-1].type == "image_edit.completed"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the SDK marks the method so
async def test_a_variation_of_an_image_is_made(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The oldest image operation still takes an image and answers one."""
    images = await sdk.images.create_variation(image=("a.png", PICTURE), model="dall-e-2", response_format="b64_json")
    assert images.data is not None
    assert images.data[0].b64_json
    assert PICTURE in only_request(upstream).body_start


async def test_the_provenance_of_an_image_is_checked(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A file goes up as multipart and every signal that was looked for comes back with its outcome."""
    check = await sdk.content_provenance_checks.create(file=("a.png", PICTURE))
    assert check.object == "content_provenance_check"
    assert {result.outcome for result in check.results} <= {"detected", "not_detected"}
    assert check.results
    assert PICTURE in only_request(upstream).body_start
