"""Janitor, waiters, the live board and the ready queues' upkeep."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import Rig, virtual

from cluster.actors import live as live_module
from cluster.actors.janitor import Janitor
from cluster.actors.services import AttemptError
from cluster.machine.commands import CancelJobs, PurgeDead, RetryJobs
from cluster.machine.model import JobSpec, WorkerSpec

DOOMED = JobSpec("work", max_retries=0)


async def kill(rig: Rig, count: int) -> int:
    """Let `count` jobs die; returns the first id."""
    worker_id, sink = await rig.worker(count)
    first = await rig.submit(count, DOOMED)
    await asyncio.sleep(0.05)
    errors = [AttemptError(job.job_id, job.attempt, "Boom", "dies") for job in sink.jobs]
    await rig.desk.fail(worker_id, errors)
    await asyncio.sleep(0.05)
    return first


@virtual
async def test_the_oldest_dead_letters_leave_beyond_the_bound() -> None:
    rig = Rig()
    await rig.lead([rig.dispatcher, Janitor(rig.raft, rig.proposer, 3)])
    first = await kill(rig, 5)
    assert list(rig.raft.state.tables.dead) == [first + 2, first + 3, first + 4]
    assert sum(isinstance(c, PurgeDead) for c in rig.log.commands()) == 1


@virtual
async def test_a_new_leader_with_a_smaller_bound_purges_at_once() -> None:
    rig = Rig()
    await rig.lead([rig.dispatcher])
    await kill(rig, 4)
    await rig.resign()
    await rig.lead([Janitor(rig.raft, rig.proposer, 1)])
    await asyncio.sleep(0.05)
    assert len(rig.raft.state.tables.dead) == 1


@virtual
async def test_waiting_ends_with_the_job_and_not_before() -> None:
    rig = Rig()
    await rig.lead()
    job_id = await rig.submit(1)
    waiting = asyncio.ensure_future(rig.waiters.finished(job_id, 10))
    await asyncio.sleep(1)
    assert not waiting.done()
    await rig.proposer.propose(CancelJobs([job_id]))
    assert await waiting is True
    assert await rig.waiters.finished(job_id, 10) is True


@virtual
async def test_waiting_ends_when_time_is_up_and_leaves_nothing_behind() -> None:
    rig = Rig()
    await rig.lead()
    job_id = await rig.submit(1)
    assert await rig.waiters.finished(job_id, 0.5) is False
    assert rig.waiters._waiting == {}


@virtual
async def test_who_waits_for_a_jobs_next_life_is_not_forgotten_with_the_last() -> None:
    rig = Rig()
    await rig.lead([rig.dispatcher])
    worker_id, _ = await rig.worker(1)
    job_id = await rig.submit(1, DOOMED)
    await asyncio.sleep(0.05)
    first = asyncio.ensure_future(rig.waiters.finished(job_id, 10))
    await asyncio.sleep(0)
    rig.log.held = True
    dying = asyncio.ensure_future(rig.desk.fail(worker_id, [AttemptError(job_id, 1, "B", "d")]))
    await asyncio.sleep(0.01)
    rig.proposer.propose(RetryJobs([job_id]))
    await asyncio.sleep(0.01)
    rig.log.commit(2)  # it dies and lives again before anybody runs
    second = asyncio.ensure_future(rig.waiters.finished(job_id, 10))
    rig.log.release()
    await dying
    assert await first is True
    await asyncio.sleep(0.01)
    assert not second.done()
    await rig.proposer.propose(CancelJobs([job_id]))
    assert await second is True


@virtual
async def test_live_logs_keep_the_newest_text_of_each_attempt() -> None:
    rig = Rig()
    await rig.lead()
    job_id = await rig.submit(1)
    rig.live.add_log(job_id, 1, "x" * live_module.LOG_CHARS_MAX)
    rig.live.add_log(job_id, 1, "end")
    rig.live.add_log(job_id, 2, "new")
    (_, first), second = rig.live.log_text(job_id)
    assert len(first) == live_module.LOG_CHARS_MAX and first.endswith("end")
    assert second == (2, "new")


@virtual
async def test_live_logs_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "LOGS_CHARS_MAX", 100)
    rig = Rig()
    for job_id in range(1, 5):
        rig.live.add_log(job_id, 1, "x" * 40)
    assert [job_id for job_id in range(1, 5) if rig.live.log_text(job_id)] == [3, 4]


@virtual
async def test_live_jobs_are_bounded_and_leave_with_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_module, "JOBS_MAX", 2)
    rig = Rig()
    await rig.lead()
    first = await rig.submit(3)
    for job_id in range(first, first + 3):
        rig.live.set_progress(job_id, 0.5, None)
        rig.live.add_log(job_id, 1, "text")
    assert rig.live.progress(first + 2) is None
    assert rig.live.log_text(first + 2) == []
    await rig.proposer.propose(CancelJobs([first]))
    assert rig.live.progress(first) is None
    rig.live.set_progress(first + 2, 0.7, None)
    assert rig.live.progress(first + 2) == (0.7, None)


@virtual
async def test_followers_drop_what_the_leader_assigned_in_every_lane() -> None:
    rig = Rig()
    follower = type(rig.ready)()
    rig.raft.on_effects(lambda effects, _: follower.feed(effects))
    await rig.lead([rig.dispatcher])
    await rig.submit(5, JobSpec("work"))
    await rig.submit(5, JobSpec("send"))
    await rig.worker(10, WorkerSpec("both", 10, ("default",), ("work", "send")))
    await asyncio.sleep(0.05)
    assert follower.waiting(follower.lanes_of(("default",), ("work", "send"))) == 0
