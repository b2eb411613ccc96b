"""Pairing jobs and slots: fair shares, exact credit, and nothing that was taken is forgotten."""

from __future__ import annotations

import asyncio

from actor_rig import SPEC, FakeSink, Rig, virtual

from cluster.actors.dispatcher import ASSIGN_JOBS_MAX, LEVEL
from cluster.actors.services import Overloaded
from cluster.consensus import Outcome
from cluster.machine import lifecycle
from cluster.machine.commands import (
    AssignJobs,
    AssignMany,
    CancelJobs,
    DrainWorker,
    JobGroup,
    RemoveWorker,
    SubmitJobs,
    decode_batch,
)
from cluster.machine.model import JobSpec, WorkerSpec


async def leading(rig: Rig | None = None) -> Rig:
    rig = rig or Rig()
    await rig.lead([rig.dispatcher])
    return rig


def offer(*tasks: str) -> WorkerSpec:
    return WorkerSpec("other", 100, ("default",), tasks)


@virtual
async def test_two_workers_share_what_waits() -> None:
    rig = Rig()
    await rig.lead()
    await rig.submit(10)
    _, first = await rig.worker(100)
    _, second = await rig.worker(100)
    rig.duties = type(rig.duties)([rig.dispatcher], rig.given_up.append)
    rig.duties.start()
    await asyncio.sleep(0.1)
    assert (len(first.jobs), len(second.jobs)) == (5, 5)


@virtual
async def test_a_worker_that_shares_its_lane_with_nobody_gets_all_of_it() -> None:
    rig = await leading()
    for _ in range(9):
        await rig.worker(100, offer("else"))
    _, only = await rig.worker(100)
    await rig.submit(90)
    await asyncio.sleep(0.1)
    assert len(only.jobs) == 90


@virtual
async def test_credit_bounds_what_is_sent_and_more_credit_brings_more() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(3)
    await rig.submit(5)
    await asyncio.sleep(0.1)
    assert (len(sink.jobs), rig.credit(worker_id)) == (3, 0)
    rig.desk.grant(worker_id, 4)
    await asyncio.sleep(0.1)
    assert (len(sink.jobs), rig.credit(worker_id)) == (5, 2)


@virtual
async def test_more_than_one_command_may_carry_goes_without_another_event() -> None:
    rig = await leading()
    await rig.submit(ASSIGN_JOBS_MAX * 2 + 500)
    _, sink = await rig.worker(ASSIGN_JOBS_MAX * 3)
    await asyncio.sleep(0.1)
    assert len(sink.jobs) == ASSIGN_JOBS_MAX * 2 + 500


@virtual
async def test_urgent_jobs_go_first_then_the_longest_due() -> None:
    rig = await leading()
    slow = await rig.submit(2, JobSpec("work", priority=9))
    usual = await rig.submit(2, JobSpec("work", priority=5))
    urgent = await rig.submit(1, JobSpec("work", priority=1))
    _, sink = await rig.worker(100)
    await asyncio.sleep(0.1)
    assert sink.ids() == [urgent, usual, usual + 1, slow, slow + 1]


@virtual
async def test_a_full_lane_does_not_starve_another_of_the_same_worker() -> None:
    rig = await leading()
    await rig.submit(50, JobSpec("work"))
    late = await rig.submit(1, JobSpec("send", priority=1))
    _, sink = await rig.worker(2, offer("work", "send"))
    await asyncio.sleep(0.1)
    assert sink.ids()[0] == late


@virtual
async def test_a_refused_assignment_gives_jobs_and_credit_back_and_is_tried_again() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(4)
    await rig.submit(2)
    rig.log.refusing = True
    await asyncio.sleep(0.1)
    assert sink.jobs == []
    rig.log.refusing = False
    await asyncio.sleep(0.1)
    assert (len(sink.jobs), rig.credit(worker_id)) == (2, 2)


@virtual
async def test_jobs_of_a_worker_that_left_meanwhile_go_to_another_without_an_event() -> None:
    rig = await leading()
    leaving, _ = await rig.worker(0)
    staying, sink = await rig.worker(0)
    job_id = await rig.submit(1)
    rig.log.held = True
    rig.proposer.propose(RemoveWorker(leaving))
    await asyncio.sleep(0.01)
    rig.desk.grant(leaving, 1)  # its assignment enters the log behind the removal
    await asyncio.sleep(0.01)
    rig.desk.grant(staying, 1)  # and finds nothing to take
    await asyncio.sleep(0.01)
    assert len(rig.log.pending) == 2
    rig.log.release()
    await asyncio.sleep(0.1)
    assert sink.ids() == [job_id]


