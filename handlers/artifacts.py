"""
Operations of the tag Artifacts: files that wrappers have handed out by link.

Whoever opens a link shows no key. The reply lets a browser save the file and do nothing else with it.
"""

from handlers.runtime.artifacts import StoredFile
from handlers.runtime.file_names import attachment
from handlers.runtime.messages import Header, Reply, Request

_ALWAYS: list[Header] = [
    (b"accept-ranges", b"bytes"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


async def retrieve_artifact(request: Request) -> Reply:
    """
    Answer the file behind a signed link, or the part that `Range` asks for.

    Args:
        request: Its `token` is a signed link's; `Range` and `If-Range` are read.

    Returns:
        The bytes (200), or some of them (206).

    Raises:
        ArtifactNotFound: The link is not one of this relay's, has ended, or its file is gone (404).
        RangeNotSatisfiable: The range begins behind the end of the file (416).
        InternalError: The store failed (500).

    Source: operation `retrieveArtifact`; RFC 9110, section 14.
    """
    file = await request.services.artifacts.open(
        request.path_params["token"], _text(request, b"range"), _text(request, b"if-range")
    )
    return Reply(206 if file.partial else 200, _headers(file), file.pieces)


def _text(request: Request, name: bytes) -> str | None:
    value = request.header(name)
    return None if value is None else value.decode("latin-1")


def _headers(file: StoredFile) -> list[Header]:
    headers = [
        *_ALWAYS,
        (b"content-type", file.media_type.encode("ascii")),
        (b"content-disposition", attachment(file.name).encode("ascii")),
        (b"content-length", str(file.end - file.start).encode()),
        (b"etag", file.etag.encode("ascii")),
        (b"cache-control", f"private, max-age={file.seconds_left}".encode()),
    ]
    if file.partial:
        headers.append((b"content-range", f"bytes {file.start}-{file.end - 1}/{file.total}".encode()))
    return headers
