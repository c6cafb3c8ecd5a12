"""Work in rounds: who asks is served by one that begins later, together with all others who ask meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from tests.node.builders import in_loop
from vws.node.rounds import Rounds


@in_loop
async def test_all_who_ask_during_a_round_share_the_next_one():
    begun, go_on = [], asyncio.Event()

    async def work():
        begun.append(len(begun))
        await go_on.wait()

    rounds = Rounds(work)
    first = asyncio.create_task(rounds.join())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == [0]
    later = [asyncio.create_task(rounds.join()) for _ in range(100)]
    await asyncio.sleep(0.01)
    assert begun == [0], "one round at a time"
    go_on.set()
    await asyncio.gather(first, *later)
    assert begun == [0, 1]


@in_loop
async def test_a_round_that_fails_fails_for_those_who_asked_for_it_and_outlives_one_who_gives_up():
    outcomes = [ValueError("the first")]

    async def work():
        await asyncio.sleep(0.01)
        if outcomes:
            raise outcomes.pop()

    rounds = Rounds(work)
    impatient, patient = asyncio.create_task(rounds.join()), asyncio.create_task(rounds.join())
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(ValueError, match="the first"):
        await patient
    await rounds.join()
