import asyncio
import hashlib
import itertools
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from handlers.runtime.exceptions import FileRefused, FileTooLarge, FileUnreachable, RelayError
from handlers.runtime.remote_files import USER_AGENT, FileReference, RemoteFiles
from handlers.runtime.remote_hosts import DEFAULT_HOSTS
from handlers.simulated_upstream import SimulatedUpstream
from handlers.simulated_upstream.faults import Fault
from tests.support.file_server import (
    Certificate,
    Exchange,
    FileServer,
    make_certificate,
    redirect,
    stalled,
    whole,
)
from tests.support.hostile_links import GOOD_HOST, HOSTILE_ANSWERS, HOSTILE_LINKS
from tests.support.remote_file_sender import (
    LOOPBACK,
    loopback_files,
    loopback_resolver,
    loopback_upstream,
    send_remote_file,
    sender_process,
)
from tests.support.servers import ServerThread
from tests.support.transfers import GROWTH_LIMIT_MIB, MIB, PeakMemory
from tests.support.waiting import DEADLINE_SECONDS, wait_until

pytestmark = pytest.mark.integration

SIZE = 100 * MIB
OPEN_PORT_ONLY = ("10.99.0.0/16",)  # opens other ports than 443, and none of the addresses in these tests
SECRET = "sig=signed-secret%2Bvalue%3D"
ENDLESS = itertools.repeat(b"x" * 65536)
BRIEF = {"idle_timeout_seconds": 0.5, "timeout_seconds": 5.0}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """What the file servers of these tests show."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def running_server(certificate: Certificate) -> Iterator[FileServer]:
    """One file server for all tests."""
    with FileServer(certificate) as server:
        yield server


@pytest.fixture
async def server(running_server: FileServer) -> AsyncIterator[FileServer]:
    """The file server, which has seen nobody yet; in the end no connection to it may be left."""
    running_server.forget()
    running_server.answers["/file"] = whole([b"content"], length=7)
    yield running_server
    deadline = time.monotonic() + DEADLINE_SECONDS
    while running_server.open_connections:
        assert time.monotonic() < deadline, "a connection was left open"
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)  # for the goodbye in TLS to end on this side too


@pytest.fixture(scope="module")
def canary() -> Iterator[FileServer]:
    """What must not be reached, by IPv4."""
    with FileServer(None) as canary:
        yield canary


@pytest.fixture(scope="module")
def files(certificate: Certificate) -> RemoteFiles:
    """May fetch from the file server by its names."""
    return loopback_files(certificate.chain)


class Answers:
    """A resolver that answers what a test tells it."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()

    async def __call__(self, host: str, port: int) -> Iterable[str]:
        """Answer, whoever is asked for."""
        del host, port
        return self.addresses


@pytest.fixture(scope="module")
def dns() -> Answers:
    """Answers for `strict_files`."""
    return Answers()


@pytest.fixture(scope="module")
def strict_files(dns: Answers) -> RemoteFiles:
    """May fetch from public addresses only, although from other ports too."""
    return RemoteFiles(DEFAULT_HOSTS, OPEN_PORT_ONLY, 1000, 5.0, resolver=dns)


def reference(link: str, media_type: str = "application/octet-stream") -> FileReference:
    """A reference with a link alone."""
    return FileReference("file", media_type, link)


async def fetch(files: RemoteFiles, link: str, media_type: str = "text/plain", **options: Any) -> bytes:
    """The whole content behind a link."""
    async with files.open(reference(link, media_type), **options) as file:
        return b"".join([piece async for piece in file.pieces])


async def refusal(files: RemoteFiles, link: str, **options: Any) -> RelayError:
    """What fetching ends with."""
    with pytest.raises(RelayError) as caught:
        await fetch(files, link, **options)
    return caught.value


async def test_a_file_arrives_under_the_name_of_its_reference(files: RemoteFiles, server: FileServer) -> None:
    """Name, type, length and bytes are there, and the request line is the link's, byte for byte."""
    server.answers["/a//%2e%2E/b"] = whole([b"con", b"tent"], length=7, media_type="image/PNG; a=b")
    link = server.link(f"/a//%2e%2E/b?{SECRET}&empty=&plus=a+b", host="FILES.oaiusercontent.com")
    async with files.open(FileReference("x.bin", "application/octet-stream", link)) as file:
        content = b"".join([piece async for piece in file.pieces])
        assert (file.name, file.media_type, file.length, content) == ("x.bin", "image/png", 7, b"content")
    (asked,) = server.requests
    assert (asked.method, asked.target) == ("GET", f"/a//%2e%2E/b?{SECRET}&empty=&plus=a+b")


