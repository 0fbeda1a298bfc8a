from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from handlers.artifacts import retrieve_artifact
from handlers.runtime.artifacts import ArtifactStore
from handlers.runtime.exceptions import ArtifactNotFound, RangeNotSatisfiable
from handlers.runtime.messages import Reply, Request
from tests.support.artifacts import DEAD_LINKS, PATH, SECRET, Clock, live

CONTENT = bytes(range(100))


@pytest.fixture
async def store() -> AsyncIterator[ArtifactStore]:
    """A store in memory whose clock stands still."""
    async with ArtifactStore("memory:///", SECRET, path=PATH, clock=Clock()) as store:
        yield store


async def fetch(store: ArtifactStore, token: str, **headers: str) -> tuple[Reply, dict[str, str], bytes]:
    """What the operation answers to a link: the reply, its headers and all of its body."""
    request = Request(
        id="rly_0123456789",
        operation=cast("Any", None),
        path="/artifacts/token",
        path_params={"token": token},
        query=b"",
        headers=[(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        caller=None,
        services=cast("Any", SimpleNamespace(artifacts=store)),
    )
    reply = await retrieve_artifact(request)
    assert not isinstance(reply.body, bytes)
    body = b"".join([piece async for piece in reply.body])
    return reply, {name.decode(): value.decode() for name, value in reply.headers}, body


async def test_the_whole_file_comes_with_all_that_a_browser_must_know(store: ArtifactStore) -> None:
    """The reply says what the file is, how long it may be kept, and that it is to be saved and may do nothing."""
    saved = await store.save('Größe "1".csv', "text/csv; charset=utf-8", CONTENT)
    reply, headers, body = await fetch(store, saved.token)
    assert (reply.status, body) == (200, CONTENT)
    etag = headers.pop("etag")
    assert etag.startswith('"')
    assert headers == {
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=3600",
        "content-disposition": "attachment; filename=\"Gr__e _1_.csv\"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%221%22.csv",
        "content-length": "100",
        "content-security-policy": "sandbox; default-src 'none'",
        "content-type": "text/csv; charset=utf-8",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


async def test_a_range_is_answered_with_its_place_in_the_whole(store: ArtifactStore) -> None:
    """A part says which part it is, and its length is its own."""
    saved = await store.save("a.bin", "", CONTENT)
    reply, headers, body = await fetch(store, saved.token, range="bytes=10-19")
    assert (reply.status, body) == (206, CONTENT[10:20])
    assert headers["content-range"] == "bytes 10-19/100"
    assert headers["content-length"] == "10"
    assert headers["content-type"] == "application/octet-stream"


async def test_a_range_over_the_whole_file_is_still_a_part(store: ArtifactStore) -> None:
    """Who asks for a range gets one, even when it covers everything."""
    saved = await store.save("a.bin", "", CONTENT)
    reply, headers, body = await fetch(store, saved.token, range="bytes=0-")
    assert (reply.status, headers["content-range"], body) == (206, "bytes 0-99/100", CONTENT)


async def test_a_range_counts_only_for_the_content_that_the_client_has(store: ArtifactStore) -> None:
    """With `If-Range` a part is answered when it names this very content, the whole otherwise."""
    saved = await store.save("a.bin", "", CONTENT)
    _, headers, _ = await fetch(store, saved.token)
    same, _, part = await fetch(store, saved.token, range="bytes=0-4", if_range=headers["etag"])
    assert (same.status, part) == (206, CONTENT[:5])
    for other in (
        '"something-else"',
        f"W/{headers['etag']}",
        "Sun, 22 Nov 2026 12:00:00 GMT",
        headers["etag"].strip('"'),
    ):
        reply, _, whole = await fetch(store, saved.token, range="bytes=0-4", if_range=other)
        assert (reply.status, whole) == (200, CONTENT)


async def test_several_ranges_are_answered_with_the_whole(store: ArtifactStore) -> None:
    """One reply has one part or all."""
    saved = await store.save("a.bin", "", CONTENT)
    reply, headers, body = await fetch(store, saved.token, range="bytes=0-1,5-6")
    assert (reply.status, body) == (200, CONTENT)
    assert "content-range" not in headers


async def test_a_range_behind_the_end_is_refused(store: ArtifactStore) -> None:
    """Nothing is sent, and the client learns the length."""
    saved = await store.save("a.bin", "", CONTENT)
    with pytest.raises(RangeNotSatisfiable) as caught:
        await fetch(store, saved.token, range="bytes=100-")
    assert caught.value.headers == (("Content-Range", "bytes */100"),)


async def test_an_empty_file_is_a_file(store: ArtifactStore) -> None:
    """Nothing comes, and says so."""
    saved = await store.save("empty.txt", "text/plain", b"")
    reply, headers, body = await fetch(store, saved.token)
    assert (reply.status, headers["content-length"], body) == (200, "0", b"")


@pytest.mark.parametrize("name", DEAD_LINKS)
async def test_a_dead_link_serves_nothing(store: ArtifactStore, name: str) -> None:
    """Forged, foreign and traversing tokens end in the same refusal."""
    saved = await store.save("a.bin", "", CONTENT)
    with pytest.raises(ArtifactNotFound):
        await fetch(store, DEAD_LINKS[name](live(saved.token)))
