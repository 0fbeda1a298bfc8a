import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from codegen.contract import build_contract
from handlers.runtime.budget import DEADLINE_SECONDS
from handlers.runtime.exceptions import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InternalError,
    InvalidBody,
    RelayError,
    StartupError,
    StoreUnavailable,
    UpstreamTimeout,
)
from handlers.runtime.idempotency import (
    CLEANING_SECONDS,
    LEASE_SECONDS,
    MAX_KEPT_BYTES,
    Claim,
    Entry,
    Idempotency,
    KeptReply,
    ReplyStore,
    has_key,
    open_sql_store,
    takes_key,
)
from handlers.runtime.messages import Reply
from tests.support.documents import ROOT, document, operation
from tests.support.idempotent_calls import KEEP_SECONDS, Clock, Work, at_once, call, opened
from tests.support.idempotent_calls import LEASE_SECONDS as SHORT_LEASE_SECONDS
from tests.support.store_race import FINGERPRINT, claim

MEMORY = "sqlite+aiosqlite://"
PATIENCE_SECONDS = 5.0


@pytest.fixture
def clock() -> Clock:
    """The time, as the test wants it."""
    return Clock()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store in memory, and one in a file."""
    return MEMORY if request.param == "memory" else f"{MEMORY}/{tmp_path}/relay.db"


@pytest.fixture
async def idempotency(url: str, clock: Clock) -> AsyncIterator[Idempotency]:
    """Calls that are done once."""
    made = opened(url, clock)
    yield made
    await made.close()


class Store:
    """A store that fails or waits where it is told to, before one that does neither."""

    def __init__(self, inner: ReplyStore) -> None:
        self.inner = inner
        self.broken: set[str] = set()
        self.calls: list[str] = []
        self.held = ""
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

    async def _step(self, name: str) -> None:
        self.calls.append(name)
        if name == self.held:
            self.reached.set()
            await self.let_go.wait()
        if name in self.broken:
            raise StoreUnavailable

    async def take(self, claim: Claim, now: float, until: float) -> Entry | None:
        """Take."""
        await self._step("take")
        entry = await self.inner.take(claim, now, until)
        await self._step("taken")
        return entry

    async def keep(self, claim: Claim, reply: KeptReply, until: float) -> None:
        """Keep."""
        await self._step("keep")
        await self.inner.keep(claim, reply, until)

    async def free(self, claim: Claim) -> None:
        """Free."""
        await self._step("free")
        await self.inner.free(claim)

    async def remove_expired(self, now: float) -> None:
        """Clean."""
        await self._step("remove_expired")
        await self.inner.remove_expired(now)

    async def close(self) -> None:
        """Close."""
        await self.inner.close()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """A store that can be told to fail."""
    made = Store(await open_sql_store(MEMORY))
    yield made
    await made.close()


def over(store: Store, clock: Clock) -> Idempotency:
    """Calls over a store that is open already."""

    async def give() -> ReplyStore:
        return store

    return Idempotency(give, keep_seconds=KEEP_SECONDS, lease_seconds=SHORT_LEASE_SECONDS, clock=clock)


# ── The promise ────────────────────────────────────────


async def test_the_same_call_is_done_once(idempotency: Idempotency) -> None:
    """The second one gets the first reply again: status, media type, every byte, and a header that says so."""
    work = Work(status=201)
    first = await idempotency.run(call(prompt="a", n=1), work)
    again = await idempotency.run(call(n=1, prompt="a"), work)
    assert work.count == 1
    assert (again.status, again.body) == (first.status, first.body) == (201, b'{"done":1}')
    assert again.headers == [(b"content-type", b"application/json"), (b"idempotent-replayed", b"true")]


async def test_an_empty_reply_is_a_reply(idempotency: Idempotency) -> None:
    """A reply without body and media type comes back as it was."""

    async def nothing() -> Reply:
        return Reply(204, [])

    await idempotency.run(call(), nothing)
    again = await idempotency.run(call(), Work())
    assert (again.status, again.headers, again.body) == (204, [(b"idempotent-replayed", b"true")], b"")


@pytest.mark.parametrize(
    "other",
    [call("second"), call(caller="another"), call(operation="createSpeech"), call(caller="team\x00", key="first")],
    ids=["key", "caller", "operation", "caller that looks alike"],
)
async def test_keys_belong_to_a_caller_and_an_operation(idempotency: Idempotency, other: Any) -> None:
    """What others did under the same key is none of a caller's business."""
    work = Work()
    await idempotency.run(call(), work)
    assert (await idempotency.run(other, work)).body == b'{"done":2}'


