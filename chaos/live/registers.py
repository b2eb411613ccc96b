"""Schedules used as registers, and the model that their histories must fit.

A schedule that never fires is a register with four operations: create it (unless it is there),
delete it (if it is there), write its note by pausing it, read it. Every request is sent once, so
that what got no answer is known to be of unknown outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from random import Random

from chaos.linearizable import IMPOSSIBLE, Operation, TooHardError, check, unanswered
from chaos.live.asking import Asker, NotApplied, Unknown

CENTURY_S = 86_400 * 365.0
OPERATIONS_MAX = 120  # then a register retires and is checked: the search grows with its history
UNANSWERED_MAX = 10
THINK_S = (0.0, 0.06)

ABSENT = ("absent",)
Value = tuple[str, ...]


def schedule_model(state: Hashable, one: Operation) -> Hashable:
    """The state is ABSENT or (payload, note)."""
    assert isinstance(one.what, tuple) and isinstance(state, tuple)
    kind, value = one.what
    exists = state != ABSENT
    if kind == "create":
        return _if(one, "done" if not exists else "exists", (value, "") if not exists else state)
    if kind == "delete":
        return _if(one, "done" if exists else "missing", ABSENT)
    if kind == "write":
        return _if(one, "done" if exists else "missing", (state[0], value) if exists else state)
    return _if(one, state, state)


def _if(one: Operation, answer: Hashable, after: Hashable) -> Hashable:
    return after if one.is_open or one.answer == answer else IMPOSSIBLE


@dataclass
class Register:
    key: str
    history: list[Operation] = field(default_factory=list)
    unanswered: int = 0
    under_way: int = 0

    @property
    def is_worn(self) -> bool:
        return len(self.history) >= OPERATIONS_MAX or self.unanswered >= UNANSWERED_MAX


class Registers:
    """Some registers in use at a time, and clients that work on them."""

    def __init__(self, asker: Asker, seed: int, width: int = 3, *, reads: bool) -> None:
        self._asker = asker
        self._seed = seed
        self._made = 0
        self._reads = reads
        self._live = [self._new() for _ in range(width)]
        self._retired: list[Register] = []
        self.faults: list[str] = []
        self.operations = 0
        self.without_answer = 0
        self.checked = 0
        self.too_hard = 0

    def _new(self) -> Register:
        self._made += 1
        return Register(f"r{self._made}")

    async def client(self, name: str, gate: asyncio.Event, stop: asyncio.Event) -> None:
        rng = Random(f"{self._seed}/{name}")
        number = 0
        while not stop.is_set():
            await gate.wait()
            number += 1
            place = rng.randrange(len(self._live))
            if self._live[place].is_worn:
                self._retired.append(self._live[place])
                self._live[place] = self._new()
            register = self._live[place]
            register.under_way += 1
            try:
                await self._operate(register, rng, name, f"{name}.{number}")
            finally:
                register.under_way -= 1
            await asyncio.sleep(rng.uniform(*THINK_S))

    async def _operate(self, register: Register, rng: Random, who: str, value: str) -> None:
        kind = rng.choices(("create", "delete", "write", "read"), (3, 2, 4, 4))[0]
        if kind == "read" and not self._reads:
            kind = "write"
        loop = asyncio.get_running_loop()
        url = rng.choice(self._asker.urls)
        called = loop.time()
        what = (kind, value if kind in ("create", "write") else "")
        self.operations += 1
        try:
            answer = await self._send(url, register.key, kind, value)
        except NotApplied:
            return
        except Unknown:
            if kind != "read":
                self.without_answer += 1
                register.unanswered += 1
                register.history.append(unanswered(called, what, who))
            return
        register.history.append(Operation(called, loop.time(), what, answer, who))

    async def _send(self, url: str, key: str, kind: str, value: str) -> Hashable:
        ask, path = self._asker.ask, f"/v1/schedules/{key}"
        if kind == "create":
            body = {"id": key, "name": "never", "every_seconds": CENTURY_S, "payload": value}
            answer = await ask(url, "POST", "/v1/schedules", body)
            # unknown_schedule: created, and deleted again before its answer was made.
            return {"": "done", "unknown_schedule": "done", "conflict": "exists"}[answer.code]
        if kind == "delete":
            answer = await ask(url, "DELETE", path)
            return {"": "done", "unknown_schedule": "missing"}[answer.code]
        if kind == "write":
            answer = await ask(url, "POST", f"{path}/pause", {"note": value})
            return {"": "done", "unknown_schedule": "missing"}[answer.code]
        answer = await ask(url, "GET", f"{path}?consistency=linearizable")
        if answer.code:
            assert answer.code == "unknown_schedule", answer
            return ABSENT
        return (answer.body["payload"], answer.body["note"] or "")

    def check_retired(self) -> None:
        """Searches what has retired since the last call; what does not fit is in `faults`."""
        retired, self._retired = self._retired, []
        for register in retired:
            if register.under_way:  # its history lacks an operation that may explain others
                self._retired.append(register)
            else:
                self._check(register)

    def check_all(self) -> None:
        """The clients must have ended."""
        self._retired += self._live
        self._live = []
        self.check_retired()

    def _check(self, register: Register) -> None:
        self.checked += 1
        try:
            verdict = check(register.history, ABSENT, schedule_model)
        except TooHardError:
            self.too_hard += 1
            return
        if not verdict.holds:
            self.faults.append(f"register {register.key} is not linearizable: {verdict}")
