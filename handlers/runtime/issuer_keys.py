"""
The public keys with which the issuer of access tokens signs: fetched when needed, kept, and asked for seldom.

Anybody can send a token, so nobody's tokens may make the relay ask the issuer more than once every `PAUSE_SECONDS`.
Not for: what a token must say (`handlers.runtime.access_tokens`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from handlers.runtime.exceptions import InvalidToken, TokenIssuerUnavailable

# A key that the issuer has withdrawn is good for this long, and for `KEPT_SECONDS` while the issuer does not answer:
# people who have signed in can then go on working for as long as tokens usually last.
FRESH_SECONDS = 300.0
KEPT_SECONDS = 3600.0
PAUSE_SECONDS = 5.0  # between two look-ups, whatever the first one brought
FETCH_TIMEOUT_SECONDS = 5.0  # for each step of a look-up
WAIT_SECONDS = 8.0  # of one request for a look-up; the look-up itself goes on for the next request

_log = structlog.get_logger("relay")


class KeySource(Protocol):
    """Where the keys come from; `jwt.PyJWKClient` is one."""

    def fetch_data(self) -> Any:
        """Ask for the JWK Set (RFC 7517), blocking. Whatever this raises counts as no answer."""


class IssuerKeys:
    """
    Finds keys by their id. Any number of callers share one look-up, which outlives those that leave.

    Args:
        source: Called in a thread, one call at a time.
        clock: In seconds, never going back.
        wait_seconds: See `WAIT_SECONDS`.
    """

    def __init__(
        self, source: KeySource, *, clock: Callable[[], float] = time.monotonic, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._source = source
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._keys: Mapping[str, Mapping[str, Any]] = {}
        self._fetched = self._tried = -float("inf")
        self._answered = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> Mapping[str, Any]:
        """
        The key with this id, as the issuer publishes it.

        Raises:
            InvalidToken: The issuer has no such key (401).
            TokenIssuerUnavailable: It does not answer, and no key that is kept has this id (503).
        """
        if kid not in self._keys or self._age() > FRESH_SECONDS:
            await self._refresh()
        key = self._keys.get(kid)
        if key is not None and self._age() <= KEPT_SECONDS:
            return key
        if self._fetching is not None or not self._answered:
            raise TokenIssuerUnavailable(headers=[("Retry-After", str(round(PAUSE_SECONDS)))])
        raise InvalidToken

    def _age(self) -> float:
        return self._clock() - self._fetched

    async def _refresh(self) -> None:
        """Wait for the look-up that is under way, or for one of our own when the last is long enough ago."""
        if self._fetching is None:
            if self._clock() - self._tried < PAUSE_SECONDS:
                return
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait({self._fetching}, timeout=self._wait_seconds)

    async def _fetch(self) -> None:
        try:
            keys = _signing_keys(await asyncio.to_thread(self._source.fetch_data))
        except Exception as error:  # noqa: BLE001 - whatever came instead of keys, they are asked for again later
            self._answered = False
            _log.warning("token_issuer_unavailable", error=type(error).__name__)
        else:
            self._keys, self._fetched, self._answered = keys, self._clock(), True
        finally:
            self._tried = self._clock()
            self._fetching = None


def _signing_keys(document: Any) -> dict[str, dict[str, Any]]:
    found = {
        key["kid"]: key
        for key in document["keys"]
        if isinstance(key, dict) and isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig"
    }
    if not found:
        raise ValueError("the document holds no key for signatures")
    return found
