import asyncio
import threading
from typing import Any

import pytest

from handlers.runtime.exceptions import InvalidToken, TokenIssuerUnavailable
from handlers.runtime.issuer_keys import FRESH_SECONDS, KEPT_SECONDS, PAUSE_SECONDS, IssuerKeys

DEADLINE_SECONDS = 10.0


class Source:
    """A document of keys whose fetches are counted; an exception in its place is raised."""

    def __init__(self, *kids: str) -> None:
        self.answer: Any = document(*kids)
        self.fetches = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.at_once = 0
        self.most_at_once = 0

    def fetch_data(self) -> Any:
        """Answer as soon as the test lets it."""
        self.fetches += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.may_answer.wait(DEADLINE_SECONDS), "the test has forgotten its source"
        self.at_once -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let some time pass."""
        self.now += seconds


def document(*kids: str) -> dict[str, Any]:
    """A JWK Set."""
    return {"keys": [{"kid": kid, "kty": "EC"} for kid in kids]}


@pytest.fixture
def clock() -> Clock:
    """The clock of the keys."""
    return Clock()


@pytest.fixture
def source() -> Source:
    """The issuer, with one key."""
    return Source("one")


@pytest.fixture
def keys(source: Source, clock: Clock) -> IssuerKeys:
    """Its keys."""
    return IssuerKeys(source, clock=clock)


async def refusal(keys: IssuerKeys, kid: str) -> type[Exception]:
    """What looking for a key ends in."""
    with pytest.raises((InvalidToken, TokenIssuerUnavailable)) as caught:
        await keys.find(kid)
    return caught.type


async def found(keys: IssuerKeys, kid: str) -> bool:
    """Whether the issuer has answered by now, and has the key."""
    try:
        await keys.find(kid)
    except TokenIssuerUnavailable:
        return False
    return True


async def begun(source: Source) -> None:
    """Return as soon as a look-up is under way."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not source.fetches:
            await asyncio.sleep(0.001)


async def test_nothing_is_fetched_before_a_token_comes(keys: IssuerKeys, source: Source) -> None:
    """The first token that needs a key fetches all of them, the next ones find theirs in memory."""
    assert source.fetches == 0
    for _ in range(3):
        assert (await keys.find("one"))["kid"] == "one"
    assert source.fetches == 1


async def test_an_unknown_key_is_looked_up_once_in_a_while(keys: IssuerKeys, source: Source, clock: Clock) -> None:
    """However many tokens name keys that do not exist, the issuer is asked once per pause."""
    for round_number in (1, 2, 3):
        for number in range(20):
            assert await refusal(keys, f"unknown-{number}") is InvalidToken
        assert source.fetches == round_number
        clock.pass_by(PAUSE_SECONDS)


async def test_a_new_key_is_found_after_the_pause(keys: IssuerKeys, source: Source, clock: Clock) -> None:
    """Rotation needs no restart."""
    await keys.find("one")
    source.answer = document("one", "two")
    assert await refusal(keys, "two") is InvalidToken
    clock.pass_by(PAUSE_SECONDS)
    assert (await keys.find("two"))["kid"] == "two"
    assert source.fetches == 2


async def test_a_withdrawn_key_ends(keys: IssuerKeys, source: Source, clock: Clock) -> None:
    """Known keys are looked up anew when they are no longer fresh, not earlier."""
    await keys.find("one")
    source.answer = document("two")
    clock.pass_by(FRESH_SECONDS)
    await keys.find("one")
    assert source.fetches == 1
    clock.pass_by(1)
    assert await refusal(keys, "one") is InvalidToken
    assert source.fetches == 2


async def test_an_issuer_that_is_down_is_not_pressed(keys: IssuerKeys, source: Source, clock: Clock) -> None:
    """A failed look-up is not repeated before the pause is over; the client is told when to come back."""
    source.answer = ConnectionRefusedError("refused")
    for _ in range(20):
        with pytest.raises(TokenIssuerUnavailable) as caught:
            await keys.find("one")
        assert caught.value.headers == (("Retry-After", "5"),)
    assert source.fetches == 1
    clock.pass_by(PAUSE_SECONDS)
    source.answer = document("one")
    assert (await keys.find("one"))["kid"] == "one"
    assert source.fetches == 2


async def test_known_keys_outlast_an_outage(keys: IssuerKeys, source: Source, clock: Clock) -> None:
    """While the issuer is down, its keys of the last hour go on; others cannot be told from unknown ones."""
    await keys.find("one")
    source.answer = TimeoutError()
    clock.pass_by(KEPT_SECONDS)
    assert (await keys.find("one"))["kid"] == "one"
    assert await refusal(keys, "two") is TokenIssuerUnavailable
    assert source.fetches == 2
    clock.pass_by(1)
    assert await refusal(keys, "one") is TokenIssuerUnavailable


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "keys",
        {},
        {"keys": None},
        {"keys": 7},
        {"keys": []},
        {"keys": ["one", None, 7]},
        {"keys": [{"kid": 1}, {"kty": "RSA"}]},
        {"keys": [{"kid": "one", "use": "enc"}]},
        ValueError("not JSON"),
        OSError("reset"),
        RecursionError("deep"),
    ],
    ids=str,
)
async def test_anything_but_keys_counts_as_no_answer(answer: Any, keys: IssuerKeys, source: Source) -> None:
    """A document without keys for signatures says nothing about a token, so nobody is told that it is wrong."""
    source.answer = answer
    assert await refusal(keys, "one") is TokenIssuerUnavailable


async def test_keys_that_cannot_be_used_do_not_spoil_the_others(keys: IssuerKeys, source: Source) -> None:
    """Only what is a key for signatures with an id is taken from the document."""
    source.answer = {"keys": [None, {"kid": 7}, {"kid": "two", "use": "enc"}, {"kid": "one", "use": "sig"}]}
    assert (await keys.find("one"))["use"] == "sig"
    assert await refusal(keys, "two") is InvalidToken


async def test_a_hundred_callers_share_one_look_up(keys: IssuerKeys, source: Source) -> None:
    """They come while it is under way and all get its keys."""
    source.may_answer.clear()
    callers = [asyncio.create_task(keys.find("one")) for _ in range(100)]
    await begun(source)
    source.may_answer.set()
    assert {key["kid"] for key in await asyncio.gather(*callers)} == {"one"}
    assert (source.fetches, source.most_at_once) == (1, 1)


async def test_a_caller_that_leaves_ends_nothing(keys: IssuerKeys, source: Source) -> None:
    """The look-up goes on for those who stay and those who come; no second one begins."""
    source.may_answer.clear()
    leaving = asyncio.create_task(keys.find("one"))
    await begun(source)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    staying = asyncio.create_task(keys.find("one"))
    await asyncio.sleep(0)
    source.may_answer.set()
    assert (await staying)["kid"] == "one"
    assert (source.fetches, source.most_at_once) == (1, 1)


async def test_nobody_waits_for_an_issuer_without_end(source: Source, clock: Clock) -> None:
    """A request gives up; what arrives later serves the next one."""
    keys = IssuerKeys(source, clock=clock, wait_seconds=0.01)
    source.may_answer.clear()
    for _ in range(3):
        assert await refusal(keys, "one") is TokenIssuerUnavailable
    source.may_answer.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await found(keys, "one"):
            pass
    assert source.fetches == 1