async def test_a_file_of_unknown_length_arrives(files: RemoteFiles, server: FileServer) -> None:
    """A reply in chunks has no length, and neither has an empty file any pieces."""
    server.answers["/chunks"] = whole([b"one", b"two"])
    server.answers["/empty"] = whole([], length=0)
    async with files.open(reference(server.link("/chunks"))) as file:
        assert file.length is None
        assert b"".join([piece async for piece in file.pieces]) == b"onetwo"
    assert await fetch(files, server.link("/empty")) == b""


async def test_the_host_learns_nothing_from_the_request(
    files: RemoteFiles, server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every file is asked for with the same few headers, whatever the environment and earlier replies say."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answers["/cookie"] = whole([b"x"], length=1, Set_Cookie="a=b; Path=/")
    server.answers["/away"] = redirect("/file")
    for path in ("/cookie", "/away"):
        await fetch(files, server.link(path))
    own = [
        ("host", f"{GOOD_HOST}:{server.port}"),
        ("user-agent", USER_AGENT),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
    ]
    assert [sorted(asked.headers) for asked in server.requests] == [sorted(own)] * 3


@pytest.mark.parametrize("template", HOSTILE_LINKS)
async def test_a_hostile_link_reaches_nobody(
    files: RemoteFiles, server: FileServer, canary: FileServer, template: str
) -> None:
    """Although every name leads to this machine and its address is open, nothing connects."""
    before = canary.connections
    for port in (canary.port, server.port):
        assert isinstance(await refusal(files, template.format(port=port)), FileRefused)
    assert (canary.connections - before, server.connections) == (0, 0)


@pytest.mark.parametrize("answers", HOSTILE_ANSWERS, ids=", ".join)
async def test_a_hostile_answer_of_dns_reaches_nobody(
    strict_files: RemoteFiles, dns: Answers, canary: FileServer, answers: tuple[str, ...]
) -> None:
    """A good name that leads to a bad address, or to one among good ones, is not followed."""
    dns.addresses = answers
    before = canary.connections
    assert isinstance(await refusal(strict_files, canary.link("/file")), FileRefused)
    assert canary.connections == before


async def test_the_canary_would_have_noticed(certificate: Certificate, canary: FileServer) -> None:
    """What the two tests above look at does count connections."""
    before = canary.connections
    error = await refusal(loopback_files(certificate.chain), canary.link("/file"))
    assert isinstance(error, FileUnreachable)
    await asyncio.to_thread(wait_until, lambda: canary.connections == before + 1)


async def test_an_address_that_changes_after_the_check_is_not_used(
    certificate: Certificate, server: FileServer
) -> None:
    """A host is looked up once per request, and the connection goes to the address that was checked."""
    asked = []

    async def rebinding(host: str, port: int) -> Iterable[str]:
        asked.append((host, port))
        return [LOOPBACK] if len(asked) == 1 else ["127.0.0.2"]

    files = loopback_files(certificate.chain, resolver=rebinding)
    with FileServer(None, host="127.0.0.2", port=server.port) as inside:
        assert await fetch(files, server.link("/file")) == b"content"
        assert len(asked) == 1
        asked.clear()
        # A redirect is a request of its own: it is looked up again, and the new answer is judged.
        server.answers["/again"] = redirect("/file")
        assert isinstance(await refusal(files, server.link("/again")), FileRefused)
        assert len(asked) == 2
        assert inside.connections == 0
    assert server.connections == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_inside_the_allowlist_is_followed(files: RemoteFiles, server: FileServer, status: int) -> None:
    """Relative and absolute, up to three in a row, each with a fresh connection."""
    server.answers["/a/1"] = redirect("2?x=%2F", status)
    server.answers["/a/2"] = redirect(f"//other.oaiusercontent.com:{server.port}/3", status)
    server.answers["/3"] = redirect(server.link("/file"), status)
    assert await fetch(files, server.link("/a/1")) == b"content"
    assert [asked.target for asked in server.requests] == ["/a/1", "/a/2?x=%2F", "/3", "/file"]
    assert server.connections == 4


async def test_a_redirect_too_many_ends_the_chase(certificate: Certificate, server: FileServer) -> None:
    """A loop, a fourth redirect and one without a place are refused; zero redirects may be set."""
    server.answers["/loop"] = redirect("/loop")
    server.answers["/nowhere"] = whole([], length=0, status=302)
    for path in ("/loop", "/nowhere"):
        server.requests.clear()
        assert isinstance(await refusal(loopback_files(certificate.chain), server.link(path)), FileRefused)
        assert len(server.requests) == 4
    server.answers["/once"] = redirect("/file")
    unmoved = loopback_files(certificate.chain, max_redirects=0)
    assert isinstance(await refusal(unmoved, server.link("/once")), FileRefused)
    assert await fetch(unmoved, server.link("/file")) == b"content"


@pytest.mark.parametrize(
    "template",
    [
        *(link for link in HOSTILE_LINKS if link.isprintable() and link.isascii() and link.startswith("https://")),
        "https://127.0.0.1:{port}/",
        "http://files.oaiusercontent.com:{port}/file",
        "//127.0.0.1:{port}/file",
        "///127.0.0.1:{port}/file",
        "\\\\127.0.0.1:{port}\\file",
        "https://[::1",
        "https://[files.oaiusercontent.com]/",
        "/file\xe9",
    ],
)
async def test_a_redirect_to_elsewhere_is_not_followed(
    files: RemoteFiles, server: FileServer, canary: FileServer, template: str
) -> None:
    """The second link is judged like the first; a good host cannot send the relay where it may not go."""
    before = canary.connections
    server.answers["/away"] = redirect(template.format(port=canary.port))
    error = await refusal(files, server.link("/away"))
    # What means nothing as a place stays on the host that sent it, which has no such file.
    assert isinstance(error, (FileRefused, FileUnreachable))
    assert canary.connections == before
    assert all(asked.target == "/away" or isinstance(error, FileUnreachable) for asked in server.requests)


async def test_a_redirect_into_a_private_network_is_not_followed(certificate: Certificate, server: FileServer) -> None:
    """A second host on the list whose address is private ends the chase."""

    async def resolver(host: str, port: int) -> Iterable[str]:
        del port
        return [LOOPBACK] if host == GOOD_HOST else ["127.0.0.2"]

    server.answers["/away"] = redirect(server.link("/file", host="other.oaiusercontent.com"))
    with FileServer(None, host="127.0.0.2", port=server.port) as inside:
        files = loopback_files(certificate.chain, resolver=resolver)
        assert isinstance(await refusal(files, server.link("/away")), FileRefused)
        assert inside.connections == 0


async def test_the_certificate_must_be_that_of_the_host(
    certificate: Certificate, files: RemoteFiles, server: FileServer
) -> None:
    """A pinned address does not replace the check of the name, and nobody trusts what nobody signed."""
    trusting_nobody = RemoteFiles(DEFAULT_HOSTS, [f"{LOOPBACK}/32"], 1000, 5.0, resolver=loopback_resolver)
    assert isinstance(await refusal(trusting_nobody, server.link("/file")), FileUnreachable)
    wrong_name = server.link("/file", host="third.oaiusercontent.com")
    assert isinstance(await refusal(files, wrong_name), FileUnreachable)
    assert server.requests == []
    by_address = RemoteFiles([LOOPBACK], [f"{LOOPBACK}/32"], 1000, 5.0, ca_file=certificate.chain)
    assert await fetch(by_address, server.link("/file", host=LOOPBACK)) == b"content"


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 403, 404, 410, 429, 500, 503])
async def test_only_a_200_is_a_file(files: RemoteFiles, server: FileServer, status: int) -> None:
    """Everything else says that there is no file, and the message names the status."""
    server.answers["/other"] = whole([], length=0, status=status)
    error = await refusal(files, server.link("/other"))
    assert isinstance(error, FileUnreachable)
    assert str(status) in error.message


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "x-unknown", "identity, gzip"])
async def test_a_compressed_file_is_refused(files: RemoteFiles, server: FileServer, coding: str) -> None:
    """A few bytes that unfold into many have no way in."""
    server.answers["/packed"] = whole([b"x"], length=1, Content_Encoding=coding)
    assert isinstance(await refusal(files, server.link("/packed")), FileRefused)
    server.answers["/plain"] = whole([b"x"], length=1, Content_Encoding="identity")
    assert await fetch(files, server.link("/plain")) == b"x"


