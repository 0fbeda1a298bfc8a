"""An upstream client whose connections are a transport of the test: it keeps requests and opens no socket."""

from collections.abc import AsyncIterator, Callable

import httpx

from handlers.runtime.settings import Settings
from handlers.runtime.upstream import Upstream

KEY = "sk-made-up-upstream-key"


class Pieces(httpx.AsyncByteStream):
    """A reply body in pieces that may break off and that knows whether it was closed."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


class Transport(httpx.AsyncBaseTransport):
    """Takes the place of the connection pool: keeps the requests and answers without a socket."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, content=b"{}")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer what the test has laid out."""
        self.requests.append(request)
        self.bodies.append(await request.aread())
        return self.answer()


def upstream(**values: object) -> Upstream:
    """An upstream client with a key and further settings."""
    base = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "https://api.example/v1"}
    return Upstream(Settings.model_validate({**base, **values}))
