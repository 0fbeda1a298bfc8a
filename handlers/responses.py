"""
Operations of the tag Responses that translate something; the others are forwarded as they come.
"""

import json

from handlers.runtime.exceptions import InvalidBody
from handlers.runtime.headers import request_headers
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
    try:
        content = json.dumps({**request.body, "stream": True}, allow_nan=False).encode()
    except ValueError:  # a number beyond what this machine can hold; JSON itself knows no bound
        raise InvalidBody("Numbers must fit into a double.") from None
    create_response = request.services.contract.operations[UPSTREAM_OPERATION]
    return await request.services.upstream.send(
        create_response.method,
        create_response.path,
        query=request.query,
        headers=request_headers(request.headers),
        content=content,
    )
