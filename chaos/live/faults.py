"""What may happen to a cluster of real processes, chosen by a seed before it is done.

A fault names its victims by role or by number; who leads is asked when it strikes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from chaos.live.processes import LocalCluster, NodeChild

KINDS = {
    "kill_one": 4,
    "kill_leader": 6,
    "kill_two": 3,
    "kill_all": 3,
    "kill_starting": 2,  # once more while it recovers
    "stop_leader": 1,  # SIGTERM
    "pause_leader": 3,  # SIGSTOP
    "pause_one": 2,
    "pause_and_kill": 1,  # the leader sleeps, its successor dies
    "transfer": 1,
    "kill_worker": 1,
}


@dataclass(frozen=True)
class Fault:
    """`seconds` of pause or absence, one for each victim; `picks` choose victims by number."""

    kind: str
    before_s: float
    seconds: tuple[float, float, float]
    picks: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(f'{s:.2f}' for s in self.seconds)} s)"


def plan(seed: int) -> Iterator[Fault]:
    """The same faults for the same seed, without end."""
    rng = Random(f"faults/{seed}")
    names, weights = list(KINDS), list(KINDS.values())
    while True:
        first, second, third = (rng.uniform(0.0, 1.2) for _ in range(3))
        yield Fault(
            rng.choices(names, weights)[0],
            rng.uniform(0.1, 0.8),
            (first, second, third),
            (rng.randrange(1_000), rng.randrange(1_000)),
        )


async def inflict(cluster: LocalCluster, fault: Fault) -> None:
    """Does it, and undoes it: at the end every node runs, though none need be ready."""
    await asyncio.sleep(fault.before_s)
    nodes, seconds = cluster.nodes, fault.seconds
    one = nodes[fault.picks[0] % len(nodes)]
    match fault.kind:
        case "kill_one":
            await _kill(seconds, one)
        case "kill_leader":
            await _kill(seconds, await cluster.leader())
        case "kill_two":
            await _kill(seconds, *[node for node in nodes if node is not one])
        case "kill_all":
            await _kill(seconds, *nodes)
        case "kill_starting":
            await _kill(seconds, one)
            await asyncio.sleep(seconds[1] / 3)
            await _kill(seconds[1:] + seconds[:1], one)
        case "stop_leader":
            leader = await cluster.leader()
            await leader.stop()
            await asyncio.sleep(seconds[0])
            await leader.start()
        case "pause_leader":
            await _pause(await cluster.leader(), 2 * seconds[0])
        case "pause_one":
            await _pause(one, seconds[0])
        case "pause_and_kill":
            await _pause_and_kill(cluster, seconds)
        case "transfer":
            await cluster.request("POST", "/v1/cluster/transfer")
        case "kill_worker":
            worker = cluster.workers[fault.picks[1] % len(cluster.workers)]
            await worker.kill()
            await worker.start()
        case _:
            raise ValueError(fault.kind)


async def _kill(seconds: tuple[float, ...], *victims: NodeChild) -> None:
    """Kills all at once; each comes back after its own time."""
    for victim in victims:
        victim.signal(signal.SIGKILL)
    await asyncio.gather(*(victim.wait() for victim in victims))

    async def back(victim: NodeChild, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await victim.start()

    await asyncio.gather(*map(back, victims, seconds))


async def _pause(victim: NodeChild, seconds: float) -> None:
    victim.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        victim.signal(signal.SIGCONT)


async def _pause_and_kill(cluster: LocalCluster, seconds: tuple[float, ...]) -> None:
    """When the old leader wakes up it may find that it is needed, or that it is deposed."""
    old = await cluster.leader()
    old.signal(signal.SIGSTOP)
    try:
        heir = await cluster.leader(but=old)
        await _kill(seconds, heir)
    finally:
        old.signal(signal.SIGCONT)
