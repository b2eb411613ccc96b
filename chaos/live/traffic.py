"""Clients that ask for everything a scheduler does, and write down what they were told."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

from chaos.live.asking import Answer, Asker, NotApplied, Unknown
from chaos.live.judge.history import Cancel, Request

PATIENCE_S = 20.0
BATCH_MAX = 8
PADDING = "." * 150  # enough log for snapshots at the smallest limit
ASK_AGAIN = 0.1  # so often a request that was answered is sent once more, to another node
UNIQUE_KEYS = 4
RETRIES = {"max_retries": 50, "retry": {"strategy": "fixed", "base_seconds": 0.1}}
# What a job asks for beside its name: kind -> share, options.
KINDS: dict[str, tuple[float, dict[str, Any]]] = {
    "work": (0.5, RETRIES),
    "urgent": (0.05, {**RETRIES, "priority": 1}),
    "stumble": (0.1, RETRIES),
    "doomed": (0.05, {"max_retries": 0}),
    "overtime": (0.03, {**RETRIES, "timeout_seconds": 1.0}),
    "linger": (0.12, RETRIES),
    "delayed": (0.15, RETRIES),
}
CANCELLED = 0.5  # of the jobs that linger
SCHEDULES: dict[str, dict[str, Any]] = {
    "cron-all": {"schedule": "* * * * * *", "overlap": "allow_all", "catchup": "all"},
    "every-skip": {"every_seconds": 1.0, "overlap": "skip", "catchup": "one"},
    "cron-none": {"schedule": "*/2 * * * * *", "overlap": "buffer_one", "catchup": "skip"},
}
STEPS_MS = {"cron-all": 1000, "every-skip": 1000, "cron-none": 2000}


class Traffic:
    """What was asked, and what for."""

    def __init__(self, asker: Asker, seed: int, think_s: float) -> None:
        self._asker = asker
        self._seed = seed
        self._think_s = think_s
        self.requests: list[Request] = []
        self.cancels: list[Cancel] = []
        self.counts: Counter[str] = Counter()

    @property
    def acknowledged(self) -> int:
        return self.counts["jobs acknowledged"]

    async def client(self, name: str, stop: asyncio.Event) -> None:
        rng = Random(f"{self._seed}/{name}")
        number = 0
        while not stop.is_set():
            number += 1
            await self._ask(rng, f"{name}.{number}")
            await asyncio.sleep(rng.uniform(0.0, self._think_s))

    async def _ask(self, rng: Random, key: str) -> None:
        if rng.random() < 0.1:
            await self._submit_unique(rng, key)
            return
        count = 1 if rng.random() < 0.6 else rng.randint(2, BATCH_MAX)
        kinds = rng.choices(list(KINDS), [share for share, _ in KINDS.values()], k=count)
        delay_s = round(rng.uniform(0.1, 3.0), 2) if "delayed" in kinds else 0.0
        if delay_s:
            kinds = ["delayed"] * count  # one request, one delay: easier to judge
        body = [self._job(kind, f"{key}/{n}", delay_s) for n, kind in enumerate(kinds)]
        path, sent = ("/v1/jobs", body[0]) if count == 1 else ("/v1/jobs/batch", body)
        payloads = tuple(job["payload"] for job in body)
        ids = await self._submit(
            rng, path, sent, Request(self._now_s(), key, payloads, (), delay_s)
        )
        for kind, job_id in zip(kinds, ids, strict=False):
            if kind == "linger" and rng.random() < CANCELLED:
                await asyncio.sleep(rng.uniform(0.0, 0.5))
                await self._cancel(rng, job_id)

    def _job(self, kind: str, mark: str, delay_s: float) -> dict[str, Any]:
        name = "work" if kind in ("delayed", "urgent") else kind
        job = {"name": name, "payload": f"{mark} {kind} {PADDING}", **KINDS[kind][1]}
        return job | {"delay_seconds": delay_s} if delay_s else job

    async def _submit_unique(self, rng: Random, key: str) -> None:
        unique = f"u{rng.randrange(UNIQUE_KEYS)}"
        job = self._job(rng.choice(("work", "linger")), f"{key}/0", 0.0)
        job |= {"unique_key": unique, "unique_ttl_seconds": 0}
        asked = Request(self._now_s(), key, (job["payload"],), unique_key=unique)
        await self._submit(rng, "/v1/jobs", job, asked)

    async def _submit(self, rng: Random, path: str, sent: object, asked: Request) -> list[str]:
        """Until it is answered; now and then once more after that."""
        answers: list[tuple[str, ...]] = []
        for _ in range(2 if rng.random() < ASK_AGAIN else 1):
            answer = await self._asker.insist(rng, "POST", path, sent, asked.key, PATIENCE_S)
            if answer is None:
                self.counts["submissions given up"] += 1
                break
            answers.append(_ids(answer))
            if len(answers) == 1:
                self.counts["jobs acknowledged"] += len(answers[0])
        self.counts["submissions repeated"] += len(answers) > 1
        self.requests.append(
            Request(
                asked.sent_s, asked.key, asked.payloads, tuple(answers),
                asked.delay_s, asked.unique_key,
            )
        )  # fmt: skip
        return list(answers[0]) if answers else []

    async def _cancel(self, rng: Random, job_id: str) -> None:
        sent_s, outcome = self._now_s(), "unknown"
        try:
            url = rng.choice(self._asker.urls)
            answer = await self._asker.ask(url, "POST", f"/v1/jobs/{job_id}/cancel", {})
            outcome = "refused" if answer.code else "done"
        except NotApplied:
            outcome = "refused"
        except Unknown:
            pass
        self.counts[f"cancels {outcome}"] += 1
        self.cancels.append(Cancel(sent_s, job_id, outcome))

    async def make_schedules(self) -> None:
        rng = Random(f"{self._seed}/schedules")
        for schedule_id, plan in SCHEDULES.items():
            body = {"id": schedule_id, "name": "work", "max_retries": 50, **plan}
            answer = await self._asker.insist(
                rng, "POST", "/v1/schedules", body, schedule_id, PATIENCE_S
            )
            assert answer is not None and not answer.code, answer

    async def pause_schedules(self) -> None:
        """So that what is still to come is not owed."""
        rng = Random(f"{self._seed}/pauses")
        for schedule_id in SCHEDULES:
            path = f"/v1/schedules/{schedule_id}/pause"
            answer = await self._asker.insist(
                rng, "POST", path, {"note": "the run is over"}, f"pause {schedule_id}", PATIENCE_S
            )
            assert answer is not None and not answer.code, answer

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _ids(answer: Answer) -> tuple[str, ...]:
    """What the answer names; a refusal names nothing, which the judge will not like."""
    if answer.code:
        return ()
    return tuple(answer.body["ids"] if "ids" in answer.body else [answer.body["job_id"]])