@pytest.mark.parametrize(
    "named, replied, wanted, allowed",
    [
        ("image/png", "image/png", ["image/png"], "image/png"),
        ("image/png", "application/octet-stream", ["image/png"], "image/png"),
        ("image/png", "binary/octet-stream", ["image/"], "image/png"),
        ("application/octet-stream", "IMAGE/PNG; q=1", ["audio/", "image/"], "image/png"),
        ("audio/mpeg", "audio/mp3", ["audio/"], "audio/mpeg"),
        ("image/png", "text/html", None, "image/png"),
        ("application/octet-stream", "", None, "application/octet-stream"),
        ("image/png", "text/html", ["image/"], None),
        ("application/octet-stream", "text/html", ["image/"], None),
        ("application/octet-stream", "application/octet-stream", ["image/"], None),
        ("image/png-like", "", ["image/png"], None),
        ("text/html", "image/png", ["image/"], None),
    ],
)
async def test_reference_and_reply_must_both_be_of_a_wanted_type(
    files: RemoteFiles, server: FileServer, named: str, replied: str, wanted: list[str] | None, allowed: str | None
) -> None:
    """What one leaves open the other may say; neither can pass for something else."""
    server.answers["/typed"] = whole([b"x"], length=1, media_type=replied)
    link = reference(server.link("/typed"), named)
    if allowed is None:
        with pytest.raises(FileRefused, match="image/"):
            async with files.open(link, media_types=wanted):
                pass
        return
    async with files.open(link, media_types=wanted) as file:
        assert file.media_type == allowed