@virtual
async def test_a_job_cancelled_in_the_entry_that_assigns_it_is_not_sent() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(0)
    first = await rig.submit(2)
    rig.log.held = True
    for _ in range(2):  # so many entries are in flight that what follows shares the next one
        rig.proposer.propose(DrainWorker(99))
        await asyncio.sleep(0.01)
    rig.desk.grant(worker_id, 2)
    await asyncio.sleep(0.01)
    rig.proposer.propose(CancelJobs([first]))
    await asyncio.sleep(0.01)
    rig.log.release()
    await asyncio.sleep(0.1)
    assert [AssignJobs(worker_id, [first, first + 1]), CancelJobs([first])] in [
        decode_batch(entry).commands for entry in rig.log.entries
    ]
    assert sink.ids() == [first + 1]
    assert rig.credit(worker_id) == 1


@virtual
async def test_an_assignment_whose_answer_was_lost_is_sent_if_it_committed() -> None:
    rig = await leading()
    _, sink = await rig.worker(2)
    first = await rig.submit(1)
    await asyncio.sleep(0.1)
    rig.log.held = True
    second = asyncio.ensure_future(rig.submit(1))
    await asyncio.sleep(0.01)
    rig.log.commit()
    await second
    await asyncio.sleep(0.01)
    rig.log.lose(committed=True)
    rig.log.release()
    await asyncio.sleep(0.1)
    assert sink.ids() == [first, first + 1]


@virtual
async def test_an_assignment_that_got_lost_is_made_anew() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(2)
    rig.log.held = True
    submitting = asyncio.ensure_future(rig.submit(1))
    await asyncio.sleep(0.01)
    rig.log.commit()
    job_id = await submitting
    await asyncio.sleep(0.01)
    rig.log.lose(committed=False)
    rig.log.release()
    await asyncio.sleep(0.1)
    assert sink.ids() == [job_id]
    assert rig.credit(worker_id) == 1


@virtual
async def test_what_was_assigned_to_a_connection_that_is_gone_is_handed_back() -> None:
    rig = await leading()
    worker_id, old = await rig.worker(1)
    rig.log.held = True
    submitting = asyncio.ensure_future(rig.submit(1))
    await asyncio.sleep(0.01)
    rig.log.commit()
    job_id = await submitting
    await asyncio.sleep(0.01)  # the assignment is in flight
    new = FakeSink()
    _, drop = await rig.desk.register(SPEC, worker_id, [], new)
    rig.log.commit(5)
    rig.log.release()
    await asyncio.sleep(0.1)
    rig.desk.grant(worker_id, 1)
    await asyncio.sleep(0.1)
    assert old.jobs == [] and drop == []
    assert [(job.job_id, job.attempt) for job in new.jobs] == [(job_id, 2)]


@virtual
async def test_a_draining_worker_gets_nothing_more() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(4)
    await rig.proposer.propose(DrainWorker(worker_id))
    job_id = await rig.submit(1)
    await asyncio.sleep(0.1)
    assert sink.kinds() == ["drain"]
    assert rig.raft.state.tables.jobs[job_id].state == lifecycle.READY


@virtual
async def test_the_next_leader_dispatches_what_the_last_one_had_taken() -> None:
    rig = await leading()
    await rig.worker(2)
    rig.log.held = True
    submitting = asyncio.ensure_future(rig.submit(1))
    await asyncio.sleep(0.01)
    rig.log.commit()
    job_id = await submitting
    await asyncio.sleep(0.01)
    await rig.resign()
    rig.log.lose(committed=False)
    rig.log.release()
    await asyncio.sleep(0.1)
    await rig.lead([rig.dispatcher])
    _, sink = await rig.worker(2)
    await asyncio.sleep(0.1)
    assert sink.ids() == [job_id]


@virtual
async def test_an_attempts_time_ends_with_the_jobs_deadline() -> None:
    """As a time that a worker measures by itself: its wall clock may be wrong."""
    rig = await leading()
    await rig.worker(1, offer("else"))
    now_ms = rig.clock.now_ms()
    for timeout_ms, deadline_ms in ((5_000, 0), (5_000, 60_000), (90_000, 60_000), (0, 60_000)):
        spec = JobSpec("work", timeout_ms=timeout_ms)
        until_ms = now_ms + deadline_ms if deadline_ms else 0
        group = JobGroup(spec, [b"null"], deadline_ms=until_ms)
        await rig.proposer.propose(SubmitJobs([group]))
    await asyncio.sleep(10)
    _, sink = await rig.worker(4)
    await asyncio.sleep(0.1)
    first, second, third, fourth = (job.timeout_ms for job in sink.jobs)
    assert (first, second) == (5_000, 5_000)
    assert third == fourth
    assert 49_800 < third <= 50_000


