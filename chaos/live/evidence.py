"""Gathers what a run left behind into one history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from chaos.live.judge.history import History, Omission, Recurrence, Row, Run
from chaos.live.processes import LocalCluster, NodeChild
from chaos.live.submissions import listed
from chaos.live.traffic import SCHEDULES, STEPS_MS, Traffic

AT_ONCE = 8  # questions to the cluster
OMITTED = ("missed", "skipped", "merged")
T = TypeVar("T")


async def gather(cluster: LocalCluster, traffic: Traffic, runs_file: Path) -> History:
    """The cluster must have come to rest."""
    history = History(traffic.requests, traffic.cancels, read_runs(runs_file))
    for node in cluster.nodes:
        rows = await listed(cluster, node)
        history.nodes[node.name] = {row["job_id"]: row for row in rows}
        status = await cluster.get("/v1/cluster", node)
        history.digests[node.name] = (status["applied_index"], status["digest"])
    ids = list(history.jobs)
    events = await _some_at_once(_timeline(cluster, job_id) for job_id in ids)
    history.timelines = dict(zip(ids, events, strict=True))
    for schedule_id in SCHEDULES:
        history.recurrences[schedule_id] = await _recurrence(cluster, schedule_id)
    return history


def read_runs(file: Path) -> list[Run]:
    """A begin and an end make one run; a worker that was killed wrote no end."""
    runs: list[Run] = []
    open_runs: dict[tuple[str, int, str], Run] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        told = json.loads(line)
        key = (told["job"], told["attempt"], told["worker"])
        if told["event"] == "begin":
            open_runs[key] = Run(*key, begun_s=told["s"])
            runs.append(open_runs[key])
        elif key in open_runs:
            run = open_runs.pop(key)
            run.ended_s, run.outcome = told["s"], told["outcome"]
    return runs


async def _timeline(cluster: LocalCluster, job_id: str) -> list[Row]:
    answer = await cluster.get(f"/v1/jobs/{job_id}/timeline")
    events: list[Row] = answer["events"]
    return events


async def _some_at_once(questions: Iterable[Awaitable[T]]) -> list[T]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(question: Awaitable[T]) -> T:
        async with limit:
            return await question

    return await asyncio.gather(*map(one, questions))


async def _recurrence(cluster: LocalCluster, schedule_id: str) -> Recurrence:
    """Answerable from the first to the last occurrence that anybody speaks of."""
    path, step_ms = f"/v1/schedules/{schedule_id}", STEPS_MS[schedule_id]
    runs: dict[str, int] = {}
    omitted: dict[tuple[int, int, str], Omission] = {}
    buffered: set[int] = set()
    for node in cluster.nodes:  # each remembers what it saw; together they saw everything
        for run in await _pages(cluster, node, f"{path}/runs?limit=500", "items"):
            runs[run["job_id"]] = _ms(run["nominal_at"])
        for event in await _pages(cluster, node, f"{path}/timeline?limit=500", "events"):
            if event["kind"] in OMITTED:
                omission = _omission(event)
                omitted[omission.first_ms, omission.last_ms, omission.reason] = omission
            elif event["kind"] == "buffered":
                buffered.add(_ms(event["nominal_at"]))
    spoken_of = [*runs.values(), *(each.first_ms for each in omitted.values())]
    if not spoken_of:
        return Recurrence(step_ms, 0, -1)
    last = max([*runs.values(), *(each.last_ms for each in omitted.values())])
    launched = sorted((at_ms, job_id) for job_id, at_ms in runs.items())
    told = Recurrence(step_ms, min(spoken_of), last, launched, list(omitted.values()))
    told.waiting = waiting(told, buffered, (await cluster.get(path))["buffered"])
    return told


def waiting(told: Recurrence, buffered: set[int], count: int) -> list[int]:
    """So many occurrences wait, says the schedule: those with an event of it, of which the oldest
    leave first, then such that nothing else is known of, as missed ones wait without an event."""
    launched = {at_ms for at_ms, _ in told.launched}
    known = sorted(buffered - launched, reverse=True)
    silent = [
        at_ms
        for at_ms in range(told.from_ms, told.until_ms + 1, told.step_ms)
        if at_ms not in launched | buffered
        and not any(each.first_ms <= at_ms <= each.last_ms for each in told.omitted)
    ]
    return [*known, *silent][:count]


async def _pages(cluster: LocalCluster, node: NodeChild, path: str, items: str) -> list[Row]:
    found: list[Row] = []
    cursor = ""
    while True:
        page: dict[str, Any] = await cluster.get(f"{path}{cursor}", node)
        found += page[items]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def _omission(event: Row) -> Omission:
    first_ms = _ms(event["nominal_at"])
    last = event["last_nominal_at"]
    last_ms = _ms(last) if last else first_ms
    return Omission(first_ms, last_ms, event["count"], event["reason"] or "")


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
