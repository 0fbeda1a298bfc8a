import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.contract import Contract
from handlers.runtime.budget import (
    DEADLINE_SECONDS,
    MAX_READ_BYTES,
    MAX_REPLY_CHARACTERS,
    MIN_LIMIT_CHARACTERS,
    MIN_PAGE_CHARACTERS,
    WayOut,
    deadline,
    fit,
    fit_reply,
    page_text,
    way_out,
)
from handlers.runtime.exceptions import UpstreamProtocolError, UpstreamTimeout
from handlers.runtime.messages import Header, Reply
from handlers.runtime.shortening import escaped_length
from tests.support.json_values import json_values, nested, texts

HOW = WayOut(rest="Call again with `after` set to `next`.", less="Ask for less.", late="Try again later.")
NO_CURSOR = WayOut(rest="", less="Ask for less.", late="Try again later.")
LIMIT = MIN_LIMIT_CHARACTERS
JSON_HEADERS: list[Header] = [(b"content-type", b"application/json"), (b"etag", b'"a"'), (b"x-request-id", b"req_1")]


class Body:
    """A reply body in pieces that counts how often it was closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.read = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.read += 1
            yield piece

    async def close(self) -> None:
        """Count."""
        self.closed += 1

    def reply(self, headers: list[Header] | None = None, status: int = 200) -> Reply:
        """A reply with this body."""
        return Reply(status, JSON_HEADERS if headers is None else headers, aiter(self), self.close)


def items(count: int, *, characters: int = 20) -> list[dict[str, Any]]:
    """Items of a list, each with an id."""
    return [{"id": f"file_{number}", "name": "n" * characters} for number in range(count)]


def list_object(data: list[Any]) -> dict[str, Any]:
    """A list as the upstream sends it."""
    last = data[-1] if data and isinstance(data[-1], dict) else {}
    return {"object": "list", "data": data, "first_id": "file_0", "last_id": last.get("id"), "has_more": False}


# ── Values ─────────────────────────────────────────────


@given(json_values(large=True))
@settings(deadline=None, max_examples=150)
def test_every_value_is_made_to_fit(value: Any) -> None:
    """The result fits, is JSON of the same type, is itself left alone, and the value is not changed."""
    before = repr(value)
    fitting = fit(value, LIMIT, how=HOW)
    assert repr(value) == before
    assert escaped_length(fitting) <= LIMIT
    assert type(json.loads(json.dumps(fitting))) is type(value)
    assert fit(fitting, LIMIT, how=HOW) is fitting
    if escaped_length(value) <= LIMIT:
        assert fitting is value
    elif isinstance(value, dict):
        assert (fitting["truncated"], fitting["how"]) == (True, HOW.less)


@given(
    st.lists(st.dictionaries(texts(), st.one_of(st.integers(), st.booleans(), st.text(max_size=30)), max_size=6)),
    st.integers(1, 400),
    st.booleans(),
)
@settings(deadline=None)
def test_a_list_loses_items_only_from_its_end(kinds: list[dict[str, Any]], count: int, ids: bool) -> None:
    """What stays is whole, there is no room for one more, and the list says where it goes on."""
    data = [{**item, **({"id": f"item_{number}"} if ids else {})} for number, item in enumerate(kinds * count)]
    value = list_object(data)
    fitting = fit(value, LIMIT, how=HOW)
    if escaped_length(value) <= LIMIT:
        assert fitting is value
        return
    kept = len(fitting["data"])
    if kept == 1:  # the first may have been cut itself
        return
    assert fitting["data"] == data[:kept]
    assert (fitting["truncated"], fitting["has_more"]) == (True, True)
    last = f"item_{kept - 1}" if ids else None
    assert (fitting.get("next"), fitting["how"]) == (last, HOW.rest if ids else HOW.less)
    assert fitting["last_id"] == (last or value["last_id"])
    assert escaped_length(fitting) + escaped_length(data[kept]) + 10 > LIMIT


@given(st.integers(1, 500), st.integers(0, 200))
@settings(deadline=None)
def test_half_of_the_room_is_used_at_least(count: int, characters: int) -> None:
    """Of a list of small items nothing is cut without need."""
    value = list_object(items(count, characters=characters))
    used = escaped_length(fit(value, LIMIT, how=HOW))
    assert used == escaped_length(value) or LIMIT / 2 < used <= LIMIT


def test_a_list_of_two_megabytes_fits_a_reply() -> None:
    """The limit that the platform sets is used almost to the end."""
    value = list_object(items(21_000, characters=70))
    fitting = fit(value, MAX_REPLY_CHARACTERS, how=HOW)
    assert escaped_length(value) > 2_000_000
    assert MAX_REPLY_CHARACTERS - 200 < escaped_length(fitting) <= MAX_REPLY_CHARACTERS
    assert {**fitting, "data": len(fitting["data"])} == {
        "object": "list",
        "data": (kept := len(fitting["data"])),
        "first_id": "file_0",
        "last_id": f"file_{kept - 1}",
        "has_more": True,
        "truncated": True,
        "next": f"file_{kept - 1}",
        "how": "Call again with `after` set to `next`.",
    }


def test_fields_that_a_list_does_not_have_are_not_made_up() -> None:
    """A list without `has_more` and `last_id` gets neither; without a cursor it gets no `next` either."""
    fitting = fit({"data": items(1_000)}, LIMIT, how=NO_CURSOR)
    assert list(fitting) == ["data", "truncated", "how"]
    assert fitting["how"] == "Ask for less."


def test_an_item_that_is_too_large_is_cut_and_the_others_come_next() -> None:
    """The first item gets the room and the next call goes on behind it."""
    data = [{"id": "file_0", "status": "processed", "text": "a b " * 5_000}, *items(3)[1:]]
    fitting = fit(list_object(data), LIMIT, how=HOW)
    (item,) = fitting["data"]
    assert (item["id"], item["status"], item["text"][-21:]) == ("file_0", "processed", " characters left out]")
    assert (fitting["next"], fitting["last_id"], fitting["has_more"]) == ("file_0", "file_0", True)
    assert fitting["how"] == f"{HOW.rest} {HOW.less}"
    assert escaped_length(fitting) > LIMIT - 50


def test_items_that_cannot_be_asked_for_again_share_the_room() -> None:
    """Without ids or without a cursor each item is cut, and none is dropped for another."""
    data = [{"text": "a b " * 5_000}, {"text": "c d " * 5_000}]
    assert len(fit({"data": data}, 5_000, how=HOW)["data"]) == 2
    with_ids = [{"id": str(number), **item} for number, item in enumerate(data)]
    fitting = fit({"data": with_ids}, 5_000, how=NO_CURSOR)
    assert [item["id"] for item in fitting["data"]] == ["0", "1"]
    assert "next" not in fitting


def test_an_id_that_is_none_is_no_cursor() -> None:
    """What stands in `id` and is longer than any id or no text leads nowhere."""
    strange: Any
    for strange in ("x" * 300, 12, None, "", {}):
        fitting = fit(list_object([{"id": strange, "n": "n" * 50} for _ in range(100)]), LIMIT, how=HOW)
        assert (fitting.get("next"), fitting["how"]) == (None, HOW.less)


def test_an_object_that_says_the_same_of_itself_is_overruled() -> None:
    """`truncated` and `how` of a reply that is cut here are those of the cut."""
    fitting = fit({"truncated": False, "how": 1, "next": 7, "text": "a b " * 5_000}, LIMIT, how=HOW)
    assert (fitting["truncated"], fitting["how"], fitting["next"]) == (True, HOW.less, 7)


def test_values_without_a_place_for_a_note_are_cut_all_the_same() -> None:
    """A list or a text at the top is cut; only an object can say so in fields."""
    assert escaped_length(fit([*range(5_000)], LIMIT, how=HOW)) > LIMIT - 10
    assert fit("a b " * 5_000, LIMIT, how=HOW).endswith(" characters left out]")


@pytest.mark.parametrize(
    "odd",
    [float("inf"), [float("nan")], 10**5_000, {"data": [float("inf")] * 2}],
    ids=["infinite", "none", "huge", "list"],
)
def test_odd_values_do_not_fail(odd: Any) -> None:
    """What Python has and JSON has not, or not in this size, becomes JSON."""
    assert escaped_length(fit(odd, LIMIT, how=HOW)) <= LIMIT


def test_depth_does_not_fail() -> None:
    """Nesting beyond what this machine can follow is left out."""
    fitting = fit({"id": "a", "deep": nested(100_000)}, LIMIT, how=HOW)
    assert (fitting["id"], fitting["truncated"]) == ("a", True)
    assert escaped_length(fitting) <= LIMIT


def test_a_limit_without_room_for_a_note_is_a_mistake() -> None:
    """Nobody asks for a limit in which nothing can be said."""
    with pytest.raises(ValueError, match="at least 2000"):
        fit({}, MIN_LIMIT_CHARACTERS - 1, how=HOW)


# ── Pages of text ──────────────────────────────────────


@given(texts(), st.integers(1, 50), st.integers(MIN_PAGE_CHARACTERS, 300))
@settings(deadline=None)
def test_the_pages_of_a_text_are_the_text(text: str, times: int, limit: int) -> None:
    """Every page fits, each but the last is full, and joined they are what was there."""
    text *= times
    pages = []
    offset: int | None = 0
    while offset is not None:
        page, offset = page_text(text, offset, limit)
        assert escaped_length(page) <= limit
        assert offset is None or escaped_length(page) > limit - 24
        pages.append(page)
    assert "".join(pages) == text
    assert escaped_length("".join(pages)) == escaped_length(text)


def test_behind_the_end_there_is_nothing() -> None:
    """An offset beyond the text is an empty last page."""
    assert page_text("abc", 3, 200) == ("", None)
    assert page_text("abc", 300, 200) == ("", None)
    assert page_text("", 0, 200) == ("", None)


@pytest.mark.parametrize("offset, limit", [(-1, 200), (0, MIN_PAGE_CHARACTERS - 1)])
def test_a_page_that_cannot_be_is_a_mistake(offset: int, limit: int) -> None:
    """Neither places before the text nor pages that hold next to nothing are asked for."""
    with pytest.raises(ValueError, match="must be at least"):
        page_text("abc", offset, limit)


# ── Replies ────────────────────────────────────────────


async def test_a_reply_that_fits_keeps_its_bytes() -> None:
    """Blanks, order and odd numbers of the upstream stay; only the length is counted anew when it is sent."""
    body = Body(b'{ "b": 1e5,\n', b'"a": "\xc3\xbc" }')
    reply = await fit_reply(body.reply([*JSON_HEADERS, (b"content-length", b"24")]), LIMIT, HOW)
    assert (reply.status, reply.headers, reply.body) == (200, JSON_HEADERS, b'{ "b": 1e5,\n"a": "\xc3\xbc" }')
    assert (body.closed, reply.close) == (1, None)


async def test_a_reply_that_does_not_fit_is_cut() -> None:
    """Status and headers stay, save those that speak of the bytes as they were."""
    value = list_object(items(1_000))
    reply = await fit_reply(Body(json.dumps(value).encode()).reply(status=201), LIMIT, HOW)
    assert isinstance(reply.body, bytes)
    assert (reply.status, reply.headers) == (201, [JSON_HEADERS[0], JSON_HEADERS[2]])
    assert json.loads(reply.body) == fit(value, LIMIT, how=HOW)
    assert escaped_length(reply.body) <= LIMIT


async def test_a_long_reply_is_cut_beside_the_loop() -> None:
    """Two megabytes do not hold other requests back while they are cut."""
    value = list_object(items(21_000, characters=70))
    reply = await fit_reply(Reply.json(value), MAX_REPLY_CHARACTERS, HOW)
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == fit(value, MAX_REPLY_CHARACTERS, how=HOW)


async def test_a_reply_that_only_wastes_room_is_written_closer() -> None:
    """Indentation counts for the reader too; without it nothing has to be cut."""
    value = {"a": [*range(300)]}
    reply = await fit_reply(Reply(200, JSON_HEADERS, json.dumps(value, indent=8).encode()), LIMIT, HOW)
    assert reply.body == json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize("filler", [b'"\x7f"', b"1e15"])
async def test_bytes_that_grow_when_they_are_written_anew_are_cut_in_time(filler: bytes) -> None:
    """A reply counts as long as its longest form: a reader may take it apart and write it again."""
    body = b"[" + b",".join([filler] * 250) + b"]"
    assert len(body) < LIMIT
    reply = await fit_reply(Reply(200, JSON_HEADERS, body), LIMIT, HOW)
    assert isinstance(reply.body, bytes)
    assert reply.body != body
    assert max(escaped_length(reply.body), escaped_length(json.loads(reply.body))) <= LIMIT


async def test_half_a_surrogate_pair_stays() -> None:
    """JSON can say it although UTF-8 cannot."""
    body = b'{"half": "\\ud83d", "long": "' + b"a b " * 1_000 + b'"}'
    reply = await fit_reply(Reply(200, JSON_HEADERS, body), LIMIT, HOW)
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body)["half"] == "\ud83d"


@pytest.mark.parametrize("coding, encode", [(b"gzip", gzip.compress), (b"Deflate", zlib.compress)])
async def test_a_compressed_reply_is_read(coding: bytes, encode: Any) -> None:
    """Whether it fits or is cut, it goes on as plain bytes: a reply that is kept must be read without its headers."""
    headers = [*JSON_HEADERS, (b"content-encoding", coding)]
    small, large = ({"data": items(count)} for count in (3, 1_000))
    reply = await fit_reply(Body(encode(json.dumps(small).encode())).reply(headers), LIMIT, HOW)
    assert (reply.headers, reply.body) == ([JSON_HEADERS[0], JSON_HEADERS[2]], json.dumps(small).encode())
    reply = await fit_reply(Body(encode(json.dumps(large).encode())).reply(headers), LIMIT, HOW)
    assert isinstance(reply.body, bytes)
    assert reply.headers == [JSON_HEADERS[0], JSON_HEADERS[2]]
    assert json.loads(reply.body) == fit(large, LIMIT, how=HOW)


@pytest.mark.parametrize("body", [b'{ "a": 1e5 }', b""])
async def test_a_reply_that_is_not_compressed_keeps_its_headers(body: bytes) -> None:
    """A coding that changes nothing is named no less than before; the tag of the bytes still belongs to them."""
    headers = [*JSON_HEADERS, (b"content-encoding", b"identity")]
    reply = await fit_reply(Reply(200, headers, body), LIMIT, HOW)
    assert (reply.headers, reply.body) == (headers, body)


@pytest.mark.parametrize(
    "coding, body",
    [
        (b"br", b"anything"),
        (b"gzip", b"no gzip"),
        (b"gzip", gzip.compress(b"{}" * 100)[:-9]),
        (b"gzip", gzip.compress(b" " * (MAX_READ_BYTES + 1))),
        (b"gzip", gzip.compress(b'{"a":') + gzip.compress(b"1}")),
    ],
    ids=["unknown", "malformed", "cut", "too-long", "two-members"],
)
async def test_a_reply_that_cannot_be_unpacked_is_not_passed_on(coding: bytes, body: bytes) -> None:
    """Nobody knows how long an unreadable reply is; one that unfolds without end is not unfolded."""
    with pytest.raises(UpstreamProtocolError):
        await fit_reply(Reply(200, [(b"content-encoding", coding)], body), LIMIT, HOW)


async def test_a_reply_that_unfolds_without_end_is_said_to_be_long() -> None:
    """The message tells a long answer from a damaged one."""
    body = gzip.compress(b" " * (MAX_READ_BYTES + 1))
    with pytest.raises(UpstreamProtocolError, match="more than the relay reads"):
        await fit_reply(Reply(200, [(b"content-encoding", b"gzip")], body), LIMIT, HOW)


async def test_a_reply_without_end_is_left() -> None:
    """The upstream is let go as soon as more has come than is ever read."""
    body = Body(*[bytes(2**20)] * 100)
    with pytest.raises(UpstreamProtocolError, match="more than the relay reads"):
        await fit_reply(body.reply(), LIMIT, HOW)
    assert (body.read, body.closed) == (MAX_READ_BYTES // 2**20 + 1, 1)


async def test_a_client_that_leaves_lets_the_upstream_go() -> None:
    """A reply that is still being read is closed when its reader ends."""
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def close() -> None:
        closed.set()

    task = asyncio.create_task(fit_reply(Reply(200, JSON_HEADERS, endless(), close), LIMIT, HOW))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


@pytest.mark.parametrize("body", [b"", b"plain text, as some errors are", b"<html></html>", b"{", b'"\xff"'])
async def test_what_is_no_json_passes_when_it_is_small(body: bytes) -> None:
    """Short errors of proxies and empty replies go on as they are."""
    reply = await fit_reply(Reply(502, [(b"content-type", b"text/html")], body), LIMIT, HOW)
    assert (reply.status, reply.body) == (502, body)


@pytest.mark.parametrize("body", [b"a" * 1_999, b"\x00" * 400, b"\xff" * 400, b"[" * 1_999, b"1" * 5_000])
async def test_what_is_no_json_is_held_back_when_it_is_large(body: bytes) -> None:
    """There is no honest way to cut it; the message says that the call may have worked."""
    with pytest.raises(UpstreamProtocolError, match="no JSON; the call may have worked"):
        await fit_reply(Reply(200, [], body), LIMIT, HOW)


# ── Time and ways out ──────────────────────────────────


async def test_time_runs_out_with_a_way_out() -> None:
    """The work is cancelled, and the error says what else can be called."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(UpstreamTimeout) as raised:
        async with deadline(HOW, seconds=0.01):
            await work()
    assert raised.value.message == "The upstream did not answer within 0.01 seconds. Try again later."
    assert ended.is_set()


