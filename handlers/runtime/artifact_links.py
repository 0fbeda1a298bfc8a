"""
Signed links: what stands in the token of `/artifacts/{token}`, and who may have written it.

    token      base64url(payload) "." base64url(HMAC-SHA256 over the text before the dot)
    payload    version, 1 byte · end in seconds since 1970, 7 bytes · random id, 16 bytes

Nothing of the file is in it. Links are secrets for as long as they are good: they stand in no log line and no repr.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from handlers.runtime.exceptions import ArtifactNotFound
from handlers.runtime.messages import Request

MIN_SECRET_BYTES = 32  # RFC 2104: a key shorter than the hash weakens it

_VERSION = b"\x01"
_END_BYTES = 7  # 24 bytes in all: base64 without padding and without spare bits
_RANDOM_BYTES = 16
_CONTEXT = b"chatgpt-team-relay artifact link\n"  # nothing else that this secret may sign reads as a link
_TOKEN = re.compile(r"([A-Za-z0-9_-]{32})\.([A-Za-z0-9_-]{43})", re.ASCII)
_KEY = re.compile(rf"[0-9a-f]{{{2 * (_END_BYTES + _RANDOM_BYTES)}}}", re.ASCII)
# RFC 3986's host and port, in plain forms.
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ArtifactId:
    """
    What a link names.

    Args:
        expires_at: Seconds since 1970; from then on the link is dead and the file may be deleted.
        random: 128 bits that nobody can guess.
    """

    expires_at: int
    random: bytes = field(repr=False)

    @classmethod
    def new(cls, expires_at: int) -> Self:
        """Make an id that no other file has."""
        return cls(expires_at, secrets.token_bytes(_RANDOM_BYTES))

    @classmethod
    def from_key(cls, key: str) -> Self | None:
        """Read a key back; `None` when the text is none."""
        if not _KEY.fullmatch(key):
            return None
        content = bytes.fromhex(key)
        return cls(int.from_bytes(content[:_END_BYTES], "big"), content[_END_BYTES:])

    @property
    def key(self) -> str:
        """The name under which the file lies in the store: hexadecimal digits, those that end first come first."""
        return f"{self.expires_at.to_bytes(_END_BYTES, 'big').hex()}{self.random.hex()}"


class LinkSigner:
    """
    Writes tokens and reads them.

    Args:
        secret: Who has it can write links; replicas share it.

    Raises:
        ValueError: The secret is too short.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret of links must have at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret

    def sign(self, id_: ArtifactId) -> str:
        """The token of a file."""
        payload = _encode(_VERSION + bytes.fromhex(id_.key))
        return f"{payload}.{self._signature(payload)}"

    def read(self, token: str) -> ArtifactId:
        """
        Take a token apart. Whether it has ended is for the caller to say.

        Raises:
            ArtifactNotFound: It is malformed, or somebody else signed it (404).
        """
        found = _TOKEN.fullmatch(token)
        # The text is what is signed and compared: base64 that decodes to the same bytes is another token.
        if not found or not hmac.compare_digest(found[2], self._signature(found[1])):
            raise ArtifactNotFound
        payload = urlsafe_b64decode(found[1])
        id_ = ArtifactId.from_key(payload[len(_VERSION) :].hex())
        if not payload.startswith(_VERSION) or id_ is None:
            raise ArtifactNotFound
        return id_

    def _signature(self, payload: str) -> str:
        return _encode(hmac.digest(self._secret, _CONTEXT + payload.encode("ascii"), sha256))


def origin_of(request: Request) -> str:
    """
    The relay's address as this client wrote it, for relays that have not been told theirs.

    Returns:
        A URL without a path, or nothing when `Host` is missing or no host. Always `http`: whoever ends TLS before the
        relay sets RELAY_PUBLIC_URL.
    """
    host = (request.header(b"host") or b"").decode("latin-1")
    return f"http://{host}" if _HOST.fullmatch(host) else ""


def _encode(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode("ascii")
