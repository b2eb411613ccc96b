"""Runs the cluster, the load and the faults of a soak, and writes down samples meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import TextIO

import aiohttp

from chaos.live.asking import Asker
from chaos.live.availability.figures import outcome
from chaos.live.availability.ills import Ill
from chaos.live.availability.load import Load
from chaos.live.availability.measure import SLOTS, WAITING_JOBS, Rig
from chaos.live.chaos_tasks import FILE_VARIABLE
from chaos.live.evidence import read_runs
from chaos.live.harm import Field, disk, kill, pause, restart, transfer, workers
from chaos.live.processes import LocalCluster
from chaos.live.runner import PROGRAM, TASKS
from chaos.live.soak.sample import take, write_head, write_row
from cluster.api.forwarding import once

# Keys are forgotten, and snapshots taken, often enough for both to be steady after a minute.
FLAGS = ["--idempotency-ttl-seconds", "60"]
SLOW_FLAGS = ["--snapshot-journal-mb", "1"]  # some hundred jobs a second write little
COUNTED_SLOTS = 1_000
BATCHES_WAITING = 20  # fewer, and all is well
BATCHES_AHEAD = 10  # more, and clients are held back
WATCH_S = 0.1
ONE_LIFE = "n1"  # is never killed, so that one process is watched all the time


async def kill_other(field: Field, seconds: float) -> None:
    others = [node for node in field.cluster.nodes if node.name != ONE_LIFE]
    await kill.die(seconds, field.rng.choice(others))


async def restart_other(field: Field, seconds: float) -> None:
    others = [node for node in field.cluster.nodes if node.name != ONE_LIFE]
    await restart.again(field.rng.choice(others), seconds)


ILLS = {
    "worker killed": Ill("", workers.killed, 1.0),
    "worker stalled": Ill("", workers.stalled, 12.0),
    "leader paused": Ill("", pause.leader, 2.0),
    "follower paused": Ill("", pause.follower, 5.0),
    "leadership handed over": Ill("", transfer.once, 0.5),
    "disk of the leader slow": Ill("", disk.slow_leader, 5.0),
    "another node killed": Ill("", kill_other, 2.0),
    "another node restarted": Ill("", restart_other, 2.0),
}


async def soak(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """What was wrong beside growth; samples are in the CSV file."""
    runs_file = folder / "runs"
    async with AsyncExitStack() as stack:
        env = {FILE_VARIABLE: str(runs_file)}
        flags = FLAGS + ([] if arguments.counted else SLOW_FLAGS)
        cluster = await stack.enter_async_context(
            LocalCluster(folder, 3, flags, env, program=PROGRAM)
        )
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), middlewares=(once,))
        )
        for worker in ("w1", "w2"):
            await cluster.worker(worker, TASKS, slots=COUNTED_SLOTS if arguments.counted else SLOTS)
        load = Load(
            Asker(session, [node.url for node in cluster.nodes]),
            arguments.rate, arguments.batch, is_counted=arguments.counted,
        )  # fmt: skip
        field = Field(cluster, Random(f"soak/{arguments.seed}"))
        file = stack.enter_context(arguments.csv.open("w", newline=""))
        began_s = time.monotonic()
        load.start()
        holding = asyncio.create_task(_hold_back(cluster, load, BATCHES_AHEAD * arguments.batch))
        sampling = asyncio.create_task(_sample(cluster, file, arguments.sample_every))
        strikes = await _strike(field, load, arguments, sampling)
        rate = load.acknowledged / (time.monotonic() - began_s)
        completed = await Rig(field, load, ILLS["leader paused"]).finished()
        for task in (sampling, holding):
            task.cancel()
        await asyncio.wait([sampling, holding])
    print(f"{strikes.total()} faults: {', '.join(f'{n} {c}' for n, c in sorted(strikes.items()))}")
    told = f"{load.acknowledged} jobs acknowledged ({rate:.0f}/s), {completed} completed"
    if arguments.counted:
        lost, doubled = max(load.acknowledged - completed, 0), max(completed - load.acknowledged, 0)
    else:
        lost, doubled, again = outcome(load.ids, read_runs(runs_file), completed)
        told += f", {again} ran again"
    print(f"{told}, {lost} lost, {doubled} doubled")
    return [f"{lost} jobs lost, {doubled} doubled; see {folder}"] if lost or doubled else []


async def _hold_back(cluster: LocalCluster, load: Load, ahead_jobs: int) -> None:
    """A busy machine lowers the rate; it does not fill the queue."""
    while True:
        with suppress(TimeoutError):
            counts = (await cluster.get("/v1/stats"))["jobs_by_status"]
            load.is_held_back = counts["pending"] > max(ahead_jobs, WAITING_JOBS)
        await asyncio.sleep(WATCH_S)


async def _sample(cluster: LocalCluster, file: TextIO, every_s: float) -> None:
    write_head(file)
    begun_s = time.monotonic()
    for tick in range(1, 1 << 40):
        await asyncio.sleep(begun_s + tick * every_s - time.monotonic())
        for node in cluster.nodes:
            sample = await take(cluster, node, time.monotonic() - begun_s)
            if sample is not None:
                write_row(file, sample)


async def _strike(
    field: Field, load: Load, arguments: argparse.Namespace, sampling: asyncio.Task[None]
) -> Counter[str]:
    """Until the minutes are over. All kinds in turn, in an order that is drawn for each round."""
    strikes: Counter[str] = Counter()
    waiting_jobs = max(WAITING_JOBS, BATCHES_WAITING * arguments.batch)
    until_s = time.monotonic() + arguments.minutes * 60
    queue: list[str] = []
    while time.monotonic() + arguments.fault_every < until_s:
        queue = queue or field.rng.sample(sorted(ILLS), len(ILLS))
        name = queue.pop()
        next_s = time.monotonic() + arguments.fault_every
        await Rig(field, load, ILLS[name], waiting_jobs).strike()
        strikes[name] += 1
        if sampling.done():
            sampling.result()
        await asyncio.sleep(next_s - time.monotonic())
    await asyncio.sleep(until_s - time.monotonic())
    return strikes
