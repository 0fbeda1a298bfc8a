"""
`relay mcp`: lets programs that speak MCP over standard input and output use the tools of a running relay.

Passes on what either side says and adds nothing: tools, instructions, results, errors, progress and cancellation are
the relay's. Standard output holds messages of the protocol and nothing else. Keeps nothing between messages.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
from mcp.client.client import Client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.dispatcher import ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    ListToolsRequest,
    PaginatedRequestParams,
    RequestParams,
)
from pydantic import RootModel, ValidationError

from handlers.mcp_link import PACKAGE, connected

# To hand over the last messages. Assistants wait two seconds for the end of a command, then they kill it.
END_TIMEOUT_SECONDS = 0.5
# What one side tells the other about itself and its wish for progress; the SDK says it anew on the other side.
_OWN_META = "io.modelcontextprotocol/"
_PROGRESS_TOKEN = "progress_token"  # noqa: S105 - a name

# What results must say since 2026-07-28, for assistants that are newer than the relay.
_COMPLETE = {"resultType": "complete"}
_UNCACHED = {"ttlMs": 0, "cacheScope": "private"}

_Context = ServerRequestContext[Any, Any]
_Params = TypeVar("_Params", bound=RequestParams)
_logger = logging.getLogger(__name__)


class _AsItCame(RootModel[dict[str, Any]]):
    """A result; the SDK's own models would leave out what they do not know, and judge what the relay has judged."""


async def run_bridge(address: str, key: str, ca_file: Path | None = None) -> None:
    """
    Serve standard input and output until the input ends or a signal comes.

    Args:
        address: From `handlers.mcp_link.relay_address`.
        key: From `handlers.mcp_link.relay_key`.
        ca_file: Certificates to trust beside the usual ones.

    Raises:
        StartupError: The relay cannot be reached, does not take the key, or is something else.
    """
    _configure_logging()
    async with connected(address, key, ca_file) as client:
        server = bridge_server(client)
        _logger.info("connected to %s (%s %s)", address, server.name, server.version)
        try:
            async with stdio_server() as (read, write):
                with _ended_in_time(), anyio.CancelScope() as serving, _ended_by_signals(serving):
                    await server.run(read, write, server.create_initialization_options())
        except* BrokenPipeError:
            pass  # nobody reads any more


def bridge_server(client: Client) -> Server[Any]:
    """
    Make the server that answers with what a relay answers.

    Args:
        client: Connected to the relay.
    """
    identity = client.server_info
    server: Server[Any] = Server(
        identity.name if identity else PACKAGE,
        version=identity.version if identity else "",
        title=identity.title if identity else None,
        description=identity.description if identity else None,
        website_url=identity.website_url if identity else None,
        icons=identity.icons if identity else None,
        instructions=client.instructions,
    )

    async def list_tools(context: _Context, params: PaginatedRequestParams) -> dict[str, Any]:
        del context
        return _UNCACHED | await _ask(client, ListToolsRequest(params=_passed_on(params)))

    async def call_tool(context: _Context, params: CallToolRequestParams) -> dict[str, Any]:
        wanted = _PROGRESS_TOKEN in (context.meta or {})
        progress = context.session.report_progress if wanted else None
        return await _ask(client, CallToolRequest(params=_passed_on(params)), progress)

    # Not by the constructor's `on_…`: those take the SDK's models only.
    server.add_request_handler("tools/list", PaginatedRequestParams, list_tools)
    server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
    return server


async def _ask(
    client: Client, request: ListToolsRequest | CallToolRequest, progress: ProgressFnT | None = None
) -> dict[str, Any]:
    try:
        result = await client.session.send_request(request, _AsItCame, progress_callback=progress)
    except ValidationError:
        raise MCPError(INTERNAL_ERROR, "The relay gave an answer that the protocol does not know.") from None
    except MCPError as error:
        if error.code != CONNECTION_CLOSED:
            raise
        message = f"The relay went away before the answer ({error.message}). What was asked for may have been done."
        raise MCPError(CONNECTION_CLOSED, message, error.data) from None
    return _COMPLETE | result.root


def _passed_on(params: _Params) -> _Params:
    meta = {
        name: value
        for name, value in (params.meta or {}).items()
        if name != _PROGRESS_TOKEN and not name.startswith(_OWN_META)
    }
    return params.model_copy(update={"meta": meta or None})


@contextlib.contextmanager
def _ended_by_signals(serving: anyio.CancelScope) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows, where a command is ended without being told
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, serving.cancel)
    yield


@contextlib.contextmanager
def _ended_in_time() -> Iterator[None]:
    """
    End the process soon after the block, whatever still waits.

    The SDK reads and writes in threads. One that waits for input at a signal, or for somebody to take the output,
    cannot be woken, and Python would wait for it.
    """
    code = 1
    try:
        yield
        code = 0
    except BaseException:
        _logger.error("the connection to the relay or to whoever started this broke.")  # noqa: TRY400 - says it all
        raise
    finally:
        watch = threading.Timer(END_TIMEOUT_SECONDS, os._exit, (code,))
        watch.daemon = True
        watch.start()


def _configure_logging() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="relay: %(message)s", force=True)
    _logger.setLevel(logging.INFO)
    # What it complains about reaches whoever asked, as an error in the relay's own words.
    logging.getLogger("mcp.client.streamable_http").setLevel(logging.CRITICAL)
