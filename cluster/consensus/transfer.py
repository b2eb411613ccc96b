"""Hands leadership over: stop the intake, let the target catch up, tell it to campaign.

Raft thesis 3.10. The library refuses unless the target happens to be level at that instant and
reports success when it has only sent the request (C11); here success means that another node leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .core import Core
from .interface import TransferError
from .wire import TimeoutNow

POLL_S = 0.005


async def transfer_leadership(
    core: Core, wake: Callable[[], None], target: str | None, timeout_ms: int
) -> str:
    """The id of the new leader; TransferError leaves this node leading and taking proposals."""
    if not core.engine.is_leader():
        raise TransferError("this node does not lead")
    if not core.intake_open:
        raise TransferError("a transfer is already running")
    target = choose(core, target)
    waits = core.guards.on("c11_transfer_waits")
    core.intake_open = not waits
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            if waits:
                await _catch_up(core, target)
            core.outbox.send(target, TimeoutNow(core.engine.term()))
            await _until(lambda: not core.engine.is_leader() and core.engine.leader() is not None)
    except TimeoutError as error:
        raise TransferError(f"{target} did not take over within {timeout_ms} ms") from error
    finally:
        core.intake_open = True
        wake()
    return core.engine.leader() or target


def choose(core: Core, target: str | None) -> str:
    """The named member, or the connected one whose log reaches furthest."""
    connected = [peer for peer in sorted(core.config.peers) if core.network.epoch(peer)]
    if target is None:
        if not connected:
            raise TransferError("no other node is connected")
        return max(connected, key=core.replicator.acked)
    if target not in core.config.peers:
        raise TransferError(f"{target} is not another member of this cluster")
    if target not in connected:
        raise TransferError(f"{target} is not connected")
    return target


async def _catch_up(core: Core, target: str) -> None:
    def level() -> bool:
        if not core.engine.is_leader():
            raise TransferError("leadership was lost")
        return core.replicator.acked(target) >= core.journal.last_index

    await _until(level)


async def _until(condition: Callable[[], bool]) -> None:
    """Looks every few ms: a transfer is rare, and the driver needs no hook for it this way."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
