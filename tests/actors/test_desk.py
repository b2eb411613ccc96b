"""The desk: who registers as what, what is reconciled then, and how results are booked."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import SPEC, FakeSink, Rig, virtual

from cluster.actors.desk import SEND_AWAY_S
from cluster.actors.services import AttemptError, NotLeader
from cluster.consensus import PeerStatus, Role
from cluster.machine import lifecycle
from cluster.machine.commands import (
    CancelJobs,
    DrainWorker,
    JobChanges,
    PutSchedule,
    TriggerSchedule,
)
from cluster.machine.model import JobSpec, RetrySpec
from cluster.plan import Plan, Trigger


async def leading() -> Rig:
    rig = Rig()
    await rig.lead([rig.dispatcher])
    return rig


async def running(
    rig: Rig, count: int = 1, spec: JobSpec | None = None
) -> tuple[int, FakeSink, int]:
    """A worker that was sent `count` jobs; returns its id, its sink and the first job's id."""
    worker_id, sink = await rig.worker(count)
    first = await rig.submit(count, spec)
    await asyncio.sleep(0.05)
    assert len(sink.jobs) == count
    return worker_id, sink, first


@virtual
async def test_a_known_worker_keeps_its_id_without_a_log_entry() -> None:
    rig = await leading()
    worker_id, old = await rig.worker(1)
    before = len(rig.log.entries)
    new = FakeSink()
    assert await rig.desk.register(SPEC, worker_id, [], new) == (worker_id, [])
    assert len(rig.log.entries) == before
    assert old.kinds() == ["moved"]
    assert rig.credit(worker_id) == 0


@virtual
async def test_an_unknown_worker_gets_a_new_id_and_is_told_to_stop_everything() -> None:
    rig = await leading()
    worker_id, drop = await rig.desk.register(SPEC, 99, [(1, 1), (2, 1)], FakeSink())
    assert worker_id == 1
    assert drop == [(1, 1), (2, 1)]


@virtual
async def test_what_a_returning_worker_does_not_run_is_released() -> None:
    rig = await leading()
    worker_id, _, first = await running(rig, 2)
    await rig.desk.register(SPEC, worker_id, [(first, 1)], FakeSink())
    jobs = rig.raft.state.tables.jobs
    assert jobs[first].state == lifecycle.RUNNING
    assert (jobs[first + 1].state, jobs[first + 1].failures) == (lifecycle.READY, 0)


@virtual
async def test_an_old_attempt_beside_the_new_one_does_not_cost_the_new_one() -> None:
    rig = await leading()
    worker_id, _, job_id = await running(rig)
    await rig.desk.release(worker_id, [job_id], [1])
    rig.desk.grant(worker_id, 1)
    await asyncio.sleep(0.05)
    assert rig.desk.held(worker_id) == {job_id: 2}
    _, drop = await rig.desk.register(SPEC, worker_id, [(job_id, 2), (job_id, 1)], FakeSink())
    assert drop == [(job_id, 1)]
    assert rig.desk.held(worker_id) == {job_id: 2}


@virtual
async def test_a_job_cancelled_during_the_registration_is_among_what_must_stop() -> None:
    rig = await leading()
    worker_id, old, first = await running(rig, 2)
    rig.desk.disconnected(worker_id, old)
    rig.log.held = True
    new = FakeSink()
    registering = asyncio.ensure_future(
        rig.desk.register(SPEC, worker_id, [(first, 1)], new)  # the other job is missing
    )
    await asyncio.sleep(0.01)
    rig.proposer.propose(CancelJobs([first]))
    await asyncio.sleep(0.01)
    rig.log.release()
    _, drop = await registering
    assert drop == [(first, 1)]
    assert new.events == []  # nothing may come before the answer


@virtual
async def test_leadership_lost_while_registering_leaves_no_session_behind() -> None:
    rig = await leading()
    rig.log.held = True
    registering = asyncio.ensure_future(rig.desk.register(SPEC, 0, [], FakeSink()))
    await asyncio.sleep(0.01)
    rig.log.commit()
    rig.log.become(Role.FOLLOWER)  # before the registration gets to run
    with pytest.raises(NotLeader):
        await registering
    assert rig.desk.sessions == {}


@virtual
async def test_losing_leadership_sends_every_worker_away() -> None:
    rig = await leading()
    _, sink = await rig.worker(1)
    await rig.resign()
    assert rig.desk.sessions == {}
    await asyncio.sleep(SEND_AWAY_S)
    assert sink.events == [("moved", None)]  # nobody leads so far: it has to look for itself


@virtual
async def test_workers_are_told_who_leads_as_soon_as_that_is_known() -> None:
    rig = await leading()
    _, sink = await rig.worker(1)
    await rig.resign()
    assert sink.events == []
    rig.log.peers = lambda: [PeerStatus("n2", True, {"http": "n2:8000"}, 0, None)]
    rig.log.leader_id = "n2"
    rig.log.on_role(Role.FOLLOWER, 2, "n2")
    assert sink.events == [("moved", "http://n2:8000")]
    await asyncio.sleep(2 * SEND_AWAY_S)
    assert len(sink.events) == 1


