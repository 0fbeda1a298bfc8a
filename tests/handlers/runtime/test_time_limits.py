import asyncio

import pytest

from handlers.runtime.time_limits import TimeLimit

SHORT_SECONDS = 0.02
LONG_SECONDS = 30.0


async def wait_for_ever() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


async def test_work_that_takes_too_long_is_cancelled() -> None:
    """What runs inside is cancelled, and whoever began the block gets a timeout; the task itself goes on."""
    with pytest.raises(TimeoutError), TimeLimit(SHORT_SECONDS).block():
        await wait_for_ever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_work_in_time_is_left_alone() -> None:
    """A block that is over in time has no consequence, however long its task goes on."""
    limit = TimeLimit(SHORT_SECONDS)
    with limit.block():
        await asyncio.sleep(0)
    await asyncio.sleep(3 * SHORT_SECONDS)


async def test_an_error_inside_stays_what_it_is() -> None:
    """Only running out of time is a timeout."""
    with pytest.raises(ZeroDivisionError), TimeLimit(LONG_SECONDS).block():
        raise ZeroDivisionError


async def test_an_error_that_follows_the_cancellation_stays_what_it_is() -> None:
    """Whoever turns the cancellation into an error of its own is heard."""

    async def fail_when_cancelled() -> None:
        try:
            await wait_for_ever()
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError), TimeLimit(SHORT_SECONDS).block():
        await fail_when_cancelled()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_by_somebody_else_is_no_timeout() -> None:
    """A client that leaves cancels the task; that must not be answered as if the upstream were late."""

    async def work() -> None:
        with TimeLimit(LONG_SECONDS).block():
            await wait_for_ever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_a_cancellation() -> None:
    """When time runs out for a task that is being cancelled, the cancellation goes on."""
    limit = TimeLimit(SHORT_SECONDS)

    async def work() -> None:
        with limit.block():
            try:
                await wait_for_ever()
            finally:
                task.cancel()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_blocks_end_each_in_its_own_time() -> None:
    """One timer serves all: those that are over do not hold the others up, and none is forgotten."""
    limit = TimeLimit(5 * SHORT_SECONDS)
    loop = asyncio.get_running_loop()

    async def work(number: int) -> float | None:
        await asyncio.sleep(number * SHORT_SECONDS)
        began = loop.time()
        try:
            with limit.block():
                if number % 2:
                    return None
                await wait_for_ever()
        except TimeoutError:
            return loop.time() - began
        return None

    lasted = await asyncio.gather(*map(work, range(12)))
    assert [seconds is None for seconds in lasted] == [bool(number % 2) for number in range(12)]
    assert all(seconds >= limit.seconds - 0.001 for seconds in lasted if seconds is not None)


async def test_blocks_within_blocks_of_one_limit() -> None:
    """The outer block began earlier and ends both."""
    limit = TimeLimit(SHORT_SECONDS)
    with pytest.raises(TimeoutError), limit.block(), limit.block():
        await wait_for_ever()


def test_a_limit_serves_one_loop_after_the_other() -> None:
    """A timer that went with its loop is not waited for in the next one."""
    limit = TimeLimit(SHORT_SECONDS)

    async def end_early() -> None:
        with limit.block():
            await asyncio.sleep(0)

    async def run_out() -> None:
        with limit.block():
            await wait_for_ever()

    asyncio.run(end_early())
    with pytest.raises(TimeoutError):
        asyncio.run(run_out())