@pytest.mark.parametrize(
    "other",
    [
        call(prompt="another"),
        call(prompt="a lighthouse", n=1),
        call(path="/v1/images/another"),
        call(query=b"include=more"),
    ],
    ids=["value", "field", "path", "query"],
)
async def test_a_key_stands_for_one_body(idempotency: Idempotency, other: Any) -> None:
    """Another body under a used key is refused without being done, and the refusal does not repeat the key."""
    work = Work()
    await idempotency.run(call(), work)
    with pytest.raises(IdempotencyKeyReused) as raised:
        await idempotency.run(other, work)
    assert (work.count, raised.value.param) == (1, "idempotency_key")
    assert "first" not in raised.value.message


async def test_files_are_the_same_behind_another_link(idempotency: Idempotency) -> None:
    """A file is known by its id: each call brings a fresh link to it. Without an id the link is all there is."""

    def with_file(link: str, **fields: str) -> Any:
        return call(openaiFileIdRefs=[{"download_link": link, **fields}, "plain"])

    work = Work()
    await idempotency.run(with_file("https://a/1", id="file-1", name="a.png"), work)
    await idempotency.run(with_file("https://a/2", id="file-1", name="a.png"), work)
    assert work.count == 1
    for other in (with_file("https://a/1", id="file-2", name="a.png"), with_file("https://a/1", name="a.png")):
        with pytest.raises(IdempotencyKeyReused):
            await idempotency.run(other, work)


async def test_fifty_at_once_are_done_once(idempotency: Idempotency) -> None:
    """Whoever comes while the first is running is told to come again, and then gets the reply."""
    work = Work()
    (first, *others) = await at_once(idempotency, work, 50)
    assert work.count == 1
    assert all(reply.body == first.body for reply in others)
    assert len(await at_once(idempotency, work, 50)) == 50
    assert work.count == 1


async def test_a_running_call_is_not_waited_for(idempotency: Idempotency) -> None:
    """The refusal says when to come again; another body is refused for good at once."""
    running = asyncio.Event()
    finish = asyncio.Event()

    async def slow() -> Reply:
        running.set()
        await finish.wait()
        return Reply.json({"done": True})

    task = asyncio.create_task(idempotency.run(call(), slow))
    await running.wait()
    with pytest.raises(IdempotencyInProgress, match="send the same again in 5 seconds") as raised:
        await idempotency.run(call(), slow)
    assert raised.value.headers == (("Retry-After", "5"),)
    with pytest.raises(IdempotencyKeyReused):
        await idempotency.run(call(prompt="another"), slow)
    finish.set()
    assert (await task).body == (await idempotency.run(call(), slow)).body


# ── What is kept, and for how long ─────────────────────


@pytest.mark.parametrize("status", [200, 201, 400, 404, 422])
async def test_final_outcomes_are_kept(idempotency: Idempotency, status: int) -> None:
    """A refusal of the upstream that stays one is an outcome as well."""
    work = Work(status)
    await idempotency.run(call(), work)
    assert (await idempotency.run(call(), work)).status == status
    assert work.count == 1


@pytest.mark.parametrize("status", [401, 403, 408, 409, 425, 429, 500, 502, 503])
async def test_passing_outcomes_are_tried_again(idempotency: Idempotency, status: int) -> None:
    """What another try may change is not kept."""
    work = Work(status)
    await idempotency.run(call(), work)
    work.status = 200
    assert (await idempotency.run(call(), work)).status == 200
    assert work.count == 2


@pytest.mark.parametrize("error", [InvalidBody, UpstreamTimeout, ZeroDivisionError])
async def test_a_call_that_fails_may_be_made_again(idempotency: Idempotency, error: type[Exception]) -> None:
    """Refusals and failures of the relay are no outcome, and not hidden either."""

    async def fail() -> Reply:
        raise error

    with pytest.raises(error):
        await idempotency.run(call(), fail)
    assert (await idempotency.run(call(), Work())).status == 200


