"""
A relay that may fetch files from a server of the test, and the keys that assistants and SDK clients have.

What wrappers have in common is checked here: a reply that an assistant may get, and links that serve what was promised.
"""

import email
import email.policy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx

from codegen.contract import FULL, Scope, load_contract
from handlers.runtime.app import GENERATED
from handlers.runtime.shortening import escaped_length
from handlers.runtime.validation import SchemaSource
from handlers.simulated_upstream.recorder import RecordedRequest
from tests.support.file_server import FileServer, make_certificate, whole
from tests.support.key_files import MadeKey, make_key, write_keys
from tests.support.servers import HOST, RelayProcess, running_relay

MAX_CHARACTERS = 100_000  # of a reply to an assistant; the platform's limit
TIMEOUT_SECONDS = 50.0  # longer than the relay may take, so that its own limit shows
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{1000}")
_SCHEMAS = SchemaSource(load_contract(GENERATED, FULL))


@dataclass
class FileRelay:
    """
    A running relay and the file server that it may fetch from.

    Args:
        keys: One for each scope, by its name, and `assistant`, which has both scopes that assistants are given.
    """

    relay: RelayProcess
    files: FileServer
    keys: Mapping[str, MadeKey]

    def client(self, key: str = Scope.ACTIONS) -> httpx.Client:
        """A client with one of the keys."""
        return httpx.Client(base_url=self.relay.url, headers=self.keys[key].headers, timeout=TIMEOUT_SECONDS)

    def offer(self, name: str, content: bytes, media_type: str) -> dict[str, str]:
        """Put a file on the server; answers the reference that ChatGPT would send."""
        self.files.answers[f"/{name}"] = whole([content], length=len(content), media_type=media_type)
        return self.refer(name, media_type)

    def refer(self, name: str, media_type: str) -> dict[str, str]:
        """A reference to what the server may or may not have."""
        link = self.files.link(f"/{name}?sig=made-up", host=HOST)
        return {"name": name, "id": f"file-{name}", "mime_type": media_type, "download_link": link}


@contextmanager
def running_file_relay(
    folder: Path, upstream_url: str, environment: Mapping[str, str] | None = None
) -> Iterator[FileRelay]:
    """Run a relay and a file server until the block ends."""
    certificate = make_certificate(folder)
    keys = {scope.value: make_key(scope.value, scope) for scope in Scope}
    keys["assistant"] = make_key("assistant", Scope.ACTIONS, Scope.PROXY)
    write_keys(folder / "keys.yaml", keys.values())
    settings = {
        "RELAY_KEY_FILE": str(folder / "keys.yaml"),
        "RELAY_FILE_HOSTS": HOST,
        "RELAY_FILE_PRIVATE_NETWORKS": f"{HOST}/32",
        "RELAY_FILE_CA_FILE": str(certificate.chain),
        **(environment or {}),
    }
    with FileServer(certificate) as files, running_relay(folder, upstream_url, settings) as relay:
        yield FileRelay(relay, files, keys)


def read_reply(reply: httpx.Response, schema: str) -> dict[str, Any]:
    """
    Hold a reply against what every assistant may count on.

    Args:
        schema: Its name in the contract.

    Returns:
        The decoded body.
    """
    assert reply.status_code == 200, reply.text[:1000]
    assert escaped_length(reply.content) < MAX_CHARACTERS
    value: dict[str, Any] = reply.json()
    assert _SCHEMAS.at(f"#/components/schemas/{schema}").is_valid(value), str(value)[:1000]
    if "openaiFileResponse" not in value:
        assert not _BASE64.search(reply.content)
    return value


def fetch_link(link: Mapping[str, Any]) -> bytes:
    """What a link serves, without a key; its head must say what the link says."""
    reply = httpx.get(link["url"], timeout=TIMEOUT_SECONDS)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == link["mime_type"]
    assert reply.headers["content-disposition"].startswith(f'attachment; filename="{link["name"]}"')
    assert len(reply.content) == link["bytes"]
    return reply.content


def parts_of(record: RecordedRequest) -> list[tuple[str, str | None, str, bytes]]:
    """Name, file name, media type and content of the parts of a small multipart body that the upstream got."""
    assert record.body_size == len(record.body_start), "only small bodies are kept whole"
    head = f"Content-Type: {record.header('content-type')}\r\n\r\n".encode()
    message = email.message_from_bytes(head + record.body_start, policy=email.policy.HTTP)
    assert isinstance(message, EmailMessage)
    parts = []
    for part in message.iter_parts():
        name, content = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        assert isinstance(content, bytes)
        parts.append((str(name), part.get_filename(), part.get_content_type(), content))
    return parts
