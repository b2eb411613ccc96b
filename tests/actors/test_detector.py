"""Who is taken for dead, when, and what becomes of attempts that nobody answers for."""

from __future__ import annotations

import asyncio

from actor_rig import GRACE_MS, SPEC, TTL_MS, FakeSink, Rig, virtual

from cluster.actors.detector import TOGETHER_MAX
from cluster.actors.session import Session
from cluster.actors.timekeeper import Timekeeper
from cluster.machine import lifecycle
from cluster.machine.commands import FailJobs, RegisterWorker, RemoveWorker, decode_batch
from cluster.machine.model import JobSpec
from cluster.machine.reducers.assignments import OVERDUE_GRACE_MS
from cluster.machine.results import Registered

SLACK_S = 0.3  # a round of the detector and a commit


async def leading() -> Rig:
    rig = Rig()
    await rig.lead([Timekeeper(rig.raft, rig.proposer, rig.clock), rig.dispatcher, rig.detector])
    return rig


def is_registered(rig: Rig, worker_id: int) -> bool:
    return worker_id in rig.raft.state.tables.workers


@virtual
async def test_a_silent_worker_is_lost_after_its_ttl_and_not_before() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(1)
    await asyncio.sleep(TTL_MS / 1000 - 0.1)
    assert is_registered(rig, worker_id)
    await asyncio.sleep(0.1 + SLACK_S)
    assert not is_registered(rig, worker_id)
    assert sink.kinds() == ["moved"]


@virtual
async def test_any_sign_of_life_counts() -> None:
    rig = await leading()
    worker_id, _ = await rig.worker(1)
    for _ in range(10):
        await asyncio.sleep(TTL_MS / 2000)
        rig.desk.seen(worker_id)
    assert is_registered(rig, worker_id)


@virtual
async def test_a_broken_connection_has_a_shorter_grace() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(1)
    rig.desk.disconnected(worker_id, sink)
    await asyncio.sleep(GRACE_MS / 1000 - 0.1)
    assert is_registered(rig, worker_id)
    await asyncio.sleep(0.1 + SLACK_S)
    assert not is_registered(rig, worker_id)


@virtual
async def test_a_worker_that_comes_back_in_time_keeps_its_jobs() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(1)
    job_id = await rig.submit(1)
    await asyncio.sleep(0.1)
    rig.desk.disconnected(worker_id, sink)
    await asyncio.sleep(GRACE_MS / 2000)
    again, drop = await rig.desk.register(SPEC, worker_id, [(job_id, 1)], FakeSink())
    await asyncio.sleep(GRACE_MS / 1000)
    assert (again, drop) == (worker_id, [])
    assert rig.raft.state.tables.jobs[job_id].attempt == 1


@virtual
async def test_a_new_leader_gives_everybody_a_full_ttl() -> None:
    rig = await leading()
    worker_id, _ = await rig.worker(1)
    await asyncio.sleep(TTL_MS / 1000 - 0.2)
    await rig.resign()
    await rig.lead([rig.detector])
    await asyncio.sleep(TTL_MS / 1000 - 0.2)
    assert is_registered(rig, worker_id)
    await asyncio.sleep(0.2 + SLACK_S)
    assert not is_registered(rig, worker_id)


@virtual
async def test_a_registration_nobody_answered_for_is_not_a_ghost() -> None:
    rig = await leading()
    result = await rig.proposer.propose(RegisterWorker(SPEC))  # and its connection broke
    assert isinstance(result, Registered)
    await asyncio.sleep(TTL_MS / 1000 + 2 * SLACK_S)
    assert not is_registered(rig, result.worker_id)


@virtual
async def test_a_leader_that_stood_still_blames_itself() -> None:
    rig = await leading()
    worker_id, _ = await rig.worker(1)
    session = rig.desk.sessions[worker_id]
    before_ms = session.seen_ms
    rig.detector._round_ms -= 2 * TTL_MS  # as if the last round had been so long ago
    session.seen_ms -= 2 * TTL_MS
    await asyncio.sleep(0.3)
    assert is_registered(rig, worker_id)
    assert before_ms - 300 <= session.seen_ms <= before_ms + 300


@virtual
async def test_an_attempt_past_its_timeout_fails_and_its_worker_is_told() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(1)
    job_id = await rig.submit(1, JobSpec("work", timeout_ms=1_000))
    await keep_alive(rig, worker_id, 1.0 + OVERDUE_GRACE_MS / 1000 + SLACK_S)
    assert ("cancel", [(job_id, 1)]) in sink.events
    job = rig.raft.state.tables.jobs[job_id]
    assert (job.state, job.failures) == (lifecycle.RETRYING, 1)


