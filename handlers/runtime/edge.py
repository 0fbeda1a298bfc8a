"""
The outermost layer: gives a request its id, turns exceptions into replies, writes the one log line.

Nothing that a client sent and no credential is ever logged.
"""

import asyncio
import time

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.runtime.connection import ClientGone, Connection, new_request_id
from handlers.runtime.errors import ERROR_TABLE, error_to_reply
from handlers.runtime.exceptions import InternalError, RelayError
from handlers.runtime.pipeline import CONNECTION

_log = structlog.get_logger("relay")


class Edge:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer every request: with the app's reply or with an error of the relay."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        connection = Connection(receive, send, scope["method"], new_request_id())
        scope[CONNECTION] = connection
        outcome = "answered"
        try:
            try:
                await self.app(scope, receive, send)
            except ClientGone:
                outcome = "client_gone"
            except Exception as error:  # noqa: BLE001 - the last place that can turn a defect into a reply
                outcome = await self._refuse(connection, error)
        except asyncio.CancelledError:
            if not connection.gone:
                raise
            _end_cancellation()
            outcome = "client_gone"
        finally:
            connection.stop_watching()
        _log.info(
            "request",
            request_id=connection.request_id,
            method=scope["method"],
            status=connection.status,
            outcome=outcome,
            bytes_out=connection.bytes_out,
            ms=round((time.perf_counter() - started) * 1000, 1),
            **connection.log,
        )

    async def _refuse(self, connection: Connection, error: Exception) -> str:
        if not isinstance(error, RelayError):
            _log.error("defect", request_id=connection.request_id, exc_info=error)
        if connection.gone:
            return "client_gone"
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
