"""The checker agrees with trying every order, and says where a history breaks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import permutations
from random import Random

import pytest

from chaos.linearizable import IMPOSSIBLE, Operation, TooHardError, check, unanswered


def register(state: Hashable, one: Operation) -> Hashable:
    """("put", v) -> "ok"; ("get",) -> v; ("swap", old, new) -> True or False."""
    assert isinstance(one.what, tuple)
    kind, *values = one.what
    if kind == "put":
        return values[0]
    if kind == "get":
        return state if one.is_open or one.answer == state else IMPOSSIBLE
    swapped = state == values[0]
    if not one.is_open and one.answer is not swapped:
        return IMPOSSIBLE
    return values[1] if swapped else state


def put(value: int, called: float, returned: float) -> Operation:
    return Operation(called, returned, ("put", value), "ok")


def get(value: int, called: float, returned: float) -> Operation:
    return Operation(called, returned, ("get",), value)


def holds(*history: Operation) -> bool:
    return check(history, 0, register).holds


def test_a_read_sees_the_last_write() -> None:
    assert holds(put(1, 1, 2), get(1, 3, 4))
    assert not holds(put(1, 1, 2), put(2, 3, 4), get(1, 5, 6))


def test_a_concurrent_read_may_see_either() -> None:
    assert holds(put(1, 1, 4), get(0, 2, 3))
    assert holds(put(1, 1, 4), get(1, 2, 3))


def test_what_was_seen_once_stays_seen() -> None:
    assert not holds(put(1, 1, 9), get(1, 2, 3), get(0, 4, 5))


def test_an_unanswered_write_may_come_late_or_never() -> None:
    lost = unanswered(1, ("put", 7))
    assert holds(lost, get(0, 2, 3), get(7, 50, 51))
    assert holds(lost, get(0, 2, 3), get(0, 50, 51))
    assert not holds(lost, get(7, 2, 3), get(0, 50, 51))


def test_a_failure_tells_where_it_broke() -> None:
    verdict = check([put(1, 1, 2), get(3, 3, 4)], 0, register)
    assert not verdict.holds
    assert (verdict.longest, verdict.state) == ((put(1, 1, 2),), 1)
    assert verdict.stuck == (get(3, 3, 4),)
    assert "('get',) -> 3" in str(verdict)


def test_a_search_without_end_says_so() -> None:
    history = [unanswered(n, ("put", n + 1)) for n in range(12)] + [get(99, 20, 21)]
    with pytest.raises(TooHardError):
        check(history, 0, register, states_max=1_000)


def by_force(history: Sequence[Operation]) -> bool:
    """Every subset with all answered operations, in every order that respects real time."""
    open_ones = [one for one in history if one.is_open]
    answered = [one for one in history if not one.is_open]
    for chosen in range(1 << len(open_ones)):
        extra = [one for bit, one in enumerate(open_ones) if chosen >> bit & 1]
        if any(in_order(order) for order in permutations(answered + extra)):
            return True
    return False


def in_order(order: Sequence[Operation]) -> bool:
    state: Hashable = 0
    for position, one in enumerate(order):
        if any(later.returned < one.called for later in order[position + 1 :]):
            return False
        state = register(state, one)
        if state is IMPOSSIBLE:
            return False
    return True


def random_history(rng: Random) -> list[Operation]:
    """Three clients; answers are drawn blindly, so about half of the histories make no sense."""
    times = rng.sample(range(100), 12)
    history = []
    for number in range(6):
        called, returned = sorted(times[2 * number : 2 * number + 2])
        kind = rng.choice(("put", "get", "swap"))
        if kind == "put":
            what, answer = ("put", rng.randint(0, 2)), "ok"
        elif kind == "get":
            what, answer = ("get",), rng.randint(0, 2)
        else:
            what = ("swap", rng.randint(0, 2), rng.randint(0, 2))
            answer = rng.random() < 0.5
        lost = rng.random() < 0.25
        history.append(
            unanswered(called, what) if lost else Operation(called, returned, what, answer)
        )
    return history


def test_the_checker_agrees_with_trying_every_order() -> None:
    rng = Random(20)
    verdicts = [0, 0]
    for _ in range(300):
        history = random_history(rng)
        expected = by_force(history)
        assert check(history, 0, register).holds is expected, history
        verdicts[expected] += 1
    assert min(verdicts) > 60, "the histories must be of both kinds to prove anything"
