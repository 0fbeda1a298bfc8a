import pytest
from openai import AsyncOpenAI, NotFoundError

from handlers.simulated_upstream import SimulatedUpstream

pytestmark = [
    pytest.mark.integration,
    # Upstream ends the operations; the SDK says so on every call.
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
]

PICTURE = bytes(range(256)) * 40


async def test_a_video_lives_from_creation_to_deletion(sdk: AsyncOpenAI) -> None:
    """A video is queued, finished, found and deleted under its id."""
    created = await sdk.videos.create(prompt="A lighthouse.", model="sora-2", seconds="4", size="1280x720")
    assert (created.prompt, created.seconds, created.status) == ("A lighthouse.", "4", "queued")
    found = await sdk.videos.retrieve(created.id)
    assert (found.id, found.status) == (created.id, "completed")
    deleted = await sdk.videos.delete(created.id)
    assert (deleted.id, deleted.deleted) == (created.id, True)
    with pytest.raises(NotFoundError):
        await sdk.videos.retrieve(created.id)


async def test_a_reference_image_reaches_upstream(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """The image that a video begins with travels in the multipart body."""
    created = await sdk.videos.create_and_poll(prompt="A lighthouse.", input_reference=("a.png", PICTURE))
    assert created.status == "completed"
    assert PICTURE in upstream.recorder.requests[0].body_start


async def test_videos_are_paged(sdk: AsyncOpenAI) -> None:
    """The newest videos lead the list, which goes on over several pages."""
    ids = [(await sdk.videos.create(prompt=f"Wave {n}.")).id for n in range(3)]
    page = await sdk.videos.list(limit=2, order="desc")
    assert [video.id for video in page.data] == [ids[2], ids[1]]
    assert (await page.get_next_page()).data[0].id == ids[0]


async def test_content_arrives_as_bytes(sdk: AsyncOpenAI) -> None:
    """Video and thumbnail are downloaded as what they are."""
    created = await sdk.videos.create(prompt="A lighthouse.")
    video = await sdk.videos.download_content(created.id)
    assert video.content
    assert video.response.headers["content-type"] == "video/mp4"
    thumbnail = await sdk.videos.download_content(created.id, variant="thumbnail")
    assert thumbnail.response.headers["content-type"] == "image/webp"


async def test_videos_are_made_from_videos(sdk: AsyncOpenAI) -> None:
    """Remixes, edits and extensions are videos of their own."""
    first = await sdk.videos.create(prompt="A lighthouse.")
    made = [
        await sdk.videos.remix(first.id, prompt="At night."),
        await sdk.videos.edit(prompt="At night.", video=("a.mp4", PICTURE)),
        await sdk.videos.extend(prompt="At night.", seconds="4", video=("a.mp4", PICTURE)),
    ]
    assert len({video.id for video in (first, *made)}) == 4
    for video in made:
        assert (await sdk.videos.retrieve(video.id)).prompt == "At night."


async def test_a_character_is_made_and_found(sdk: AsyncOpenAI, upstream: SimulatedUpstream) -> None:
    """A character made from a clip is found under its id."""
    created = await sdk.videos.create_character(name="Keeper", video=("a.mp4", PICTURE))
    assert created.name == "Keeper"
    assert PICTURE in upstream.recorder.requests[0].body_start
    assert created.id is not None
    found = await sdk.videos.get_character(created.id)
    assert (found.id, found.name) == (created.id, created.name)


async def test_replies_announce_the_end(sdk: AsyncOpenAI) -> None:
    """Every reply of an operation that upstream ends says when."""
    raw = await sdk.videos.with_raw_response.list()
    assert raw.headers["deprecation"].startswith("@")
    assert raw.headers["sunset"].endswith("GMT")
