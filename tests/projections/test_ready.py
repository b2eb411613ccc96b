"""Ready queues against a sorted list, fed by a real machine whose leader may lose track."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.machine import blocks, lifecycle
from cluster.machine import commands as c
from cluster.machine.apply import apply
from cluster.machine.effects import Effects
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.results import Settled
from cluster.machine.state import State
from cluster.machine.tables import Job
from cluster.projections.ready import Entry, Lane, ReadyQueues

NAMES = ("mail", "report")
QUEUES = ("default", "slow")
EVERYTHING = (QUEUES, NAMES)


class Node:
    """A machine with its projection, and a worker."""

    def __init__(self) -> None:
        self.state, self.ready, self.now_ms = State(), ReadyQueues(), 1_000
        self.tell(c.RegisterWorker(WorkerSpec("host", 4, QUEUES, NAMES)))

    def tell(self, *commands: c.Command, after_ms: int = 0) -> Effects:
        self.now_ms += after_ms
        results, effects = apply(self.state, c.Batch(1, self.now_ms, list(commands)))
        self.last_results = results
        self.ready.feed(effects)
        return effects

    def submit(
        self, count: int = 1, name: str = "mail", queue: str = "default", priority: int = 5,
        at_ms: int = 0,
    ) -> None:  # fmt: skip
        spec = JobSpec(name, queue, priority)
        self.tell(c.SubmitJobs([c.JobGroup(spec, [b""] * count, at_ms)]))

    def lanes(self) -> list[Lane]:
        return self.ready.lanes_of(*EVERYTHING)

    def take(self, count: int = 1_000) -> list[Job]:
        return self.ready.take(self.lanes(), count)

    def take_ids(self, count: int = 1_000) -> list[int]:
        return [job.id for job in self.take(count)]

    def assign(self, jobs: list[Job], worker_id: int = 1) -> None:
        self.tell(c.AssignJobs(worker_id, [job.id for job in jobs]))

    def ready_ids(self) -> set[int]:
        return {j.id for j in self.state.tables.jobs.values() if j.state == lifecycle.READY}

    def running(self) -> list[Job]:
        return [j for j in self.state.tables.jobs.values() if j.state == lifecycle.RUNNING]


@pytest.fixture(params=[blocks.BLOCK_JOBS_MIN, 2], ids=["as it is", "smaller blocks"])
def node(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", request.param)
    return Node()


def key(job: Job) -> tuple[int, int]:
    return job.kind.spec.priority, job.run_at_ms


def test_priority_comes_first_then_the_due_time_then_the_id_over_all_lanes(node: Node) -> None:
    node.submit(2, "mail", "default", 5)  # 1 2
    node.submit(1, "report", "slow", 1)  # 3
    node.submit(1, "mail", "slow", 5)  # 4
    node.submit(1, "mail", "default", 5, at_ms=2_000)  # 5
    node.submit(1, "report", "default", 5, at_ms=1_500)  # 6
    node.submit(1, "mail", "default", 1, at_ms=2_000)  # 7
    node.tell(after_ms=1_000)
    node.submit(1, "mail", "default", 10)  # 8
    assert node.take_ids() == [3, 7, 1, 2, 4, 6, 5, 8]
    assert node.take_ids() == []


def test_a_late_job_goes_before_one_that_came_due_after_it(node: Node) -> None:
    node.submit(1, at_ms=5_000)  # 1
    node.submit(1, at_ms=3_000)  # 2
    node.submit(1, "report", at_ms=4_000)  # 3
    node.tell(after_ms=9_000)
    node.submit(1, "report")  # 4
    assert node.take_ids() == [2, 3, 1, 4]


def test_a_run_of_one_lane_stops_where_another_lane_comes_first(node: Node) -> None:
    for _ in range(4):
        node.submit(2, "mail")
        node.submit(2, "report")
    assert node.take_ids(5) == [1, 2, 3, 4, 5]
    assert node.take_ids() == list(range(6, 17))


def test_only_offered_lanes_are_served(node: Node) -> None:
    node.submit(1, "mail", "default")
    node.submit(1, "mail", "slow")
    node.submit(1, "report", "slow")

    def served(queues: list[str], tasks: list[str]) -> list[tuple[str, str]]:
        return [(lane.queue, lane.name) for lane in node.ready.lanes_of(queues, tasks)]

    assert served(["slow"], ["mail"]) == [("slow", "mail")]
    assert served(["*"], ["mail"]) == [("default", "mail"), ("slow", "mail")]
    assert served(["default"], ["report"]) == []
    assert served([], ["mail"]) == served(["*"], []) == []


def test_the_version_tells_of_new_lanes(node: Node) -> None:
    node.submit(1, "mail")
    version = node.ready.version
    node.submit(5, "mail", priority=1)
    assert node.ready.version == version
    node.submit(1, "report")
    assert node.ready.version > version
    version = node.ready.version
    node.ready.rebuild(node.state)
    assert node.ready.version > version  # lanes kept from before lead nowhere now


def test_what_was_cancelled_or_assigned_elsewhere_is_passed_over(node: Node) -> None:
    node.submit(6)
    node.tell(c.CancelJobs([1, 3]))
    node.tell(c.AssignJobs(1, [4]))
    assert node.take_ids(2) == [2, 5]
    node.tell(c.CancelJobs([6]))
    assert node.take_ids() == []


def test_what_could_not_be_assigned_goes_to_the_front_in_order(node: Node) -> None:
    node.submit(3, "mail")
    node.submit(2, "report")
    node.submit(2, "mail", priority=1)
    taken = node.take(5)
    node.tell(c.CancelJobs([2]))
    node.ready.give_back(taken)
    assert [job.id for job in taken] == [6, 7, 1, 2, 3]
    assert node.take_ids() == [6, 7, 1, 3, 4, 5]


def test_a_follower_holds_no_row_that_the_leader_assigned(node: Node) -> None:
    """It takes nothing itself, and rows hold payloads."""
    node.submit(50, "mail", priority=1)
    node.submit(50, "report", "slow")
    jobs = list(node.state.tables.jobs.values())
    for mail, report in zip(jobs[:50], jobs[50:], strict=True):
        node.assign([mail, report])
    assert node.ready.waiting(node.lanes()) == 0


def test_a_lane_that_nobody_serves_holds_no_cancelled_rows(node: Node) -> None:
    for _ in range(20):
        node.submit(5)
        node.tell(c.CancelJobs(sorted(node.ready_ids())))
    assert node.ready.waiting(node.lanes()) == 0


def test_cancelled_rows_behind_a_waiting_head_are_not_kept(node: Node) -> None:
    node.submit(1)
    for _ in range(5):
        node.submit(1_000)
        node.tell(c.CancelJobs(sorted(node.ready_ids())[1:]))
    assert node.ready.waiting(node.lanes()) < 3_000
    assert node.take_ids() == [1]


def test_lanes_that_are_empty_go_when_there_are_many(node: Node) -> None:
    for number in range(1_500):
        node.submit(1, name=f"once-{number}")
        node.tell(c.CancelJobs(sorted(node.ready_ids())))
    names = [f"once-{number}" for number in range(1_500)]
    assert len(node.ready.lanes_of(QUEUES, names)) < 1_000
    node.submit(1, name="once-0")
    assert [job.id for job in node.ready.take(node.ready.lanes_of(QUEUES, names), 10)] == [1_501]


def test_an_entry_never_comes_back_to_life(node: Node) -> None:
    """A follower may hold a job behind another one while the leader assigns it and it returns: as a
    leader, it must not find it twice, or it would assign it twice."""
    node.submit(2)
    for attempt in range(1, 4):
        node.tell(c.AssignJobs(1, [2]))
        node.tell(c.ReleaseJobs(1, [2], [attempt]), after_ms=1)
    node.tell(c.AssignJobs(1, [2]))
    node.tell(c.FailJobs(1, [c.JobFailure(2, 4, "E", "", 1)]), after_ms=1)
    assert node.take_ids() == [1, 2]


def test_an_expired_job_that_was_replayed_is_there_once(node: Node) -> None:
    node.submit(1)
    expiring = c.JobGroup(JobSpec("mail"), [b""], 0, 2_000)
    node.tell(c.SubmitJobs([expiring]))
    node.tell(after_ms=1_000)
    node.tell(c.RetryJobs([2]))
    assert node.take_ids() == [1, 2]


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit", "submit", "later", "take", "take", "refuse", "release", "fail", "complete",
             "cancel", "lost", "time", "replay", "follow"]
        ),
        st.integers(0, 7),
        st.integers(0, 7),
    ),
    max_size=40,
)  # fmt: skip


@pytest.mark.parametrize("block_jobs_min", [blocks.BLOCK_JOBS_MIN, 2])
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(script=steps)
def test_leader_and_follower_agree_with_the_state(
    monkeypatch: pytest.MonkeyPatch, block_jobs_min: int, script: list[tuple[str, int, int]]
) -> None:
    """The leader takes and gives back, a follower only listens; both know every ready job once."""
    monkeypatch.setattr(blocks, "BLOCK_JOBS_MIN", block_jobs_min)
    leader = Node()
    follower = ReadyQueues()
    for kind, a, b in script:
        effects = play(leader, kind, a, b)
        for each in effects:
            follower.feed(each)
        if kind == "follow":
            follower = ReadyQueues()
            follower.rebuild(leader.state)
        assert taken_apart(follower) == sorted(leader.ready_ids())
        assert taken_apart(leader.ready) == sorted(leader.ready_ids())
    in_order = leader.take()
    assert [key(job) for job in in_order] == sorted(key(job) for job in in_order)
    rebuilt = ReadyQueues()
    rebuilt.rebuild(leader.state)
    for other in (follower, rebuilt):
        found = other.take(other.lanes_of(*EVERYTHING), 1_000)
        # Jobs of the same millisecond may stand in either order: as they came, or by id.
        assert [key(job) for job in found] == [key(job) for job in in_order]
        assert {job.id for job in found} == {job.id for job in in_order}


def taken_apart(ready: ReadyQueues) -> list[int]:
    """Ids of all entries that are not stale, without changing anything."""
    return sorted(
        job_id
        for lane in ready.lanes_of(*EVERYTHING)
        for _, entries in lane.levels
        for entry in entries
        for job_id in ids_of(entry)
    )


def ids_of(entry: Entry) -> list[int]:
    if isinstance(entry, Job):
        return [entry.id] * (entry.state == lifecycle.READY)
    return [job_id for job_id in entry.block.ids() if job_id >= entry.at]


def play(node: Node, kind: str, a: int, b: int) -> list[Effects]:  # noqa: PLR0912 - one per step
    """One step on the leader; the effects that a follower sees."""
    told: list[Effects] = []

    def tell(*commands: c.Command, after_ms: int = 0) -> None:
        told.append(node.tell(*commands, after_ms=after_ms))

    running = node.running()
    job = running[a % len(running)] if running else None
    spec = JobSpec(NAMES[a % 2], QUEUES[b % 2], 1 + a % 3, max_retries=1)
    match kind:
        case "submit":
            tell(c.SubmitJobs([c.JobGroup(spec, [b""] * (1 + b % 3))]))
        case "later":
            expires_ms = node.now_ms + 9 if a % 4 == 0 else 0
            tell(c.SubmitJobs([c.JobGroup(spec, [b""] * 2, node.now_ms + b, expires_ms)]))
        case "take":
            lanes = node.ready.lanes_of([QUEUES[b % 2]] if a % 2 else ["*"], NAMES)
            jobs = node.ready.take(lanes, 1 + b)
            assert len({job.id for job in jobs}) == len(jobs)
            tell(c.AssignJobs(1, [job.id for job in jobs]))
            if jobs:
                assert node.last_results == [Settled([])]
        case "refuse":
            jobs = node.take(1 + b)
            tell(c.AssignJobs(99, [job.id for job in jobs]))
            if a % 2:
                tell(c.CancelJobs([job.id for job in jobs[:1]]))
            node.ready.give_back(jobs)
        case "release" if job is not None:
            tell(c.ReleaseJobs(1, [job.id], [job.attempt]))
        case "fail" if job is not None:
            retry_at_ms = (0, 1, node.now_ms + b)[b % 3]
            tell(c.FailJobs(1, [c.JobFailure(job.id, job.attempt, "E", "", retry_at_ms)]))
        case "complete" if job is not None:
            tell(c.CompleteJobs(1, [job.id], [job.attempt]))
        case "cancel":
            tell(c.CancelJobs(sorted(node.state.tables.jobs)[a : a + 2]))
        case "lost":
            tell(c.UpdateWorker(1, WorkerSpec("host", 4, QUEUES, NAMES)))
            tell(c.ReleaseJobs(1, [j.id for j in running], [j.attempt for j in running]))
        case "time":
            tell(after_ms=1 + b * 3)
        case "replay":
            tell(c.RetryJobs(list(node.state.tables.dead), node.now_ms + b if a % 2 else 0))
        case _:
            pass
    return told