@pytest.mark.parametrize("body", ["large", "stream"])
async def test_only_whole_replies_within_the_budget_are_kept(idempotency: Idempotency, body: str) -> None:
    """A stream, or a reply that no budget lets through, is a defect of whoever asks for it to be kept."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    async def too_much() -> Reply:
        return Reply(200, [], pieces() if body == "stream" else bytes(MAX_KEPT_BYTES + 1))

    with pytest.raises(InternalError):
        await idempotency.run(call(), too_much)


async def test_a_reply_is_kept_for_its_time(idempotency: Idempotency, clock: Clock) -> None:
    """Then the same call is done again."""
    work = Work()
    await idempotency.run(call(), work)
    clock.now += KEEP_SECONDS - 1
    await idempotency.run(call(), work)
    assert work.count == 1
    clock.now += 1
    await idempotency.run(call(), work)
    assert (await idempotency.run(call(), work)).body == b'{"done":2}'
    assert work.count == 2


async def test_what_has_ended_is_removed(store: Store, clock: Clock) -> None:
    """Now and then a call takes the time to remove what nobody can ask for any more."""
    idempotency = over(store, clock)
    for key in ("a", "b"):
        await idempotency.run(call(key), Work())
    assert store.calls.count("remove_expired") == 1
    clock.now += CLEANING_SECONDS
    await idempotency.run(call("c"), Work())
    assert (store.calls.count("remove_expired"), await rows(store)) == (2, 3)
    clock.now += KEEP_SECONDS
    await idempotency.run(call("d"), Work())
    assert await rows(store) == 1


async def test_a_lease_that_ends_is_taken_over(store: Store, clock: Clock) -> None:
    """A killed process blocks its calls for a while only; should it live, it cannot overwrite what came after."""
    dead, alive = claim(1, "dead"), claim(1, "alive")
    assert await store.take(dead, clock.now, clock.now + SHORT_LEASE_SECONDS) is None
    clock.now += SHORT_LEASE_SECONDS - 1
    assert await store.take(alive, clock.now, clock.now + SHORT_LEASE_SECONDS) == Entry(FINGERPRINT, None)
    clock.now += 1
    assert await store.take(alive, clock.now, clock.now + SHORT_LEASE_SECONDS) is None
    await store.keep(dead, KeptReply(200, "", b"dead"), clock.now + 1)
    await store.free(dead)
    await store.keep(alive, KeptReply(200, "", b"alive"), clock.now + 1)
    await store.free(alive)  # what is kept is not given up any more
    assert await store.take(dead, clock.now, clock.now) == Entry(FINGERPRINT, KeptReply(200, "", b"alive"))


def test_a_lease_outlives_every_call() -> None:
    """A call that is cut off by the deadline is over long before its lease."""
    assert LEASE_SECONDS > 2 * DEADLINE_SECONDS
    with pytest.raises(ValueError, match="more than the 38 seconds"):
        Idempotency(partial(open_sql_store, MEMORY), lease_seconds=DEADLINE_SECONDS)


async def test_keys_and_bodies_are_not_written_down(tmp_path: Path, clock: Clock) -> None:
    """The store holds digests of what came and the reply that went."""
    idempotency = opened(f"{MEMORY}/{tmp_path}/relay.db", clock)
    await idempotency.run(call("canary-key", caller="canary-caller", prompt="canary-prompt"), Work())
    await idempotency.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b'{"done":1}' in written
    assert b"canary" not in written


# ── Clients that leave, stores that fail ───────────────


async def test_the_work_goes_on_when_the_client_leaves(store: Store, clock: Clock) -> None:
    """Meanwhile the call is in progress; afterwards its reply is there, and nothing was done twice."""
    idempotency = over(store, clock)
    running, go_on = asyncio.Event(), asyncio.Event()
    work = Work()

    async def slow() -> Reply:
        running.set()
        await go_on.wait()
        return await work()

    task = asyncio.create_task(idempotency.run(call(), slow))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(IdempotencyInProgress):
        await idempotency.run(call(), work)
    go_on.set()
    again = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while again is None:
            with suppress(IdempotencyInProgress):
                again = await idempotency.run(call(), work)
            await asyncio.sleep(0)
    assert (again.body, work.count) == (b'{"done":1}', 1)


async def test_work_that_outlives_the_relay_is_given_up(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits a moment, then ends what is still running."""
    monkeypatch.setattr("handlers.runtime.idempotency.CLOSING_SECONDS", 0.01)
    idempotency = over(store, clock)

    begun = asyncio.Event()

    async def forever() -> Reply:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(idempotency.run(call(), forever))
    await begun.wait()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await idempotency.close()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("step, done", [("take", 1), ("taken", 1), ("keep", 1), ("free", 2)])
async def test_a_client_that_leaves_tears_no_statement_apart(store: Store, clock: Clock, step: str, done: int) -> None:
    """What the store was asked for is finished; a slot that nobody uses is given back, a reply is kept."""
    idempotency = over(store, clock)
    work = Work(500 if step == "free" else 200)
    store.held = step
    task = asyncio.create_task(idempotency.run(call(), work))
    await store.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.held = ""
    store.let_go.set()
    again = None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while again is None:
            with suppress(IdempotencyInProgress):
                again = await idempotency.run(call(), work)
            await asyncio.sleep(0)
    assert work.count == done
    assert again.body == f'{{"done":{done}}}'.encode()


