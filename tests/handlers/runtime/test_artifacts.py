import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from obstore.exceptions import GenericError
from obstore.store import LocalStore

from handlers.runtime.artifact_links import ArtifactId, LinkSigner
from handlers.runtime.artifact_objects import ArtifactObjects
from handlers.runtime.artifacts import FILE_BYTES, PIECE_BYTES, ArtifactStore
from handlers.runtime.exceptions import (
    ArtifactNotFound,
    ArtifactStoreFull,
    FileTooLarge,
    InternalError,
    InvalidSettings,
    RangeNotSatisfiable,
)
from tests.support.artifacts import (
    DEAD_LINKS,
    FORGED,
    NEIGHBOUR,
    OTHER_SECRET,
    PATH,
    SECRET,
    Clock,
    content_of,
    in_pieces,
    live,
    stored_names,
    until,
)

TTL_SECONDS = 3600
MakeStore = Callable[..., ArtifactStore]


@pytest.fixture
def clock() -> Clock:
    """The clock of all stores of a test."""
    return Clock()


@pytest.fixture
def make_store(clock: Clock) -> MakeStore:
    """Makes a store with the secret and the clock of the test."""

    def make(url: str, secret: bytes | None = SECRET, **options: object) -> ArtifactStore:
        return ArtifactStore(url, secret, path=PATH, ttl_seconds=TTL_SECONDS, clock=clock, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(params=["memory", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may lie."""
    return "memory:///" if request.param == "memory" else (tmp_path / "store").as_uri()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file of somebody else in it."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / NEIGHBOUR).write_text("not yours")
    return folder


def patterned(size: int) -> bytes:
    """Bytes of which no two pieces are the same."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
async def test_a_file_comes_back_as_it_was(make_store: MakeStore, url: str, size: int, clock: Clock) -> None:
    """Content, name and type are those that were saved, whatever the length, in one piece or in many."""
    content = patterned(size)
    async with make_store(url) as store:
        whole = await store.save("a/report.csv", "Text/CSV", content)
        pieces = (content[start : start + 70_000] for start in range(0, size, 70_000))
        streamed = await store.save("report.csv", "text/csv", in_pieces(*pieces))
        for saved in (whole, streamed):
            assert (saved.name, saved.media_type, saved.bytes) == ("report.csv", "text/csv", size)
            assert saved.expires_at == clock.now + TTL_SECONDS
            file = await store.open(saved.token)
            assert (file.name, file.media_type, file.total, file.partial) == ("report.csv", "text/csv", size, False)
            assert b"".join([piece async for piece in file.pieces]) == content
    assert whole.token != streamed.token


@pytest.mark.parametrize(
    "first, last",
    [
        (0, 0),
        (0, PIECE_BYTES - 1),
        (0, PIECE_BYTES),
        (PIECE_BYTES - 1, PIECE_BYTES),
        (PIECE_BYTES, PIECE_BYTES),
        (PIECE_BYTES - 3, 2 * PIECE_BYTES + 3),
        (2 * PIECE_BYTES + 99, 2 * PIECE_BYTES + 99),
    ],
)
async def test_a_range_is_cut_out_across_pieces(make_store: MakeStore, url: str, first: int, last: int) -> None:
    """Where the pieces end is nothing that a reader can see."""
    content = patterned(2 * PIECE_BYTES + 100)
    async with make_store(url) as store:
        saved = await store.save("a", "", content)
        file = await store.open(saved.token, f"bytes={first}-{last}")
        assert (file.start, file.end, file.total, file.partial) == (first, last + 1, len(content), True)
        assert b"".join([piece async for piece in file.pieces]) == content[first : last + 1]
        with pytest.raises(RangeNotSatisfiable):
            await store.open(saved.token, f"bytes={len(content)}-")


async def test_a_link_starts_with_the_address_that_the_relay_has(make_store: MakeStore) -> None:
    """The public URL wins over that of the request; with neither the link is a path."""
    public = await make_store("memory:///", public_url="https://relay.example/base").save("a", "", b"")
    called = await make_store("memory:///").save("a", "", b"", base_url="http://127.0.0.1:8080")
    bare = await make_store("memory:///").save("a", "", b"")
    assert public.url == f"https://relay.example/base/artifacts/{public.token}"
    assert called.url == f"http://127.0.0.1:8080/artifacts/{called.token}"
    assert bare.url == f"/artifacts/{bare.token}"
    assert public.token not in repr(public)


async def test_names_and_types_lie_in_the_store_and_not_in_keys(make_store: MakeStore, folder: Path) -> None:
    """What lies in the folder is named by the key alone, whatever the file calls itself."""
    async with make_store(folder.as_uri()) as store:
        saved = await store.save("../../evil.sh", "text/x-sh; charset=utf-8", b"#!")
        key = live(saved.token).id.key
        assert stored_names(folder) == [f"{key}.0", f"{key}.json"]


@pytest.mark.parametrize("name", DEAD_LINKS)
async def test_a_dead_link_finds_nothing(make_store: MakeStore, folder: Path, name: str) -> None:
    """Forged, foreign, ended and traversing tokens all end in the same words."""
    async with make_store(folder.as_uri()) as store:
        saved = await store.save("a.bin", "", b"secret")
        with pytest.raises(ArtifactNotFound) as caught:
            await store.open(DEAD_LINKS[name](live(saved.token)))
    assert str(caught.value) == str(ArtifactNotFound())


def test_the_suite_of_dead_links_is_large_enough() -> None:
    """At least forty ways to fail are tried, each another text."""
    link = live(_token_of(SECRET))
    assert len({make(link) for make in DEAD_LINKS.values()}) == len(DEAD_LINKS) >= 40


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_link_never_reaches_the_store(
    make_store: MakeStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is looked up for somebody who cannot sign."""
    store = make_store("memory:///")
    saved = await store.save("a.bin", "", b"secret")
    reads: list[object] = []
    monkeypatch.setattr("handlers.runtime.artifact_objects.ArtifactObjects.read", lambda *args: reads.append(args))
    with pytest.raises(ArtifactNotFound):
        await store.open(FORGED[name](live(saved.token)))
    assert reads == []


async def test_a_link_ends_on_time(make_store: MakeStore, url: str, clock: Clock) -> None:
    """The last second still counts, the next one does not, although the file may still lie there."""
    async with make_store(url) as store:
        saved = await store.save("a", "", b"x")
        clock.now += TTL_SECONDS - 1
        assert (await store.open(saved.token)).seconds_left == 1
        clock.now += 1
        with pytest.raises(ArtifactNotFound):
            await store.open(saved.token)


async def test_a_replayed_link_finds_nothing_after_deletion(make_store: MakeStore, folder: Path, clock: Clock) -> None:
    """What has ended is gone for good, even where the clock is turned back."""
    async with make_store(folder.as_uri()) as store:
        saved = await store.save("a", "", patterned(2 * PIECE_BYTES))
        clock.now += TTL_SECONDS
        other = await store.save("b", "", b"y")
        assert stored_names(folder) == [f"{live(other.token).id.key}.{end}" for end in ("0", "json")]
        clock.now -= TTL_SECONDS
        with pytest.raises(ArtifactNotFound):
            await store.open(saved.token)


@pytest.mark.parametrize("ending", ["json", "0"])
async def test_a_file_of_which_a_part_is_gone_is_gone(make_store: MakeStore, folder: Path, ending: str) -> None:
    """Whoever deletes from the store himself takes the link along."""
    async with make_store(folder.as_uri()) as store:
        saved = await store.save("a", "", patterned(2 * PIECE_BYTES))
        (folder / f"{live(saved.token).id.key}.{ending}").unlink()
        with pytest.raises(ArtifactNotFound):
            await store.open(saved.token)


async def test_a_download_of_a_file_that_vanishes_breaks_off(make_store: MakeStore, folder: Path) -> None:
    """Half a file is never passed off as a whole one."""
    async with make_store(folder.as_uri()) as store:
        saved = await store.save("a", "", patterned(2 * PIECE_BYTES))
        file = await store.open(saved.token)
        assert len(await anext(file.pieces)) == PIECE_BYTES
        (folder / f"{live(saved.token).id.key}.1").unlink()
        with pytest.raises(InternalError):
            await anext(file.pieces)


async def test_a_piece_that_was_cut_breaks_the_download_off(make_store: MakeStore, folder: Path) -> None:
    """A disk that has lost the end of a piece is noticed."""
    async with make_store(folder.as_uri()) as store:
        saved = await store.save("a", "", b"0123456789")
        (folder / f"{live(saved.token).id.key}.0").write_bytes(b"0123")
        with pytest.raises(InternalError):
            await content_of(store, saved.token)


async def test_a_store_that_answers_less_than_it_was_asked_for_breaks_the_download_off(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for bytes that do not come."""
    store = make_store("memory:///")
    saved = await store.save("a", "", b"0123456789")
    read = ArtifactObjects.read
    calls = iter(range(10))

    async def read_less(self: ArtifactObjects, name: str, start: int, end: int) -> bytes:
        next(calls)
        content = await read(self, name, start, end)
        return content if name.endswith(".json") else b""

    monkeypatch.setattr(ArtifactObjects, "read", read_less)
    with pytest.raises(InternalError):
        await content_of(store, saved.token)


async def test_what_others_wrote_into_the_store_is_made_plain(make_store: MakeStore, folder: Path) -> None:
    """A description is not trusted: nothing in it breaks out of a header."""
    store = make_store(folder.as_uri())
    saved = await store.save("a", "", b"x")
    described = {"name": "../b\r\nSet-Cookie: c", "media_type": "text/html\r\nX-Made-Up: 1", "bytes": 1}
    (folder / f"{live(saved.token).id.key}.json").write_bytes(orjson.dumps(described))
    file = await store.open(saved.token)
    assert (file.name, file.media_type) == ("bSet-Cookie: c", "application/octet-stream")


async def test_replicas_with_one_secret_serve_each_other(make_store: MakeStore, folder: Path) -> None:
    """A link is good at every relay that shares folder and secret."""
    async with make_store(folder.as_uri()) as one, make_store(folder.as_uri()) as two:
        saved = await one.save("a.txt", "text/plain", b"hello")
        assert await content_of(two, saved.token) == b"hello"
        assert (await two.open(saved.token)).name == "a.txt"


async def test_replicas_with_other_secrets_do_not(make_store: MakeStore, folder: Path) -> None:
    """Sharing the folder is not enough; without a secret of one's own each process has another."""
    async with make_store(folder.as_uri()) as one:
        saved = await one.save("a", "", b"x")
        for secret in (OTHER_SECRET, None, None):
            async with make_store(folder.as_uri(), secret) as other:
                with pytest.raises(ArtifactNotFound):
                    await other.open(saved.token)


async def test_a_restart_keeps_what_has_not_ended(make_store: MakeStore, folder: Path) -> None:
    """A folder and a secret outlive the process."""
    async with make_store(folder.as_uri()) as before:
        saved = await before.save("a", "", b"x")
    async with make_store(folder.as_uri()) as after:
        assert await content_of(after, saved.token) == b"x"


async def test_content_is_written_while_it_comes(make_store: MakeStore, folder: Path) -> None:
    """Of a file that streams in no more is held than a piece and what has just come."""
    written: list[int] = []

    async def content() -> AsyncIterator[bytes]:
        for sent in range(0, 6 * PIECE_BYTES, PIECE_BYTES // 2):
            written.append(sent - sum(path.stat().st_size for path in folder.glob("*.[0-9]")))
            yield bytes(PIECE_BYTES // 2)

    async with make_store(folder.as_uri()) as store:
        await store.save("a", "", content())
    assert max(written) <= PIECE_BYTES


async def test_the_total_counts_every_file(make_store: MakeStore, url: str) -> None:
    """Room for two files is room for two, however they come; the next one is refused."""
    async with make_store(url, max_total_bytes=2 * (FILE_BYTES + 1000)) as store:
        await store.save("a", "", bytes(1000))
        await store.save("b", "", in_pieces(bytes(400), bytes(600)))
        for content in (bytes(1000), b"", in_pieces(b"")):
            with pytest.raises(ArtifactStoreFull):
                await store.save("c", "", content)


async def test_what_has_ended_makes_room(make_store: MakeStore, url: str, clock: Clock) -> None:
    """A full store takes files again as soon as earlier ones have ended."""
    async with make_store(url, max_total_bytes=FILE_BYTES + 1000) as store:
        await store.save("a", "", bytes(1000))
        with pytest.raises(ArtifactStoreFull):
            await store.save("b", "", bytes(1000))
        clock.now += TTL_SECONDS
        saved = await store.save("c", "", bytes(1000))
        assert await content_of(store, saved.token) == bytes(1000)


async def test_what_others_have_deleted_makes_room(make_store: MakeStore, folder: Path) -> None:
    """Before a file is refused, the store looks again."""
    store = make_store(folder.as_uri(), max_total_bytes=FILE_BYTES + 1000)
    await store.save("a", "", bytes(1000))
    for name in stored_names(folder):
        (folder / name).unlink()
    await store.save("b", "", bytes(1000))


async def test_what_lay_there_before_counts(make_store: MakeStore, folder: Path) -> None:
    """A relay that starts again, or a second one, knows what is stored already."""
    limit = 2 * FILE_BYTES + 2500
    async with make_store(folder.as_uri(), max_total_bytes=limit) as before:
        await before.save("a", "", bytes(2000))
    async with make_store(folder.as_uri(), max_total_bytes=limit) as after:
        with pytest.raises(ArtifactStoreFull):
            await after.save("b", "", bytes(2000))
        await after.save("c", "", bytes(500))


async def test_concurrent_saves_never_exceed_the_total(make_store: MakeStore, folder: Path) -> None:
    """Twenty files at once into room for seven: exactly seven are kept, and of the others nothing."""
    size = 10_000
    async with make_store(folder.as_uri(), max_total_bytes=7 * (FILE_BYTES + size)) as store:
        saves = [store.save("a", "", in_pieces(bytes(size))) for _ in range(20)]
        results = await asyncio.gather(*saves, return_exceptions=True)
        kept = [result for result in results if not isinstance(result, BaseException)]
        assert len(kept) == 7
        assert {type(result) for result in results if isinstance(result, BaseException)} == {ArtifactStoreFull}
        assert len(stored_names(folder)) == 14


async def test_a_save_that_begins_and_ends_during_a_listing_counts(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that is older than a file does not make that file forgotten."""
    list_objects = LocalStore.list
    listings: list[threading.Event] = []

    def slow_list(self: LocalStore, **options: Any) -> object:
        found = list(list_objects(self, **options))
        goes_on = threading.Event()
        listings.append(goes_on)
        assert goes_on.wait(5)
        return found

    async with make_store(folder.as_uri(), max_total_bytes=2 * FILE_BYTES, sweep_seconds=0.01) as store:
        await store.save("a", "", b"")
        monkeypatch.setattr(LocalStore, "list", slow_list)
        await until(lambda: len(listings) == 1)
        await store.save("b", "", b"")
        listings[0].set()
        await until(lambda: len(listings) == 2)
        refused = asyncio.create_task(store.save("c", "", b""))
        await asyncio.wait([refused], timeout=0.1)
        monkeypatch.undo()
        listings[1].set()
        with pytest.raises(ArtifactStoreFull):
            await refused


async def test_the_store_is_listed_no_more_often_than_needed(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that fails gives its room back at once, and refusals of one moment share a listing."""
    list_objects = LocalStore.list
    listings: list[bool] = []

    def counting_list(self: LocalStore, **options: Any) -> object:
        listings.append(True)
        return list_objects(self, **options)

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(1000)
        raise ConnectionResetError

    monkeypatch.setattr(LocalStore, "list", counting_list)
    store = make_store(folder.as_uri(), max_total_bytes=FILE_BYTES + 1000)
    with pytest.raises(ConnectionResetError):
        await store.save("a", "", broken())
    await store.save("b", "", bytes(1000))
    assert len(listings) == 1
    refused = await asyncio.gather(*[store.save("c", "", b"") for _ in range(50)], return_exceptions=True)
    assert {type(result) for result in refused} == {ArtifactStoreFull}
    assert len(listings) <= 3


async def test_a_listing_under_way_miscounts_no_save(make_store: MakeStore, folder: Path, clock: Clock) -> None:
    """Saves that begin, end and fail while the store is counted are all counted once."""
    size = 5000
    async with make_store(folder.as_uri(), max_total_bytes=30 * (FILE_BYTES + size), sweep_seconds=0.001) as store:

        async def broken() -> AsyncIterator[bytes]:
            yield bytes(size)
            raise ConnectionResetError

        for _ in range(10):
            saves = [store.save("a", "", bytes(size)) for _ in range(3)]
            failing = [store.save("b", "", broken()) for _ in range(3)]
            await asyncio.gather(*saves, *failing, return_exceptions=True)
        assert len(stored_names(folder)) == 60
        with pytest.raises(ArtifactStoreFull):
            await store.save("c", "", b"")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_file_above_the_limit_is_refused_whole(make_store: MakeStore, folder: Path, streamed: bool) -> None:
    """The limit is reached and not passed, and nothing of the file stays."""
    limit = PIECE_BYTES + 10
    async with make_store(folder.as_uri(), max_file_bytes=limit) as store:
        await store.save("a", "", bytes(limit))
        lying = stored_names(folder)
        content = in_pieces(*[bytes(limit // 2)] * 3) if streamed else bytes(limit + 1)
        with pytest.raises(FileTooLarge):
            await store.save("b", "", content)
        assert stored_names(folder) == lying


async def test_a_save_whose_content_breaks_off_leaves_nothing(make_store: MakeStore, folder: Path) -> None:
    """The reason comes through as it is, and the room is free again."""

    async def content() -> AsyncIterator[bytes]:
        yield bytes(PIECE_BYTES)
        yield bytes(PIECE_BYTES)
        raise ConnectionResetError

    async with make_store(folder.as_uri(), max_total_bytes=FILE_BYTES + 2 * PIECE_BYTES) as store:
        with pytest.raises(ConnectionResetError):
            await store.save("a", "", content())
        assert stored_names(folder) == []
        await store.save("b", "", bytes(2 * PIECE_BYTES))


@pytest.mark.parametrize("written", [0, 1, 2])
async def test_a_save_that_is_cancelled_leaves_nothing(make_store: MakeStore, folder: Path, written: int) -> None:
    """Whoever stops a save finds neither its objects nor its bytes counted, and its content is not read on."""
    waits = asyncio.Event()
    left = []

    async def content() -> AsyncIterator[bytes]:
        try:
            for _ in range(written):
                yield bytes(PIECE_BYTES)
            waits.set()
            await asyncio.Event().wait()
        finally:
            left.append(True)

    async with make_store(folder.as_uri(), max_total_bytes=FILE_BYTES + 3 * PIECE_BYTES) as store:
        save = asyncio.create_task(store.save("a", "", content()))
        await waits.wait()
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save
        assert left == [True]
        await until(lambda: stored_names(folder) == [])
        await store.save("b", "", bytes(3 * PIECE_BYTES))


async def test_a_save_that_is_cancelled_while_it_writes_leaves_nothing(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be stopped, so what it still writes is deleted once it has."""
    put = LocalStore.put
    waits, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow_put(self: LocalStore, name: str, content: bytes, **options: Any) -> object:
        loop.call_soon_threadsafe(waits.set)
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(5)
        return put(self, name, content, **options)

    monkeypatch.setattr(LocalStore, "put", slow_put)
    async with make_store(folder.as_uri()) as store:
        save = asyncio.create_task(store.save("a", "", b"x"))
        await waits.wait()
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save
        goes_on.set()
    assert stored_names(folder) == []


async def test_the_end_of_the_block_takes_back_what_was_cancelled(make_store: MakeStore, folder: Path) -> None:
    """A relay that stops leaves no half-written file behind."""
    async with make_store(folder.as_uri()) as store:
        waits = asyncio.Event()

        async def content() -> AsyncIterator[bytes]:
            yield bytes(2 * PIECE_BYTES)
            waits.set()
            await asyncio.Event().wait()

        save = asyncio.create_task(store.save("a", "", content()))
        await waits.wait()
        assert stored_names(folder) != []
        save.cancel()
        await asyncio.wait([save])
    assert stored_names(folder) == []


async def test_a_folder_that_is_gone_is_an_error(make_store: MakeStore, tmp_path: Path) -> None:
    """It is not made anew, open to everybody, and nothing is half-written."""
    folder = tmp_path / "store"
    store = make_store(folder.as_uri())
    folder.rmdir()
    with pytest.raises(InternalError):
        await store.save("a", "", b"x")
    assert not folder.exists()


async def test_a_folder_that_became_a_file_is_an_error(make_store: MakeStore, tmp_path: Path) -> None:
    """Reading and writing fail in the relay's own way."""
    folder = tmp_path / "store"
    store = make_store(folder.as_uri())
    saved = await store.save("a", "", b"x")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("not a folder")
    with pytest.raises(InternalError):
        await store.save("a", "", b"x")
    with pytest.raises((InternalError, ArtifactNotFound)):
        await store.open(saved.token)
    assert folder.read_text() == "not a folder"


async def test_a_disk_that_refuses_in_the_middle_leaves_nothing(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the last object cannot be written, those before it are deleted."""
    id_ = ArtifactId.new(2_000_000_000)
    (folder / f"{id_.key}.json" / "in the way").mkdir(parents=True)
    monkeypatch.setattr(ArtifactId, "new", lambda _: id_)
    store = make_store(folder.as_uri())
    with structlog.testing.capture_logs() as lines, pytest.raises(InternalError):
        await store.save("a", "", patterned(2 * PIECE_BYTES))
    assert stored_names(folder) == [f"{id_.key}.json"]
    assert lines[0]["event"] == "artifact_store_failed"


@pytest.mark.parametrize("reason", ["No space left on device (os error 28)", "Quota exceeded (os error 122)"])
async def test_a_full_disk_is_a_full_store(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """The caller may come again later, and nothing of the file stays."""
    put = LocalStore.put

    def full_put(self: LocalStore, name: str, content: bytes, **options: Any) -> object:
        if name.endswith(".1"):
            raise GenericError(f"Generic LocalFileSystem error: Unable to copy data to file: {reason}\n\nDebug source:")
        return put(self, name, content, **options)

    monkeypatch.setattr(LocalStore, "put", full_put)
    store = make_store(folder.as_uri())
    with pytest.raises(ArtifactStoreFull):
        await store.save("a", "", patterned(2 * PIECE_BYTES))
    assert stored_names(folder) == []


async def test_a_failure_is_logged_in_one_line(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads why the store failed, without the service's whole answer; the caller reads nothing of it."""

    def broken_put(*_: Any, **__: Any) -> None:
        raise GenericError("Generic S3 error: status 403 Forbidden\n<Error>made-up-access-key</Error>")

    monkeypatch.setattr(LocalStore, "put", broken_put)
    store = make_store(folder.as_uri())
    with structlog.testing.capture_logs() as lines, pytest.raises(InternalError) as caught:
        await store.save("a", "", b"x")
    assert caught.value.message == ""
    assert lines == [
        {
            "event": "artifact_store_failed",
            "log_level": "error",
            "error": "GenericError",
            "detail": "Generic S3 error: status 403 Forbidden",
        }
    ]


async def test_a_folder_of_ones_own_is_private_and_goes_with_the_relay(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a URL files lie in a folder that only this relay reads, made when it is needed and removed at the end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with make_store("") as store:
        with pytest.raises(ArtifactNotFound):
            await store.open(_token_of(SECRET))
        assert list(tmp_path.iterdir()) == []
        saved = await store.save("a", "", b"x")
        (made,) = tmp_path.iterdir()
        assert made.stat().st_mode & 0o777 == 0o700
        assert await content_of(store, saved.token) == b"x"
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_of_ones_own_that_was_tidied_away_is_made_anew(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines tidy up their temporary files; the new folder is as private as the first."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with make_store("") as store:
        lost = await store.save("a", "", b"x")
        (made,) = tmp_path.iterdir()
        for path in made.iterdir():
            path.unlink()
        made.rmdir()
        with pytest.raises(ArtifactNotFound):
            await store.open(lost.token)
        saved = await store.save("b", "", b"y")
        assert made.stat().st_mode & 0o777 == 0o700
        assert await content_of(store, saved.token) == b"y"


async def test_a_folder_that_somebody_else_could_read_is_not_used(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can slip the relay a folder of their own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with make_store("") as store:
        await store.save("a", "", b"x")
        (made,) = tmp_path.iterdir()
        made.chmod(0o755)
        with pytest.raises(InternalError):
            await store.save("b", "", b"y")


async def test_the_sweeper_deletes_what_has_ended(make_store: MakeStore, folder: Path, clock: Clock) -> None:
    """Files go by themselves, those of an earlier run included; what is not the store's stays."""
    left_over = ArtifactId.new(int(clock.now) - 1)
    (folder / f"{left_over.key}.0").write_bytes(b"of a save that never ended")
    async with make_store(folder.as_uri(), sweep_seconds=0.01) as store:
        await until(lambda: stored_names(folder) == [])
        early = await store.save("a", "", b"x")
        clock.now += 10
        late = await store.save("b", "", b"y")
        clock.now += TTL_SECONDS - 10
        await until(lambda: len(stored_names(folder)) == 2)
        with pytest.raises(ArtifactNotFound):
            await store.open(early.token)
        assert await content_of(store, late.token) == b"y"
    assert (folder / NEIGHBOUR).read_text() == "not yours"


async def test_the_sweeper_outlives_a_failure(
    make_store: MakeStore, folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that cannot be listed for a while is swept as soon as it can."""
    list_objects = LocalStore.list
    failures: list[bool] = []

    def fail_twice(self: LocalStore, **options: Any) -> object:
        if len(failures) < 2:
            failures.append(True)
            raise GenericError("made up")
        return list_objects(self, **options)

    monkeypatch.setattr(LocalStore, "list", fail_twice)
    (folder / f"{ArtifactId.new(int(clock.now)).key}.0").write_bytes(b"x")
    async with make_store(folder.as_uri(), sweep_seconds=0.01):
        await until(lambda: stored_names(folder) == [])
    assert failures == [True, True]


async def test_two_sweepers_may_delete_the_same(make_store: MakeStore, folder: Path, clock: Clock) -> None:
    """What another replica has deleted already is no error, and the rest is deleted all the same."""
    ended = [ArtifactId.new(int(clock.now)).key for _ in range(200)]
    for key in ended:
        (folder / f"{key}.0").write_bytes(b"x")
    store, other = make_store(folder.as_uri()), make_store(folder.as_uri())
    await asyncio.gather(store.save("a", "", b"x"), other.save("b", "", b"y"))
    assert not set(stored_names(folder)) & {f"{key}.0" for key in ended}


async def test_the_block_ends_without_anything_running(make_store: MakeStore, url: str) -> None:
    """Neither a task nor a folder outlives the relay, and a second block works like the first."""
    store = make_store(url)
    before = asyncio.all_tasks()
    for _ in range(2):
        async with store:
            await content_of(store, (await store.save("a", "", b"x")).token)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "url",
    [
        "folder",
        "/folder",
        "file://host/folder",
        "file:folder",
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket/prefix",
        "s3://bucket/prefix?region=eu",
        "s3://bucket/prefix#a",
        "https://bucket.s3.amazonaws.com",
        "ftp://host/folder",
        "http://[",
        "file:///dev/null/folder",
    ],
)
def test_a_place_that_cannot_be_used_stops_the_start(url: str) -> None:
    """The error names the setting and never what stood in it."""
    with pytest.raises(InvalidSettings, match=r"^RELAY_ARTIFACT_URL: ") as caught:
        ArtifactStore(url, SECRET, path=PATH)
    assert "secret" not in str(caught.value)


def test_a_relay_that_stores_nothing_does_without_the_library() -> None:
    """The library costs time and memory, so it comes with the first file or with a URL."""
    source = (
        "import sys; from handlers.runtime.artifacts import ArtifactStore; "
        "ArtifactStore(path='/{token}'); sys.exit('obstore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", source], timeout=60, check=False).returncode == 0


def _token_of(secret: bytes) -> str:
    return LinkSigner(secret).sign(ArtifactId.new(2_000_000_000))