async def test_a_file_is_held_to_its_limit_whatever_its_length_says(
    certificate: Certificate, files: RemoteFiles, server: FileServer
) -> None:
    """A length above the limit ends it before the first byte, and so does the first byte too many."""
    server.answers["/long"] = whole([b"x" * 11], length=11)
    server.answers["/chunks"] = whole([b"x" * 5, b"x" * 5, b"x"])
    small = loopback_files(certificate.chain, max_bytes=10)
    for path in ("/long", "/chunks"):
        for held, options in ((files, {"limit_bytes": 10}), (small, {}), (small, {"limit_bytes": 99})):
            error = await refusal(held, server.link(path), **options)
            assert isinstance(error, FileTooLarge)
            assert "10 bytes" in error.message
    entered = []
    with pytest.raises(FileTooLarge):
        async with files.open(reference(server.link("/long")), limit_bytes=10):
            entered.append("although the length was known")
    assert entered == []
    for path in ("/long", "/chunks"):
        assert len(await fetch(files, server.link(path), limit_bytes=11)) == 11


@pytest.mark.parametrize("answer", [stalled(), stalled(b"beginning")], ids=["at once", "in the middle"])
async def test_a_silent_host_does_not_hold_the_relay(certificate: Certificate, server: FileServer, answer: Any) -> None:
    """Without a byte the file ends after the idle time, before its head and in the middle."""
    server.answers["/stalled"] = answer
    began = time.monotonic()
    error = await refusal(loopback_files(certificate.chain, **BRIEF), server.link("/stalled"))
    assert isinstance(error, FileUnreachable)
    assert "in time" in error.message
    assert 0.45 < time.monotonic() - began < 3.0


async def test_a_host_that_sends_too_slowly_runs_out_of_time(certificate: Certificate, server: FileServer) -> None:
    """A byte now and then keeps nobody waiting beyond the time for the whole."""

    def trickle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": "1000"})
        while not exchange.stopped.wait(0.05):
            exchange.send(b"x")

    server.answers["/slow"] = trickle
    began = time.monotonic()
    files = loopback_files(certificate.chain, timeout_seconds=0.6, idle_timeout_seconds=0.4)
    assert "in time" in (await refusal(files, server.link("/slow"))).message
    assert 0.5 < time.monotonic() - began < 3.0


async def test_a_slow_resolver_runs_out_of_time(certificate: Certificate, server: FileServer) -> None:
    """Looking a host up is part of the time."""

    async def sleepy(host: str, port: int) -> Iterable[str]:
        del host, port
        await asyncio.sleep(30)
        return [LOOPBACK]

    files = loopback_files(certificate.chain, resolver=sleepy, **BRIEF)
    assert "in time" in (await refusal(files, server.link("/file"))).message


