"""Cycles of kill -9, pauses and restarts of real nodes under load, judged by what clients saw.

    python -m chaos.live.kills --cycles 500 --seed 7

The seed chooses the faults and what clients ask for; when exactly things happen is up to the
machine. After a failure the folder with the data and all logs stays.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from chaos.live.asking import Asker, NotApplied, Unknown
from chaos.live.faults import Fault, inflict, plan
from chaos.live.kill_tasks import FILE_VARIABLE
from chaos.live.processes import LocalCluster
from chaos.live.registers import Registers
from chaos.live.submissions import Runs, Submissions, listed, outcome_faults
from cluster.api.forwarding import once

TASKS = "chaos.live.kill_tasks:app"
# Small journals, so that snapshots are taken, sent and installed all the time.
FLAGS = ["--snapshot-journal-mb", "1", "--worker-ttl-seconds", "5"]
RECOVER_S = 60.0  # seconds on a quiet machine
PROGRESS_JOBS = 10  # acknowledged after each fault before the next one may come
COMPARE_EVERY = 10  # cycles
FAULTS_SHOWN = 20
ALARMS = (" ERROR ", " CRITICAL ", "Traceback (most recent call last)")


class Broken(Exception):
    """The run cannot go on; the reason is a finding."""


@dataclass
class Report:
    seed: int
    cycles: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    recovered_s: list[float] = field(default_factory=list)
    term: int = 0
    figures: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.recovered_s)
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.by_kind.items()))
        lines = [f"seed {self.seed}, {self.cycles} cycles: {kinds}"]
        if ordered:
            middle, longest = ordered[len(ordered) // 2], ordered[-1]
            lines.append(
                f"all nodes ready and writing again after {middle:.2f} s (median), "
                f"{longest:.2f} s (longest); {self.term} terms"
            )
        lines.append(", ".join(f"{name} {value}" for name, value in self.figures.items()))
        lines += [f"FAULT: {fault}" for fault in self.faults[:FAULTS_SHOWN]]
        if len(self.faults) > FAULTS_SHOWN:
            lines.append(f"... and {len(self.faults) - FAULTS_SHOWN} more")
        return "\n".join(lines)


class Load:
    """Clients at work, which can be halted to compare replicas."""

    def __init__(self, asker: Asker, seed: int, clients: int, *, reads: bool) -> None:
        self.asker = asker
        self.submissions = Submissions(asker, seed)
        self.registers = Registers(asker, seed, reads=reads)
        self._gate, self._stop = asyncio.Event(), asyncio.Event()
        self._gate.set()
        works = (self.submissions.client, self.registers.client)
        self._tasks = [
            asyncio.create_task(work(f"{kind}{n}", self._gate, self._stop))
            for kind, work in zip("sr", works, strict=True)
            for n in range(clients)
        ]

    @contextmanager
    def halted(self) -> Iterator[None]:
        self._gate.clear()
        try:
            yield
        finally:
            self._gate.set()

    def check(self) -> None:
        """Raises what a client raised, which is a finding or a bug of the harness."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def end(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


class Kills:
    """One run."""

    def __init__(self, cluster: LocalCluster, seed: int, load: Load, runs_file: Path) -> None:
        self._cluster = cluster
        self._load = load
        self._plan = plan(seed)
        self._runs_file = runs_file
        self.report = Report(seed)

    async def run(self, cycles: int) -> None:
        try:
            for number in range(1, cycles + 1):
                await self._cycle(number, next(self._plan))
                if number % COMPARE_EVERY == 0:
                    await self._compare()
                if self.report.faults:
                    break
            await self._judge()
        except (Broken, TimeoutError, RuntimeError) as error:
            self.report.faults.append(f"in cycle {self.report.cycles + 1}: {error!r}")

    async def _cycle(self, number: int, fault: Fault) -> None:
        print(f"{number}: {fault}", flush=True)
        cluster, submissions = self._cluster, self._load.submissions
        with suppress(aiohttp.ClientError):  # a transfer whose answer got lost
            await inflict(cluster, fault)
        began = time.monotonic()
        await cluster.ready(RECOVER_S)
        acknowledged = len(submissions.jobs)

        async def progress() -> bool:
            self._load.check()
            return len(submissions.jobs) >= acknowledged + PROGRESS_JOBS

        await cluster.until(progress, "new submissions after a fault", RECOVER_S)
        self.report.recovered_s.append(time.monotonic() - began)
        self.report.by_kind[fault.kind] += 1
        self.report.cycles = number
        self._load.registers.check_retired()
        self._collect()

    def _collect(self) -> None:
        load, faults = self._load, self.report.faults
        for found in (load.submissions.faults, load.registers.faults, load.asker.unexpected):
            faults += found
            found.clear()

    # -- comparing -------------------------------------------------------------------------------

    async def _compare(self) -> None:
        """Equal digests at an equal position, and no node that counts a bug."""
        with self._load.halted():
            await equal_digests(self._cluster)
        for node in self._cluster.nodes:
            self.report.faults += await metric_faults(self._cluster, node.name)
        self.report.faults += alarms(self._cluster.nodes)

    async def _judge(self) -> None:
        load, report = self._load, self.report
        await load.end()
        await self._all_finished()
        await self._compare()
        load.registers.check_all()
        self._collect()
        runs = Runs(self._runs_file)
        report.faults += runs.faults()
        jobs: list[dict[str, Any]] = []
        for node in self._cluster.nodes:
            jobs = await listed(self._cluster, node)
            found = outcome_faults(load.submissions, jobs, runs)
            report.faults += [f"{node.name}: {fault}" for fault in found]
        status = await self._cluster.get("/v1/cluster")
        report.term = status["term"]
        registers, submissions = load.registers, load.submissions
        report.figures = {
            "jobs acknowledged": len(submissions.jobs),
            "jobs found": len(jobs),
            "submissions given up": submissions.gave_up,
            "submissions repeated": submissions.repeated,
            "attempts beyond the first that ended": runs.repeated,
            "register operations": registers.operations,
            "of unknown outcome": registers.without_answer,
            "registers checked": registers.checked,
            "too hard to check": registers.too_hard,
            "refusals": dict(load.asker.counts),
            "snapshots": status["consensus"]["snapshot_index"],
        }

    async def _all_finished(self) -> None:
        async def finished() -> bool:
            counts = (await self._cluster.get("/v1/stats"))["jobs_by_status"]
            return bool(counts["pending"] + counts["running"] == 0)

        await self._cluster.until(finished, "all jobs to end", 60.0)


