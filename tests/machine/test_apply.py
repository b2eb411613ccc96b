"""`apply` is total, and its edges: bugs, lack of memory, leaks, rows that outlive their job."""

from __future__ import annotations

import pytest
from machine_replicas import dump

from cluster.machine import commands as c
from cluster.machine import invariants, lifecycle, registry
from cluster.machine.apply import Strictness, apply
from cluster.machine.effects import Effects, ready_rows
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.results import Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import QUEUES_IDLE_MAX, Job
from cluster.plan import TIME_MS_MAX

WORKER = c.RegisterWorker(WorkerSpec("host", 4, ("*",), ()))
MAIL = JobSpec("mail")


def tell(state: State, *commands: c.Command, now_ms: int = 1_000) -> tuple[list[Result], Effects]:
    answer = apply(state, c.decode_batch(c.encode_batch(c.Batch(1, now_ms, list(commands)))))
    invariants.check(state)
    return answer


def submit(count: int = 1, spec: JobSpec = MAIL, at_ms: int = 0) -> c.SubmitJobs:
    return c.SubmitJobs([c.JobGroup(spec, [b"{}"] * count, at_ms)])


def raising(error: type[BaseException]) -> registry.Reducer:
    def reducer(state: State, command: object, effects: Effects) -> Result:
        raise error("broken")

    return reducer


def test_a_bug_is_counted_and_hurts_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Strictness, "raise_bugs", False)
    monkeypatch.setitem(registry.REDUCERS, c.TriggerSchedule, raising(KeyError))
    state = State()
    results, effects = tell(state, submit(), c.TriggerSchedule("s1"), submit())
    assert results[1] is Rejected.INTERNAL
    assert [job.id for job in effects.jobs_ready] == [1, 2]
    assert state.totals.rejected_internal == 1


def test_a_bug_in_a_timer_is_counted_and_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State()
    tell(state, submit(at_ms=5_000))
    monkeypatch.setattr(Strictness, "raise_bugs", False)
    monkeypatch.setattr("cluster.machine.apply.fire", raising_fire)
    _, effects = apply(state, c.Batch(1, 6_000, [submit()]))
    assert [job.id for job in effects.jobs_ready] == [2]
    assert state.totals.rejected_internal == 1


def raising_fire(*_: object) -> None:
    raise KeyError("broken")


@pytest.mark.parametrize("strict", [False, True])
def test_lack_of_memory_is_no_answer(monkeypatch: pytest.MonkeyPatch, strict: bool) -> None:
    """The other replicas have enough, so going on would make this one differ."""
    monkeypatch.setattr(Strictness, "raise_bugs", strict)
    monkeypatch.setitem(registry.REDUCERS, c.TriggerSchedule, raising(MemoryError))
    with pytest.raises(MemoryError):
        apply(State(), c.Batch(1, 1_000, [c.TriggerSchedule("s1")]))


def test_a_row_that_left_the_ready_queue_never_comes_back_to_life() -> None:
    """A ready queue may hold a stale row for long; a job in it twice would be assigned twice."""
    state = State()
    _, effects = tell(state, WORKER, submit(3))
    seen: list[Job] = list(ready_rows(effects))
    for attempt in range(1, 5):
        now_ms = 1_000 * attempt
        failed = c.FailJobs(0, [c.JobFailure(1, attempt, "E", "", now_ms)])
        lost = c.RemoveWorker(attempt, True)
        assigned = c.AssignJobs(attempt, [1, 2, 3])
        told = tell(state, assigned, failed, c.ReleaseJobs(0, [2], [attempt]), lost, WORKER,
                    now_ms=now_ms)  # fmt: skip
        ready = list(ready_rows(told[1]))
        assert sorted(job.id for job in ready) == ([1, 2, 3] if attempt < 4 else [1, 2])
        assert not {id(job) for job in seen} & {id(job) for job in ready}
        assert all(job.state != lifecycle.READY for job in seen)
        seen += ready
        if attempt == 3:
            assert state.tables.jobs[1].failures == 3


