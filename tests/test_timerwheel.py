"""The wheel against a sorted list, and by hand where levels and slots meet."""

import gc
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.timerwheel import DUE_MS_MAX, EXACT_SCAN_TIMERS_MAX, Timer, TimerWheel

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
NOW_MS = 1_763_697_600_123

# Distances near the places where a timer changes its slot or level, and ordinary ones.
distances_ms = st.one_of(
    st.integers(-300, 300),
    st.sampled_from([0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 1 << 24, (1 << 24) + 1]),
    st.integers(0, 70_000),
    st.integers(0, 3 * DAY_MS),
    st.integers(0, 50 * YEAR_MS),
)


def payloads(timers: list[Timer]) -> list[object]:
    return [timer.payload for timer in timers]


def drain(wheel: TimerWheel) -> list[Timer]:
    return wheel.advance(DUE_MS_MAX)


class WheelAgainstList(RuleBasedStateMachine):
    """The model keeps (due, sequence) in a dict and sorts it for every answer."""

    @initialize(start_ms=st.sampled_from([0, 255, NOW_MS, (1 << 40) - 1, (1 << 41) - 5]))
    def begin(self, start_ms: int) -> None:
        self.wheel = TimerWheel(start_ms)
        self.now_ms = start_ms
        self.sequence = 0
        self.armed: dict[int, Timer] = {}
        self.gone: list[Timer] = []

    @rule(distance_ms=distances_ms, copies=st.integers(1, 3))
    def insert(self, distance_ms: int, copies: int) -> None:
        for _ in range(copies):
            self.sequence += 1
            timer = self.wheel.insert(self.now_ms + distance_ms, self.sequence)
            self.armed[self.sequence] = timer

    @precondition(lambda self: self.armed)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.armed)))
        timer = self.armed.pop(sequence)
        assert self.wheel.cancel(timer)
        self.gone.append(timer)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def cancel_again(self, data: st.DataObject) -> None:
        assert not self.wheel.cancel(data.draw(st.sampled_from(self.gone)))

    @rule(distance_ms=distances_ms)
    def advance(self, distance_ms: int) -> None:
        self.advance_to(self.now_ms + distance_ms)

    @precondition(lambda self: self.armed)
    @rule()
    def advance_to_next(self) -> None:
        next_ms = self.wheel.next_due_ms()
        assert next_ms is not None
        self.advance_to(next_ms)

    def advance_to(self, now_ms: int) -> None:
        self.now_ms = max(self.now_ms, now_ms)
        expected = sorted(
            (timer.due_ms, sequence)
            for sequence, timer in self.armed.items()
            if timer.due_ms <= self.now_ms
        )
        due = self.wheel.advance(now_ms)
        assert [(timer.due_ms, timer.payload) for timer in due] == expected
        for _, sequence in expected:
            self.gone.append(self.armed.pop(sequence))

    @invariant()
    def counts_and_earliest_agree(self) -> None:
        if not hasattr(self, "wheel"):
            return
        assert len(self.wheel) == len(self.armed)
        earliest_ms = min((timer.due_ms for timer in self.armed.values()), default=None)
        assert self.wheel.next_due_ms() == earliest_ms  # few timers: exact


WheelAgainstList.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None
)
TestWheelAgainstList = WheelAgainstList.TestCase


@given(st.lists(distances_ms, max_size=60), st.lists(st.integers(0, 2 * DAY_MS), max_size=30))
@settings(max_examples=150, deadline=None)
def test_nothing_is_early_and_nothing_is_late(dues: list[int], steps: list[int]) -> None:
    wheel = TimerWheel(NOW_MS)
    for due in dues:
        wheel.insert(NOW_MS + due, None)
    now_ms, previous_ms = NOW_MS, -1
    for step in [*steps, 60 * YEAR_MS]:
        now_ms += step
        for timer in wheel.advance(now_ms):
            assert previous_ms < timer.due_ms <= now_ms or timer.due_ms <= NOW_MS
        previous_ms = now_ms
    assert len(wheel) == 0


