import asyncio
import gc
import random

import pytest

from handlers.runtime.exceptions import UpstreamQueueFull
from handlers.runtime.upstream_slots import Slot, Slots

LONG_SECONDS = 30.0


async def turn(slots: Slots) -> Slot:
    """A slot, as `Upstream.send` asks for one."""
    return slots.take() or await slots.wait()


async def started(slots: Slots, count: int) -> list[asyncio.Task[Slot]]:
    """Tasks that wait, one behind the other."""
    tasks = [asyncio.create_task(slots.wait()) for _ in range(count)]
    while slots.waiting < count:
        await asyncio.sleep(0)
    return tasks


async def test_there_are_as_many_slots_as_allowed() -> None:
    """Taking one is immediate while there is room; a slot given back can be taken again."""
    slots = Slots(2, 0, LONG_SECONDS)
    first, second = slots.take(), slots.take()
    assert first is not None
    assert second is not None
    assert (slots.take(), slots.held) == (None, 2)
    first.release()
    assert slots.held == 1
    assert slots.take() is not None


async def test_a_slot_is_given_back_once() -> None:
    """However often its holder closes."""
    slots = Slots(1, 0, LONG_SECONDS)
    slot = await turn(slots)
    slot.release()
    slot.release()
    assert slots.held == 0


async def test_a_forgotten_slot_comes_back() -> None:
    """A reply that nobody read or closed does not lower the limit for ever."""
    slots = Slots(1, 0, LONG_SECONDS)
    slot: Slot | None = slots.take()
    assert slots.held == 1
    del slot
    gc.collect()
    assert slots.held == 0


async def test_those_who_wait_are_served_in_their_order() -> None:
    """First come, first served."""
    slots = Slots(1, 10, LONG_SECONDS)
    slot = await turn(slots)
    tasks = await started(slots, 3)
    served = []
    for _ in tasks:
        slot.release()
        done, _pending = await asyncio.wait(
            [task for task in tasks if task not in served], timeout=5, return_when=asyncio.FIRST_COMPLETED
        )
        (task,) = done
        served.append(task)
        slot = task.result()
        assert slots.held == 1
    assert served == tasks


async def test_nobody_waits_behind_a_full_queue() -> None:
    """One more than may wait is refused at once."""
    slots = Slots(1, 2, LONG_SECONDS)
    slot = await turn(slots)
    tasks = await started(slots, 2)
    with pytest.raises(UpstreamQueueFull):
        await slots.wait()
    slot.release()
    (await tasks[0]).release()
    (await tasks[1]).release()
    assert (slots.held, slots.waiting) == (0, 0)


async def test_nobody_waits_too_long() -> None:
    """When the time is over the caller is refused, and the queue is one shorter."""
    slots = Slots(1, 1, 0.01)
    slot = await turn(slots)
    with pytest.raises(UpstreamQueueFull):
        await slots.wait()
    assert slots.waiting == 0
    slot.release()
    assert slots.held == 0


async def test_who_leaves_the_queue_takes_no_slot_along() -> None:
    """Whether the client left while it waited or in the very moment of its turn."""
    slots = Slots(1, 2, LONG_SECONDS)
    slot = await turn(slots)
    waiting, in_turn = await started(slots, 2)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert slots.waiting == 1
    slot.release()  # hands it to `in_turn`, which has not run yet
    in_turn.cancel()
    await asyncio.wait([in_turn])
    assert in_turn.cancelled()
    assert (slots.held, slots.waiting) == (0, 0)


async def test_a_turn_passes_over_those_who_are_leaving() -> None:
    """A slot given back between a cancellation and its effect goes to the next in line."""
    slots = Slots(1, 2, LONG_SECONDS)
    slot = await turn(slots)
    leaving, staying = await started(slots, 2)
    leaving.cancel()
    slot.release()
    (await staying).release()
    await asyncio.wait([leaving])
    assert (slots.held, slots.waiting) == (0, 0)


async def test_no_slot_is_ever_lost() -> None:
    """A thousand callers that are served, refused, too late or gone leave the limit as it was."""
    chance = random.Random(6)
    slots = Slots(5, 20, 0.01)
    most = 0

    async def call() -> None:
        nonlocal most
        slot = await turn(slots)
        most = max(most, slots.held)
        try:
            await asyncio.sleep(chance.random() * 0.004)
        finally:
            slot.release()

    tasks = []
    for number in range(1000):
        tasks.append(asyncio.create_task(call()))
        if number % 3 == 0:
            chance.choice(tasks).cancel()
        if number % 5 == 0:
            await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert (slots.held, slots.waiting, most) == (0, 0, 5)
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds <= {type(None), UpstreamQueueFull, asyncio.CancelledError}
