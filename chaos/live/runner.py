"""Runs one scenario: a cluster under load, faults one after the other, and a verdict at the end."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import aiohttp

from chaos.live.asking import Asker
from chaos.live.chaos_tasks import FILE_VARIABLE
from chaos.live.evidence import gather
from chaos.live.harm import STRIKES, Field
from chaos.live.harm.clock import apart_s
from chaos.live.judge import Fault, History, judge
from chaos.live.judge.story import tell
from chaos.live.kills import Broken, alarms, equal_digests, knows_linearizable, metric_faults
from chaos.live.mutants import MUTANT_VARIABLE
from chaos.live.processes import LocalCluster, Place
from chaos.live.registers import Registers
from chaos.live.scenario import ClusterPart, Scenario
from chaos.live.segment import Segment, is_possible
from chaos.live.sockets import holds, inode_of
from chaos.live.traffic import Traffic
from chaos.live.wires import Wires
from cluster.api.forwarding import once

TASKS = "chaos.live.chaos_tasks:app"
PROGRAM = Path(__file__).with_name("hurt_node.py")
# Small journals, so that snapshots are taken, sent and installed all the time.
FLAGS = ["--snapshot-journal-mb", "1", "--worker-ttl-seconds", "3"]
FLAGS += ["--worker-reconnect-grace-seconds", "1"]
RECOVER_S = 60.0  # seconds on a quiet machine
END_S = 120.0
LATE_SLOTS = 8
SECRET = {"QUORATE_CLUSTER_SECRET": "only for this run"}
PROGRESS_JOBS = 5  # acknowledged after each fault before the next one may come
FAULTS_SHOWN = 5  # of each rule


class NotPossibleError(Exception):
    """This machine cannot run the scenario; says why."""


@dataclass
class Verdict:
    scenario: str
    seed: int
    strikes: Counter[str] = field(default_factory=Counter)
    recovered_s: list[float] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    history: History = field(default_factory=History)

    def __str__(self) -> str:
        ordered = sorted(self.recovered_s) or [0.0]
        strikes = ", ".join(f"{name} {count}" for name, count in sorted(self.strikes.items()))
        lines = [
            f"{self.scenario}, seed {self.seed}, {self.strikes.total()} faults: {strikes}",
            f"jobs acknowledged again after {ordered[len(ordered) // 2]:.2f} s (median), "
            f"{ordered[-1]:.2f} s (longest)",
            ", ".join(f"{name} {value}" for name, value in self.figures.items()),
        ]
        told: set[str] = set()
        shown: Counter[str] = Counter()
        for fault in self.faults:
            shown[fault.rule] += 1
            if shown[fault.rule] > FAULTS_SHOWN:
                continue
            lines.append(f"FAULT: {fault}")
            if fault.job_id and fault.job_id not in told:
                told.add(fault.job_id)
                lines.append(tell(self.history, fault.job_id))
        lines += [f"{count} faults of the rule {rule}" for rule, count in shown.items()]
        return "\n".join(lines)


class Run:
    """One scenario on one cluster."""

    def __init__(self, scenario: Scenario, seed: int, place: Field, asker: Asker) -> None:
        self._scenario = scenario
        self._place = place
        self._cluster = place.cluster
        self._asker = asker
        self._traffic = Traffic(asker, seed, scenario.load.think_s)
        self._registers = Registers(asker, seed, reads=True)
        self._stop, self._gate = asyncio.Event(), asyncio.Event()
        self._clients: list[asyncio.Task[None]] = []
        self.verdict = Verdict(scenario.name, seed)

    async def run(self, seconds: float, runs_file: Path) -> None:
        try:
            await self._start_load()
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                await self._strike()
            await self._rest()
            await self._judge(runs_file)
        except (Broken, TimeoutError, RuntimeError) as error:
            await self._end_load()
            self._fault("recovery", repr(error))

    def _fault(self, rule: str, text: str) -> None:
        self.verdict.faults.append(Fault(rule, text))

    async def _start_load(self) -> None:
        self._registers = Registers(
            self._asker, self.verdict.seed, reads=await knows_linearizable(self._asker)
        )
        await self._traffic.make_schedules()
        self._gate.set()
        load = self._scenario.load
        works = [self._traffic.client(f"c{n}", self._stop) for n in range(load.clients)]
        works += [
            self._registers.client(f"r{n}", self._gate, self._stop) for n in range(load.registers)
        ]
        self._clients = [asyncio.create_task(work) for work in works]

    async def _end_load(self) -> None:
        self._stop.set()
        self._gate.set()
        await asyncio.gather(*self._clients)

    # -- faults ----------------------------------------------------------------------------------

    async def _strike(self) -> None:
        """One fault, and what must be so after it: jobs are acknowledged again."""
        rng, faults = self._place.rng, self._scenario.faults
        await asyncio.sleep(rng.uniform(*self._scenario.calm_s))
        fault = rng.choices(faults, [each.weight for each in faults])[0]
        seconds = rng.uniform(*fault.seconds)
        print(f"  {fault.name} for {seconds:.1f} s", flush=True)
        await STRIKES[fault.name](self._place, seconds)
        self.verdict.strikes[fault.name] += 1
        began_s, before = time.monotonic(), self._traffic.acknowledged

        async def progress() -> bool:
            self._check_clients()
            return self._traffic.acknowledged >= before + PROGRESS_JOBS

        await self._cluster.until(progress, f"new jobs after {fault.name}", RECOVER_S)
        self.verdict.recovered_s.append(time.monotonic() - began_s)
        self._registers.check_retired()

    def _check_clients(self) -> None:
        """Raises what a client raised, which is a finding or a bug of the harness."""
        for client in self._clients:
            if client.done():
                client.result()

    # -- the end ---------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """No more load; every job ends."""
        await self._cluster.ready(RECOVER_S)
        await self._end_load()
        await self._traffic.pause_schedules()

        async def finished() -> bool:
            counts = (await self._cluster.get("/v1/stats"))["jobs_by_status"]
            return bool(counts["pending"] + counts["running"] == 0)

        # What does not end is for the judge, who knows more of it.
        with suppress(TimeoutError):
            await self._cluster.until(finished, "all jobs to end", END_S)
        await equal_digests(self._cluster)

    async def _judge(self, runs_file: Path) -> None:
        verdict, traffic, registers = self.verdict, self._traffic, self._registers
        verdict.history = history = await gather(self._cluster, traffic, runs_file)
        part = self._scenario.cluster
        history.clocks_apart_s = apart_s(part.clock_bound_s)
        history.slots = max(part.slots, LATE_SLOTS if part.latecomers else 0)
        history.replaced = self._place.replaced
        verdict.faults += judge(history)
        registers.check_all()
        for text in registers.faults:
            self._fault("reads", text)
        for text in self._asker.unexpected:
            self._fault("answers", text)
        for node in self._cluster.nodes:
            for text in await metric_faults(self._cluster, node.name, self._scenario.counted):
                self._fault("counters", text)
        status = await self._cluster.get("/v1/cluster")
        verdict.figures = {
            **traffic.counts,
            "jobs found": len(history.jobs),
            "runs": len(history.runs),
            "occurrences launched": sum(len(r.launched) for r in history.recurrences.values()),
            "left out with a reason": sum(
                each.count for r in history.recurrences.values() for each in r.omitted
            ),
            "register operations": registers.operations,
            "terms": status["term"],
        }


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Path | None]:
    """A file system of this size at the folder. Raises NotPossibleError where it may not be."""
    if not size_mb:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
    is_there = shutil.which("mount") is not None
    if not is_there or subprocess.run(command, check=False, capture_output=True).returncode:
        raise NotPossibleError("mounting a small file system is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def segment_of(part: ClusterPart) -> Segment | None:
    """Raises NotPossibleError where there may be none."""
    if not part.segment:
        return None
    if not is_possible():
        raise NotPossibleError("making network namespaces is not allowed here")
    return Segment(part.nodes)


def owner(cluster: LocalCluster, port: int) -> str:
    """The node whose end of a connection has this port."""
    inode = inode_of(port)
    running = [node for node in cluster.nodes if inode and node.is_running]
    return next((node.name for node in running if holds(node.pid, inode)), "")


async def _start_workers(cluster: LocalCluster, part: ClusterPart) -> None:
    starts = []
    for n in range(part.workers):
        how = ["--protocol", ("stream", "poll")[n % 2]]
        starts.append(cluster.worker(f"w{n + 1}", TASKS, slots=part.slots, flags=how))
    for n in range(part.latecomers):
        program = [sys.executable, "-m", "chaos.live.latecomer"]
        starts.append(cluster.worker(f"late{n + 1}", slots=LATE_SLOTS, program=program))
    await asyncio.gather(*starts)


async def run(
    scenario: Scenario, seed: int, seconds: float, folder: Path, mutant: str = ""
) -> Verdict:
    """A whole scenario in `folder`, from the first process to the last."""
    part = scenario.cluster
    runs_file = folder / "runs"
    bound_s = part.clock_bound_s
    flags = [*FLAGS, *(["--clock-jump-seconds", str(bound_s)] if bound_s else [])]
    env = {FILE_VARIABLE: str(runs_file), MUTANT_VARIABLE: mutant}
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", part.disk_mb))
        places: Sequence[Place] = ()
        wires = segment = None
        if part.wires:
            wires = await stack.enter_async_context(Wires(part.nodes, seed))
            places = wires.places
        elif (segment := segment_of(part)) is not None:
            places = stack.enter_context(segment).places
            env |= SECRET  # others than this machine could reach those addresses
        cluster = await stack.enter_async_context(
            LocalCluster(
                disk or folder, part.nodes, flags, env,
                places=places, program=PROGRAM, logs=folder,
            )
        )  # fmt: skip
        if wires is not None:
            wires.owner = partial(owner, cluster)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), middlewares=(once,))
        )
        await _start_workers(cluster, part)
        place = Field(cluster, Random(f"faults/{seed}"), wires, disk, segment)
        one = Run(scenario, seed, place, Asker(session, [node.url for node in cluster.nodes]))
        await one.run(seconds, runs_file)
        one.verdict.faults += [
            Fault("logs", text)
            for text in alarms([*cluster.nodes, *cluster.workers])
            if not any(words in text for words in scenario.excused)
        ]
    return one.verdict
