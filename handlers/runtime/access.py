"""
Who is calling, and may they: keys, scopes, and the decision on the matched operation.

Nothing here looks at a URL. Keys are held as SHA-256 digests only; they are random, so no slow hash is needed.
"""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codegen.contract import Exclusion, Operation, Scope
from handlers.runtime.exceptions import (
    InsufficientScope,
    InvalidKey,
    InvalidKeyFile,
    MissingKey,
    OperationUnsupported,
    StreamingNotAllowed,
)
from handlers.runtime.messages import Header
from handlers.runtime.settings import Settings

KEY_PREFIX = "rk_"
KEY_BYTES = 32  # 256 bits
BOOTSTRAP_KEY_ID = "bootstrap"
BOOTSTRAP_SCOPES = frozenset(Scope) - {Scope.OPERATOR}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key came along and what it opens."""

    key_id: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Key:
    """
    A key as the relay knows it.

    Args:
        digest: SHA-256 of the key's text.
        expires: `None` when it never does.
    """

    id: str
    digest: bytes
    scopes: frozenset[Scope]
    expires: datetime | None = None


class _KeyRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: list[Scope] = Field(min_length=1)
    expires: datetime | None = None


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: list[_KeyRecord]


class KeyRing:
    """
    All keys of the relay, looked up by digest.

    Args:
        keys: Ids must be unique.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)
        # The first bytes of a digest choose the candidates; they say nothing about the key. The comparison that
        # decides takes constant time.
        self._candidates: dict[bytes, list[Key]] = {}
        for key in self.keys:
            self._candidates.setdefault(key.digest[:4], []).append(key)

    def __len__(self) -> int:
        return len(self.keys)

    def authenticate(self, headers: Iterable[Header]) -> Caller:
        """
        Find the caller from `Authorization: Bearer` or `X-Relay-Key`.

        Raises:
            MissingKey: Neither header is there (401).
            InvalidKey: The key is unknown or has expired, or two different keys came along (401).
        """
        presented = _presented_key(headers)
        digest = hashlib.sha256(presented).digest()
        for key in self._candidates.get(digest[:4], ()):
            if hmac.compare_digest(key.digest, digest):
                if key.expires is not None and key.expires <= datetime.now(UTC):
                    break
                return Caller(key.id, key.scopes)
        raise InvalidKey


def authorise(operation: Operation, caller: Caller) -> None:
    """
    Decide whether the caller may use the operation.

    Raises:
        InsufficientScope: None of the caller's scopes opens it (403).
        OperationUnsupported: The contract lists it as refused (403).
    """
    if operation.scopes.isdisjoint(caller.scopes):
        raise InsufficientScope
    if operation.exclusion is Exclusion.UNSUPPORTED:
        raise OperationUnsupported(f"This relay does not serve the operation. {operation.reason}")


def authorise_streaming(operation: Operation, caller: Caller | None, *, wanted: bool) -> None:
    """
    Refuse an event stream to a key that only has the `actions` scope: assistants cannot read one.

    Args:
        wanted: Whether the request asks for a stream.

    Raises:
        StreamingNotAllowed: The message names the wrapper when there is one (403).
    """
    if wanted and caller is not None and Scope.CANONICAL not in caller.scopes:
        instead = f"; call `{operation.wrapper}` instead" if operation.wrapper else ""
        raise StreamingNotAllowed(f"`stream` must be false for this key{instead}.", param="stream")


def bearer_token(headers: Iterable[Header]) -> str:
    """
    The one credential of a request, when it has the form of an access token and stands where tokens belong.

    Raises:
        InvalidKey: It is something else, or another stands beside it (401).

    Source: RFC 6750, section 2.1; RFC 7519, section 3.
    """
    credentials = [(name, value.strip()) for name, value in headers if name in {b"authorization", b"x-relay-key"}]
    if len(credentials) == 1:
        (name, value), *_ = credentials
        scheme, _, token = value.partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer" and token.count(b".") == 2:
            return token.strip().decode("latin-1")
    raise InvalidKey


def load_key_ring(settings: Settings) -> KeyRing:
    """
    Gather the bootstrap key and the key file.

    Raises:
        InvalidKeyFile: The file cannot be read, is malformed, or repeats an id or a key.
    """
    keys = []
    bootstrap = settings.RELAY_KEY.get_secret_value()
    if bootstrap:
        keys.append(Key(BOOTSTRAP_KEY_ID, hash_key(bootstrap), BOOTSTRAP_SCOPES))
    if settings.RELAY_KEY_FILE is not None:
        keys += read_key_file(settings.RELAY_KEY_FILE)
    for attribute in ("id", "digest"):
        values = [getattr(key, attribute) for key in keys]
        if len(set(values)) != len(values):
            raise InvalidKeyFile(f"every key must have its own {attribute}; `{BOOTSTRAP_KEY_ID}` belongs to RELAY_KEY.")
    return KeyRing(keys)