@pytest.mark.parametrize(
    "answer",
    [
        whole([b"half"], length=8, leaves=True),
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf"),
        lambda exchange: exchange.send(b"HTTP/1.0 200 OK\r\n\r\nhalf"),
        lambda exchange: exchange.send(b"SSH-2.0-OpenSSH_9.6\r\n"),
        lambda exchange: exchange.send(b""),
    ],
    ids=[
        "too short",
        "half in chunks",
        "no chunks",
        "no number",
        "no length",
        "no length in 1.0",
        "no HTTP",
        "nothing",
    ],
)
async def test_a_file_that_breaks_off_is_not_taken_for_a_whole_one(
    certificate: Certificate, server: FileServer, answer: Any
) -> None:
    """Less than was announced, or something that is not HTTP, is an error and never a short file."""
    server.answers["/broken"] = answer
    assert isinstance(
        await refusal(loopback_files(certificate.chain, **BRIEF), server.link("/broken")), FileUnreachable
    )


async def test_more_bytes_than_announced_are_not_taken(files: RemoteFiles, server: FileServer) -> None:
    """A host that sends on after the announced length is not believed at all."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"
    server.answers["/surplus"] = lambda exchange: exchange.send(head + b"content and more")
    assert isinstance(await refusal(files, server.link("/surplus")), FileUnreachable)


async def test_a_host_that_is_not_there_is_unreachable(files: RemoteFiles, certificate: Certificate) -> None:
    """A refused connection is the file's fault and not a defect of the relay."""
    with FileServer(certificate) as gone:
        link = gone.link("/file")
    assert isinstance(await refusal(files, link), FileUnreachable)