@virtual
async def test_an_overdue_attempt_is_ended_by_the_next_leader_if_the_last_one_could_not() -> None:
    rig = await leading()
    worker_id, _ = await rig.worker(1)
    job_id = await rig.submit(1, JobSpec("work", timeout_ms=1_000))
    await asyncio.sleep(0.1)
    await rig.resign()
    await rig.lead([Timekeeper(rig.raft, rig.proposer, rig.clock)])
    await asyncio.sleep(1.0 + OVERDUE_GRACE_MS / 1000)
    await rig.resign()
    await rig.lead([rig.detector])
    await asyncio.sleep(0.1)
    assert rig.raft.state.tables.jobs[job_id].failures == 1
    assert is_registered(rig, worker_id)


@virtual
async def test_a_refused_end_of_an_overdue_attempt_is_tried_again() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(1)
    job_id = await rig.submit(1, JobSpec("work", timeout_ms=1_000))
    await asyncio.sleep(0.1)
    rig.detector.end([(job_id, 1)])
    rig.log.refusing = True
    await asyncio.sleep(0.1)
    assert rig.raft.state.tables.jobs[job_id].failures == 0
    rig.log.refusing = False
    await asyncio.sleep(0.5)
    assert rig.raft.state.tables.jobs[job_id].failures == 1
    assert sink.kinds() == ["jobs", "cancel"]
    assert is_registered(rig, worker_id)


@virtual
async def test_a_worker_that_registers_while_its_attempt_is_ended_is_told_too() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(1)
    job_id = await rig.submit(1, JobSpec("work", timeout_ms=1_000))
    await asyncio.sleep(0.1)
    rig.desk.disconnected(worker_id, sink)
    rig.log.held = True
    rig.detector.end([(job_id, 1)])
    await asyncio.sleep(0.01)
    new = FakeSink()
    _, drop = await rig.desk.register(SPEC, worker_id, [(job_id, 1)], new)
    assert drop == []
    rig.log.commit()
    await asyncio.sleep(0.01)
    assert new.events == [("cancel", [(job_id, 1)])]


async def keep_alive(rig: Rig, worker_id: int, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        await asyncio.sleep(0.1)
        rig.desk.seen(worker_id)


@virtual
async def test_workers_that_fall_silent_together_are_lost_together() -> None:
    rig = await leading()
    workers = [(await rig.worker(1))[0] for _ in range(2 * TOGETHER_MAX + 5)]
    await asyncio.sleep(TTL_MS / 1000 + SLACK_S)
    before = len(rig.log.entries)
    await asyncio.sleep(SLACK_S)
    assert not any(is_registered(rig, worker_id) for worker_id in workers)
    removals = [entry for entry in rig.log.entries if RemoveWorker in kinds(entry)]
    assert 3 <= len(removals) <= 6
    assert len(rig.log.entries) == before


@virtual
async def test_attempts_that_are_overdue_together_are_ended_together() -> None:
    rig = await leading()
    worker_id, _ = await rig.worker(1_000)
    first = await rig.submit(700, JobSpec("work", timeout_ms=1_000))
    await keep_alive(rig, worker_id, 1.0 + OVERDUE_GRACE_MS / 1000 + 2 * SLACK_S)
    jobs = rig.raft.state.tables.jobs
    assert {jobs[job_id].failures for job_id in range(first, first + 700)} == {1}
    assert sum(FailJobs in kinds(entry) for entry in rig.log.entries) == 2


@virtual
async def test_a_loss_that_is_not_booked_is_tried_again() -> None:
    rig = await leading()
    worker_id, _ = await rig.worker(1)
    rig.log.refusing = True
    await asyncio.sleep(TTL_MS / 1000 + SLACK_S)
    assert is_registered(rig, worker_id)
    rig.log.refusing = False
    await asyncio.sleep(1 + SLACK_S)
    assert not is_registered(rig, worker_id)


@virtual
async def test_a_round_looks_only_at_those_whose_time_is_up() -> None:
    rig = await leading()
    looked_at = []
    why_lost = rig.detector._why_lost

    def note(session: Session, now_ms: int) -> str:
        looked_at.append(session.worker_id)
        return why_lost(session, now_ms)

    rig.detector._why_lost = note  # type: ignore[method-assign]
    workers = [(await rig.worker(1))[0] for _ in range(20)]
    for _ in range(30):  # nine seconds: every worker's time is up three times
        await asyncio.sleep(0.3)
        for worker_id in workers:
            rig.desk.seen(worker_id)
    assert {looked_at.count(worker_id) for worker_id in workers} <= {3, 4, 5}
    assert all(is_registered(rig, worker_id) for worker_id in workers)


def kinds(entry: bytes) -> set[type]:
    return {type(command) for command in decode_batch(entry).commands}
