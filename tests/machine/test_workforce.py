"""What workers offer together, as they come, change, drain and go."""

from __future__ import annotations

from cluster.machine import commands as c
from cluster.machine import snapshot, views
from cluster.machine.apply import apply
from cluster.machine.invariants import check
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.state import State


def book(state: State, *commands: c.Command) -> None:
    apply(state, c.Batch(1, state.now_ms + 1, list(commands)))
    check(state)


def counts(state: State) -> tuple[int, int]:
    return views.active_workers(state), views.slots(state)


def is_offered(state: State, job_id: int) -> bool:
    view = views.job(state, job_id)
    assert view is not None
    return view.is_offered


def test_counts_follow_workers_through_snapshots() -> None:
    state = State()
    both = WorkerSpec("both", 3, ("default", "mail"), ("send", "work"))
    book(state, c.RegisterWorker(both), c.RegisterWorker(both))
    book(state, c.RegisterWorker(WorkerSpec("any", 5, ("*",), ("send",))))
    assert counts(state) == (3, 11)
    book(state, c.DrainWorker(1), c.DrainWorker(1))
    assert counts(state) == (2, 11)
    book(state, c.UpdateWorker(1, WorkerSpec("both", 4, ("mail",), ("work",))))
    assert counts(state) == (2, 12)
    loaded = snapshot.load(snapshot.dump(state))
    check(loaded)
    book(loaded, c.RemoveWorker(1), c.RemoveWorker(1))
    book(loaded, c.RemoveWorker(2), c.RemoveWorker(3))
    assert counts(loaded) == (0, 0)


def test_a_job_is_offered_while_somebody_who_does_not_drain_serves_it() -> None:
    state = State()
    book(state, c.SubmitJobs([c.JobGroup(JobSpec("send", queue="other"), [b"null"])]))
    assert not is_offered(state, 1)
    book(state, c.RegisterWorker(WorkerSpec("w", 1, ("default",), ("send",))))
    assert not is_offered(state, 1)
    book(state, c.RegisterWorker(WorkerSpec("any", 1, ("*",), ("send", "work"))))
    assert is_offered(state, 1)
    book(state, c.DrainWorker(2))
    assert not is_offered(state, 1)
