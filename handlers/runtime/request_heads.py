"""
Refuses request lines and headers that the parser (llhttp) lets pass and other servers may read in another way.

Source: RFC 9112, sections 3, 6.1 and 6.3. Not for: what the parser refuses by itself, nor sizes.
"""

from collections.abc import Sequence

from handlers.runtime.exceptions import MalformedRequest
from handlers.runtime.messages import Header


def check_head(
    method: bytes,
    target: bytes,
    version: str,
    headers: Sequence[Header],
    *,
    raw: bytes,
    pipelined: bool = False,
    upgrade: bool = False,
) -> None:
    """
    Let one plain request pass, in HTTP/1.1 or 1.0.

    Args:
        method: This and the next three as the parser has understood them; names of headers in lower case.
        raw: What has arrived, from the request's first byte on.
        pipelined: Whether the end of an earlier request may stand before it in `raw`.
        upgrade: Whether the request asks for another protocol.

    Raises:
        MalformedRequest: It is something else (400).
    """
    if version not in {"1.1", "1.0"}:
        raise MalformedRequest
    # Extra spaces, other protocols' names and bare line ends all make the line differ from its plain form.
    line = b"%b %b HTTP/%b\r\n" % (method, target, version.encode())
    if not (line in raw if pipelined else raw.startswith((line, b"\r\n" + line))):
        raise MalformedRequest
    if b"#" in target or (target[:1] != b"/" and not _is_plain(target)):
        raise MalformedRequest
    names = [name for name, _ in headers]
    hosts = names.count(b"host")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise MalformedRequest
    # What has gone through another coding before, or may be chunked for one server only, is nothing for the relay.
    chunked = b"transfer-encoding" in names
    if chunked and (version == "1.0" or _values(headers, b"transfer-encoding") != [b"chunked"]):
        raise MalformedRequest
    # The parser does not read a body behind the request for another protocol.
    if upgrade and (chunked or set(_values(headers, b"content-length")) - {b"0"}):
        raise MalformedRequest


def _values(headers: Sequence[Header], wanted: bytes) -> list[bytes]:
    return [value.strip().lower() for name, value in headers if name == wanted]


def _is_plain(target: bytes) -> bool:
    """Whether a target that is no path is one for proxies, or for the whole server."""
    if target == b"*":
        return True
    scheme, _, rest = target.partition(b"://")
    authority, slash, _ = rest.partition(b"/")
    return scheme.lower() in {b"http", b"https"} and slash == b"/" and b"@" not in authority
