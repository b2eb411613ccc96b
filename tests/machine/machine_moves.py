"""Random but mostly sensible commands: a move is five small integers, so that it shrinks well.

What the integers mean is decided against the state: an id is picked among those that exist, an
attempt is usually the right one. Every sixth pick is nonsense on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cluster.machine import commands as c
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.state import State

BASE_MS = 1_000
NONSENSE = (0, -1, 7_777, 1 << 63)
NAMES = ("mail", "report")
QUEUES = ("default", "slow")
KEYS = ("", "a", "b", "c")
TIMEOUTS_MS = (0, 500, 3_600_000)


class Move(NamedTuple):
    """`kind` indexes KINDS; the rest is interpreted by it."""

    kind: int
    a: int
    b: int
    c: int
    d: int


NUMBER_MAX = 11  # every field of a move is 0..11


def pick(ids: Sequence[int], choice: int) -> int:
    """One of `ids`, or now and then something that cannot be."""
    if choice == NUMBER_MAX or not ids:
        return NONSENSE[choice % len(NONSENSE)]
    return ids[choice % len(ids)]


def spec_of(choice: int) -> JobSpec:
    return JobSpec(
        NAMES[choice % 2],
        QUEUES[choice // 2 % 2],
        1 + choice % 3,
        choice % 3,
        timeout_ms=TIMEOUTS_MS[choice % 3],
        tags=("x",) if choice % 5 == 0 else (),
    )


def later(state: State, choice: int) -> int:
    """0, the past, now, or up to a few seconds ahead."""
    return (
        (0, max(state.now_ms - 7, 0), state.now_ms)[choice]
        if choice < 3
        else (state.now_ms + (choice - 2) ** 4)
    )


def _group(state: State, m: Move) -> c.JobGroup:
    payloads = [b"%d" % n for n in range(m.a % 4)]
    keys = [KEYS[(m.b + n) % 4] for n in range(len(payloads))] if m.b % 3 == 0 else None
    return c.JobGroup(
        spec_of(m.c),
        payloads,
        later(state, m.d),
        later(state, m.a) if m.c % 4 == 3 else 0,
        later(state, m.b) if m.d % 4 == 3 else 0,
        keys,
        m.c % 3,
        (0, 0, 900, 2_500)[m.d % 4],
    )


def _submit(state: State, m: Move) -> c.Command:
    groups = [_group(state, m)]
    if m.a % 3 == 2:
        groups.append(_group(state, Move(m.kind, m.b, m.a, m.d, m.c)))
    key = ("", "", "", "k1", "k2")[m.b % 5]
    return c.SubmitJobs(groups, key, m.c % 2, (0, 700, 2_000)[m.d % 3])


def _running(state: State) -> list[int]:
    return [i for w in state.tables.workers.values() for i in w.running]


def _ready(state: State) -> list[int]:
    return [j.id for j in state.tables.jobs.values() if j.state == 1]


def _worker(state: State, choice: int) -> int:
    return pick(list(state.tables.workers), choice)


def _assign(state: State, m: Move) -> c.Command:
    ready = _ready(state)
    ids = [pick(ready, m.b + n) for n in range(1 + m.c % 3)]
    return c.AssignJobs(_worker(state, m.a), ids)


def _attempts(state: State, m: Move) -> tuple[int, list[int], list[int]]:
    """Who speaks, about which jobs, as which attempts; 0 speaks for everybody."""
    running = _running(state)
    ids = [pick(running, m.b + n) for n in range(1 + m.c % 2)]
    attempts = []
    for job_id in ids:
        job = state.tables.jobs.get(job_id)
        attempts.append((job.attempt if job is not None else 1) + (1 if m.d == 5 else 0))
    holder = state.tables.jobs.get(ids[0])
    by = holder.worker_id if holder is not None and m.a > 2 else m.a
    return by, ids, attempts


def _complete(state: State, m: Move) -> c.Command:
    by, ids, attempts = _attempts(state, m)
    outputs: list[bytes | None] | None = [b"done"] * len(ids) if m.d % 2 else None
    return c.CompleteJobs(by, ids, attempts, outputs)


def _fail(state: State, m: Move) -> c.Command:
    by, ids, attempts = _attempts(state, m)
    return c.FailJobs(
        by,
        [
            c.JobFailure(i, a, "boom", "it broke", later(state, m.d), "log" * (m.c % 2))
            for i, a in zip(ids, attempts, strict=True)
        ],
    )


def _release(state: State, m: Move) -> c.Command:
    return c.ReleaseJobs(*_attempts(state, m))


def _cancel(state: State, m: Move) -> c.Command:
    return c.CancelJobs([pick(list(state.tables.jobs), m.a)] * (1 + m.b % 2), "enough")


def _retry(state: State, m: Move) -> c.Command:
    changes = c.JobChanges()
    if m.c % 3 == 0:
        changes = c.JobChanges(b"new", QUEUES[m.c % 2], 1 + m.d % 10, m.a % 3, TIMEOUTS_MS[m.b % 3])
    ids = [pick(list(state.tables.dead), m.a), pick(list(state.tables.jobs), m.b)][: 1 + m.b % 2]
    return c.RetryJobs(ids, later(state, m.d), changes)


def _purge(state: State, m: Move) -> c.Command:
    return c.PurgeDead([pick(list(state.tables.dead), m.a)])


def _schedule_id(state: State, choice: int) -> str:
    known = list(state.tables.schedules)
    return known[choice % len(known)] if known and choice < NUMBER_MAX else "nobody"


def _put(state: State, m: Move) -> c.Command:
    name = ("", "", "nightly", "s1")[m.a % 4]
    bounds = (0, 300)[m.b % 2], (0, 900)[m.c % 2]
    return c.PutSchedule(
        name, spec_of(m.b), b"{}", "* * * * *", 0, later(state, m.d), m.c % 2 == 0, *bounds
    )


def _pause(state: State, m: Move) -> c.Command:
    return c.PauseSchedule(_schedule_id(state, m.a), "note")


def _resume(state: State, m: Move) -> c.Command:
    return c.ResumeSchedule(_schedule_id(state, m.a), later(state, m.d))


def _fire(state: State, m: Move) -> c.Command:
    schedule_id = _schedule_id(state, m.a)
    row = state.tables.schedules.get(schedule_id)
    expected = row.next_fire_ms if row is not None and m.b < 9 else m.b
    return c.FireSchedule(schedule_id, expected, later(state, m.d), m.c % 3)


def _trigger(state: State, m: Move) -> c.Command:
    return c.TriggerSchedule(_schedule_id(state, m.a))


def _delete(state: State, m: Move) -> c.Command:
    return c.DeleteSchedule(_schedule_id(state, m.a))


def _worker_spec(choice: int) -> WorkerSpec:
    return WorkerSpec(f"host-{choice}", choice, QUEUES, NAMES, {"zone": str(choice)})


def _register(state: State, m: Move) -> c.Command:
    return c.RegisterWorker(_worker_spec(m.a))


def _update(state: State, m: Move) -> c.Command:
    return c.UpdateWorker(_worker(state, m.a), _worker_spec(m.b))


def _drain(state: State, m: Move) -> c.Command:
    return c.DrainWorker(_worker(state, m.a))


def _remove(state: State, m: Move) -> c.Command:
    return c.RemoveWorker(_worker(state, m.a), m.b % 2 == 0, "gone")


def _pass_time(state: State, m: Move) -> None:
    return None


Maker = Callable[[State, Move], c.Command | None]
KINDS: tuple[Maker, ...] = (
    _submit, _submit, _submit, _assign, _assign, _assign, _complete, _fail, _fail, _release,
    _cancel, _retry, _retry, _purge, _put, _pause, _resume, _fire, _fire, _trigger, _delete,
    _register, _update, _drain, _remove, _pass_time, _pass_time,
)  # fmt: skip
STEPS_MS = (0, 0, 0, 1, 7, 100, 499, 1_000, 5_500, -50, 70_000, 86_400_000)


def now_after(state: State, choice: int) -> int:
    """The next leader clock: mostly the same, sometimes far ahead or behind."""
    return max(max(state.now_ms, BASE_MS) + STEPS_MS[choice], 0)


def batch_of(state: State, step: int, moves: Sequence[Move]) -> c.Batch:
    """One batch; all its moves are read against the state before it."""
    made = (KINDS[m.kind % len(KINDS)](state, m) for m in moves)
    return c.Batch(
        1 + step % 2 if step > 9 else 1,
        now_after(state, step),
        [command for command in made if command is not None],
    )
