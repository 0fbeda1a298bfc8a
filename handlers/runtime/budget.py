"""
What a call of an assistant may cost: characters of its reply and seconds until it comes.

The limits are ChatGPT's (https://developers.openai.com/api/docs/actions/production): 45 seconds for the round trip and
less than 100,000 characters each way. How characters are counted is not documented, so they are counted the cautious
way. Not for SDK clients: they get what the upstream sends.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from codegen.contract import Bucket, Operation, Scope
from handlers.runtime.content_coding import DecodedTooLong, Undecodable, decode_body
from handlers.runtime.exceptions import UpstreamProtocolError, UpstreamTimeout
from handlers.runtime.messages import Header, Reply, Request
from handlers.runtime.shortening import escaped_length, fitting_end, shorten

# 5,000 characters below the documented limit, for headers or quotes that may count as well.
MAX_REPLY_CHARACTERS = 95_000
# 45 seconds less the way there and back; other projects stop between 30 and 38.
DEADLINE_SECONDS = 38.0
# A reply is read whole before it is cut. 4 MB of image are 5.6 MB of Base64.
MAX_READ_BYTES = 8 * 2**20
MIN_LIMIT_CHARACTERS = 2_000  # room for the fields that say what was done, and for something besides
MIN_PAGE_CHARACTERS = 100

# What a byte becomes at most: a control character is `\u001f`, and `1e15` written anew is 1000000000000000.0.
_MOST_CHARACTERS_PER_BYTE = 6
_LONG_BYTES = 256 * 1024  # from here on cutting takes longer than other requests should wait
_MAX_ID_CHARACTERS = 200  # ids of the OpenAI API have some 30 to 70
# Headers that speak of the bytes as the upstream sent them.
_OF_THE_BYTES = frozenset({b"content-encoding", b"content-length", b"content-range", b"accept-ranges", b"etag"})


@dataclass(frozen=True, slots=True)
class WayOut:
    """
    What the caller of an operation can do when an answer does not come whole: one sentence each.

    Args:
        rest: How to get the items that were left out of a list, by `next`; empty where there is no way.
        less: How to get an answer that needs no cut.
        late: How to get an answer in time.
    """

    rest: str
    less: str
    late: str


def way_out(operation: Operation) -> WayOut:
    """What an operation's parameters and its wrapper allow; the contract is all that is asked."""
    query = {parameter.name for parameter in operation.parameters_in("query")}
    less = "Call again with a smaller `limit`." if "limit" in query else "Ask for less in one call."
    late = "Try again later." if operation.method == "GET" else "The call may have worked all the same."
    if operation.wrapper:
        less = late = f"Call `{operation.wrapper}` instead."
    return WayOut(rest="Call again with `after` set to `next`." if "after" in query else "", less=less, late=late)


def for_assistant(request: Request) -> bool:
    """
    Whether the reply goes to an assistant: from a wrapper always, else to a key that opens nothing wider.

    What carries calls of assistants in another protocol is no answer to one; the calls in it are.
    """
    scopes: frozenset[Scope] = request.caller.scopes if request.caller else frozenset()
    narrow = bool(scopes & {Scope.ACTIONS, Scope.PROXY}) and Scope.CANONICAL not in scopes
    return bool(request.operation.wraps) or (narrow and request.operation.bucket is not Bucket.EXCLUDED)


def fit(value: Any, limit: int, *, how: WayOut) -> Any:
    """
    Leave a value as it is when it fits; otherwise cut it, and say so in it.

    A list object loses items from its end: `has_more` becomes true, `last_id` and `next` name the last item that
    stayed. Where that is not enough, texts are shortened, then lists. An object that was cut says `truncated: true` and
    in `how` what to do; a value of another type has no place for it.

    Args:
        value: A JSON value; it is not changed.
        limit: In characters, see `escaped_length`; at least `MIN_LIMIT_CHARACTERS`.

    Returns:
        The same object, or a value of the same type that fits.
    """
    if limit < MIN_LIMIT_CHARACTERS:
        raise ValueError(f"`limit` must be at least {MIN_LIMIT_CHARACTERS} characters")
    if _length(value, limit) <= limit:
        return value
    if not isinstance(value, dict):
        return shorten(value, limit)
    items = value.get("data")
    if isinstance(items, list) and items:
        fewer = _fewer_items(value, items, limit, how)
        if fewer is not None:
            return fewer
        if len(items) > 1 and how.rest and _id_of(items[0]):
            # The others can be fetched, so the first item gets all the room.
            marks = {**_after(value, items[0], how), "how": f"{how.rest} {how.less}"}
            return _with_marks({**value, "data": items[:1]}, limit, marks)
    return _with_marks(value, limit, {"truncated": True, "how": how.less})


def page_text(text: str, offset: int, limit: int) -> tuple[str, int | None]:
    """
    Cut a page out of a text.

    Args:
        offset: Where the page begins, in characters of the text.
        limit: The page's length as JSON with its quotes, escaped; at least `MIN_PAGE_CHARACTERS`.

    Returns:
        The page, and where the next one begins; `None` at the end. Joined, all pages are the text.
    """
    if limit < MIN_PAGE_CHARACTERS or offset < 0:
        raise ValueError(f"`limit` must be at least {MIN_PAGE_CHARACTERS} and `offset` 0 or more")
    end = fitting_end(text, offset, limit - 2)
    return text[offset:end], end if end < len(text) else None