@virtual
async def test_a_queue_that_takes_nothing_more_ends_the_round() -> None:
    rig = await leading()
    worker_id, sink = await rig.worker(0)
    job_id = await rig.submit(1)
    refusals = []

    def refuse(parts: object) -> None:
        refusals.append(parts)
        raise Overloaded("full")

    rig.proposer.propose_together = refuse  # type: ignore[method-assign]
    rig.desk.grant(worker_id, 3)
    await asyncio.sleep(0.005)
    assert (len(refusals), rig.credit(worker_id)) == (1, 3)
    del rig.proposer.propose_together  # type: ignore[method-assign]
    await asyncio.sleep(0.1)
    assert (sink.ids(), rig.credit(worker_id)) == ([job_id], 2)


async def waiting_for_two(
    jobs: int, rig: Rig | None = None
) -> tuple[Rig, list[int], list[FakeSink]]:
    """Two workers are about to be given half of the jobs each, by one command."""
    rig = await leading(rig)
    workers = [await rig.worker(0), await rig.worker(0)]
    await rig.submit(jobs)
    rig.log.held = True
    for worker_id, _ in workers:
        rig.desk.grant(worker_id, jobs // 2)
    await asyncio.sleep(0.01)
    return rig, [worker_id for worker_id, _ in workers], [sink for _, sink in workers]


@virtual
async def test_one_command_gives_jobs_to_all_workers_of_a_pass() -> None:
    rig, workers, sinks = await waiting_for_two(4)
    rig.log.release()
    await asyncio.sleep(0.1)
    assert rig.log.commands()[-1] == AssignMany(workers, [2, 2], [1, 2, 3, 4])
    assert [sink.ids() for sink in sinks] == [[1, 2], [3, 4]]


@virtual
async def test_a_command_for_many_workers_is_no_longer_than_one_for_one() -> None:
    rig, _, sinks = await waiting_for_two(ASSIGN_JOBS_MAX + 10)
    rig.log.release()
    await asyncio.sleep(0.1)
    half = ASSIGN_JOBS_MAX // 2 + 5
    sizes = [(len(c.job_ids)) for c in rig.log.commands() if isinstance(c, AssignJobs)]
    assert sizes == [half, half]
    assert [len(sink.jobs) for sink in sinks] == [half, half]


@virtual
async def test_what_one_of_several_workers_does_not_take_goes_to_another() -> None:
    rig, (leaving, staying), (_, sink) = await waiting_for_two(4)
    entry, callback = rig.log.pending.popleft()
    rig.proposer.propose(RemoveWorker(leaving))
    await asyncio.sleep(0.01)
    rig.log.pending.append((entry, callback))  # behind the removal
    rig.log.release()
    await asyncio.sleep(0.1)
    assert sink.ids() == [3, 4]
    rig.desk.grant(staying, 4)
    await asyncio.sleep(0.1)
    assert sink.ids() == [3, 4, 1, 2]
    assert rig.credit(staying) == 2


@virtual
async def test_a_shared_assignment_that_is_refused_is_made_anew() -> None:
    rig, workers, sinks = await waiting_for_two(4)
    _, callback = rig.log.pending.popleft()
    callback(Outcome.REFUSED, "no")
    assert [rig.credit(worker_id) for worker_id in workers] == [2, 2]
    rig.log.release()
    await asyncio.sleep(0.1)
    assert sorted(i for sink in sinks for i in sink.ids()) == [1, 2, 3, 4]


@virtual
async def test_a_shared_assignment_whose_answer_was_lost_is_sent_if_it_committed() -> None:
    for committed in (True, False):
        rig, _, sinks = await waiting_for_two(4)
        rig.log.lose(committed)
        rig.log.release()
        await asyncio.sleep(0.1)
        assert sorted(i for sink in sinks for i in sink.ids()) == [1, 2, 3, 4]
        assert [len(sink.jobs) for sink in sinks] == [2, 2]


@virtual
async def test_below_its_level_each_worker_has_a_command_of_its_own() -> None:
    rig, workers, sinks = await waiting_for_two(4, Rig(LEVEL - 1))
    rig.log.release()
    await asyncio.sleep(0.1)
    assert rig.log.commands()[-2:] == [
        AssignJobs(workers[0], [1, 2]),
        AssignJobs(workers[1], [3, 4]),
    ]
    assert [sink.ids() for sink in sinks] == [[1, 2], [3, 4]]
