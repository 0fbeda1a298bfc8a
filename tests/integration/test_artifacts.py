"""Files out: the store against a real S3 service on loopback, one a replica, and links as a real relay answers them."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from handlers.runtime.artifacts import FILE_BYTES, PIECE_BYTES, ArtifactStore
from handlers.runtime.exceptions import ArtifactNotFound, ArtifactStoreFull, InternalError
from tests.support.artifacts import (
    DEAD_LINKS,
    NEIGHBOUR,
    OTHER_SECRET,
    PATH,
    SECRET,
    Clock,
    content_of,
    in_pieces,
    live,
    until,
)
from tests.support.s3_server import BUCKET, S3Server, running_s3_server
from tests.support.servers import RelayProcess, ServerThread, running_relay

pytestmark = pytest.mark.integration

TTL_SECONDS = 3600
SWEEP_SECONDS = 60
PROCESSES = 5
MakeStore = Callable[..., ArtifactStore]


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A service with an empty bucket."""
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The service, with the variables that an operator would set."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Where in the bucket the files of a test lie."""
    return f"{request.node.name.replace('[', '/').replace(']', '')}/"


@pytest.fixture
def clock() -> Clock:
    """The clock of all replicas of a test."""
    return Clock()


@pytest.fixture
def replica(s3: S3Server, prefix: str, clock: Clock) -> MakeStore:
    """Makes a store over the part of the bucket that belongs to the test."""
    del s3

    def make(secret: bytes = SECRET, **options: object) -> ArtifactStore:
        url = f"s3://{BUCKET}/{prefix}"
        return ArtifactStore(url, secret, path=PATH, ttl_seconds=TTL_SECONDS, clock=clock, **options)  # type: ignore[arg-type]

    return make


async def test_any_replica_serves_what_another_has_stored(replica: MakeStore, s3: S3Server, prefix: str) -> None:
    """Bucket and secret are all that replicas share; content, name, type and ranges are the same at each."""
    content = bytes(range(256)) * 9000  # two pieces and a bit
    async with replica() as one, replica() as two:
        saved = await one.save("Größe.bin", "audio/mpeg", in_pieces(content[:999], content[999:]))
        file = await two.open(saved.token)
        assert (file.name, file.media_type, file.total) == ("Größe.bin", "audio/mpeg", len(content))
        assert b"".join([piece async for piece in file.pieces]) == content
        edge = f"bytes={PIECE_BYTES - 2}-{PIECE_BYTES + 1}"
        assert await content_of(two, saved.token, edge) == content[PIECE_BYTES - 2 : PIECE_BYTES + 2]
        assert await content_of(two, saved.token, "bytes=-3") == content[-3:]
        empty = await two.save("empty", "", b"")
        assert await content_of(one, empty.token) == b""
    key = live(saved.token).id.key
    assert {f"{key}.{ending}" for ending in ("0", "1", "2", "json")} < set(s3.names(prefix))


async def test_a_replica_with_another_secret_serves_nothing(replica: MakeStore) -> None:
    """The bucket alone opens no link."""
    async with replica() as one, replica(OTHER_SECRET) as other:
        saved = await one.save("a", "", b"x")
        with pytest.raises(ArtifactNotFound):
            await other.open(saved.token)


async def test_no_dead_link_serves_anything(replica: MakeStore) -> None:
    """Forged, foreign, ended and traversing tokens end like those of files that never were."""
    async with replica() as store:
        saved = await store.save("a", "", b"secret")
        for make in DEAD_LINKS.values():
            with pytest.raises(ArtifactNotFound):
                await store.open(make(live(saved.token)))


async def test_what_has_ended_is_deleted_by_any_replica(
    replica: MakeStore, s3: S3Server, prefix: str, clock: Clock
) -> None:
    """A replica deletes what another has stored, and the link stays dead when the clock is turned back."""
    async with replica() as one:
        saved = await one.save("a", "", bytes(PIECE_BYTES + 1))
    clock.now += TTL_SECONDS
    async with replica(sweep_seconds=0.05) as two:
        await until(lambda: s3.names(prefix) == [])
        clock.now -= TTL_SECONDS
        with pytest.raises(ArtifactNotFound):
            await two.open(saved.token)


async def test_a_replayed_link_finds_nothing_after_deletion(replica: MakeStore, s3: S3Server, prefix: str) -> None:
    """Whoever empties the bucket ends the links."""
    async with replica() as store:
        saved = await store.save("a", "", b"x")
        assert await content_of(store, saved.token) == b"x"
        for name in s3.names(prefix):
            s3.delete(f"{prefix}{name}")
        with pytest.raises(ArtifactNotFound):
            await store.open(saved.token)


async def test_replicas_count_each_others_files(replica: MakeStore, clock: Clock) -> None:
    """What one has stored takes room from the other after a while, and gives it back when it ends."""
    options = {"max_total_bytes": 2 * FILE_BYTES + 1500, "sweep_seconds": SWEEP_SECONDS}
    async with replica(**options) as one, replica(**options) as two:
        await one.save("a", "", bytes(1000))
        clock.now += SWEEP_SECONDS
        with pytest.raises(ArtifactStoreFull):
            await two.save("b", "", bytes(1000))
        clock.now += TTL_SECONDS
        await two.save("c", "", bytes(1000))


