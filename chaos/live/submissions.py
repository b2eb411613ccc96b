"""Clients that submit jobs under request keys, and what the cluster owes them afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from chaos.live.asking import Answer, Asker
from chaos.live.processes import LocalCluster, NodeChild

THINK_S = (0.0, 0.08)
PATIENCE_S = 20.0
BATCH_MAX = 8
PADDING = "." * 150  # enough log for snapshots at the smallest limit
ASK_AGAIN = 0.1  # so often a request that was answered is sent once more, to another node


class Submissions:
    """What was acknowledged, and to which job ids."""

    def __init__(self, asker: Asker, seed: int) -> None:
        self._asker = asker
        self._seed = seed
        self.jobs: dict[str, str] = {}  # payload -> job id, once acknowledged
        self.asked: dict[str, None] = {}  # every payload that was ever sent
        self.gave_up = 0
        self.repeated = 0
        self.faults: list[str] = []

    async def client(self, name: str, gate: asyncio.Event, stop: asyncio.Event) -> None:
        rng = Random(f"{self._seed}/{name}")
        number = 0
        while not stop.is_set():
            await gate.wait()
            number += 1
            await self._submit(rng, f"{name}.{number}")
            await asyncio.sleep(rng.uniform(*THINK_S))

    async def _submit(self, rng: Random, key: str) -> None:
        count = 1 if rng.random() < 0.6 else rng.randint(2, BATCH_MAX)
        payloads = [f"{key}/{n}{PADDING}" for n in range(count)]
        self.asked.update(dict.fromkeys(payloads))
        body = [self._job(rng, payload) for payload in payloads]
        path, sent = ("/v1/jobs", body[0]) if count == 1 else ("/v1/jobs/batch", body)
        answer = await self._asker.insist(rng, "POST", path, sent, key, PATIENCE_S)
        if answer is None:
            self.gave_up += 1
            return
        ids = _ids(answer)
        if len(ids) != count or any(job_id is None for job_id in ids):
            self.faults.append(f"submission {key} was answered {answer}")
            return
        self.jobs.update(zip(payloads, ids, strict=True))
        if rng.random() < ASK_AGAIN:
            self.repeated += 1
            again = await self._asker.insist(rng, "POST", path, sent, key, PATIENCE_S)
            if again is not None and _ids(again) != ids:
                self.faults.append(f"submission {key} was {ids}, and then {again}")

    def _job(self, rng: Random, payload: str) -> dict[str, Any]:
        job: dict[str, Any] = {"name": "work", "payload": payload, "max_retries": 20}
        kind = rng.random()
        if kind < 0.15:
            job["delay_seconds"] = round(rng.uniform(0.1, 3.0), 2)
        elif kind < 0.25:
            job |= {"name": "stumble", "retry": {"strategy": "fixed", "base_seconds": 0.1}}
        return job


def _ids(answer: Answer) -> list[str]:
    if answer.code:
        return []
    return answer.body["ids"] if "ids" in answer.body else [answer.body["job_id"]]


async def listed(cluster: LocalCluster, node: NodeChild) -> list[dict[str, Any]]:
    """All jobs that one node knows by itself, newest first."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await cluster.get(f"/v1/jobs?limit=500&consistency=stale{cursor}", node)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def outcome_faults(submissions: Submissions, jobs: list[dict[str, Any]], runs: Runs) -> list[str]:
    """Every acknowledged job exists once and ended once, by a run that truly took place."""
    faults = []
    by_payload: dict[str, dict[str, Any]] = {}
    for job in jobs:
        payload = job["payload"]
        if payload in by_payload:
            faults.append(f"{payload} became job {by_payload[payload]['job_id']} and {job}")
        by_payload[payload] = job
        if payload not in submissions.asked:
            faults.append(f"nobody submitted {job}")
        attempt = job["attempt"]
        if (job["status"], job["output"]) != ("completed", f"{payload} by {attempt}"):
            faults.append(f"it did not end by its own last attempt: {job}")
        elif (job["job_id"], attempt) not in runs.ended:
            faults.append(f"no worker ran what completed it: {job}")
    for payload, job_id in submissions.jobs.items():
        if payload not in by_payload:
            faults.append(f"{payload}, acknowledged as job {job_id}, is lost")
        elif by_payload[payload]["job_id"] != job_id:
            faults.append(f"{payload}, acknowledged as {job_id}, is {by_payload[payload]}")
    return faults


class Runs:
    """What the workers wrote down."""

    def __init__(self, file: Path) -> None:
        self.begun: Counter[tuple[str, int]] = Counter()
        self.ended: Counter[tuple[str, int]] = Counter()
        for line in file.read_text().splitlines() if file.exists() else ():
            event, job_id, attempt, _ = line.split()
            (self.begun if event == "begin" else self.ended)[job_id, int(attempt)] += 1

    def faults(self) -> list[str]:
        """An attempt is one run: its number fences every other."""
        return [
            f"attempt {attempt} of job {job_id} ran {times} times"
            for (job_id, attempt), times in self.begun.items()
            if times > 1
        ]

    @property
    def repeated(self) -> int:
        """Attempts beyond the first that completed work twice over, each under its own number."""
        by_job = Counter(job_id for job_id, _ in self.ended)
        return sum(times - 1 for times in by_job.values())