def read_key_file(path: Path) -> list[Key]:
    """
    Read a key file: YAML with a list `keys` of `id`, `sha256`, `scopes` and optionally `expires`.

    Raises:
        InvalidKeyFile: It cannot be read or a record is malformed; nothing of its content is repeated.
    """
    try:
        data = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise InvalidKeyFile(f"{path}: cannot be read ({error.strerror}); `relay keys create` makes one.") from None
    except yaml.YAMLError:
        raise InvalidKeyFile(f"{path}: is not YAML; `relay keys create` writes the right form.") from None
    try:
        records = _KeyFile.model_validate(data).keys
    except ValidationError as error:
        details = [
            f"{path}: {'.'.join(map(str, d['loc'])) or 'file'}: {d['msg']}" for d in error.errors(include_input=False)
        ]
        raise InvalidKeyFile("\n".join(details)) from None
    return [Key(r.id, bytes.fromhex(r.sha256), frozenset(r.scopes), _aware(r.expires)) for r in records]


def add_key(path: Path, key_id: str, scopes: Iterable[Scope], expires: datetime | None) -> str:
    """
    Make a key, add its digest to a key file (made with mode 0600 when it does not exist), and return the key.

    Returns:
        The key's text: the only time that it is seen.

    Raises:
        InvalidKeyFile: The file is malformed, or the id is taken or not allowed. The file is then unchanged.
    """
    text = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    record: dict[str, Any] = {"id": key_id, "sha256": hash_key(text).hex(), "scopes": _names(scopes)}
    if expires is not None:
        record["expires"] = expires.isoformat()
    try:
        _KeyRecord.model_validate(record)
    except ValidationError as error:
        raise InvalidKeyFile(
            "\n".join(f"{d['loc'][0]}: {d['msg']}" for d in error.errors(include_input=False))
        ) from None
    known = read_key_file(path) if path.exists() else []
    if key_id == BOOTSTRAP_KEY_ID or any(key.id == key_id for key in known):
        raise InvalidKeyFile(f"the id `{key_id}` is taken; choose another.")
    write_key_file(path, [*(_to_record(key) for key in known), record])
    return text


def remove_key(path: Path, key_id: str) -> None:
    """
    Take a key out of a key file.

    Raises:
        InvalidKeyFile: The file is malformed or has no such key.
    """
    known = read_key_file(path)
    kept = [key for key in known if key.id != key_id]
    if len(kept) == len(known):
        raise InvalidKeyFile(f"{path}: has no key `{key_id}`; `relay keys list` shows them.")
    write_key_file(path, [_to_record(key) for key in kept])


def write_key_file(path: Path, records: list[dict[str, Any]]) -> None:
    """
    Replace a key file at once: written beside it with mode 0600, then renamed over it.

    Raises:
        InvalidKeyFile: It cannot be written.
    """
    text = yaml.safe_dump({"keys": records}, sort_keys=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InvalidKeyFile(f"{path}: cannot be written ({error.strerror}).") from None


def hash_key(text: str) -> bytes:
    """The digest under which a key is known."""
    return hashlib.sha256(text.encode()).digest()


def _presented_key(headers: Iterable[Header]) -> bytes:
    presented: set[bytes] = set()
    other_scheme = False
    for name, value in headers:
        if name == b"x-relay-key":
            presented.add(value.strip())
        elif name == b"authorization":
            scheme, _, credentials = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                presented.add(credentials.strip())
            else:
                other_scheme = True  # `X-Relay-Key` is for clients whose `Authorization` is taken
    if not presented:
        if other_scheme:
            raise InvalidKey("`Authorization` must be `Bearer` followed by a relay key.")
        raise MissingKey
    if len(presented) > 1:
        raise InvalidKey("`Authorization` and `X-Relay-Key` must not hold different keys.")
    (key,) = presented
    if not key:
        raise MissingKey
    return key


def _names(scopes: Iterable[Scope]) -> list[str]:
    return sorted(scope.value for scope in scopes)


def _aware(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _to_record(key: Key) -> dict[str, Any]:
    record: dict[str, Any] = {"id": key.id, "sha256": key.digest.hex(), "scopes": _names(key.scopes)}
    if key.expires is not None:
        record["expires"] = key.expires.isoformat()
    return record
