"""
Operations of the tag MCP: the operations for assistants as tools, and who issues access tokens for them.

Not for: the protocol (`handlers.runtime.tool_protocol`) or the calls, each of which is a request of its own.
"""

from handlers.runtime.exceptions import OAuthNotConfigured, OriginNotAllowed
from handlers.runtime.messages import Reply, Request


async def send_mcp_message(request: Request) -> Reply:
    """
    Answer one message of the Model Context Protocol.

    Args:
        request: Its body is an `McpMessage`.

    Returns:
        `McpMessage`, or events that end with one; nothing (202) to a notification.

    Raises:
        InvalidBody: The message's `id` is a number with a point (400).
        OriginNotAllowed: A page of a site that is not listed asks (403).
        NotAcceptable: `Accept` leaves out JSON or event streams (406).

    Source: operation `sendMcpMessage`; MCP 2025-11-25 and 2026-07-28, streamable HTTP.
    """
    origins = [value for name, value in request.headers if name == b"origin"]
    if not request.services.origins.issuperset(origins):
        raise OriginNotAllowed
    return await request.services.tools.exchange(request)


async def retrieve_protected_resource(request: Request) -> Reply:
    """
    Tell who issues access tokens for the tools.

    Returns:
        `ProtectedResource`.

    Raises:
        OAuthNotConfigured: Nobody does (404).

    Source: operation `retrieveProtectedResource`; RFC 9728.
    """
    tokens = request.services.tokens
    if tokens is None:
        raise OAuthNotConfigured
    return Reply.json(tokens.metadata)


async def retrieve_mcp_protected_resource(request: Request) -> Reply:
    """
    Tell the same at the address that RFC 9728 makes out of that of the tools.

    Returns:
        `ProtectedResource`.

    Raises:
        OAuthNotConfigured: Nobody does (404).

    Source: operation `retrieveMcpProtectedResource`; RFC 9728, section 3.1.
    """
    return await retrieve_protected_resource(request)
