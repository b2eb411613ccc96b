"""Views against the obvious way to compute them, and that they hand out nothing alive."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machine_replicas import Script, live
from test_properties import scripts

from cluster.machine import blocks, lifecycle, listing, snapshot, views
from cluster.machine import commands as c
from cluster.machine.apply import apply
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.state import State
from cluster.machine.views import JobFilter

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "100"))

filters = st.builds(
    JobFilter,
    st.sampled_from(["", "", "pending", "running", "failed"]),
    st.sampled_from(["", "", "default", "slow", "nowhere"]),
    st.sampled_from(["", "", "mail", "nothing"]),
    st.sampled_from(["", "", "x", "y"]),
)


def obvious(state: State, wanted: JobFilter, before_id: int, limit: int) -> list[int]:
    found = [
        job_id
        for job_id, job in sorted(state.tables.jobs.items(), reverse=True)
        if (not before_id or job_id < before_id) and wanted.matches(job.state, job.kind.spec)
    ]
    return found[:limit]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    script=scripts,
    wanted=filters,
    before_id=st.integers(0, 60),
    limit=st.integers(1, 8),
    probes=st.integers(1, 12),
    restart=st.booleans(),
)
def test_pages_are_the_newest_jobs_that_match(
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
    wanted: JobFilter,
    before_id: int,
    limit: int,
    probes: int,
    restart: bool,
) -> None:
    monkeypatch.setattr(listing, "PROBES_MAX", probes)
    monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", 1 + probes)
    state, _ = live(script)
    if restart:
        state = snapshot.load(list(snapshot.dump(state)))
    found = [view.id for view in views.jobs(state, wanted, before_id, limit)]
    assert found == obvious(state, wanted, before_id, limit)
    dead = [view.id for view in views.dead_jobs(state, wanted, before_id, limit)]
    assert (
        dead
        == [
            i
            for i, row in sorted(state.tables.dead.items(), reverse=True)
            if (not before_id or i < before_id)
            and wanted.matches(lifecycle.FAILED, row.job.kind.spec)
        ][:limit]
    )


def test_a_view_does_not_change_with_its_job() -> None:
    state = State()
    worker = c.RegisterWorker(WorkerSpec("host", 4, ("*",), ()))
    submit = c.SubmitJobs([c.JobGroup(JobSpec("mail"), [b"{}"])])
    apply(state, c.Batch(1, 1_000, [worker, submit, c.AssignJobs(1, [1])]))
    apply(state, c.Batch(1, 1_000, [c.ReleaseJobs(1, [1], [1]), c.AssignJobs(1, [1])]))
    job, shown = views.job(state, 1), views.worker(state, 1)
    assert job is not None
    assert shown is not None
    apply(state, c.Batch(1, 1_001, [c.ReleaseJobs(1, [1], [2])]))
    assert job.attempts is not None
    assert len(job.attempts) == 1
    assert (job.state, shown.running) == (lifecycle.RUNNING, [1])


def test_statuses_add_up() -> None:
    state = State()
    worker = c.RegisterWorker(WorkerSpec("host", 4, ("*",), ()))
    group = c.JobGroup(JobSpec("mail"), [b""] * 6)
    later = c.JobGroup(JobSpec("mail"), [b""], 9_000)
    apply(state, c.Batch(1, 1_000, [worker, c.SubmitJobs([group, later])]))
    failures = [c.JobFailure(i, 1, "E", "", 0) for i in (3, 4)]
    apply(
        state,
        c.Batch(
            1,
            1_000,
            [
                c.AssignJobs(1, [1, 2, 3, 4]), c.CompleteJobs(1, [2], [1]),
                c.FailJobs(1, failures), c.RetryJobs([3]), c.CancelJobs([5]),
            ],
        ),
    )  # fmt: skip
    assert views.jobs_by_status(state) == {
        "pending": 3, "running": 1, "completed": 1, "failed": 1, "cancelled": 1, "skipped": 0,
    }  # fmt: skip
    assert views.pending_in_queue(state, "default") == 3
    assert views.pending_in_queue(state, "nowhere") == 0


def test_schedules_are_paged_by_id() -> None:
    state = State()
    puts = [c.PutSchedule(name, JobSpec("m"), b"", "", 1, 2_000) for name in ("b", "a", "", "c")]
    apply(state, c.Batch(1, 1_000, list(puts)))
    assert [row.id for row in views.schedules(state, "", 3)] == ["a", "b", "c"]
    assert [row.id for row in views.schedules(state, "b", 3)] == ["c", "s1"]