async def test_without_the_store_nothing_is_done(store: Store, clock: Clock) -> None:
    """When nobody can tell whether a call was made before, it is refused before its work begins."""
    store.broken.add("take")
    work = Work()
    with pytest.raises(StoreUnavailable):
        await over(store, clock).run(call(), work)
    assert work.count == 0


async def test_a_store_that_cannot_be_opened_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake that only shows with the first key is the operator's to read, and no work is begun."""
    idempotency = Idempotency(partial(open_sql_store, "sqlite+aiosqlite:////nowhere/relay.db"))
    work = Work()
    with pytest.raises(StoreUnavailable):
        await idempotency.run(call(), work)
    assert work.count == 0
    assert "/nowhere/relay.db: cannot be made" in capsys.readouterr().out
    with pytest.raises(StartupError):
        await idempotency.open()


async def test_a_call_of_nobody_is_a_defect(idempotency: Idempotency) -> None:
    """A key means nothing without the caller whose it is."""
    request = call()
    request.caller = None
    with pytest.raises(InternalError):
        await idempotency.run(request, Work())


async def test_what_is_done_is_answered_without_the_store(store: Store, clock: Clock) -> None:
    """The caller gets the reply although it could not be kept; the log line says so."""
    store.broken.add("keep")
    request = call()
    assert (await over(store, clock).run(request, Work())).status == 200
    assert request.log == {"idempotency": "not_kept"}


async def test_a_call_that_cannot_be_given_back_is_so_in_the_end(store: Store, clock: Clock) -> None:
    """The failure that counts is that of the work; the lease ends by itself."""
    store.broken.add("free")
    idempotency = over(store, clock)

    async def fail() -> Reply:
        raise UpstreamTimeout

    with pytest.raises(RelayError):
        await idempotency.run(call(), fail)
    with pytest.raises(IdempotencyInProgress):
        await idempotency.run(call(), Work())
    clock.now += SHORT_LEASE_SECONDS
    assert (await idempotency.run(call(), Work())).status == 200


# ── When the store is opened ───────────────────────────


async def test_the_store_is_opened_with_the_first_key() -> None:
    """One relay has one store, however many come first at once."""
    count = 0

    async def give() -> ReplyStore:
        nonlocal count
        count += 1
        return await open_sql_store(MEMORY)

    idempotency = Idempotency(give)
    assert count == 0
    await asyncio.gather(*(idempotency.run(call(str(number)), Work()) for number in range(5)), idempotency.open())
    assert count == 1
    await idempotency.close()


async def test_a_store_that_was_never_needed_is_not_closed() -> None:
    """A relay that saw no key ends without opening anything."""

    async def give() -> ReplyStore:
        raise AssertionError

    await Idempotency(give).close()


def test_a_relay_without_keys_does_without_sqlalchemy() -> None:
    """Nothing of the SQL libraries is loaded until a store is opened."""
    code = "import sys, handlers.cli, handlers.runtime.app, handlers.runtime.idempotency; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    assert "handlers.runtime.idempotency" in loaded
    assert not {"sqlalchemy", "aiosqlite", "asyncpg", "sqlite3", "handlers.runtime.store"} & set(loaded)


# ── Which calls ────────────────────────────────────────


@pytest.mark.parametrize(
    "schema, expected",
    [
        ({"type": "object", "properties": {"idempotency_key": {"type": "string"}}}, True),
        ({"$ref": "#/components/schemas/Write"}, True),
        ({"type": "object", "properties": {"key": {"type": "string"}}}, False),
        ({"type": "object"}, False),
    ],
)
def test_the_contract_says_which_operations_take_a_key(schema: dict[str, Any], expected: bool) -> None:
    """An operation takes a key when its body declares one."""
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    source = document({"/v1/things": {"post": operation(changes={"requestBody": body})}})
    source.setdefault("components", {})["schemas"] = {"Write": {"properties": {"idempotency_key": {}}}}
    contract = build_contract("sample", source)
    assert takes_key(next(iter(contract)), contract.document) is expected


def test_an_operation_without_a_body_takes_no_key() -> None:
    """There is no other place for it."""
    contract = build_contract("sample", document({"/v1/things": {"get": operation()}}))
    assert not takes_key(next(iter(contract)), contract.document)


def test_a_key_is_asked_for_by_its_field() -> None:
    """A body without the field, or none, asks for nothing."""
    request = call()
    assert has_key(request)
    for body in ({"prompt": "a"}, None, ["idempotency_key"]):
        request.body = body
        assert not has_key(request)


async def rows(store: Store) -> int:
    """How many replies the store holds."""
    from sqlalchemy import text

    from handlers.runtime.store import SqlStore

    assert isinstance(store.inner, SqlStore)
    async with store.inner.engine.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM relay_replies")) or 0)
