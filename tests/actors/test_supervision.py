"""Actors and their supervisor: bounds, restarts, giving up, stopping."""

from __future__ import annotations

import asyncio
from typing import Any

from actor_rig import virtual

from cluster.actors.actor import MESSAGES_PER_TURN, Actor
from cluster.actors.supervisor import RESTARTS_MAX, WINDOW_S, Supervisor


class Recorder(Actor):
    """Notes what it gets; "crash" raises."""

    name = "recorder"
    mailbox_max = 5

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.starts = self.stops = 0

    async def on_start(self) -> None:
        self.starts += 1

    async def on_stop(self) -> None:
        self.stops += 1

    async def receive(self, message: Any) -> None:
        if message == "crash":
            raise ValueError("as told")
        self.seen.append(message)


def supervised(actor: Actor) -> tuple[Supervisor, list[str]]:
    given_up: list[str] = []
    supervisor = Supervisor([actor], given_up.append)
    supervisor.start()
    return supervisor, given_up


@virtual
async def test_a_full_mailbox_says_so_and_keeps_order() -> None:
    actor = Recorder()
    supervisor, _ = supervised(actor)
    await asyncio.sleep(0)
    assert [actor.tell(number) for number in range(7)] == [True] * 5 + [False] * 2
    assert actor.dropped_total == 2
    await asyncio.sleep(0.01)
    assert actor.seen == list(range(5))
    await supervisor.stopped()


@virtual
async def test_a_crashed_actor_starts_anew() -> None:
    actor = Recorder()
    supervisor, given_up = supervised(actor)
    await asyncio.sleep(0)
    actor.tell("crash")
    await asyncio.sleep(1)
    actor.tell("after")
    await asyncio.sleep(0.01)
    assert (actor.starts, actor.stops, actor.seen) == (2, 1, ["after"])
    assert given_up == []
    await supervisor.stopped()


@virtual
async def test_gives_up_after_too_many_crashes_in_the_window() -> None:
    actor = Recorder()
    supervisor, given_up = supervised(actor)
    for crash in range(RESTARTS_MAX + 1):
        assert given_up == [], f"after {crash} crashes"
        await asyncio.sleep(1)
        actor.tell("crash")
    await asyncio.sleep(1)
    assert given_up == ["recorder"]
    assert actor.starts == RESTARTS_MAX + 1
    await supervisor.stopped()


@virtual
async def test_crashes_that_are_far_apart_are_forgiven() -> None:
    actor = Recorder()
    supervisor, given_up = supervised(actor)
    for _ in range(3 * RESTARTS_MAX):
        await asyncio.sleep(WINDOW_S / RESTARTS_MAX + 1)
        actor.tell("crash")
    await asyncio.sleep(1)
    assert given_up == []
    await supervisor.stopped()


@virtual
async def test_a_group_that_gave_up_can_start_again() -> None:
    actor = Recorder()
    supervisor, given_up = supervised(actor)
    for _ in range(RESTARTS_MAX + 1):
        await asyncio.sleep(1)
        actor.tell("crash")
    await asyncio.sleep(1)
    await supervisor.stopped()
    supervisor.start()
    await asyncio.sleep(0)
    actor.tell("again")
    await asyncio.sleep(0.01)
    assert (given_up, actor.seen) == (["recorder"], ["again"])
    await supervisor.stopped()


@virtual
async def test_stopping_and_starting_in_one_turn_leaves_exactly_one_alive() -> None:
    actor = Recorder()
    supervisor, _ = supervised(actor)
    await asyncio.sleep(0.01)
    supervisor.stop()
    supervisor.start()
    await asyncio.sleep(0.01)
    actor.tell("once")
    await asyncio.sleep(0.01)
    assert (actor.starts, actor.stops, actor.seen) == (2, 1, ["once"])
    await supervisor.stopped()
    assert actor.stops == 2


@virtual
async def test_a_long_mailbox_lets_others_run() -> None:
    actor = Recorder()
    actor.mailbox_max = 10 * MESSAGES_PER_TURN
    supervisor, _ = supervised(actor)
    await asyncio.sleep(0)
    for number in range(actor.mailbox_max):
        actor.tell(number)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(actor.seen) < actor.mailbox_max
    await asyncio.sleep(0.01)
    assert len(actor.seen) == actor.mailbox_max
    await supervisor.stopped()