async def test_a_save_that_stops_leaves_nothing_in_the_bucket(replica: MakeStore, s3: S3Server, prefix: str) -> None:
    """Neither an object nor an upload that a service would charge for."""
    waits = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        yield bytes(2 * PIECE_BYTES)
        waits.set()
        await asyncio.Event().wait()

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * PIECE_BYTES)
        raise ConnectionResetError

    async with replica() as store:
        with pytest.raises(ConnectionResetError):
            await store.save("a", "", broken())
        assert s3.names(prefix) == []
        save = asyncio.create_task(store.save("a", "", content()))
        await waits.wait()
        assert len(s3.names(prefix)) == 2
        save.cancel()
        await asyncio.wait([save])
    assert s3.names(prefix) == []
    assert s3.unfinished_uploads() == 0


async def test_a_bucket_that_does_not_exist_is_an_error(s3: S3Server) -> None:
    """Nothing is stored, and nothing is found."""
    del s3
    store = ArtifactStore("s3://no-such-bucket/files", SECRET, path=PATH)
    with pytest.raises(InternalError):
        await store.save("a", "", b"x")


async def test_a_service_that_is_down_is_an_error_in_time(
    replica: MakeStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers are told before they have given up."""
    saved = await replica().save("a", "", b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url.rpartition(":")[0] + ":9")  # nobody listens on `discard`
    store = replica()
    async with asyncio.timeout(15):
        with pytest.raises(InternalError):
            await store.save("a", "", b"x")
        with pytest.raises(InternalError):
            await store.open(saved.token)


def test_a_process_that_has_stored_files_ends_cleanly(tmp_path: Path) -> None:
    """No thread of the storage library aborts the process while Python shuts down."""
    source = (
        "import asyncio, sys\n"
        "from handlers.runtime.artifacts import ArtifactStore\n"
        "async def main():\n"
        "    async with ArtifactStore(sys.argv[1], path='/{token}') as store:\n"
        "        for _ in range(20):\n"
        "            saved = await store.save('a', '', bytes(3_000_000))\n"
        "            [piece async for piece in (await store.open(saved.token)).pieces]\n"
        "asyncio.run(main())\n"
    )
    for _ in range(PROCESSES):
        command = [sys.executable, "-c", source, tmp_path.as_uri()]
        ended = subprocess.run(command, timeout=60, check=False, capture_output=True)
        assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the relay of this module."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def relay_with_files(
    files: Path, upstream_server: ServerThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RelayProcess]:
    """A relay over a folder and a secret that the tests know; no link may ever show in what it prints."""
    environment = {"RELAY_ARTIFACT_URL": files.as_uri(), "RELAY_ARTIFACT_SECRET": SECRET.decode()}
    with running_relay(tmp_path_factory.mktemp("relay"), upstream_server.url, environment) as relay:
        yield relay
    assert "/artifacts/" not in relay.printed()


@pytest.fixture
def beside(files: Path, relay_with_files: RelayProcess) -> ArtifactStore:
    """A store beside that relay, as another replica has it."""
    return ArtifactStore(files.as_uri(), SECRET, relay_with_files.url, path=PATH)


async def test_a_link_is_answered_without_a_key(beside: ArtifactStore) -> None:
    """Whoever has the link gets the file, and with HEAD all but the file."""
    content = bytes(range(256)) * 9000
    saved = await beside.save("Größe.csv", "text/csv", content)
    async with httpx.AsyncClient() as client:
        reply = await client.get(saved.url)
        head = await client.head(saved.url)
    assert (reply.status_code, reply.content) == (200, content)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "content-disposition", "etag", "accept-ranges"):
        assert head.headers[name] == reply.headers[name]
    assert reply.headers["content-length"] == str(len(content))


async def test_a_link_answers_ranges(beside: ArtifactStore) -> None:
    """A part, and how long the file is when there is none."""
    content = bytes(range(256)) * 9000
    saved = await beside.save("a.bin", "", content)
    async with httpx.AsyncClient() as client:
        part = await client.get(saved.url, headers={"Range": f"bytes={PIECE_BYTES - 2}-{PIECE_BYTES + 1}"})
        behind = await client.get(saved.url, headers={"Range": f"bytes={len(content)}-"})
    assert (part.status_code, part.content) == (206, content[PIECE_BYTES - 2 : PIECE_BYTES + 2])
    assert part.headers["content-range"] == f"bytes {PIECE_BYTES - 2}-{PIECE_BYTES + 1}/{len(content)}"
    assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(content)}")
    assert behind.json()["error"]["code"] == "range_not_satisfiable"


async def test_the_relay_serves_no_dead_link(
    beside: ArtifactStore, files: Path, relay_with_files: RelayProcess
) -> None:
    """Forged, foreign, ended and traversing tokens are refused by the relay as a whole."""
    (files / NEIGHBOUR).write_text("not yours")
    saved = await beside.save("a.bin", "", b"content of the file")
    async with httpx.AsyncClient() as client:
        for make in DEAD_LINKS.values():
            reply = await client.get(f"{relay_with_files.url}/artifacts/{quote(make(live(saved.token)), safe='')}")
            assert reply.status_code in {400, 404, 414}
            assert reply.json()["error"]["code"] != "internal_error"
            assert b"content of the file" not in reply.content
            assert b"not yours" not in reply.content


async def test_a_replayed_link_is_refused(beside: ArtifactStore, files: Path) -> None:
    """A file that was deleted is a 404 like one that never was."""
    saved = await beside.save("a.bin", "", b"x")
    async with httpx.AsyncClient() as client:
        assert (await client.get(saved.url)).status_code == 200
        for path in files.glob(f"{live(saved.token).id.key}.*"):
            path.unlink()
        reply = await client.get(saved.url)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "artifact_not_found")
