"""Runs one peer through the same four measurements as all others.

The worker is warm and the queue empty when the first begins. Times come from the records that the
tasks and the client write, all from one clock; the servers are asked only whether anything is left.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

from bench.harness import quantile
from bench.peers import servers
from bench.peers.catalogue import ADAPTERS, MODULES, ROOT, Peer
from bench.peers.outcome import Ledger, check, latencies_ms
from bench.peers.processes import Driver, Process, cpu_seconds, memory_mib

RATE_PER_S = 200
WARM_JOBS = 200
BOOT_S = 60.0
STALL_S = 20.0  # without one more job started
JOBS_MIN = 100


@dataclass(frozen=True)
class Plan:
    """How much work; a slow peer gets less, so that none of its measurements takes long."""

    jobs: int = 5_000
    latency_s: float = 5.0
    seconds_max: float = 20.0


@dataclass(frozen=True)
class Figures:
    """What one peer did in one round. Rates in jobs/s."""

    peer: str
    jobs: int
    submit: float
    end_to_end: float
    drain: float
    cpu_s: float  # for 10,000 jobs end to end, all processes
    p50_ms: float
    p99_ms: float
    memory_mib: float
    faults: str = "none"


@dataclass
class Run:
    """One peer, started: its server, its client, its worker and what they wrote."""

    peer: Peer
    server: servers.Server
    driver: Driver
    worker: Process
    ledger: Ledger
    submitted: int = 0

    def roots(self) -> list[int]:
        return [*self.server.pids(), self.driver.pid, self.worker.pid]

    async def submit(self, count: int) -> dict[str, int]:
        answer = await self.driver.order("submit", first=self.submitted, count=count)
        self.submitted += count
        return answer

    async def all_started(self, stall_s: float = STALL_S) -> None:
        """Wait until as many tasks started as were submitted. TimeoutError names who stalled."""
        seen, since = -1, time.monotonic()
        while seen < self.submitted:
            self.worker.check_running()
            count = self.ledger.ran_count()
            if count > seen:
                seen, since = count, time.monotonic()
            if time.monotonic() - since > stall_s:
                text = f"{self.peer.name}: {seen} of {self.submitted} jobs started, then none"
                raise TimeoutError(f"{text}\n{self.worker.log_text()[-2000:]}")
            await asyncio.sleep(0.01)

    async def nothing_left(self) -> None:
        """Wait until the peer itself says that every job is finished."""
        deadline = time.monotonic() + STALL_S
        while left := (await self.driver.order("left"))["left"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.peer.name} says that {left} jobs are unfinished")
            await asyncio.sleep(0.1)


async def measure(peer: Peer, plan: Plan, folder: Path) -> Figures:
    """All measurements of one peer, on a server of its own."""
    run = _prepare(peer, folder)
    try:
        await run.server.start()
        await run.driver.begin()
        await run.worker.start()
        return await _measure(run, await _warm(run, plan), plan)
    finally:
        await run.worker.stop()
        await run.driver.stop()
        await run.server.stop()


def _prepare(peer: Peer, folder: Path) -> Run:
    (folder / "records").mkdir()
    (folder / "server").mkdir()
    server = servers.make(peer.server, folder / "server")
    env = _environment(peer, server.url, folder / "records")
    driver = Driver("driver", _command(peer, peer.driver), folder, env, piped=True)
    worker = Process("worker", _command(peer, peer.worker), folder, env)
    return Run(peer, server, driver, worker, Ledger(folder / "records"))


def _environment(peer: Peer, url: str, records: Path) -> dict[str, str]:
    path = [str(ADAPTERS)] if peer.packages else [str(ADAPTERS), str(ROOT)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "PEERS_URL": url,
        "PEERS_RECORDS": str(records),
        "PEERS_MODULES": str(MODULES),
        "QUORATE_NODES": url,
        "RQ_REDIS_URL": url,
    }


def _command(peer: Peer, words: tuple[str, ...]) -> list[str]:
    """The first word is a program of the peer's environment; scripts are files of the adapters."""
    program = words[0]
    if not peer.is_node:
        place = (
            Path(sys.executable).parent if peer.environment is None else peer.environment / "bin"
        )
        program = str(place / program)
    return [program, *(str(ADAPTERS / w) if (ADAPTERS / w).is_file() else w for w in words[1:])]


async def _warm(run: Run, plan: Plan) -> int:
    """Let everybody connect and load their code. Returns how many jobs there is time for."""
    await run.submit(1)
    await run.all_started(BOOT_S)
    began = time.monotonic()
    await run.submit(WARM_JOBS)
    await run.all_started()
    rate = WARM_JOBS / (time.monotonic() - began)
    await run.nothing_left()
    return max(int(rate * plan.seconds_max), JOBS_MIN)


async def _measure(run: Run, jobs_max: int, plan: Plan) -> Figures:
    jobs = min(plan.jobs, jobs_max)
    figures = await _end_to_end(run, jobs)
    p50_ms, p99_ms = await _latency(run, min(int(plan.latency_s * RATE_PER_S), jobs_max))
    if figures.end_to_end < RATE_PER_S:
        p50_ms = p99_ms = nan  # its jobs queued up, so the figures grow with the length of the run
    await run.worker.stop()
    submit, drain = await _backlog(run, jobs)
    faults = check(range(run.submitted), run.ledger.ran())
    return replace(
        figures, submit=submit, drain=drain, p50_ms=p50_ms, p99_ms=p99_ms, faults=str(faults)
    )


async def _end_to_end(run: Run, jobs: int) -> Figures:
    """Submit as fast as the client can while the worker runs them; CPU time until all is quiet."""
    cpu, first = cpu_seconds(run.roots()), run.submitted
    answer = await run.submit(jobs)
    await run.all_started()
    await run.nothing_left()
    cpu = cpu_seconds(run.roots()) - cpu
    last_ns = max(at_ns for number, at_ns in run.ledger.ran() if number >= first)
    return Figures(
        peer=run.peer.name, jobs=jobs, submit=0.0, drain=0.0, p50_ms=0.0, p99_ms=0.0,
        end_to_end=jobs * 1e9 / (last_ns - answer["began_ns"]),
        cpu_s=cpu / jobs * 10_000, memory_mib=memory_mib(run.roots()),
    )  # fmt: skip


async def _latency(run: Run, jobs: int) -> tuple[float, float]:
    """p50 and p99 in ms from before the call that submits to the first line of the task."""
    await run.driver.order("pace", first=run.submitted, count=jobs, rate=RATE_PER_S)
    run.submitted += jobs
    await run.all_started()
    await run.nothing_left()
    latencies = latencies_ms(run.ledger.sent(), run.ledger.ran())
    return quantile(latencies, 0.5), quantile(latencies, 0.99)


async def _backlog(run: Run, jobs: int) -> tuple[float, float]:
    """Submissions per second without a worker; then a fresh worker's rate on that backlog."""
    first = run.submitted
    answer = await run.submit(jobs)
    await run.worker.start()
    await run.all_started(BOOT_S)
    await run.nothing_left()
    starts_ns = [at_ns for number, at_ns in run.ledger.ran() if number >= first]
    submit = jobs * 1e9 / (answer["ended_ns"] - answer["began_ns"])
    return submit, (jobs - 1) * 1e9 / (max(starts_ns) - min(starts_ns))
