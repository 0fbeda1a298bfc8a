"""
Operations of the tag Responses that translate something; the others are forwarded as they come.
"""

from handlers.runtime.headers import request_headers
from handlers.runtime.json_bodies import encode_json
from handlers.runtime.messages import Reply, Request

UPSTREAM_OPERATION = "createResponse"


async def create_response_stream(request: Request) -> Reply:
    """
    Create a response and stream it, whatever the body says about `stream`.

    Args:
        request: Its body is a validated `CreateResponse`.

    Returns:
        Upstream's answer to `createResponse` with `stream: true`, event by event.

    Raises:
        InvalidBody: A number exceeds a double (400).
        UpstreamUnreachable: No connection (502).
        UpstreamTimeout: No answer in time (504).

    Source: operation `createResponseStream`, standing on upstream's `createResponse`.
    """
    create_response = request.services.contract.operations[UPSTREAM_OPERATION]
    return await request.services.upstream.send(
        create_response.method,
        create_response.path,
        query=request.query,
        headers=request_headers(request.headers),
        content=encode_json({**request.body, "stream": True}),
    )
