"""Artifacts in tests: a clock to turn, content in pieces, and links behind which nothing may ever be served."""

import asyncio
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from handlers.runtime.artifact_links import ArtifactId, LinkSigner
from handlers.runtime.artifacts import ArtifactStore
from tests.support.waiting import DEADLINE_SECONDS

SECRET = b"made-up-secret-of-links-0123456789"
OTHER_SECRET = b"another-secret-of-links-0123456789"
PATH = "/artifacts/{token}"
NEIGHBOUR = "neighbour.txt"  # a file of somebody else, beside the objects of the store


class Clock:
    """A clock that stands still until a test turns it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


@dataclass(frozen=True)
class Live:
    """A link that is good, taken apart."""

    token: str
    id: ArtifactId

    @property
    def payload(self) -> str:
        """What stands before the dot."""
        return self.token.partition(".")[0]

    @property
    def signature(self) -> str:
        """What stands behind it."""
        return self.token.partition(".")[2]


def live(token: str) -> Live:
    """Take a good link's token apart."""
    return Live(token, LinkSigner(SECRET).read(token))


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    """Content as it comes from elsewhere."""
    for piece in pieces:
        yield piece


async def content_of(store: ArtifactStore, token: str, range_header: str | None = None) -> bytes:
    """All that a link serves."""
    file = await store.open(token, range_header)
    return b"".join([piece async for piece in file.pieces])


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a task in the background is about to do; fail when it does not."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)


def encode(content: bytes) -> str:
    """Base64 as links have it."""
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(payload: str, secret: bytes = SECRET, context: bytes = b"chatgpt-team-relay artifact link\n") -> str:
    """A token with whatever payload, signed by the rules."""
    return f"{payload}.{encode(hmac.digest(secret, context + payload.encode(), sha256))}"


def _with_spare_bits(text: str) -> str:
    """Another text that decodes to the same bytes."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = next(
        f"{text[:-1]}{last}"
        for last in alphabet
        if last != text[-1] and urlsafe_b64decode(f"{text[:-1]}{last}=") == urlsafe_b64decode(f"{text}=")
    )
    assert other != text
    return other


def _payload(version: int, id_: ArtifactId) -> str:
    return encode(bytes([version]) + bytes.fromhex(id_.key))


def _later(link: Live) -> ArtifactId:
    return ArtifactId(link.id.expires_at + 3600, link.id.random)


FORGED: dict[str, Callable[[Live], str]] = {
    "empty": lambda _: "",
    "a_dot": lambda _: ".",
    "no_signature": lambda link: link.payload,
    "empty_signature": lambda link: f"{link.payload}.",
    "no_payload": lambda link: f".{link.signature}",
    "halves_swapped": lambda link: f"{link.signature}.{link.payload}",
    "signature_of_zeros": lambda link: f"{link.payload}.{encode(bytes(32))}",
    "signature_cut": lambda link: link.token[:-1],
    "signature_longer": lambda link: f"{link.token}A",
    "signature_in_hexadecimal": lambda link: f"{link.payload}.{urlsafe_b64decode(link.signature + '=').hex()}",
    "signature_with_spare_bits": lambda link: f"{link.payload}.{_with_spare_bits(link.signature)}",
    "signature_twice": lambda link: f"{link.token}.{link.signature}",
    "payload_cut": lambda link: f"{link.payload[:-1]}.{link.signature}",
    "payload_longer": lambda link: f"A{link.token}",
    "payload_padded": lambda link: f"{link.payload}=.{link.signature}=",
    "payload_of_another_file": lambda link: f"{_payload(1, ArtifactId.new(link.id.expires_at))}.{link.signature}",
    "end_moved_under_the_old_signature": lambda link: f"{_payload(1, _later(link))}.{link.signature}",
    "another_secret": lambda link: LinkSigner(OTHER_SECRET).sign(link.id),
    "empty_secret": lambda link: signed(link.payload, b""),
    "no_context_signed": lambda link: signed(link.payload, context=b""),
    "plain_hash": lambda link: f"{link.payload}.{encode(sha256(link.payload.encode()).digest())}",
    "upper_case": lambda link: link.token.upper(),
    "lower_case": lambda link: link.token.lower(),
    "line_break_behind": lambda link: f"{link.token}\n",
    "space_before": lambda link: f" {link.token}",
    "null_byte_behind": lambda link: f"{link.token}\0",
    "dot_in_full_width": lambda link: link.token.replace(".", "\uff0e"),
    "dot_encoded": lambda link: link.token.replace(".", "%2E"),
    "digits_of_another_script": lambda link: f"\u0661{link.token[1:]}",
    "very_long": lambda link: link.token * 500,
}
# Signed with the right secret, and still no link of this store.
SIGNED: dict[str, Callable[[Live], str]] = {
    "version_0": lambda link: signed(_payload(0, link.id)),
    "version_2": lambda link: signed(_payload(2, link.id)),
    "ended_long_ago": lambda link: LinkSigner(SECRET).sign(ArtifactId(0, link.id.random)),
    "end_moved": lambda link: LinkSigner(SECRET).sign(_later(link)),
    "end_of_time": lambda link: LinkSigner(SECRET).sign(ArtifactId(2**56 - 1, link.id.random)),
    "a_file_that_never_was": lambda link: LinkSigner(SECRET).sign(ArtifactId.new(link.id.expires_at)),
    "a_short_payload": lambda _: signed(encode(b"\x01")),
    "no_payload_signed": lambda _: signed(""),
    "a_path_as_payload": lambda _: signed(encode(b"\x01../../../../neighbour.txt")),
    "a_path_in_plain_text": lambda _: signed(f"../{NEIGHBOUR}"),
}
TRAVERSING: dict[str, Callable[[Live], str]] = {
    "the_neighbour": lambda _: NEIGHBOUR,
    "the_key": lambda link: link.id.key,
    "the_description": lambda link: f"{link.id.key}.json",
    "the_first_piece": lambda link: f"{link.id.key}.0",
    "one_up": lambda _: "..",
    "here": lambda _: "./",
    "up_and_down": lambda _: f"../{NEIGHBOUR}",
    "up_encoded": lambda _: f"..%2f{NEIGHBOUR}",
    "up_encoded_twice": lambda _: f"%252e%252e%252f{NEIGHBOUR}",
    "up_with_backslashes": lambda _: f"..\\{NEIGHBOUR}",
    "up_doubled": lambda _: f"....//{NEIGHBOUR}",
    "up_in_utf_8_overlong": lambda _: f"..%c0%af{NEIGHBOUR}",
    "up_behind_a_good_link": lambda link: f"{link.token}/../{NEIGHBOUR}",
    "up_before_a_good_link": lambda link: f"../{link.token}",
    "absolute": lambda _: "/etc/passwd",
    "a_url": lambda _: "file:///etc/passwd",
    "a_bucket": lambda _: "s3://relay/neighbour.txt",
    "a_drive": lambda _: "C:\\neighbour.txt",
    "cut_by_a_null_byte": lambda _: f"{NEIGHBOUR}\0.json",
}
DEAD_LINKS = {**FORGED, **SIGNED, **TRAVERSING}


def stored_names(folder: Path) -> list[str]:
    """What lies in a store's folder, without what is somebody else's."""
    return sorted(path.name for path in folder.iterdir() if path.name != NEIGHBOUR)
