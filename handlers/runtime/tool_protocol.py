"""
Speaks the Model Context Protocol with the official SDK: lists the tools, runs their calls, one message at a time.

The SDK takes 0.8 seconds and 30 MB to import, so only `handlers.runtime.tool_server` imports this, when the first
message comes. Not for: deciding who may ask; every call is a request of its own (`handlers.runtime.local_calls`).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import sse_starlette.sse
import structlog
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    ToolAnnotations,
)
from mcp_types import Tool as McpTool
from starlette.types import ASGIApp

from codegen.tools import Tool
from handlers.runtime.errors import describe_error, error_to_reply
from handlers.runtime.exceptions import InternalError, RelayError, UnknownOperation
from handlers.runtime.messages import Progress, Reply, Request
from handlers.runtime.routes import Route
from handlers.runtime.tool_requests import arguments_to_call
from handlers.runtime.tool_results import reply_to_result
from handlers.runtime.tool_server import REQUEST, ToolOffer

# Often enough for people to see that something happens, and for clients that give up after a silent minute.
PROGRESS_SECONDS = 2.0
_INSTRUCTIONS = (
    "Tools of a team's relay in front of the OpenAI API. A result that was cut says so in `truncated`, and in `how` "
    "how to go on. Give `idempotency_key` where a tool takes it, and the same one when you call again: nothing is "
    "done twice."
)

_log = structlog.get_logger("relay")

# The SDK's event streams would end at SIGTERM at once; here running calls may finish, as over HTTP.
sse_starlette.sse.AppStatus.enable_automatic_graceful_drain = False


class ToolProtocol:
    """
    The protocol's server side over the tools of one relay; keeps nothing between messages.

    Args:
        offer: What it answers about.
    """

    def __init__(self, offer: ToolOffer) -> None:
        self._tools = {tool.name: tool for tool in offer.tools}
        self._listed = ListToolsResult(tools=[_describe(tool) for tool in offer.tools])
        self._index = offer.index
        self._calls = offer.calls
        server: Server[Any] = Server(
            "chatgpt-team-relay",
            version=offer.version,
            title="Team relay",
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            get_tool_input_schema=self._input_schema,
        )
        self._manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=offer.max_body_bytes)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ASGIApp]:
        """Answer messages while the block runs; yields what takes them, with the request in the scope as `REQUEST`."""
        async with self._manager.run():
            yield self._manager.handle_request

    async def _list_tools(self, _context: Any, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return self._listed

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        tool = self._tools.get(name)
        return tool.input_schema if tool else None

    async def _call_tool(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, "Unknown tool; `tools/list` names those that there are.")
        request: Request = context.request.scope[REQUEST]
        route = request.services.routes[tool.operation_id]
        wrapped = bool(route.operation.wraps)
        progress = Progress()
        async with anyio.create_task_group() as tasks:
            if (context.meta or {}).get("progress_token") is not None:
                tasks.start_soon(_report, context.session, tool, progress)
            try:
                reply = await self._reply(request, tool, route, params.arguments or {}, progress)
                result = reply_to_result(reply, wrapped=wrapped)
            except Exception as error:  # noqa: BLE001 - the SDK would tell the client what an exception says
                result = reply_to_result(_refuse(request, error), wrapped=wrapped)
            tasks.cancel_scope.cancel()
        return result

    async def _reply(
        self, request: Request, tool: Tool, route: Route, arguments: Mapping[str, Any], progress: Progress
    ) -> Reply:
        call = arguments_to_call(tool, route.operation, arguments)
        match = self._index.match(call.raw_path)
        # A value that spells a path of its own would make the tool another one.
        if match is None or match.methods.get(call.method) is not route:
            raise UnknownOperation
        return await self._calls.call(request, call, progress)


def _refuse(request: Request, error: Exception) -> Reply:
    """The reply where no request of the operation has given one; the message's own id and log line stand for it."""
    if not isinstance(error, RelayError):
        _log.error("defect", request_id=request.id, exc_info=error)
        error = InternalError()
    request.log["refused"] = describe_error(error)["code"]
    reply = error_to_reply(error)
    reply.headers.append((b"x-request-id", request.id.encode("ascii")))
    return reply


async def _report(session: Any, tool: Tool, progress: Progress) -> None:
    """Say every now and then that the call still runs, and what it has come to."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        seconds = round(clock() - began, 1)
        await session.report_progress(seconds, message=progress.text or f"{tool.name} runs since {seconds:.0f} seconds")


def _describe(tool: Tool) -> McpTool:
    hints = tool.hints
    return McpTool(
        name=tool.name,
        title=tool.summary.rstrip("."),
        description=tool.description,
        input_schema=dict(tool.input_schema),
        output_schema=dict(tool.output_schema) if tool.output_schema is not None else None,
        annotations=ToolAnnotations(
            read_only_hint=hints.read_only,
            destructive_hint=hints.destructive,
            idempotent_hint=hints.idempotent,
            open_world_hint=True,  # a service elsewhere answers
        ),
    )
