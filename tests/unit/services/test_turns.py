"""The rules of giving out slots: whose turn it is, and which account takes the job."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.services.turns import UNLIMITED, Room, Turns, Waiting, place

_number = count()
MODELS = ("flux/dev", "flux/pro-1.1")


def job(
    user: str = "u", model: str = MODELS[0], priority: int = 0, at: float = 0.0, slots: int = 1,
    pinned: str | None = None,
) -> Waiting:  # fmt: skip
    return Waiting(f"job_{next(_number):06}", user, model, priority, at, slots, pinned)


def room(
    account_id: str = "a", limit: int = 5, used: int = 0, weight: int = 1, failures: int = 0,
    submits_left: int = UNLIMITED, half_open: bool = False, overdue: bool = False,
) -> Room:  # fmt: skip
    return Room(
        account_id=account_id, models=MODELS, limit=limit, used=used, weight=weight, failures=failures,
        submits_left=submits_left, is_half_open=half_open, is_overdue=overdue,
    )  # fmt: skip


def nothing(user_id: str, models: list[str], most: int) -> list[Waiting]:
    return []


def order(turns: Turns, most: int = 1000) -> list[Waiting]:
    """The jobs in the order of their turns, each being served."""
    served: list[Waiting] = []
    while len(served) < most and (found := turns.next()):
        turns.served(found)
        served.append(found)
    return served


# ---------------------------------------------------------------- turns


def test_the_user_with_the_least_in_flight_is_first() -> None:
    mine, yours = [job("me", at=1) for _ in range(3)], [job("you", at=2, priority=9) for _ in range(3)]
    turns = Turns(mine + yours, 10, {"me": 1, "you": 3}, {}, nothing)
    assert [found.user_id for found in order(turns)] == ["me", "me", "you", "me", "you", "you"]


def test_a_weight_gives_so_many_turns_for_each_turn_of_others() -> None:
    jobs = [job(user, at=at) for user in ("light", "heavy", "light too") for at in range(40)]
    first = Counter(found.user_id for found in order(Turns(jobs, 100, {}, {"heavy": 3}, nothing), most=50))
    assert first == {"heavy": 30, "light": 10, "light too": 10}


def test_a_heavy_user_in_flight_does_not_hold_up_a_light_one_with_nothing() -> None:
    turns = Turns([job("heavy", at=1), job("light", at=2)], 10, {"heavy": 1}, {"heavy": 100}, nothing)
    assert [found.user_id for found in order(turns)] == ["light", "heavy"]


def test_then_priority_then_age() -> None:
    old, new, urgent = job("a", at=1), job("b", at=2), job("c", at=3, priority=1)
    assert order(Turns([new, urgent, old], 10, {}, {}, nothing)) == [urgent, old, new]


def test_what_lies_under_the_known_jobs_is_fetched_when_its_turn_comes() -> None:
    piles = {model: [job(model=model, at=number) for number in range(30)] for model in MODELS}
    asked: list[tuple[str, list[str], int]] = []

    def more(user_id: str, models: list[str], most: int) -> list[Waiting]:
        asked.append((user_id, models, most))
        return [found for model in models for found in piles[model][:most]]

    turns = Turns([found for pile in piles.values() for found in pile[:2]], 2, {}, {}, more)
    assert [turns.next() for _ in range(2)] == [piles[MODELS[0]][0], piles[MODELS[1]][0]]
    assert asked == []
    rest = order(turns)
    assert [found.created_at for found in rest] == [float(number) for number in range(1, 30) for _ in MODELS]
    assert asked == [("u", list(MODELS), 10), ("u", list(MODELS), 20), ("u", list(MODELS), 40)]


def test_a_pile_that_was_known_whole_is_not_asked_for() -> None:
    turns = Turns([job(), job("other")], 2, {}, {}, lambda *_: pytest.fail("nothing is under it"))
    assert len(order(turns)) == 2


@given(
    backlog=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(MODELS), st.integers(-1, 1), st.integers(0, 5)),
        max_size=40,
    ),
    in_flight=st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)),
    weights=st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
    known=st.integers(1, 3),
)
def test_looking_at_the_tops_alone_changes_no_turn(
    backlog: list[tuple[str, str, int, int]],
    in_flight: dict[str, int],
    weights: dict[str, int],
    known: int,
) -> None:
    """Against the plain way to say it: always the best of all that still wait."""
    jobs = [job(user, model, priority, float(at)) for user, model, priority, at in backlog]
    piles: dict[tuple[str, str], list[Waiting]] = {}
    for found in sorted(jobs, key=lambda found: found.rank):
        piles.setdefault(found.pile, []).append(found)
    tops = [found for pile in piles.values() for found in pile[:known]]
    turns = Turns(
        tops,
        known,
        in_flight,
        weights,
        lambda user, models, most: [each for model in models for each in piles[user, model][:most]],
    )
    left, flying, expected = list(jobs), Counter(in_flight), []
    while left:
        best = min(
            left, key=lambda found: (flying[found.user_id] / weights.get(found.user_id, 1), found.rank)
        )
        left.remove(best)
        flying[best.user_id] += 1
        expected.append(best)
    assert order(turns) == expected


# ---------------------------------------------------------------- accounts


def test_load_goes_by_weight() -> None:
    rooms = [room("light", limit=100), room("heavy", limit=100, weight=3)]
    taken = Counter(found.account_id for _ in range(40) if (found := place(job(), rooms)))
    assert taken == {"light": 10, "heavy": 30}


def test_an_account_that_failed_lately_gets_less() -> None:
    rooms = [room("well", limit=100), room("shaky", limit=100, failures=3)]
    taken = Counter(found.account_id for _ in range(50) if (found := place(job(), rooms)))
    assert taken["well"] == 4 * taken["shaky"] == 40


def test_an_account_is_never_given_more_than_it_takes() -> None:
    rooms = [room(limit=3, used=1)]
    assert [place(job(), rooms) is not None for _ in range(4)] == [True, True, False, False]
    assert [place(job(), [room(submits_left=1, used=4)]) is not None] == [True]
    assert place(job(), [room(submits_left=0)]) is None


def test_a_follow_up_goes_to_its_account_or_nowhere() -> None:
    rooms = [room("full", limit=1, used=1), room("free")]
    assert place(job(pinned="full"), rooms) is None
    assert place(job(pinned="free"), rooms) is rooms[1]


def test_a_probe_is_only_tried_where_nobody_else_has_room() -> None:
    well, broken = room("well", limit=1), room("broken", half_open=True, submits_left=1, failures=9)
    assert [found and found.account_id for found in (place(job(), [well, broken]) for _ in range(3))] == [
        "well", "broken", None,
    ]  # fmt: skip


def test_but_somebody_tries_it_in_the_end() -> None:
    well, broken = room("well"), room("broken", half_open=True, overdue=True, submits_left=1, failures=9)
    assert [found and found.account_id for found in (place(job(), [well, broken]) for _ in range(2))] == [
        "broken", "well",
    ]  # fmt: skip


def test_slots_are_kept_for_a_job_that_needs_several() -> None:
    rooms = [room(limit=5, used=3)]
    assert place(job(slots=3), rooms) is None
    assert place(job(), rooms) is None  # it would never have three free otherwise
    assert place(job(slots=3), [room(limit=5, used=2)]) is not None


def test_a_job_that_needs_more_than_there_are_gets_the_account_for_itself() -> None:
    assert place(job(slots=9), [room(limit=5, used=1)]) is None
    whole = room(limit=5)
    assert place(job(slots=9), [whole]) is whole
    assert place(job(), [whole]) is None
