"""V: the way of a job end to end, one thing varied at a time: replicas, batch, payload, fsync.

The first row is what the others are compared with; its notes say what each thread of it used. The
probe of /livez runs beside all of them, so their rates are a little below P2's.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from bench.flow import SLOTS, Flow, Load, end_to_end
from bench.harness import QUIET, Result, Scale
from bench.probe import probed
from chaos.live.processes import LocalCluster

LARGE_BYTES = 4_096
CONNECTIONS = {1: 32, 10: 16, 100: 8}  # more requests at a time where each carries less
SHARE = {1: 20, 10: 6, 100: 3}  # of the jobs of a batch of 1,000: so that no row takes longer
TARGET = "compare"


@dataclass(frozen=True)
class Variant:
    what: str
    nodes: int = 3
    batch: int = 1_000
    payload_bytes: int = 100
    flags: tuple[str, ...] = ()
    is_varied: bool = False

    def load(self, jobs: int) -> Load:
        count = jobs // SHARE.get(self.batch, 1) // self.batch * self.batch
        if self.payload_bytes == LARGE_BYTES:
            count //= 2
        clients = CONNECTIONS.get(self.batch, 2)
        return Load(count, self.batch, self.payload_bytes, clients, is_varied=self.is_varied)


VARIANTS = (
    Variant("3 nodes, batches of 1,000, 100 B, fsync"),
    Variant("1 node", nodes=1),
    Variant("5 nodes", nodes=5),
    Variant("batches of 100", batch=100),
    Variant("batches of 10", batch=10),
    Variant("batches of 1", batch=1),
    Variant("payloads of 4 KiB", payload_bytes=LARGE_BYTES),
    Variant("payloads that hardly compress", is_varied=True),
    # Only here: with this flag a loss of power loses jobs that were acknowledged.
    Variant("fsync off (NOT durable)", flags=("--no-fsync",)),
)


async def measure(scale: Scale, folder: Path) -> list[Result]:
    results = []
    for number, variant in enumerate(VARIANTS):
        print(f"  {variant.what} ...", file=sys.stderr, flush=True)
        try:
            flow = await _flow(variant, scale, folder / str(number))
        except TimeoutError as error:  # the other variants are measured all the same
            results.append(Result("V", variant.what, {"not measured": str(error)}, TARGET, False))
            continue
        results.append(_result(variant, flow))
        if number == 0:
            base = Result("V", "the same, loop + threads", flow.by_thread(), TARGET, flow.holds)
            results.append(base)
    return results


async def _flow(variant: Variant, scale: Scale, folder: Path) -> Flow:
    flags = (*QUIET, *variant.flags)
    async with LocalCluster(folder, nodes=variant.nodes, flags=flags) as cluster:
        await cluster.worker("w1", "bench.tasks:app", slots=SLOTS)
        leader = await cluster.leader()
        async with probed(leader.url) as answers:
            flow = await end_to_end(cluster, variant.load(scale.variant_jobs))
    flow.stalls = answers
    return flow


def _result(variant: Variant, flow: Flow) -> Result:
    figures = {
        "rate": f"{flow.rate:,.0f} jobs/s",
        **flow.cost(),
        **flow.per_job(),
        "POST p50": f"{flow.posts.at_ms(50):.1f} ms",
        "p99": f"{flow.posts.at_ms(99):.1f} ms",
        "longest /livez": f"{flow.stalls.at_ms(100):.1f} ms",
    }
    return Result("V", variant.what, figures, TARGET, flow.holds)
