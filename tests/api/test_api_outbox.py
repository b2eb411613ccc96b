"""What a node says to one worker: heartbeats only into silence, an end for whoever is gone."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, cast

from chaos.sim.loop import run_virtual
from cluster.api import frames
from cluster.api.outbox import PULSE_MOMENTS, Outbox

TTL_S = 3.0


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        run_virtual(test())

    return run


class Wire:
    """A socket that takes everything, until it is told to take nothing."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, bytes]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.aborted_s = 0.0
        self.closed = False

    async def send_bytes(self, frame: bytes) -> None:
        await self.open.wait()
        if self.aborted_s:
            raise ConnectionResetError
        self.taken.append((asyncio.get_running_loop().time(), frame))

    async def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted_s = asyncio.get_running_loop().time()
        self.open.set()


def outbox_of(wire: Wire) -> tuple[Outbox, asyncio.Task[None]]:
    outbox = Outbox(cast(Any, wire), wire.abort, TTL_S)
    return outbox, asyncio.create_task(outbox.run())


@virtual
async def test_heartbeats_fill_silence_and_nothing_else() -> None:
    wire = Wire()
    outbox, running = outbox_of(wire)
    for _ in range(6):
        outbox.put(b"x")
        outbox.heard()
        await asyncio.sleep(0.5)
    assert [frame for _, frame in wire.taken] == [b"x"] * 6
    await asyncio.sleep(2.1)
    outbox.heard()
    assert [frame for _, frame in wire.taken[6:]] == [frames.HEARTBEAT] * 2
    outbox.close(b"last")
    await running
    assert wire.taken[-1][1] == b"last" and wire.closed


@virtual
async def test_a_worker_that_is_not_heard_for_a_ttl_is_left() -> None:
    wire = Wire()
    outbox, running = outbox_of(wire)
    await running
    assert outbox.closing and wire.closed
    assert TTL_S < asyncio.get_running_loop().time() <= TTL_S * 4 / 3 + 0.01


@virtual
async def test_a_worker_that_takes_nothing_for_a_ttl_is_cut_off() -> None:
    wire = Wire()
    outbox, running = outbox_of(wire)
    await asyncio.sleep(0.1)
    wire.open.clear()
    for _ in range(100):
        outbox.put(b"x")
    while not running.done():
        await asyncio.sleep(0.1)
        outbox.heard()
    assert TTL_S < wire.aborted_s <= TTL_S * 5 / 3
    assert outbox.closing and wire.taken == []


@virtual
async def test_many_that_are_silent_are_spoken_to_at_few_moments() -> None:
    """Each moment wakes the node up once."""
    wires = [Wire() for _ in range(100)]
    outboxes = []
    for wire in wires:
        outboxes.append(outbox_of(wire))
        await asyncio.sleep(TTL_S / 3 / len(wires))
    await asyncio.sleep(TTL_S / 3)
    moments = {round(at, 6) for wire in wires for at, _ in wire.taken[:1]}
    assert all(wire.taken for wire in wires)
    assert len(moments) <= PULSE_MOMENTS + 1
    for outbox, running in outboxes:
        outbox.close(None)
        await running
