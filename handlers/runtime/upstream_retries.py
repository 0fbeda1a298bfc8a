"""
What a failure of the upstream is called, and whether the same request may be sent again.

Statuses are answers and never repeated here: SDKs do that, as `retry-after` and `x-should-retry` tell them, and two
that repeat multiply. What may have had an effect is not repeated either, unless its method says that twice is once.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
import httpx
import stamina
from stamina.instrumentation import set_on_retry_hooks

from handlers.runtime.connection import ClientGone
from handlers.runtime.exceptions import (
    RelayError,
    UpstreamNameUnresolved,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTlsFailed,
    UpstreamUnreachable,
)
from handlers.runtime.upstream_wire import Unanswered

FAILURES = (httpx.TransportError, aiohttp.ClientError, OSError)
# RFC 9110, section 9.2.2, of the methods in the contract.
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
# Half a second on average for the two by default: shorter than the patience of any client.
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
_JITTER_SECONDS = 0.2

_T = TypeVar("_T")

# The line of the request says how often; stamina's own lines and counters would stand beside the relay's.
set_on_retry_hooks([])


def named(error: Exception) -> Exception:
    """
    The relay's own error for a failure of the transport.

    Args:
        error: One of `FAILURES`.
    """
    # What stopped the client's body while it was being sent comes back wrapped.
    wrapped: BaseException | None = error
    while wrapped is not None:
        if isinstance(wrapped, (RelayError, ClientGone)):
            return wrapped
        wrapped = wrapped.__cause__
    cause = _cause(error)
    if isinstance(cause, (aiohttp.ServerTimeoutError, TimeoutError)) or getattr(cause, "errno", 0) == errno.ETIMEDOUT:
        return UpstreamTimeout()
    if isinstance(cause, (aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError)):
        return UpstreamTlsFailed()
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return UpstreamNameUnresolved()
    if isinstance(cause, aiohttp.ClientConnectorError):
        return UpstreamUnreachable()
    return UpstreamProtocolError()


def may_repeat(error: Exception, *, idempotent: bool) -> bool:
    """
    Whether a request that failed so may be sent again.

    Args:
        error: One of `FAILURES`.
        idempotent: Whether its effect is the same once and twice, and its body still there.
    """
    failure = named(error)
    if isinstance(failure, (UpstreamUnreachable, UpstreamNameUnresolved)):
        # Nothing was sent, nor a body touched. A timeout has used up the time to connect; a certificate stays as it is.
        return True
    return idempotent and isinstance(_cause(error), (Unanswered, aiohttp.ClientConnectionResetError))


async def repeat(
    send: Callable[[], Awaitable[_T]], error: Exception, allowed: Callable[[Exception], bool], retries: int
) -> _T:
    """
    Send a request again that has failed once, a little later each time.

    Args:
        send: Sends it once.
        error: Of the first time.
        allowed: Whether it may be sent again after a failure.
        retries: At most so often.

    Raises:
        Exception: The last failure.
    """

    def wait(failure: Exception) -> bool | float:
        if not isinstance(failure, FAILURES) or not allowed(failure):
            return False
        # A kept connection that the upstream has closed meanwhile says nothing about a new one.
        return 0.0 if failure is error and isinstance(_cause(failure), Unanswered) else True

    async for attempt in stamina.retry_context(
        on=wait,
        attempts=1 + retries,
        timeout=None,  # the request's own limits end it
        wait_initial=_FIRST_WAIT_SECONDS,
        wait_max=_LONGEST_WAIT_SECONDS,
        wait_jitter=_JITTER_SECONDS,
    ):
        with attempt:
            if attempt.num == 1:
                raise error
            return await send()
    raise AssertionError("stamina raises the last failure")  # pragma: no cover


def _cause(error: Exception) -> BaseException:
    # The transport maps a broken connection and a late answer to overlapping httpx types; aiohttp's own are exact.
    return error.__cause__ or error