@pytest.mark.parametrize("shift", [8, 16, 24, 32, 40, 48, 56])
def test_a_timer_on_either_side_of_a_level_boundary_fires_on_its_millisecond(shift: int) -> None:
    boundary_ms = 1 << shift
    for start_ms in (0, boundary_ms // 2 + 3, boundary_ms - 1):
        wheel = TimerWheel(start_ms)
        for offset in (-1, 0, 1, 255, 256):
            wheel.insert(boundary_ms + offset, offset)
        fired: list[object] = []
        for now_ms in (-1, 0, 1, 254, 255, 256):
            fired.append((now_ms, payloads(wheel.advance(boundary_ms + now_ms))))
        assert fired == [(-1, [-1]), (0, [0]), (1, [1]), (254, []), (255, [255]), (256, [256])]


def test_equal_times_keep_insertion_order_through_every_cascade() -> None:
    wheel = TimerWheel(0)
    due_ms = 20 * DAY_MS + 777
    for sequence, now_ms in enumerate([0, DAY_MS, 20 * DAY_MS, due_ms - 300, due_ms - 2]):
        assert wheel.advance(now_ms) == []
        wheel.insert(due_ms, sequence)
    assert payloads(wheel.advance(due_ms)) == [0, 1, 2, 3, 4]


def test_late_timers_are_returned_by_the_next_advance_even_if_time_stands_still() -> None:
    wheel = TimerWheel(1_000)
    wheel.insert(1_000, "now")
    wheel.insert(3, "past")
    assert wheel.next_due_ms() == 3
    assert payloads(wheel.advance(1_000)) == ["past", "now"]
    assert wheel.advance(1_000) == []


def test_time_never_goes_back() -> None:
    wheel = TimerWheel(1_000)
    wheel.insert(1_500, "later")
    assert wheel.advance(10) == []
    assert wheel.now_ms == 1_000
    assert payloads(wheel.advance(1_500)) == ["later"]


def test_a_late_timer_can_be_cancelled_before_it_is_returned() -> None:
    wheel = TimerWheel(1_000)
    timer = wheel.insert(900, "late")
    assert wheel.cancel(timer)
    assert not wheel.cancel(timer)
    assert wheel.advance(2_000) == []
    assert len(wheel) == 0


def test_a_returned_timer_cannot_be_cancelled() -> None:
    wheel = TimerWheel(0)
    timer = wheel.insert(5, None)
    assert wheel.advance(5) == [timer]
    assert not wheel.cancel(timer)
    assert len(wheel) == 0


def test_a_handle_of_another_wheel_is_not_found() -> None:
    one, other = TimerWheel(0), TimerWheel(0)
    one.insert(100, None)
    assert not one.cancel(other.insert(100, None))
    assert (len(one), len(other)) == (1, 1)


def test_jumping_over_a_century_returns_all_in_order() -> None:
    rng = random.Random(7)
    wheel = TimerWheel(NOW_MS)
    dues = [NOW_MS + rng.randrange(1, 100 * YEAR_MS) for _ in range(2_000)]
    for due_ms in dues:
        wheel.insert(due_ms, None)
    assert [timer.due_ms for timer in wheel.advance(NOW_MS + 101 * YEAR_MS)] == sorted(dues)
    assert wheel.next_due_ms() is None


def test_a_crowded_slot_answers_with_its_start_and_an_advance_refines_it() -> None:
    wheel = TimerWheel(0)
    for _ in range(EXACT_SCAN_TIMERS_MAX + 1):
        wheel.insert(1_023, None)
    steps = 0
    while not wheel.advance(now_ms := wheel.next_due_ms() or 0):
        assert 0 < now_ms <= 1_023
        steps += 1
    assert now_ms == 1_023
    assert steps <= 2
    assert len(wheel) == 0


def test_the_far_end_of_the_range_holds_and_beyond_it_is_refused() -> None:
    wheel = TimerWheel(NOW_MS)
    wheel.insert(DUE_MS_MAX, "end")
    assert wheel.next_due_ms() == DUE_MS_MAX
    assert wheel.advance(DUE_MS_MAX - 1) == []
    assert payloads(drain(wheel)) == ["end"]
    with pytest.raises(OverflowError, match="range"):
        wheel.insert(DUE_MS_MAX + 1, None)


def test_a_negative_start_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        TimerWheel(-1)


def test_timers_cost_the_cyclic_collector_nothing() -> None:
    wheel = TimerWheel(0)
    before = len(gc.get_objects())
    handles = tuple(wheel.insert(due_ms, due_ms) for due_ms in range(1, 10_001))
    assert not any(gc.is_tracked(handle) for handle in handles)
    assert len(gc.get_objects()) - before < 100
