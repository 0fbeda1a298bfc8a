from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.exceptions import FileTooLarge
from handlers.runtime.file_links import keep_file
from handlers.runtime.services import Services
from tests.handlers.conftest import MakeRequest
from tests.support.artifacts import PATH, SECRET, Clock, content_of, in_pieces

NOW = 1_800_000_000


@pytest.fixture
async def store() -> AsyncIterator[ArtifactStore]:
    """A store in memory whose clock stands still."""
    async with ArtifactStore("memory:///", SECRET, path=PATH, clock=Clock(NOW), max_file_bytes=100) as store:
        yield store


async def test_a_kept_file_is_described_as_the_contract_says(
    store: ArtifactStore, own_services: Services, request_of: MakeRequest
) -> None:
    """Link, name, type, length and end; the link begins with the address that the assistant has called."""
    services = replace(own_services, artifacts=store)
    request = request_of("speakText", services=services, headers=[(b"host", b"relay.example")])
    link = await keep_file(request, "a/b.mp3", "audio/mpeg", in_pieces(b"con", b"tent"))
    url = link.pop("url")
    assert link == {"name": "b.mp3", "mime_type": "audio/mpeg", "bytes": 7, "expires_at": NOW + 3600}
    assert url.startswith("http://relay.example/artifacts/")
    assert await content_of(store, url.rpartition("/")[2]) == b"content"


async def test_a_file_that_is_too_large_is_not_kept(
    store: ArtifactStore, own_services: Services, request_of: MakeRequest
) -> None:
    """The limit of the store holds for whatever the upstream sends."""
    request = request_of("speakText", services=replace(own_services, artifacts=store))
    with pytest.raises(FileTooLarge):
        await keep_file(request, "a.mp3", "audio/mpeg", bytes(101))