async def equal_digests(cluster: LocalCluster, patience_s: float = 20.0) -> None:
    """Waits until all nodes stand at one position with one state. Raises Broken if they differ."""
    digests: dict[int, set[str]] = {}

    async def equal() -> bool:
        seen = set()
        for node in cluster.nodes:
            status = await cluster.get("/v1/cluster", node)
            seen.add((status["applied_index"], status["digest"]))
            digests.setdefault(status["applied_index"], set()).add(status["digest"])
        return len(seen) == 1

    try:
        await cluster.until(equal, "equal digests", patience_s)
    finally:
        different = {index: found for index, found in digests.items() if len(found) > 1}
        if different:
            raise Broken(f"replicas differ: {different}")


async def metric_faults(
    cluster: LocalCluster, name: str, ordered: Collection[str] = ()
) -> list[str]:
    """What a healthy node never counts, but for the errors of consensus that a fault ordered."""
    node = next(one for one in cluster.nodes if one.name == name)
    status = await cluster.get("/v1/cluster", node)
    errors = status["consensus"]["errors"]
    unexplained = {each: count for each, count in errors.items() if each not in ordered}
    faults = [f"{name} counts {unexplained}"] if unexplained else []
    text = await cluster.get("/metrics", node)
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in "#")
    for metric in (
        "machine_bugs_total",
        "quorate_listener_errors",
        "quorate_actor_restarts",
    ):
        if float(samples[metric]):
            faults.append(f"{name}: {metric} is {samples[metric]}")
    return faults


def alarms(children: list[Any]) -> list[str]:
    """Lines of the logs that no fault of ours explains; each is told once."""
    found = []
    for child in children:
        lines = child.log_text().splitlines()
        told = getattr(child, "lines_told", 0)
        child.lines_told = len(lines)
        found += [
            f"{child.name} logged: {line}"
            for line in lines[told:]
            if any(alarm in line for alarm in ALARMS)
        ]
    return found


async def knows_linearizable(asker: Asker) -> bool:
    """Whether this release reads linearizably; if not, reads are left out of the histories."""
    with suppress(NotApplied, Unknown):
        answer = await asker.ask(asker.urls[0], "GET", "/v1/schedules?consistency=linearizable")
        return answer.status == 200
    return False


async def cycles(folder: Path, seed: int, count: int, clients: int = 4, workers: int = 2) -> Report:
    """A whole run in `folder`."""
    runs_file = folder / "runs"
    env = {FILE_VARIABLE: str(runs_file)}
    async with (
        LocalCluster(folder, flags=FLAGS, env=env) as cluster,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), middlewares=(once,)
        ) as session,
    ):
        await _start_workers(cluster, workers)
        asker = Asker(session, [node.url for node in cluster.nodes])
        load = Load(asker, seed, clients, reads=await knows_linearizable(asker))
        kills = Kills(cluster, seed, load, runs_file)
        await kills.run(count)
        kills.report.faults += alarms([*cluster.nodes, *cluster.workers])
    return kills.report


async def _start_workers(cluster: LocalCluster, workers: int) -> None:
    starts = (
        cluster.worker(
            f"w{n + 1}", TASKS, slots=16, flags=["--protocol", ("stream", "poll")[n % 2]]
        )
        for n in range(workers)
    )
    await asyncio.gather(*starts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.live.kills", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=4, help="of each of two kinds")
    parser.add_argument("--folder", type=Path, help="default: a new one, removed after a success")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="quorate-kills-"))
    report = asyncio.run(cycles(folder, arguments.seed, arguments.cycles, arguments.clients))
    print(report)
    if report.faults:
        print(f"FAILED; logs and data: {folder}")
        return 1
    if arguments.folder is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
