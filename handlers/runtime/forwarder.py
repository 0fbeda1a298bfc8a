"""
The one handler of every operation that only passes through.

Not for: translating anything; an operation that needs that has a function of its own in the module of its tag.
"""

from handlers.runtime.headers import request_headers
from handlers.runtime.messages import Reply, Request


async def forward(request: Request) -> Reply:
    """
    Send the request upstream as it came, with the original bytes, and answer what upstream answers.

    Args:
        request: Matched, authorised and validated; `HEAD` is asked as `GET`.

    Returns:
        Upstream's status, allowed headers and body, unchanged; the body is streamed.

    Raises:
        UpstreamUnreachable: No connection (502).
        UpstreamProtocolError: No valid HTTP answer (502).
        UpstreamTimeout: No answer in time (504).

    Source: every operation of a mirrored tag.
    """
    headers = request_headers(request.headers)
    if request.content is not None and request.content_length is not None:
        headers.append((b"content-length", str(request.content_length).encode()))
    return await request.services.upstream.send(
        request.operation.method,
        request.path,
        query=request.query,
        headers=headers,
        content=request.content if request.content is not None else request.raw_body or None,
    )
