"""Every decision about a wall clock that jumps, as readings and what the node runs at."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.clock import Guard, GuardedClock, ManualClock, Votes, agreement

BOUND_MS = 10_000
HOUR_MS = 3_600_000
START_MS = 1_795_000_000_000


class Bench:
    """A guard with the two clocks it compares; `elapsed` only grows, `wall` is set at will."""

    def __init__(self) -> None:
        self.guard = Guard(BOUND_MS)
        self.elapsed_ms = 5_000
        self.jumped_ms = 0
        self.now_ms()

    def now_ms(self) -> int:
        return self.guard.read(self.wall_ms, self.elapsed_ms)

    @property
    def wall_ms(self) -> int:
        return START_MS + self.elapsed_ms + self.jumped_ms

    def off_ms(self) -> int:
        """How far the guarded time is from the true one."""
        return self.now_ms() - START_MS - self.elapsed_ms

    def passes(self, ms: int) -> None:
        self.elapsed_ms += ms

    def hears(
        self, *offs_ms: int, voters: int = 3, own_votes: bool = True, ago_ms: int = 0
    ) -> None:
        """The other clocks, as their distances from the true time, so long ago."""
        others = tuple(START_MS + off for off in offs_ms)
        votes = Votes(others, voters, own_votes, self.elapsed_ms - ago_ms)
        self.guard.consult(self.wall_ms, self.elapsed_ms, votes)

    def kinds(self) -> list[str]:
        kinds = [change.kind for change in self.guard.changes]
        self.guard.changes.clear()
        return list(kinds)


def test_time_runs_with_the_wall_clock() -> None:
    bench = Bench()
    bench.passes(86_400_000)
    assert bench.off_ms() == 0
    assert bench.kinds() == []


def test_small_steps_and_slewing_are_followed_in_both_directions() -> None:
    bench = Bench()
    for step_ms in (300, -9_000, BOUND_MS, -BOUND_MS, 1):
        bench.jumped_ms += step_ms
        assert bench.off_ms() == bench.jumped_ms
        bench.passes(1_000)
    assert bench.kinds() == []


@pytest.mark.parametrize("jump_ms", [BOUND_MS + 1, -BOUND_MS - 1, HOUR_MS, -HOUR_MS, -(10**12)])
def test_a_jump_is_refused_and_time_runs_on(jump_ms: int) -> None:
    bench = Bench()
    bench.jumped_ms = jump_ms
    for _ in range(3):
        bench.passes(60_000)
        assert bench.off_ms() == 0
    assert bench.guard.is_refusing
    assert bench.kinds() == ["refused"]


def test_a_wall_clock_that_comes_back_is_followed_again() -> None:
    bench = Bench()
    bench.jumped_ms = HOUR_MS
    bench.now_ms()
    bench.passes(60_000)
    bench.jumped_ms = 40
    assert bench.off_ms() == 40
    assert not bench.guard.is_refusing
    assert bench.kinds() == ["refused", "returned"]


def test_a_majority_that_agrees_with_the_jump_ends_the_refusal() -> None:
    bench = Bench()
    bench.jumped_ms = HOUR_MS
    bench.hears(0, 0)
    assert bench.off_ms() == 0
    bench.hears(HOUR_MS + 20, 0)  # with the own one two of three
    assert bench.off_ms() == HOUR_MS
    assert bench.kinds() == ["refused", "majority"]


def test_a_clock_that_was_wrong_by_as_much_before_does_not_vouch_for_a_jump() -> None:
    bench = Bench()
    bench.passes(20_000)
    bench.jumped_ms = HOUR_MS
    assert bench.off_ms() == 0
    bench.passes(1_000)
    bench.hears(HOUR_MS, 0, ago_ms=1_001)
    assert (bench.off_ms(), bench.kinds()) == (0, ["refused"])
    bench.hears(HOUR_MS, 0, ago_ms=1_000)
    assert (bench.off_ms(), bench.kinds()) == (HOUR_MS, ["majority"])


def test_one_of_five_that_agrees_is_not_enough() -> None:
    bench = Bench()
    bench.jumped_ms = -HOUR_MS
    bench.hears(-HOUR_MS, 0, 3 * HOUR_MS, 9 * HOUR_MS, voters=5)
    assert bench.off_ms() == 0
    bench.hears(-HOUR_MS, -HOUR_MS, 3 * HOUR_MS, 9 * HOUR_MS, voters=5)
    assert bench.off_ms() == -HOUR_MS


def test_a_clock_that_was_wrong_from_the_start_gives_way_to_the_majority() -> None:
    bench = Bench()
    bench.hears(HOUR_MS, HOUR_MS + 30)  # this node's is an hour behind theirs
    assert bench.off_ms() == HOUR_MS
    assert bench.guard.is_vouched
    assert bench.guard.is_refusing
    bench.passes(60_000)
    assert bench.off_ms() == HOUR_MS
    bench.jumped_ms = HOUR_MS + 15
    assert bench.off_ms() == HOUR_MS + 15
    assert bench.kinds() == ["outvoted", "returned"]


def test_small_steps_cannot_walk_a_clock_away_from_the_majority() -> None:
    bench = Bench()
    for _ in range(10):
        bench.jumped_ms += 3_000
        bench.passes(1_000)
        bench.now_ms()
        bench.hears(0, 0)
    assert abs(bench.off_ms()) <= BOUND_MS
    assert bench.kinds() == ["outvoted"]


def test_the_majoritys_time_is_not_taken_anew_for_every_few_milliseconds() -> None:
    bench = Bench()
    bench.hears(HOUR_MS, HOUR_MS)
    for noise_ms in (-30, 200, -400, 90):
        bench.hears(HOUR_MS + noise_ms, HOUR_MS + noise_ms + 5)
        assert bench.off_ms() == HOUR_MS


def test_peers_that_do_not_agree_with_each_other_decide_nothing() -> None:
    bench = Bench()
    bench.jumped_ms = HOUR_MS
    bench.hears(0, -5 * HOUR_MS)
    assert bench.off_ms() == 0
    assert not bench.guard.is_vouched


def test_an_operator_has_the_last_word_against_the_majority() -> None:
    bench = Bench()
    bench.jumped_ms = HOUR_MS
    bench.hears(0, 0)
    assert bench.guard.accept(bench.wall_ms, bench.elapsed_ms)
    assert bench.off_ms() == HOUR_MS
    bench.passes(30_000)
    bench.hears(0, 0)
    assert bench.off_ms() == HOUR_MS
    assert bench.guard.is_accepted
    bench.hears(HOUR_MS, HOUR_MS)  # the others were corrected, too
    assert not bench.guard.is_accepted
    assert bench.kinds() == ["refused", "operator"]


def test_what_an_operator_accepted_holds_through_the_next_jump() -> None:
    bench = Bench()
    bench.jumped_ms = HOUR_MS
    bench.now_ms()
    bench.guard.accept(bench.wall_ms, bench.elapsed_ms)
    bench.jumped_ms = 7 * HOUR_MS
    bench.hears(0, 0)
    assert bench.off_ms() == HOUR_MS
    bench.jumped_ms = 0  # back among the majority: there is nothing left to hold
    bench.hears(0, 0)
    assert bench.off_ms() == 0
    assert not bench.guard.is_accepted


def test_accepting_what_is_not_refused_does_nothing() -> None:
    bench = Bench()
    assert not bench.guard.accept(bench.wall_ms, bench.elapsed_ms)
    assert not bench.guard.is_accepted
    assert bench.kinds() == []


def test_a_change_tells_how_far_time_moved() -> None:
    bench = Bench()
    bench.jumped_ms = HOUR_MS
    bench.hears(-HOUR_MS, -HOUR_MS)
    refused, outvoted = bench.guard.changes
    assert (refused.off_ms, refused.moved_ms) == (HOUR_MS, 0)
    assert (outvoted.off_ms, outvoted.moved_ms) == (2 * HOUR_MS, -HOUR_MS)


@pytest.mark.parametrize(
    ("own", "others", "voters", "own_votes", "expected"),
    [
        (0, (), 1, True, None),  # a cluster of one has nobody to ask
        (0, (), 3, True, None),
        (0, (5,), 2, True, 0),
        (0, (11,), 2, True, None),
        (0, (5,), 3, True, 0),
        (0, (50,), 3, True, None),
        (0, (50, 55), 3, True, 50),
        (0, (50, 70), 3, True, None),
        (0, (8, 16), 3, True, 0),  # both pairs agree: the one with the own clock counts
        (0, (50, 51, 52), 5, True, 51),
        (0, (50, 51), 5, True, None),
        (0, (0,), 2, False, None),  # a learner's own clock has no vote
        (0, (7, 8), 3, False, 7),
    ],
)
def test_who_agrees(
    own: int, others: tuple[int, ...], voters: int, own_votes: bool, expected: int | None
) -> None:
    assert agreement(own, Votes(others, voters, own_votes), 10) == expected


@given(
    st.lists(st.integers(-30, 30), max_size=4),
    st.integers(-30, 30),
    st.booleans(),
)
def test_an_agreement_is_near_more_than_half_of_the_voters(
    others: list[int], own: int, own_votes: bool
) -> None:
    voters = len(others) + own_votes
    shared = agreement(own, Votes(tuple(others), voters, own_votes), 10)
    clocks = [*others, own] if own_votes else others
    if shared is not None:
        assert 2 * sum(abs(clock - shared) <= 10 for clock in clocks) > voters


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(-HOUR_MS, HOUR_MS)), max_size=30))
def test_without_the_others_no_look_ever_moves_time_by_more_than_the_bound(
    steps: list[tuple[int, int]],
) -> None:
    bench = Bench()
    before_ms = bench.off_ms()
    for passed_ms, jumped_ms in steps:
        bench.passes(passed_ms)
        bench.jumped_ms += jumped_ms
        assert abs(bench.off_ms() - before_ms) <= BOUND_MS
        before_ms = bench.off_ms()


# The clock around it.


def test_a_guarded_clock_refuses_what_the_machine_says() -> None:
    machine = ManualClock(START_MS)
    clock = GuardedClock(machine, BOUND_MS)
    machine.set_now(START_MS + HOUR_MS)
    machine.advance(2_000)
    assert clock.now_ms() == START_MS + 2_000
    assert clock.read().off_ms == HOUR_MS
    assert clock.accept()
    assert clock.now_ms() == START_MS + HOUR_MS + 2_000
    assert [change.kind for change in clock.changes()] == ["refused", "operator"]
    assert clock.changes() == []


def test_a_machine_that_slept_has_not_jumped() -> None:
    machine = ManualClock(START_MS)
    elapsed = [0]
    clock = GuardedClock(machine, BOUND_MS, lambda: elapsed[0])
    machine.set_now(START_MS + 8 * HOUR_MS)  # monotonic time stood still
    elapsed[0] += 8 * HOUR_MS
    assert clock.now_ms() == START_MS + 8 * HOUR_MS
    assert clock.changes() == []


def test_a_process_that_is_paused_between_two_readings_sees_no_jump() -> None:
    machine = ManualClock(START_MS)

    def elapsed_ms() -> int:
        nonlocal pause_ms
        now_ms = machine.monotonic_ms()
        machine.advance(pause_ms)  # after this look, before the next
        pause_ms = 0
        return now_ms

    pause_ms = 0
    clock = GuardedClock(machine, BOUND_MS, elapsed_ms)
    pause_ms = HOUR_MS
    assert clock.now_ms() == START_MS + HOUR_MS
    assert clock.changes() == []


def test_threads_may_ask_while_the_clock_jumps() -> None:
    machine = ManualClock(START_MS)
    clock = GuardedClock(machine, BOUND_MS)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.extend(clock.now_ms() for _ in range(200)))
        for _ in range(4)
    ]
    machine.set_now(START_MS + HOUR_MS)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {START_MS}
    assert [change.kind for change in clock.changes()] == ["refused"]
