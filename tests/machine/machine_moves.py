"""Random but mostly sensible commands: a move is five small integers, so that it shrinks well.

What the integers mean is decided against the state: an id is picked among those that exist, an
attempt is usually the right one. Every sixth pick is nonsense on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from machine_schedule_moves import SCHEDULE_KINDS
from machine_values import (
    NAMES,
    NUMBER_MAX,
    QUEUES,
    TIMEOUTS_MS,
    Move,
    later,
    pick,
    spec_of,
)

from cluster.machine import commands as c
from cluster.machine import levels
from cluster.machine.model import WorkerSpec
from cluster.machine.state import State

BASE_MS = 1_000
KEYS = ("", "a", "b", "c")


def _group(state: State, m: Move) -> c.JobGroup:
    payloads = [b"%d" % n for n in range(m.a if m.a > 9 else m.a % 4)]  # or enough for a block
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


def _shares(ids: Sequence[int], choice: int) -> list[int]:
    """How many of them are the first of two workers', and how many the other's."""
    first = choice % (len(ids) + 1)
    return [first, len(ids) - first]


def _assign_many(state: State, m: Move) -> c.Command:
    ready = _ready(state)
    ids = [pick(ready, m.b + n) for n in range(m.c % 7)]
    return c.AssignMany([_worker(state, m.a), _worker(state, m.d)], _shares(ids, m.a), ids)


def _complete_many(state: State, m: Move) -> c.Command:
    """Mostly each by the worker that holds it."""
    _, ids, attempts = _attempts(state, m)
    held = [state.tables.jobs.get(job_id) for job_id in ids]
    workers = [job.worker_id if job is not None and m.a else m.b for job in held]
    outputs: list[bytes | None] | None = [b"done"] * len(ids) if m.d % 2 else None
    return c.CompleteMany(workers, [1] * len(ids), ids, attempts, outputs)


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


def pass_time(state: State, m: Move) -> c.Command | None:
    """Sometimes the cluster learns of its last node that it is upgraded."""
    return c.RaiseLevel(levels.HIGHEST_LEVEL - m.b % 2) if m.a == NUMBER_MAX else None


Maker = Callable[[State, Move], c.Command | None]
KINDS: tuple[Maker, ...] = (
    _submit, _submit, _submit, _assign, _assign, _assign, _complete, _fail, _fail, _release,
    _cancel, _retry, _retry, _purge,
    _register, _update, _drain, _remove, pass_time, pass_time, *SCHEDULE_KINDS,
    _assign_many, _assign_many, _complete_many,
)  # fmt: skip
STEPS_MS = (0, 0, 0, 1, 7, 100, 499, 1_000, 5_500, -50, 70_000, 86_400_000)


def now_after(state: State, choice: int) -> int:
    """The next leader clock: mostly the same, sometimes far ahead or behind."""
    return max(max(state.now_ms, BASE_MS) + STEPS_MS[choice], 0)


def _commands_of(state: State, m: Move) -> Iterator[c.Command]:
    """What a move is read as; every other submission is followed by an assignment of its jobs."""
    command = KINDS[m.kind % len(KINDS)](state, m)
    if command is not None:
        yield command
    if isinstance(command, c.SubmitJobs) and m.c % 2:
        yield c.AssignNew(_worker(state, m.d), m.b % 5)


def batch_of(state: State, step: int, moves: Sequence[Move]) -> c.Batch:
    """One batch; all its moves are read against the state before it."""
    return c.Batch(
        1 + step % 2 if step > 9 else 1,
        now_after(state, step),
        [command for m in moves for command in _commands_of(state, m)],
    )
