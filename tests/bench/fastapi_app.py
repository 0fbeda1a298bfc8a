"""
The usual way to build such a gateway: FastAPI, one shared httpx client, upstream's bytes as a StreamingResponse.

Imports nothing of the project: it runs in an environment of its own. Bodies are checked to be JSON objects, no more.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException  # type: ignore[import-not-found]  # in no lock of ours
from starlette.requests import Request
from starlette.responses import StreamingResponse

UPSTREAM_URL = os.environ["BENCH_UPSTREAM_URL"]
UPSTREAM_KEY = os.environ["BENCH_UPSTREAM_KEY"]
GATEWAY_KEY = os.environ["BENCH_GATEWAY_KEY"]
UPSTREAM_SECONDS = 600.0
REQUEST_HEADERS = ("accept", "content-type", "content-length")
HOP_HEADERS = frozenset({"connection", "date", "keep-alive", "server", "transfer-encoding"})


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests; as it comes, it would let only a hundred of them out at a time."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    timeout = httpx.Timeout(UPSTREAM_SECONDS, connect=10)
    async with httpx.AsyncClient(base_url=UPSTREAM_URL, limits=limits, timeout=timeout) as client:
        app.state.client = client
        yield


def check_key(authorization: Annotated[str, Header()] = "") -> None:
    """Refuse whoever lacks the key."""
    if not secrets.compare_digest(authorization.encode(), f"Bearer {GATEWAY_KEY}".encode()):
        raise HTTPException(401, "The key is missing or wrong.")


async def livez() -> dict[str, str]:
    """Tell that it runs."""
    return {"status": "ok"}


async def forward(request: Request) -> StreamingResponse:
    """Send a request on, and its reply back as it comes."""
    content: Any = None
    if request.method == "POST":
        if request.headers.get("content-type", "").startswith("application/json"):
            content = await checked_body(request)
        else:
            content = request.stream()
    client: httpx.AsyncClient = request.app.state.client
    headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
    headers["authorization"] = f"Bearer {UPSTREAM_KEY}"
    sent = client.build_request(
        request.method, request.url.path, params=request.query_params, headers=headers, content=content
    )
    reply = await client.send(sent, stream=True)
    kept = {name: value for name, value in reply.headers.items() if name not in HOP_HEADERS}
    return StreamingResponse(reply_bytes(reply), reply.status_code, kept)


async def checked_body(request: Request) -> bytes:
    """The body as it came, once it has been read as a JSON object."""
    try:
        body = await request.json()
    except ValueError:
        raise HTTPException(400, "The body must be JSON.") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "The body must be a JSON object.")
    content: bytes = await request.body()
    return content


async def reply_bytes(reply: httpx.Response) -> AsyncIterator[bytes]:
    """What upstream sends; its connection is given back also when the client leaves."""
    try:
        async for piece in reply.aiter_raw():
            yield piece
    finally:
        await reply.aclose()


app = FastAPI(lifespan=lifespan)
app.add_api_route("/livez", livez)
app.add_api_route("/v1/{path:path}", forward, methods=["GET", "POST"], dependencies=[Depends(check_key)])