@virtual
async def test_a_drain_ordered_while_the_worker_was_away_reaches_it_when_it_is_back() -> None:
    rig = await leading()
    worker_id, old = await rig.worker(1)
    rig.desk.disconnected(worker_id, old)
    await rig.proposer.propose(DrainWorker(worker_id))
    new = FakeSink()
    await rig.desk.register(SPEC, worker_id, [], new)
    assert new.events == []
    await asyncio.sleep(0)
    assert new.kinds() == ["drain"]
    assert rig.raft.state.tables.workers[worker_id].draining


async def replaced_by_the_next(rig: Rig) -> tuple[int, FakeSink, int]:
    """A run that is asked to stop for a newer one; its worker, sink and job."""
    spec, plan = JobSpec("work"), Plan((Trigger("* * * * *"),))
    put = PutSchedule("s", spec, b"null", "", 0, 1 << 50, plan=plan)
    await rig.proposer.propose(put)
    worker_id, sink = await rig.worker(2)
    await rig.proposer.propose(TriggerSchedule("s"))
    await asyncio.sleep(0.05)
    await rig.proposer.propose(TriggerSchedule("s", JobChanges(), "cancel_other"))
    await asyncio.sleep(0.05)
    return worker_id, sink, sink.jobs[0].job_id


@virtual
async def test_a_run_that_stands_in_the_way_is_asked_to_stop_and_its_end_is_awaited() -> None:
    rig = await leading()
    worker_id, sink, job_id = await replaced_by_the_next(rig)
    assert sink.events[1:] == [("stop", [(job_id, 1)])]
    await rig.desk.fail(worker_id, [AttemptError(job_id, 1, "cancelled", "stopped", False)])
    await asyncio.sleep(0.05)
    assert job_id not in rig.raft.state.tables.jobs
    assert rig.raft.state.totals.cancelled == 1
    assert sink.ids() == [job_id, job_id + 1]


@virtual
async def test_a_worker_that_comes_back_is_asked_to_stop_again() -> None:
    rig = await leading()
    worker_id, _, job_id = await replaced_by_the_next(rig)
    new = FakeSink()
    await rig.desk.register(SPEC, worker_id, [(job_id, 1)], new)
    await asyncio.sleep(0.01)
    assert new.events == [("stop", [(job_id, 1)])]


@virtual
async def test_a_run_that_never_reached_its_worker_ends_instead_of_coming_back() -> None:
    rig = await leading()
    worker_id, _, job_id = await replaced_by_the_next(rig)
    await rig.desk.register(SPEC, worker_id, [], FakeSink())
    await asyncio.sleep(0.05)
    assert job_id not in rig.raft.state.tables.jobs


@virtual
async def test_an_old_connection_that_breaks_does_not_touch_the_new_one() -> None:
    rig = await leading()
    worker_id, old = await rig.worker(1)
    await rig.desk.register(SPEC, worker_id, [], FakeSink())
    rig.desk.grant(worker_id, 3)
    rig.desk.disconnected(worker_id, old)
    assert rig.desk.is_connected(worker_id)
    assert rig.credit(worker_id) == 3


@virtual
async def test_a_late_result_is_refused_by_its_attempt() -> None:
    rig = await leading()
    worker_id, _, job_id = await running(rig)
    await rig.desk.release(worker_id, [job_id], [1])
    rig.desk.grant(worker_id, 1)
    await asyncio.sleep(0.05)
    assert await rig.desk.complete(worker_id, [job_id], [1], [b"1"], None) == [job_id]
    assert await rig.desk.complete(worker_id, [job_id], [2], [b"2"], None) == []


@virtual
async def test_a_failure_is_retried_when_its_policy_says_so_and_then_final() -> None:
    rig = await leading()
    spec = JobSpec("work", max_retries=1, retry=RetrySpec("fixed", 1_000, 1_000, False))
    worker_id, _, job_id = await running(rig, 1, spec)
    await rig.desk.fail(worker_id, [AttemptError(job_id, 1, "Boom", "one")])
    job = rig.raft.state.tables.jobs[job_id]
    assert job.run_at_ms == rig.raft.state.now_ms + 1_000
    rig.clock.jump(2_000)
    rig.desk.grant(worker_id, 1)
    await rig.submit(1, JobSpec("else"))  # time passes in the log
    await asyncio.sleep(0.05)
    await rig.desk.fail(worker_id, [AttemptError(job_id, 2, "Boom", "two")])
    assert job_id in rig.raft.state.tables.dead


@virtual
async def test_what_is_not_worth_a_retry_is_final_at_once() -> None:
    rig = await leading()
    worker_id, _, job_id = await running(rig)
    await rig.desk.fail(worker_id, [AttemptError(job_id, 1, "Bad", "payload", retryable=False)])
    assert job_id in rig.raft.state.tables.dead


@virtual
async def test_progress_of_a_stale_attempt_is_refused() -> None:
    rig = await leading()
    worker_id, _, job_id = await running(rig)
    assert rig.desk.progress(worker_id, [(job_id, 1, 0.5, "half")]) == []
    assert rig.desk.progress(worker_id, [(job_id, 2, 0.6, None)]) == [job_id]
    assert rig.live.progress(job_id) == (0.5, "half")
