"""Who gets what there is only so much of."""

from __future__ import annotations

import asyncio

from workers.room import Budget, Places


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_whoever_has_the_fewest_places_is_next() -> None:
    async def story() -> list[str]:
        places, order, gates = Places(2, 2), [], [asyncio.Event() for _ in range(6)]

        async def one(owner: str, number: int) -> None:
            async with places.one(owner):
                order.append(f"{owner}{number}")
                await gates[number].wait()

        tasks = [asyncio.create_task(one("a", number)) for number in range(4)]
        await settle()
        tasks.append(asyncio.create_task(one("b", 4)))
        await settle()
        assert order == ["a0", "a1"]
        gates[0].set()
        await settle()
        assert order == ["a0", "a1", "b4"]
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(story()) == ["a0", "a1", "b4", "a2", "a3"]


def test_one_owner_never_has_more_than_his_share() -> None:
    async def story() -> int:
        places, now, most = Places(8, 3), 0, 0

        async def one() -> None:
            nonlocal now, most
            async with places.one("a"):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.001)
                now -= 1

        await asyncio.gather(*(one() for _ in range(20)))
        return most

    assert asyncio.run(story()) == 3


def test_who_is_cut_while_waiting_or_just_served_leaves_his_place() -> None:
    async def story() -> None:
        places = Places(1, 1)
        first = places.one("a")
        await first.__aenter__()
        places_for = [places.one(owner) for owner in "bc"]
        waiting = [asyncio.create_task(each.__aenter__()) for each in places_for]
        await settle()
        waiting[0].cancel()
        await settle()
        await first.__aexit__(None, None, None)  # c is served …
        waiting[1].cancel()  # … and cut before it has noticed
        await settle()
        async with asyncio.timeout(1), places.one("d"):
            pass

    asyncio.run(story())


def test_memory_is_given_out_in_turn_and_who_wants_too_much_gets_it_alone() -> None:
    async def story() -> list[str]:
        budget, order = Budget(10), []

        async def one(name: str, size: int) -> None:
            async with budget.held(size):
                order.append(f"{name}+")
                await asyncio.sleep(0.01)
                order.append(f"{name}-")

        wanted = (("a", 4), ("b", 4), ("huge", 1000), ("c", 1))
        await asyncio.gather(*(one(name, size) for name, size in wanted))
        assert budget.free == 10
        return order

    assert asyncio.run(story()) == ["a+", "b+", "a-", "b-", "huge+", "huge-", "c+", "c-"]


def test_who_gives_up_waiting_keeps_nobody_waiting() -> None:
    async def story() -> None:
        budget = Budget(10)
        async with budget.held(6):
            held = [budget.held(10), budget.held(4)]
            large, small = (asyncio.create_task(each.__aenter__()) for each in held)
            await settle()
            assert not small.done()
            large.cancel()
            await settle()
            assert small.done()
            assert budget.free == 0

    asyncio.run(story())
