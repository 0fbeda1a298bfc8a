"""
The header contract: which headers cross the relay, per direction. What is not listed here stays behind.

Credentials cross in neither direction: the upstream sees the relay's own, the client never sees any.
"""

from collections.abc import Iterable

from codegen.contract import EVENT_STREAM
from handlers.runtime.content_coding import READABLE_CODINGS
from handlers.runtime.messages import Header

_EVENT_STREAM = EVENT_STREAM.encode("ascii")

# Client to upstream. `content-length` only travels with streamed bodies; JSON lengths are computed anew. `traceparent`
# goes out with RELAY_OTEL only and is the relay's own: a client's trace is none of the upstream's business.
REQUEST_HEADERS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"content-type",
        b"idempotency-key",
        b"if-none-match",
        b"openai-beta",
        b"range",
        b"user-agent",
        b"x-client-request-id",
    }
)
# Telemetry of the official SDKs; upstream reads the timeout and the retry count from it.
REQUEST_HEADER_PREFIXES = (b"x-stainless-",)

# Upstream to client. `openai-organization` and `openai-project` name the team's account and stay behind, like cookies.
RESPONSE_HEADERS = frozenset(
    {
        b"accept-ranges",
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-range",
        b"content-type",
        b"etag",
        b"last-modified",
        b"openai-model",
        b"openai-processing-ms",
        b"openai-version",
        b"retry-after",
        b"retry-after-ms",
        b"vary",
        b"x-request-id",
        b"x-should-retry",
    }
)
RESPONSE_HEADER_PREFIXES = (b"x-ratelimit-",)


def request_headers(received: Iterable[Header]) -> list[Header]:
    """
    Keep what may travel from the client to the upstream.

    `Accept-Encoding` is reduced to codings that the relay can read itself: it looks into errors for its own key.
    """
    return [
        (name, _readable_codings(value) if name == b"accept-encoding" else value)
        for name, value in received
        if name in REQUEST_HEADERS or name.startswith(REQUEST_HEADER_PREFIXES)
    ]


def response_headers(received: Iterable[Header]) -> list[Header]:
    """
    Keep what may travel from the upstream to the client; names come back in lower case.

    `Location` travels only as a path of the mirrored surface (the SDP answer names the call with it): an absolute one
    would lead the client around the relay.
    """
    kept = []
    for raw_name, value in received:
        name = raw_name.lower()
        listed = name in RESPONSE_HEADERS or name.startswith(RESPONSE_HEADER_PREFIXES)
        if listed or (name == b"location" and value.startswith(b"/v1/")):
            kept.append((name, value))
    return kept


def has_events(headers: Iterable[Header]) -> bool:
    """Whether a reply with these headers (names in lower case) is an event stream."""
    media_type = next((value for name, value in headers if name == b"content-type"), b"")
    return media_type.partition(b";")[0].strip().lower() == _EVENT_STREAM


def without_length(headers: Iterable[Header]) -> list[Header]:
    """Those of a reply whose length is computed anew."""
    return [header for header in headers if header[0] != b"content-length"]


def _readable_codings(value: bytes) -> bytes:
    kept = [item.strip() for item in value.split(b",") if item.split(b";")[0].strip().lower() in READABLE_CODINGS]
    return b", ".join(kept) or b"identity"