async def test_time_counts_from_when_the_request_came() -> None:
    """What was spent before the work began is gone."""
    began = asyncio.get_running_loop().time() - DEADLINE_SECONDS
    with pytest.raises(UpstreamTimeout, match="within 38 seconds"):
        async with deadline(HOW, began):
            await asyncio.sleep(DEADLINE_SECONDS)


async def test_work_in_time_is_left_alone() -> None:
    """A block that ends in time ends as it would without."""
    async with deadline(HOW, seconds=5):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with deadline(HOW, seconds=5):
            raise TimeoutError


def test_a_list_of_the_contract_can_be_followed(contract: Contract) -> None:
    """Where the contract has a cursor, a cut list says how to use it, and elsewhere how to ask for less."""
    by_id = contract.operations
    assert way_out(by_id["listFiles"]).rest == "Call again with `after` set to `next`."
    assert way_out(by_id["listFiles"]).less == "Call again with a smaller `limit`."
    assert way_out(by_id["createEmbedding"]) == WayOut(
        rest="", less="Ask for less in one call.", late="The call may have worked all the same."
    )
    for operation in contract:
        ways = way_out(operation)
        assert bool(ways.rest) == any(p.name == "after" for p in operation.parameters_in("query"))
        if operation.wrapper:
            assert ways.less == ways.late == f"Call `{operation.wrapper}` instead."
        assert len(f"{ways.rest}{ways.less}{ways.late}") < 400