async def test_links_are_told_to_nobody(
    certificate: Certificate, server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a message, a traceback nor a log line shows what a link holds, however the fetching ends."""
    caplog.set_level(logging.DEBUG)
    server.answers["/short"] = whole([b"x"], length=9)
    server.answers["/loop"] = redirect(f"/loop?{SECRET}")
    server.answers["/away"] = redirect(f"https://evil.test/signed-path?{SECRET}")
    server.answers["/stalled"] = stalled(b"x")
    server.answers["/packed"] = whole([b"x"], length=1, Content_Encoding="gzip")
    files = loopback_files(certificate.chain, **BRIEF, max_bytes=6)
    hosts = ("third.oaiusercontent.com", "evil.test", f"user@{GOOD_HOST}", "127.0.0.1")
    links = [server.link(f"{path}?{SECRET}") for path in (*server.answers, "/signed-path")]
    links += [server.link(f"/signed-path?{SECRET}", host=host) for host in hosts]
    for link in links:
        error = await refusal(files, link)
        told = "".join([*traceback.format_exception(error), repr(error), str(vars(error))])
        for hidden in ("signed-", "oaiusercontent", "evil.test", "127.0.0.1"):
            assert hidden not in told
    assert "signed-" not in caplog.text
    assert "signed-" not in repr(reference(links[0]))


async def test_a_reader_that_leaves_early_leaves_no_connection(files: RemoteFiles, server: FileServer) -> None:
    """The block's end breaks the connection, also in mid-file and also when the reader fails."""
    server.answers["/endless"] = whole(ENDLESS)
    async with files.open(reference(server.link("/endless"))) as file:
        assert await anext(file.pieces)
    await asyncio.to_thread(wait_until, lambda: server.open_connections == 0)
    with pytest.raises(LookupError):
        async with files.open(reference(server.link("/endless"))) as file:
            raise LookupError
    await asyncio.to_thread(wait_until, lambda: server.open_connections == 0)
    assert server.connections == 2


def test_the_relays_event_loop_fetches_as_well(files: RemoteFiles, running_server: FileServer) -> None:
    """Its TLS is not that of asyncio: files arrive whole, and a reader that leaves early breaks the connection."""
    running_server.forget()
    running_server.answers["/large"] = whole([b"x" * MIB] * 8, length=8 * MIB)
    running_server.answers["/chunks"] = whole([b"x" * MIB] * 8)
    running_server.answers["/endless"] = whole(ENDLESS)

    async def fetch_slowly(path: str) -> int:
        size = 0
        async with files.open(reference(running_server.link(path))) as file:
            async for piece in file.pieces:
                size += len(piece)
                await asyncio.sleep(0.001)
        return size

    async def leave() -> int:
        async with files.open(reference(running_server.link("/endless"))) as file:
            size = len(await anext(file.pieces))
        await asyncio.to_thread(wait_until, lambda: running_server.open_connections == 0)
        return size

    assert uvloop.run(fetch_slowly("/large")) == 8 * MIB
    assert uvloop.run(fetch_slowly("/chunks")) == 8 * MIB
    assert uvloop.run(leave()) > 0


# ── Into the upstream ──────────────────────────────────


def sha256_upstream(url: str, file_id: str) -> str:
    """Digest of a file that the simulated upstream keeps; it is deleted afterwards."""
    digest = hashlib.sha256()
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer sk-made-up"}, timeout=30) as client:
        with client.stream("GET", f"/v1/files/{file_id}/content") as reply:
            for piece in reply.iter_raw():
                digest.update(piece)
        assert client.delete(f"/v1/files/{file_id}").json()["deleted"] is True
    return digest.hexdigest()


def test_a_large_file_goes_upstream_in_constant_memory(
    certificate: Certificate, server: FileServer, upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """100 MiB arrive whole and unchanged, with and without a known length, and little of them is ever held."""
    pattern = hashlib.sha256(b"pattern").digest() * (MIB // 32)
    pieces = [pattern] * (SIZE // MIB)
    expected = hashlib.sha256(b"".join(pieces)).hexdigest()
    server.answers["/warm-up"] = whole([pattern], length=MIB)
    server.answers["/large"] = whole(pieces, length=SIZE)
    server.answers["/chunks"] = whole(pieces)
    with sender_process(upstream_server.url, certificate.chain) as sender:
        sha256_upstream(upstream_server.url, sender.send(server.link("/warm-up"))["id"])
        for path in ("/large", "/chunks"):
            with PeakMemory(sender.pid) as memory:
                sent = sender.send(server.link(path))
            assert memory.growth_mib < GROWTH_LIMIT_MIB
            assert (sent["bytes"], sent["filename"]) == (SIZE, "large.bin")
            sent_length = upstream.recorder.requests[-1].header("content-length")
            assert (sent_length is None) == (path == "/chunks")
            assert sha256_upstream(upstream_server.url, sent["id"]) == expected


LIARS = {
    "a file shorter than it says": (whole([b"x" * MIB], length=2 * MIB, leaves=True), FileUnreachable),
    "a file that stalls": (stalled(b"x" * MIB, length=2 * MIB), FileUnreachable),
    "a file longer than its limit": (whole([b"x" * MIB] * 3), FileTooLarge),
    "a file that breaks off between chunks": (
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        FileUnreachable,
    ),
}


@pytest.mark.parametrize("answer, expected", LIARS.values(), ids=LIARS)
async def test_a_file_that_fails_takes_its_upload_along(
    certificate: Certificate,
    server: FileServer,
    upstream: SimulatedUpstream,
    upstream_server: ServerThread,
    answer: Any,
    expected: type[RelayError],
) -> None:
    """The caller gets the file's own error, and the upstream never a complete body."""
    server.answers["/bad"] = answer
    files = loopback_files(certificate.chain, idle_timeout_seconds=1.5)
    async with loopback_upstream(upstream_server.url) as client:
        with pytest.raises(expected):
            await send_remote_file(files, client, server.link("/bad"), limit_bytes=2 * MIB)
        await asyncio.to_thread(wait_until, lambda: [r for r in upstream.recorder.requests if r.disconnected_at])
    assert [record.status for record in upstream.recorder.requests] == [None]


async def test_a_file_known_to_be_too_large_calls_nobody(
    certificate: Certificate, server: FileServer, upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """A length above the limit is seen before the upstream is asked."""
    server.answers["/long"] = whole([b"x" * 11], length=11)
    async with loopback_upstream(upstream_server.url) as client:
        with pytest.raises(FileTooLarge):
            await send_remote_file(loopback_files(certificate.chain), client, server.link("/long"), limit_bytes=10)
    assert upstream.recorder.count == 0


async def test_a_caller_that_leaves_ends_both_sides(
    certificate: Certificate, server: FileServer, upstream: SimulatedUpstream, upstream_server: ServerThread
) -> None:
    """When the request is cancelled, neither the file is read nor the upstream written any further."""
    server.answers["/endless"] = whole(ENDLESS)
    upstream.faults.add(Fault(slow_read_bytes_per_second=16 * MIB))
    files = loopback_files(certificate.chain)
    async with loopback_upstream(upstream_server.url) as client:
        task = asyncio.create_task(send_remote_file(files, client, server.link("/endless")))
        while not (upstream.recorder.requests and upstream.recorder.requests[0].body_size):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(wait_until, lambda: server.open_connections == 0)
    await asyncio.to_thread(wait_until, lambda: upstream.recorder.requests[0].disconnected_at is not None)
