"""Key files written by hand, so that tests of access stand on the format and not on the command that writes it."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import yaml

from codegen.contract import Scope


@dataclass(frozen=True)
class MadeKey:
    """
    A key for a test.

    Args:
        text: What the client sends.
        expires: As ISO 8601 text in the file; `None` when it never does.
    """

    id: str
    scopes: tuple[Scope, ...]
    text: str
    expires: datetime | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The usual header."""
        return {"Authorization": f"Bearer {self.text}"}


def make_key(key_id: str, *scopes: Scope, expires: datetime | None = None) -> MadeKey:
    """Make a random key."""
    return MadeKey(key_id, scopes, f"rk_{secrets.token_urlsafe(32)}", expires)


def write_keys(path: Path, keys: Iterable[MadeKey]) -> None:
    """Write the digests of keys to a key file."""
    records = []
    for key in keys:
        record: dict[str, object] = {
            "id": key.id,
            "sha256": sha256(key.text.encode()).hexdigest(),
            "scopes": [scope.value for scope in key.scopes],
        }
        if key.expires is not None:
            record["expires"] = key.expires.isoformat()
        records.append(record)
    path.write_text(yaml.safe_dump({"keys": records}), encoding="utf-8")
