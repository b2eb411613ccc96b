"""Which jobs of an assignment fit into columns, and that both forms say the same."""

from cluster.actors.assigned import LIKE_MIN, Assigned
from cluster.actors.services import Assignment, LikeJobs
from cluster.machine import lifecycle
from cluster.machine.model import JobSpec
from cluster.machine.tables import Job, JobExtra, QueueRow, SpecRow


def kind(name: str, **options: int) -> SpecRow:
    return SpecRow(
        JobSpec(name, **{"timeout_ms": 0, **options}), QueueRow("default"), ("default", name)
    )


def job(number: int, kind: SpecRow, *, failures: int = 0, deadline_ms: int = 0) -> Job:
    row = Job(number, kind, b"%d" % number, lifecycle.RUNNING, 0, 0, failures + 1, failures)
    row.started_ms = 1_000
    row.extra = JobExtra(deadline_ms=deadline_ms) if deadline_ms else None
    return row


def as_rows(like: LikeJobs) -> list[Assignment]:
    failures = like.failures or [0] * len(like.job_ids)
    return [
        Assignment(i, attempt, like.name, like.queue, p, like.timeout_ms, 0, f, like.max_retries)
        for i, attempt, p, f in zip(
            like.job_ids, like.attempts, like.payloads, failures, strict=True
        )
    ]


def test_jobs_of_one_kind_are_one_group() -> None:
    work = kind("work", timeout_ms=500, max_retries=2)
    assigned = Assigned([job(n, work) for n in range(LIKE_MIN)])
    (like,), rest = assigned.columns()
    assert rest == []
    assert like.failures is None
    assert as_rows(like) == assigned.rows()


def test_jobs_that_failed_before_say_how_often() -> None:
    work = kind("work")
    assigned = Assigned([job(n, work, failures=n % 3) for n in range(LIKE_MIN)])
    (like,), _ = assigned.columns()
    assert like.failures == [0, 1, 2, 0]
    assert like.attempts == [1, 2, 3, 1]
    assert as_rows(like) == assigned.rows()


def test_deadlines_and_rare_kinds_are_told_in_rows() -> None:
    work, other, rare = kind("work"), kind("other"), kind("rare")
    jobs = []
    for n in range(0, 10 * LIKE_MIN, 10):
        jobs += [job(n, work), job(n + 1, other), job(n + 2, work, deadline_ms=1_500)]
    jobs.insert(3, job(5, rare))
    like, rest = Assigned(jobs).columns()
    assert sorted(group.name for group in like) == ["other", "work"]
    assert [len(group.job_ids) for group in like] == [LIKE_MIN] * 2
    assert [row.job_id for row in rest] == [2, 12, 22, 32, 5]
    assert {row.timeout_ms for row in rest} == {500, 0}
    everything = [row for group in like for row in as_rows(group)] + rest
    rows = Assigned(jobs).rows()
    assert sorted(everything, key=lambda r: r.job_id) == sorted(rows, key=lambda r: r.job_id)


def test_nothing_assigned_is_nothing_told() -> None:
    assert Assigned([]).columns() == ([], [])
