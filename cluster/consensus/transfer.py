"""Hands leadership over: stop the intake, let the target catch up, tell it to campaign.

Raft thesis 3.10. The library refuses unless the target happens to be level at that instant and
reports success when it has only sent the request (C11); here success means that another node leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .core import Core
from .interface import TransferError
from .pin import now
from .wire import TimeoutNow

logger = logging.getLogger("quorate.consensus.transfer")

POLL_S = 0.002
GIVE_WAY_MS = 2000
NEAR_ENTRIES = 256  # so far behind, the target catches up in a moment once nothing more comes in


async def transfer_leadership(
    core: Core, wake: Callable[[], None], target: str | None, timeout_ms: int
) -> str:
    """The id of the new leader; TransferError says why leadership did not move.

    Proposals are held back only while the target takes the last step, never for longer than an
    election timeout: a target that does not answer costs no more than a dead leader would."""
    if not core.engine.is_leader():
        raise TransferError("this node does not lead")
    if core.handing_over:
        raise TransferError("a transfer is already running")
    target = choose(core, target)
    core.handing_over = True
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            while not await _try(core, wake, target):
                pass
    except TimeoutError as error:
        raise TransferError(f"{target} did not take over within {timeout_ms} ms") from error
    finally:
        core.handing_over = False
    return core.engine.leader() or target


async def give_way(core: Core, wake: Callable[[], None], successor: str) -> None:
    """A leader whose disk is full must not lead while somebody else can."""
    try:
        await transfer_leadership(core, wake, successor, GIVE_WAY_MS)
    except TransferError as error:
        if core.engine.is_leader() and core.space.is_out and not core.halted:
            logger.error("stepping down, as the disk is full and %s", error)
            core.engine.step_down()
            wake()


async def _try(core: Core, wake: Callable[[], None], target: str) -> bool:
    """One attempt, False when the target was not level in time; TransferError when it was, was
    told, and did nothing. The intake is open again in any case."""
    waits = core.guards.on("c11_transfer_waits")
    if waits:
        await _until(lambda: _behind(core, target) <= NEAR_ENTRIES)
    core.intake_open, told = not waits, False
    try:
        async with asyncio.timeout(core.config.election_max_ms / 1000):
            if waits:
                await _until(lambda: _behind(core, target) == 0 and _all_answered(core))
            core.outbox.send(target, TimeoutNow(core.engine.term()))
            told = True
            await _until(lambda: not core.engine.is_leader())
    except TimeoutError:
        if told:
            raise TransferError(f"{target} did not take over when it was told to") from None
    finally:
        core.intake_open = True
        wake()
    if core.engine.is_leader():
        await asyncio.sleep(core.config.election_min_ms / 1000)  # proposals go on before the next
        return False
    await _until(lambda: core.engine.leader() is not None)
    return True


def choose(core: Core, target: str | None) -> str:
    """The named member, or the one whose log reaches furthest of those that answer."""
    connected = [peer for peer in core.roster.voters if core.network.epoch(peer)]
    if target is None:
        if not connected:
            raise TransferError("no other node is connected")
        lately = now() - core.config.election_min_ms / 1000
        return max(
            connected,
            key=lambda peer: (core.engine.heard_from(peer) > lately, core.replicator.acked(peer)),
        )
    if target not in core.roster.voters:
        raise TransferError(f"{target} is not another voting member of this cluster")
    if target not in connected:
        raise TransferError(f"{target} is not connected")
    return target


def _behind(core: Core, target: str) -> int:
    """Entries that the target's disk lacks."""
    if not core.engine.is_leader():
        raise TransferError("leadership was lost")
    return max(core.journal.last_index - core.replicator.acked(target), 0)


def _all_answered(core: Core) -> bool:
    """Whatever this leader took in is applied, so that no proposal ends as unknown."""
    return core.engine.applied_index() >= core.journal.last_index


async def _until(condition: Callable[[], bool]) -> None:
    """Looks every few ms: a transfer is rare, and the driver needs no hook for it this way."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)
