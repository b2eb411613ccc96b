"""The faults that are measured: what is done, for how long, and what its cluster needs for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from chaos.live.harm import Field, Strike, cut, kill, pause, restart, workers
from chaos.live.harm.disk import ill

SLOW_S = 0.2


@dataclass(frozen=True)
class Ill:
    """`seconds`: how long it lasts, or how long a process is away."""

    about: str
    strike: Strike
    seconds: float
    wires: bool = False
    hurt: bool = False  # the node must be one whose disk can be made ill


async def slow_disk(field: Field, seconds: float) -> None:
    with ill(await field.leader(), f"slow {SLOW_S}"):
        await asyncio.sleep(seconds)


ILLS = {
    "leader-kill": Ill("leader: kill -9, back after 0.5 s", kill.leader, 0.5),
    "leader-pause": Ill("leader: SIGSTOP for 5 s", pause.leader, 5.0),
    "leader-term": Ill("leader: SIGTERM, back after 0.5 s", restart.leader, 0.5),
    "leader-cut": Ill("leader: cut off for 3 s", cut.leader_off, 3.0, wires=True),
    "leader-deaf": Ill("leader: hears nobody for 3 s", cut.leader_deaf, 3.0, wires=True),
    "leader-mute": Ill("leader: not heard for 3 s", cut.leader_mute, 3.0, wires=True),
    "leader-disk": Ill("leader: each sync takes 0.2 s longer, for 3 s", slow_disk, 3.0, hurt=True),
    "follower-kill": Ill("follower: kill -9, back after 0.5 s", kill.follower, 0.5),
    "follower-pause": Ill("follower: SIGSTOP for 2 s", pause.follower, 2.0),
    "worker-kill": Ill("one of two workers: kill -9, back after 0.5 s", workers.killed, 0.5),
    "all-kill": Ill("all nodes at once: kill -9, back within 0.5 s", kill.everyone, 0.5),
    "rolling-restart": Ill("all nodes restarted, one after the other", restart.rolling, 0.3),
}
