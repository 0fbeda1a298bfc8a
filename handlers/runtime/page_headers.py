"""
What a browser is told beside a page of the relay, and what every reply says unless it says something else.

Chosen from OWASP's lists (HTTP Headers and REST Security cheat sheets). Left out, each for its reason:
`X-Frame-Options` (`frame-ancestors` says it), `X-XSS-Protection` (browsers have dropped it),
`Cross-Origin-Embedder-Policy` (only shared memory needs it, and no page uses any), `Cross-Origin-Resource-Policy` on
anything but pages: assistants' pages show images from signed links, and all the rest needs a key.
"""

from urllib.parse import urlsplit

from handlers.runtime.messages import Header

# Nothing from elsewhere. Swagger UI sets styles on elements and draws its icons from data URLs.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

NO_SNIFFING: Header = (b"x-content-type-options", b"nosniff")  # a file of somebody's is never run as a page

# `X-Relay-Key` is unknown to caches: without a word a shared one might keep what one key was answered for another
# (RFC 9111, sections 3.5 and 4.2.2).
UNLESS_SAID: tuple[Header, ...] = ((b"cache-control", b"no-store"), NO_SNIFFING)

_USUAL: tuple[Header, ...] = (
    (b"referrer-policy", b"no-referrer"),  # where a reader comes from is nobody's business
    NO_SNIFFING,
    (b"cross-origin-opener-policy", b"same-origin"),  # who opened the page cannot reach into it: a key is typed there
    (b"cross-origin-resource-policy", b"same-origin"),  # and no other site can load it as a part of its own
    (
        b"permissions-policy",  # what no page here asks for, whatever runs in it
        b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
)
# A year (RFC 6797), for this host alone: others below it are not the relay's to decide about.
_ONLY_TLS: Header = (b"strict-transport-security", b"max-age=31536000")


def page_headers(policy: str, public_url: str) -> list[Header]:
    """
    The headers of a page.

    Args:
        policy: Its Content-Security-Policy.
        public_url: RELAY_PUBLIC_URL; browsers are told to come by TLS alone where it is https.
    """
    headers = [(b"content-security-policy", policy.encode("ascii")), *_USUAL]
    return [*headers, _ONLY_TLS] if urlsplit(public_url).scheme == "https" else headers
