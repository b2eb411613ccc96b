"""What all rows share: requests to a cluster, its memory, quantiles, and a result to report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from chaos.live.processes import Child, LocalCluster, free_ports

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
QUIET = ("--log-level", "warning")


@dataclass
class Result:
    """One measured row of the table. `holds` is False when the outcome check failed."""

    row: str
    what: str
    figures: dict[str, str]
    target: str
    holds: bool = True
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        checked = "ok" if self.holds else "OUTCOME WRONG"
        return f"| {self.row} | {self.what} | {figures} | {self.target} | {checked} |"


@dataclass(frozen=True)
class Scale:
    """How large a run is. `quick` is for trying, `full` for the record."""

    name: str
    submissions: int
    end_to_end: int
    singles: int
    latency_seconds: float
    timers: int
    kills: int
    restart_jobs: int
    faults: int  # of the failover rows F: kills; a third of it pauses, cuts and stalls
    partition_s: float
    schedules: int  # that are idle while others fire
    fires_per_s: int
    burst: int  # schedules that are due at the same moment
    variant_jobs: int  # of the rows V, where a batch has 1,000
    pending: int = 1_000_000  # while something else is measured
    many_jobs: int = 0  # rows P6 and P9 once more with so many; 0: not


QUICK = Scale(
    "quick", 100_000, 60_000, 5_000, 5.0, 100_000, 3, 100_000, 6, 5.0, 5_000, 200, 1_000, 30_000
)
FULL = Scale(
    "full",
    1_000_000,  # enough for a snapshot in the middle, as of P2
    1_000_000,
    20_000,
    15.0,
    1_000_000,
    10,
    1_000_000,
    100,
    60.0,
    200_000,
    1_000,
    10_000,
    120_000,
    5_000_000,
    5_000_000,
)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of all lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def summary_ms(values: Sequence[float]) -> dict[str, str]:
    """Percentiles of an HdrHistogram."""
    from bench.histogram import Latencies  # of the group `bench`, which tests do without

    return Latencies(values).summary()


def rss_mb(cluster: LocalCluster) -> list[int]:
    """Resident memory of each node in MiB."""
    sizes = []
    for node in cluster.nodes:
        pages = int(Path(f"/proc/{node.pid}/statm").read_text().split()[1])
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE") >> 20)
    return sizes


async def replicas_equal(cluster: LocalCluster) -> bool:
    """Whether all running nodes come to the same digest at the same log position."""

    async def equal() -> bool:
        seen = set()
        for node in cluster.nodes:
            if node.is_running:
                status: Any = await cluster.get("/v1/cluster", node)
                seen.add((status["applied_index"], status["digest"]))
        return len(seen) == 1

    try:
        await cluster.until(equal, "equal digests", 30)
    except TimeoutError:
        return False
    return True


@contextlib.asynccontextmanager
async def bare_echo(cluster: LocalCluster, folder: Path) -> AsyncIterator[str]:
    """The address of an aiohttp server that does nothing but answer."""
    (port,) = free_ports(1)
    echo = Child("echo", [sys.executable, "-m", "bench.echo", str(port)], folder, {})

    async def answers() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await echo.start()
    try:
        await cluster.until(answers, "the echo server")
        yield f"http://127.0.0.1:{port}/"
    finally:
        await echo.kill()


def job_json(name: str, payload_bytes: int = 100, extra: str = "") -> bytes:
    """One job as JSON whose payload is a string of about `payload_bytes`."""
    padding = "x" * max(payload_bytes - 2, 0)
    return f'{{"name":"{name}","payload":"{padding}"{extra}}}'.encode()


def batch_body(count: int, name: str, payload_bytes: int = 100, extra: str = "") -> bytes:
    return b"[" + b",".join([job_json(name, payload_bytes, extra)] * count) + b"]"


def varied_body(count: int, name: str, payload_bytes: int = 100) -> bytes:
    """A batch whose payloads differ and hardly compress: random digits of base 16."""
    rng = random.Random(1)
    texts = [rng.randbytes((payload_bytes - 2) // 2).hex() for _ in range(count)]
    jobs = [f'{{"name":"{name}","payload":"{text}"}}' for text in texts]
    return f"[{','.join(jobs)}]".encode()


async def post_batch(session: aiohttp.ClientSession, url: str, body: bytes) -> dict[str, Any]:
    """Submit; raises RuntimeError for anything but 201."""
    headers = {"Content-Type": "application/json", "Prefer": "return=minimal"}
    async with session.post(f"{url}/v1/jobs/batch", data=body, headers=headers) as response:
        if response.status != 201:
            raise RuntimeError(f"batch: {response.status} {await response.text()}")
        answer: dict[str, Any] = await response.json()
        return answer


async def by_status(cluster: LocalCluster) -> dict[str, int]:
    stats = await cluster.get("/v1/stats")
    counts: dict[str, int] = stats["jobs_by_status"]
    return counts
