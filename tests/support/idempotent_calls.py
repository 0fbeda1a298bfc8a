"""Calls with an `idempotency_key`, and what they do."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from codegen.contract import FULL, load_contract
from handlers.runtime.access import Caller
from handlers.runtime.app import GENERATED
from handlers.runtime.exceptions import IdempotencyInProgress
from handlers.runtime.idempotency import FIELD, Idempotency, open_sql_store
from handlers.runtime.messages import Reply, Request
from handlers.runtime.services import Services

LEASE_SECONDS = 100.0
KEEP_SECONDS = 1_000.0
_OPERATIONS = load_contract(GENERATED, FULL).operations


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self.now


class Work:
    """
    What a call does: counts how often, and answers.

    Args:
        status: Of the answer.
    """

    def __init__(self, status: int = 200) -> None:
        self.count = 0
        self.status = status

    async def __call__(self) -> Reply:
        """Do it."""
        self.count += 1
        await asyncio.sleep(0)
        return Reply.json({"done": self.count}, status=self.status)


def call(
    key: str = "first",
    *,
    caller: str = "team",
    operation: str = "createImage",
    path: str = "",
    query: bytes = b"",
    **body: Any,
) -> Request:
    """A request with an `idempotency_key`."""
    found = _OPERATIONS[operation]
    return Request(
        id="rly_0123456789",
        operation=found,
        path=path or found.path,
        path_params={},
        query=query,
        headers=[],
        caller=Caller(caller, found.scopes),
        services=cast("Services", None),
        body={**(body or {"prompt": "a lighthouse"}), FIELD: key},
    )


def opened(url: str, clock: Callable[[], float]) -> Idempotency:
    """Calls that are done once, with a store at this URL."""
    return Idempotency(
        partial(open_sql_store, url), keep_seconds=KEEP_SECONDS, lease_seconds=LEASE_SECONDS, clock=clock
    )


async def at_once(idempotency: Idempotency, work: Callable[[], Awaitable[Reply]], count: int) -> list[Reply]:
    """Make the same call many times at once; returns the replies of those that were not told to wait."""
    results = await asyncio.gather(*(idempotency.run(call(), work) for _ in range(count)), return_exceptions=True)
    replies = [result for result in results if isinstance(result, Reply)]
    waiting = [result for result in results if isinstance(result, IdempotencyInProgress)]
    assert len(replies) + len(waiting) == count, results
    return replies
