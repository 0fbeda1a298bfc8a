"""`relay networks refresh` against a server that speaks TLS and does what it should, or not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.runtime.networks import MAX_FILE_BYTES, read_networks
from tests.support.file_server import Answer, Certificate, FileServer, make_certificate, redirect, stalled, whole
from tests.support.servers import HOST

pytestmark = pytest.mark.integration

PATH = "/chatgpt-connectors.json"
PUBLISHED = json.dumps({"creationTime": "2026-09-22T18:18:05", "prefixes": [{"ipv4Prefix": "4.1.2.0/28"}]}).encode()
OLD = b'{"prefixes": [{"ipv4Prefix": "4.9.9.0/24"}]}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """What the server shows."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def running_server(certificate: Certificate) -> Iterator[FileServer]:
    """One server for all tests."""
    with FileServer(certificate) as server:
        yield server


@pytest.fixture
def server(running_server: FileServer) -> FileServer:
    """The server with nothing to answer."""
    running_server.forget()
    return running_server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that an earlier call has written, in a folder of its own."""
    path = tmp_path / "networks.json"
    path.write_bytes(OLD)
    return path


def refresh(
    file: Path, url: str, certificate: Certificate | None, *, total_timeout_seconds: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own that trusts the certificate."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "OPENAI_"))}
    trusted = {"SSL_CERT_FILE": str(certificate.chain)} if certificate is not None else {}
    code = (
        "import handlers.runtime.network_refresh as refresh; "
        f"refresh.TOTAL_TIMEOUT_SECONDS = {total_timeout_seconds}; "
        "from handlers.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "networks", "refresh", "--url", url],
        env={**inherited, **trusted, "NO_PROXY": "*", "RELAY_CHATGPT_NETWORKS_FILE": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_published_networks_are_kept(server: FileServer, certificate: Certificate, file: Path) -> None:
    """In one file that everybody may read, with nothing left beside it, however narrow the umask."""
    server.answers[PATH] = whole([PUBLISHED], media_type="application/json")
    before = os.umask(0o077)
    try:
        ended = refresh(file, server.link(PATH, HOST), certificate)
    finally:
        os.umask(before)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr == f"1 networks in {file}.\n"
    assert [str(network) for network in read_networks(file)] == ["4.1.2.0/28"]
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(file.parent.iterdir()) == [file]
    (asked,) = server.requests
    assert (asked.method, asked.header("authorization"), asked.header("cookie")) == ("GET", None, None)


def test_a_new_path_on_the_same_host_is_followed(server: FileServer, certificate: Certificate, file: Path) -> None:
    """Sites move their files."""
    server.answers["/old"] = redirect(PATH)
    server.answers[PATH] = whole([PUBLISHED])
    assert refresh(file, server.link("/old", HOST), certificate).returncode == 0
    assert file.read_bytes() == PUBLISHED


BAD_ANSWERS: dict[str, Answer] = {
    "no such file": whole([], length=0, status=404),
    "an error": whole([PUBLISHED], status=500),
    "nothing": whole([], length=0),
    "a page": whole([b"<html>"], media_type="text/html"),
    "half of it": whole([PUBLISHED[:40]], length=len(PUBLISHED), leaves=True),
    "everybody": whole([b'{"prefixes": [{"ipv4Prefix": "0.0.0.0/0"}]}']),
    "neighbours": whole([b'{"prefixes": [{"ipv4Prefix": "10.0.0.0/16"}]}']),
    "no end": whole(b" " * 65536 for _ in range(10_000)),
    "a length that is too much": whole([b" " * (MAX_FILE_BYTES + 1)], length=MAX_FILE_BYTES + 1),
    "another host": redirect("https://localhost/x"),
    "another port": redirect(f"https://{HOST}:1/x"),
    "no TLS any more": redirect(f"http://{HOST}/x"),
    "round and round": redirect(PATH),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_changes_nothing(answer: Answer, server: FileServer, certificate: Certificate, file: Path) -> None:
    """The file is as it was, nothing lies beside it, and one line says why; no traceback."""
    server.answers[PATH] = answer
    ended = refresh(file, server.link(PATH, HOST), certificate)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("relay: https://")
    assert ended.stderr.endswith("nothing was written.\n")
    assert len(ended.stderr.splitlines()) == 1
    assert file.read_bytes() == OLD
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("begin", [None, b"{"], ids=["silence", "a beginning"])
def test_a_server_that_keeps_one_waiting_is_left(
    begin: bytes | None, server: FileServer, certificate: Certificate, file: Path
) -> None:
    """The whole call has a limit, whatever trickles in."""
    server.answers[PATH] = stalled(begin)
    ended = refresh(file, server.link(PATH, HOST), certificate, total_timeout_seconds=1.0)
    assert ended.returncode == 2
    assert "must answer within 1 seconds" in ended.stderr
    assert file.read_bytes() == OLD


def test_a_server_that_cannot_be_trusted_is_not_asked(server: FileServer, file: Path) -> None:
    """Without its certificate among the trusted ones no request is sent."""
    ended = refresh(file, server.link(PATH, HOST), None)
    assert ended.returncode == 2
    assert "could not be fetched (ConnectError)" in ended.stderr
    assert server.requests == []
    assert file.read_bytes() == OLD


@pytest.mark.parametrize(
    "url", ["http://openai.com/x", "ftp://openai.com/x", "file:///etc/passwd", "https://u:p@h/x", "x"]
)
def test_only_https_is_asked(url: str, file: Path) -> None:
    """Any other address is refused before anything is sent."""
    ended = refresh(file, url, None)
    assert ended.returncode == 2
    assert "must be an https URL without credentials" in ended.stderr


def test_a_folder_that_is_not_there_is_an_error(server: FileServer, certificate: Certificate, file: Path) -> None:
    """The message names the file."""
    server.answers[PATH] = whole([PUBLISHED])
    ended = refresh(file.parent / "missing" / "networks.json", server.link(PATH, HOST), certificate)
    assert ended.returncode == 2
    assert "cannot be written (No such file or directory)" in ended.stderr
