"""Several nodes that sample each other while some clocks lie: those in the majority are kept right.

A majority that agrees shares a clock with every other majority. So while more than half of the
clocks are right, the time that a node took from a majority is at most one bound off, and what it
follows by itself at most one more, whatever the other clocks do.
"""

from __future__ import annotations

from random import Random

import pytest

from cluster.actors.peerclocks import SAMPLE_MS, ClockAnswer, PeerClocks
from cluster.clock import GuardedClock, ManualClock

BOUND_MS = 10_000
NOISE_MS = 1_000  # half the slowest round trip, and small errors of right clocks
START_MS = 1_795_000_000_000


class Machine:
    """A node with its own clocks, which began somewhere; `error_ms` is that of the wall clock."""

    def __init__(self, node_id: str, rng: Random, ids: tuple[str, ...]) -> None:
        self.id = node_id
        self.ids = ids
        self.source = ManualClock(START_MS)
        self.boot_ms = rng.randrange(10**9)
        self.error_ms = 0
        self.boot()

    def boot(self) -> None:
        self.clock = GuardedClock(self.source, BOUND_MS, lambda: self.elapsed_ms)
        self.peers = PeerClocks(BOUND_MS)

    @property
    def elapsed_ms(self) -> int:
        return self.source.monotonic_ms() + self.boot_ms

    def passes(self, ms: int) -> None:
        self.source.advance(ms)

    def set_error(self, error_ms: int) -> None:
        self.source.set_now(START_MS + self.source.monotonic_ms() + error_ms)
        self.error_ms = error_ms

    def off_ms(self) -> int:
        return self.clock.now_ms() - START_MS - self.source.monotonic_ms()

    def samples(self, other: Machine, round_trip_ms: int) -> None:
        wall_ms = other.clock.read().wall_ms
        answer = ClockAnswer(node_id=other.id, wall_ms=wall_ms, now_ms=wall_ms)
        now_ms = self.elapsed_ms
        self.peers.answered(other.id, answer, now_ms - round_trip_ms, now_ms)

    def consults(self) -> None:
        self.clock.read()
        guard = self.clock.guard
        since_ms = guard.refused_at_ms if guard.is_refusing else 0
        self.clock.consult(self.peers.votes(self.id, self.ids, self.elapsed_ms, since_ms))


def lie(machine: Machine, rng: Random) -> None:
    """A wrong clock's next move: a jump, a small step, or the truth for a change."""
    hour_ms = 3_600_000
    machine.set_error(
        rng.choice(
            [
                0,
                rng.randint(-50 * hour_ms, 50 * hour_ms),
                machine.error_ms + rng.randint(-BOUND_MS, BOUND_MS),
                machine.error_ms + rng.choice((-hour_ms, hour_ms)),
                rng.randint(-3 * BOUND_MS, 3 * BOUND_MS),
            ]
        )
    )


def second(machines: list[Machine], liars: list[Machine], rng: Random) -> int:
    """A second passes; the largest error of a node for whom a majority vouched once."""
    for machine in machines:
        machine.passes(1_000)
        if machine not in liars:
            machine.set_error(rng.randint(-200, 200))
        elif rng.random() < 0.2:
            lie(machine, rng)
        if rng.random() < 0.01:
            machine.boot()
    for machine in machines:
        for other in machines:
            if other is not machine and rng.random() < 3_000 / SAMPLE_MS:
                machine.samples(other, rng.randrange(NOISE_MS))
        machine.consults()
    return max(abs(m.off_ms()) for m in machines if m.clock.guard.is_vouched)


def settle(machines: list[Machine]) -> None:
    """All clocks are right from now on, and everybody knows."""
    for machine in machines:
        machine.set_error(0)
    for machine in machines:
        for other in machines:
            if other is not machine:
                machine.samples(other, 0)
        machine.consults()


@pytest.mark.parametrize("seed", range(60))
def test_while_most_clocks_are_right_no_node_is_led_astray(seed: int) -> None:
    rng = Random(seed)
    ids = tuple(f"n{i}" for i in range(rng.choice((3, 3, 4, 5, 7))))
    machines = [Machine(node_id, rng, ids) for node_id in ids]
    liars = machines[: (len(ids) - 1) // 2]
    settle(machines)
    worst_ms = max(second(machines, liars, rng) for _ in range(400))
    assert BOUND_MS / 2 < worst_ms <= 2 * BOUND_MS + 2 * NOISE_MS
    settle(machines)
    assert [m.off_ms() for m in machines] == [0] * len(machines)
    assert not any(m.clock.guard.is_refusing for m in machines)
