"""
Cross-origin resource sharing: which pages in a browser may read what the relay answers. Nothing, unless it is set.

Keys are never sent by a browser of its own accord, so this opens nothing that a key does not open; it says whose pages
may use one. Not for: refusing a request by its origin (`handlers.mcp`). Source: https://fetch.spec.whatwg.org.
"""

import re

from codegen.contract import Contract
from handlers.runtime.headers import REQUEST_HEADER_PREFIXES, REQUEST_HEADERS, RESPONSE_HEADERS
from handlers.runtime.matching import Match
from handlers.runtime.messages import Header
from handlers.runtime.routes import Route
from handlers.runtime.settings import Settings

MAX_AGE_SECONDS = 600  # an origin that is taken off the list is refused by all browsers ten minutes later
MAX_ASKED_CHARACTERS = 4096

# What the relay itself reads, and what OpenAI's SDK and MCP clients in browsers send of their own accord.
ALLOWED_HEADERS = REQUEST_HEADERS | {
    b"authorization",
    b"if-range",
    b"last-event-id",
    b"mcp-method",
    b"mcp-name",
    b"mcp-protocol-version",
    b"mcp-session-id",
    b"openai-organization",
    b"openai-project",
    b"traceparent",
    b"tracestate",
    b"x-relay-key",
}
_ALLOWED_NAME = re.compile(rb"[a-z0-9-]{1,64}")

# What upstream sends and the relay adds; names of limits as OpenAI documents them, since a browser takes no prefix.
EXPOSED_HEADERS = RESPONSE_HEADERS | {
    b"allow",
    b"deprecation",
    b"location",
    b"mcp-session-id",
    b"sunset",
    b"www-authenticate",
    b"x-ratelimit-limit-requests",
    b"x-ratelimit-limit-tokens",
    b"x-ratelimit-remaining-requests",
    b"x-ratelimit-remaining-tokens",
    b"x-ratelimit-reset-requests",
    b"x-ratelimit-reset-tokens",
    b"x-relay-request-id",
}

_VARY: Header = (b"vary", b"origin")
_VARY_PREFLIGHT: Header = (b"vary", b"access-control-request-method, access-control-request-headers")
_EXPOSE: Header = (b"access-control-expose-headers", b", ".join(sorted(EXPOSED_HEADERS)))


class Cors:
    """
    The headers that a reply needs for a page of another origin.

    Args:
        origins: Of pages that may call everything but the tools.
        tool_origins: Of those that may call the tools.
        tools: The tag of the operation that carries calls of others.
    """

    def __init__(self, origins: frozenset[bytes], tool_origins: frozenset[bytes], tools: frozenset[str]) -> None:
        self._origins = origins
        self._tool_origins = tool_origins
        self._tools = tools

    def reply_headers(self, received: list[Header], match: Match[Route] | None) -> list[Header]:
        """
        What stands on every reply, refusals included.

        Args:
            received: The request's headers.
            match: `None` where no path fits.
        """
        origins = self._origins_of(match)
        if not origins:
            return []
        origin = _origin(received)
        if origin not in origins:
            return [_VARY]
        return [_VARY, (b"access-control-allow-origin", origin), _EXPOSE]

    def preflight_headers(self, received: list[Header], match: Match[Route], methods: list[str]) -> list[Header]:
        """
        What stands beside that on the answer to `OPTIONS`.

        Args:
            methods: Those that the path has.
        """
        origins = self._origins_of(match)
        if not origins:
            return []
        asked = _values(received, b"access-control-request-method")
        if _origin(received) not in origins or not asked:
            return [_VARY_PREFLIGHT]
        names = _allowed_names(b",".join(_values(received, b"access-control-request-headers")))
        return [
            _VARY_PREFLIGHT,
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            *([(b"access-control-allow-headers", b", ".join(names))] if names else []),
            (b"access-control-max-age", str(MAX_AGE_SECONDS).encode()),
        ]

    def _origins_of(self, match: Match[Route] | None) -> frozenset[bytes]:
        if match is not None and any(route.operation.tag in self._tools for route in match.methods.values()):
            return self._tool_origins
        return self._origins


def load_cors(settings: Settings, contract: Contract) -> Cors | None:
    """Gather the settings; `None` where no page of another origin may read anything."""
    origins, tool_origins = (
        frozenset(origin.encode("ascii") for origin in text.split(",") if origin)
        for text in (settings.RELAY_CORS_ORIGINS, settings.RELAY_MCP_ORIGINS)
    )
    if not origins and not tool_origins:
        return None
    tools = frozenset(operation.tag for operation in contract if operation.carries is not None)
    return Cors(origins, tool_origins, tools)


def _origin(received: list[Header]) -> bytes:
    """The only `Origin`; empty, and so on no list, where there is none or several."""
    values = _values(received, b"origin")
    return values[0] if len(values) == 1 else b""


def _values(received: list[Header], name: bytes) -> list[bytes]:
    return [value for key, value in received if key == name]


def _allowed_names(asked: bytes) -> list[bytes]:
    """Those of the names that a page wants to send which the relay takes; the others stay unsaid."""
    names = {name.strip().lower() for name in asked[:MAX_ASKED_CHARACTERS].split(b",")}
    return sorted(
        name
        for name in names
        if name in ALLOWED_HEADERS or (name.startswith(REQUEST_HEADER_PREFIXES) and _ALLOWED_NAME.fullmatch(name))
    )