async def fit_reply(reply: Reply, limit: int, how: WayOut) -> Reply:
    """
    Read a reply to its end and make it fit.

    Args:
        reply: Its body is read and closed here.

    Returns:
        The same status and the same bytes when they fit, without a content coding: a reply that is kept is kept without
        headers. Otherwise JSON that fits.

    Raises:
        UpstreamProtocolError: It is too long to be read, or to be passed on and no JSON (502).
        UpstreamTimeout: A piece of it did not come in time (504).
    """
    body = await _collect(reply)
    plain = decoded_body(body, reply.headers)
    if len(plain) > _LONG_BYTES:
        fitted = await asyncio.to_thread(_fitted, plain, limit, how)
    else:
        fitted = _fitted(plain, limit, how)
    gone = {b"content-length"} if fitted is body else _OF_THE_BYTES
    return Reply(reply.status, [header for header in reply.headers if header[0] not in gone], fitted)


def decoded_body(body: bytes, headers: list[Header]) -> bytes:
    """
    Undo the content coding of a whole body.

    Raises:
        UpstreamProtocolError: It cannot be undone, or unfolds into more than `MAX_READ_BYTES` (502).
    """
    try:
        return decode_body(body, headers, MAX_READ_BYTES)
    except DecodedTooLong:
        raise _too_long() from None
    except Undecodable:
        raise UpstreamProtocolError from None


@asynccontextmanager
async def deadline(how: WayOut, began: float | None = None, seconds: float = DEADLINE_SECONDS) -> AsyncIterator[None]:
    """
    Let the block take only so long.

    Args:
        began: When the request came, by the loop's clock; now, when it is left out.

    Raises:
        UpstreamTimeout: Time ran out; the message says how to get an answer (504).
    """
    start = asyncio.get_running_loop().time() if began is None else began
    try:
        async with asyncio.timeout_at(start + seconds) as timeout:
            yield
    except TimeoutError:
        if not timeout.expired():  # somebody else's
            raise
        raise UpstreamTimeout(f"The upstream did not answer within {seconds:g} seconds. {how.late}") from None


def _fewer_items(value: dict[str, Any], items: list[Any], limit: int, how: WayOut) -> dict[str, Any] | None:
    """As many items from the start as fit; `None` when not even the first does."""
    sums = [0]  # of the items and the commas behind them
    for item in items:
        total = sums[-1] + _length(item, limit) + 1
        if total > limit:
            break
        sums.append(total)
    for count in range(len(sums) - 1, 0, -1):
        fewer = {**value, "data": [], **_after(value, items[count - 1], how)}
        if _length(fewer, limit) + sums[count] - 1 <= limit:
            return {**fewer, "data": items[:count]}
    return None


def _after(value: dict[str, Any], last: Any, how: WayOut) -> dict[str, Any]:
    """The fields of a list that ends too early: where it goes on, and how to get there."""
    marks: dict[str, Any] = {"has_more": True} if "has_more" in value else {}
    last_id = _id_of(last)
    if last_id and "last_id" in value:
        marks["last_id"] = last_id
    if last_id and how.rest:
        return {**marks, "truncated": True, "next": last_id, "how": how.rest}
    return {**marks, "truncated": True, "how": how.less}


def _id_of(item: Any) -> str:
    found = item.get("id") if isinstance(item, dict) else None
    return found if isinstance(found, str) and _length(found, _MAX_ID_CHARACTERS) <= _MAX_ID_CHARACTERS else ""


def _with_marks(value: dict[str, Any], limit: int, marks: dict[str, Any]) -> dict[str, Any]:
    others = {key: item for key, item in value.items() if key not in marks}
    return {**shorten(others, limit - escaped_length(marks)), **marks}


def _length(value: Any, limit: int) -> int:
    """The length of a value; of one that JSON has no form for, one more than the limit."""
    try:
        return escaped_length(value)
    except (ValueError, RecursionError):
        return limit + 1


def _fitted(body: bytes, limit: int, how: WayOut) -> bytes:
    """The same bytes when they fit."""
    if len(body) * _MOST_CHARACTERS_PER_BYTE <= limit:
        return body
    try:
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        if escaped_length(body.decode("utf-8", "replace")) <= limit:
            return body
        raise UpstreamProtocolError("The upstream answered too much, and no JSON; the call may have worked.") from None
    fitting = fit(value, limit, how=how)
    return body if fitting is value and escaped_length(body) <= limit else _encode(fitting)


def _encode(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


async def _collect(reply: Reply) -> bytes:
    if isinstance(reply.body, bytes):
        return reply.body
    pieces = []
    size = 0
    try:
        async for piece in reply.body:
            size += len(piece)
            if size > MAX_READ_BYTES:
                raise _too_long()
            pieces.append(piece)
    finally:
        if reply.close is not None:
            await reply.close()
    return b"".join(pieces)


def _too_long() -> UpstreamProtocolError:
    return UpstreamProtocolError("The upstream answered more than the relay reads at once; the call may have worked.")
