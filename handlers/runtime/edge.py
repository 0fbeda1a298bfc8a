"""
The outermost layer: gives a request its id, turns exceptions into replies, writes the one log line.

Nothing that a client sent and no credential is ever logged.
"""

import asyncio
import time

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.runtime.connection import DEPARTURE, ClientGone, Connection, new_request_id
from handlers.runtime.counts import ANSWERED, CLIENT_GONE, Counts
from handlers.runtime.errors import ERROR_TABLE, error_to_reply
from handlers.runtime.exceptions import InternalError, RelayError
from handlers.runtime.local_calls import INSIDE
from handlers.runtime.observation import OBSERVATION, Observation, Tracing
from handlers.runtime.pipeline import CONNECTION

_log = structlog.get_logger("relay")


class Edge:
    """
    ASGI middleware around everything else.

    Args:
        counts: Where each request is counted.
        tracing: `None` unless OpenTelemetry is on.
    """

    def __init__(self, app: ASGIApp, counts: Counts | None = None, tracing: Tracing | None = None) -> None:
        self.app = app
        self._counts = Counts() if counts is None else counts
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer every request: with the app's reply or with an error of the relay."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        observation = Observation(self._counts.unmatched)
        connection = Connection(receive, send, scope["method"], new_request_id(), observation, scope.get(DEPARTURE))
        scope[CONNECTION] = connection
        if self._tracing is not None:
            observation.trace = self._tracing.begin(scope["method"], scope["headers"], connection.request_id)
        before = OBSERVATION.set(observation)
        self._counts.active.add(connection)
        outcome = ANSWERED
        try:
            try:
                await self.app(scope, receive, send)
            except ClientGone:
                outcome = CLIENT_GONE
            except Exception as error:  # noqa: BLE001 - the last place that can turn a defect into a reply
                outcome = await self._refuse(connection, error)
        except asyncio.CancelledError:
            if not connection.gone:
                raise
            _end_cancellation()
            outcome = CLIENT_GONE
        finally:
            connection.stop_watching()
            self._counts.active.discard(connection)
            OBSERVATION.reset(before)
            # The server's part of the request knows the scope, and the connection knows it: a circle that would be
            # left to the garbage collection after every request.
            del scope[CONNECTION]
        seconds = time.perf_counter() - started
        self._counts.end(connection, outcome, seconds, inside=INSIDE in scope)
        if observation.trace is not None:
            observation.trace.end(observation.counts, connection.status, outcome, seconds)
        _log.info(
            "request",
            request_id=connection.request_id,
            method=scope["method"],
            status=connection.status,
            outcome=outcome,
            bytes_in=connection.bytes_in,
            bytes_out=connection.bytes_out,
            ms=round(seconds * 1000, 1),
            **{**connection.log, **observation.fields()},
        )

    async def _refuse(self, connection: Connection, error: Exception) -> str:
        if not isinstance(error, RelayError):
            _log.error("defect", request_id=connection.request_id, exc_info=error)
        if connection.gone:
            return CLIENT_GONE
        outcome = ERROR_TABLE[type(error)].code if isinstance(error, RelayError) else ERROR_TABLE[InternalError].code
        # After the headers it is too late for a status: returning without the rest makes the server break the
        # connection, so that half an answer cannot pass for a whole one.
        if not connection.reply_started:
            await connection.send(error_to_reply(error))
        return outcome


def _end_cancellation() -> None:
    """The cancellation was meant for this request alone and has done its work."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