def test_a_dead_row_stays_as_it_died() -> None:
    state = State()
    tell(state, WORKER, submit())
    failure = c.JobFailure(1, 1, "E", "m", 0, "log")
    _, effects = tell(
        state, c.AssignJobs(1, [1]), c.FailJobs(1, [failure]),
        c.RetryJobs([1], 0, c.JobChanges(b"new", "other")),
        c.AssignJobs(1, [1]), c.ReleaseJobs(1, [1], [2]),
    )  # fmt: skip
    row = effects.jobs_finished[0].job
    assert (row.state, row.payload, row.attempt) == (lifecycle.FAILED, b"{}", 1)
    assert row.kind.spec == MAIL
    assert row.extra is not None
    assert row.extra.attempts is not None
    assert [a.outcome for a in row.extra.attempts] == ["failed"]


def test_names_made_up_per_job_do_not_pile_up() -> None:
    state = State()
    names = QUEUES_IDLE_MAX + 500
    for n in range(names):
        tell_quietly(state, submit(spec=JobSpec(f"task{n}", f"queue{n}")))
    assert len(state.tables.queues) == names
    for n in range(names):
        tell_quietly(state, c.CancelJobs([n + 1]))
    invariants.check(state)
    assert not state.tables.specs
    assert len(state.tables.queues) == QUEUES_IDLE_MAX
    # A queue that was forgotten counts anew.
    tell(state, submit(2, JobSpec("task", "queue0")))
    assert state.tables.queues["queue0"].ready == 2


def tell_quietly(state: State, command: c.Command) -> None:
    apply(state, c.Batch(1, 1_000, [command]))


def test_a_storm_of_everything_leaves_nothing_behind() -> None:
    state = State()
    tell(state, WORKER)
    group = c.JobGroup(MAIL, [b"{}"] * 50, 2_000, 90_000, 95_000, [f"k{n}" for n in range(50)])
    tell(state, c.SubmitJobs([group], "request", 1, 5_000), submit(50, at_ms=2_000))
    tell(state, now_ms=2_000)
    tell(state, c.AssignJobs(1, list(range(1, 101))), now_ms=2_001)
    tell(state, c.CompleteJobs(1, list(range(1, 81)), [1] * 80), now_ms=2_002)
    tell(state, c.RemoveWorker(1, True), now_ms=2_003)
    tell(state, c.CancelJobs(list(range(81, 101))), now_ms=2_004)
    tell(state, now_ms=9_000)
    tables = state.tables
    assert len(state.timers.wheel) == 0
    assert not (tables.jobs or tables.specs or tables.requests or tables.uniques or tables.workers)


def test_the_largest_numbers_are_booked_and_dumped() -> None:
    big = TIME_MS_MAX
    spec = JobSpec("mail", timeout_ms=big)
    state = State()
    group = c.JobGroup(spec, [b""], 0, big, big, ["k"], 0, big)
    put = c.PutSchedule("s", spec, b"", "", big, big, False, big, big)
    tell(state, WORKER, c.SubmitJobs([group], "r", (1 << 64) - 1, big), put, now_ms=big - 1)
    tell(state, c.AssignJobs(1, [1]), c.TriggerSchedule("s"), now_ms=big - 1)
    tell(state, c.FireSchedule("s", big, 0), c.CompleteJobs(0, [1], [1]), now_ms=big)
    assert dump(state)
    assert state.totals.completed == 1


def test_an_older_leader_cannot_turn_time_back() -> None:
    state = State()
    tell(state, submit(at_ms=5_000), now_ms=4_000)
    tell(state, now_ms=3_000)
    assert state.now_ms == 4_000
    _, effects = tell(state, now_ms=5_000)
    assert [job.id for job in effects.jobs_ready] == [1]
