"""The short way: one entry creates and assigns, and nothing that it reserves or gives gets lost."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import SPEC, FakeSink, Rig, virtual

from cluster.actors import proposer as proposer_module
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.machine import lifecycle
from cluster.machine.commands import (
    AssignJobs,
    AssignNew,
    CancelJobs,
    DrainWorker,
    JobGroup,
    RemoveWorker,
    SubmitJobs,
    decode_batch,
)
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.results import Result, Submitted


def work(count: int = 1, name: str = "work", queue: str = "default", at: int = 0) -> JobGroup:
    return JobGroup(JobSpec(name, queue), [b"null"] * count, at)


async def leading() -> Rig:
    rig = Rig()
    await rig.lead([rig.dispatcher])
    return rig


async def free_worker(rig: Rig, credit: int, spec: WorkerSpec = SPEC) -> tuple[int, FakeSink]:
    """As the dispatcher knows it: its round is over."""
    worker = await rig.worker(credit, spec)
    await asyncio.sleep(0.01)
    return worker


def submit(rig: Rig, *groups: JobGroup) -> asyncio.Future[Result]:
    return rig.submissions.submit_alone(SubmitJobs(list(groups)))


def assigned_anew(rig: Rig) -> list[tuple[int, int]]:
    return [(c.worker_id, c.count) for c in rig.log.commands() if isinstance(c, AssignNew)]


def assigned_later(rig: Rig) -> list[int]:
    commands = [c for c in rig.log.commands() if isinstance(c, AssignJobs)]
    return [job_id for command in commands for job_id in command.job_ids]


@virtual
async def test_one_entry_creates_a_job_and_assigns_it() -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 4)
    before = len(rig.log.entries)
    result = await submit(rig, work())
    assert result == Submitted(1, 1)
    assert sink.ids() == [1], "it is pushed before whoever submitted gets an answer"
    await asyncio.sleep(0.1)
    assert len(rig.log.entries) == before + 1
    assert (sink.ids(), rig.credit(worker_id)) == ([1], 3)
    assert rig.dispatcher.assigned_total == 1


@virtual
async def test_what_credit_does_not_reach_waits_for_the_next() -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 2)
    await submit(rig, work(5))
    await asyncio.sleep(0.1)
    assert (sink.ids(), rig.credit(worker_id)) == ([1, 2], 0)
    rig.desk.grant(worker_id, 5)
    await asyncio.sleep(0.1)
    assert (sink.ids(), rig.credit(worker_id)) == ([1, 2, 3, 4, 5], 2)
    assert assigned_later(rig) == [3, 4, 5]


@virtual
async def test_workers_share_a_batch_most_free_capacity_first() -> None:
    rig = await leading()
    _, less = await free_worker(rig, 3)
    _, most = await free_worker(rig, 9)
    await submit(rig, work(5))
    await asyncio.sleep(0)
    assert (most.ids(), less.ids()) == ([1, 2, 3], [4, 5])


@virtual
async def test_only_a_worker_that_offers_both_gets_it() -> None:
    rig = await leading()
    _, other_task = await free_worker(rig, 9, WorkerSpec("w", 9, ("default",), ("else",)))
    _, other_queue = await free_worker(rig, 9, WorkerSpec("w", 9, ("mail",), ("work",)))
    leaving, draining = await free_worker(rig, 9)
    await rig.proposer.propose(DrainWorker(leaving))
    await submit(rig, work())
    await asyncio.sleep(0.1)
    assert assigned_anew(rig) == []
    _, any_queue = await free_worker(rig, 9, WorkerSpec("w", 9, ("*",), ("work",)))
    await submit(rig, work(queue="rare"))
    assert [len(s.jobs) for s in (other_task, other_queue, draining, any_queue)] == [0, 0, 0, 2]


@virtual
async def test_what_waits_goes_first() -> None:
    """A later job must not get the credit that a round is about to give to an older one."""
    rig = await leading()
    await submit(rig, work(3))
    worker_id, sink = await rig.worker(1)
    await submit(rig, work())  # the round is due
    await asyncio.sleep(0.1)
    await submit(rig, work())  # jobs wait
    rig.desk.grant(worker_id, 9)
    await asyncio.sleep(0.1)
    assert sink.ids() == [1, 2, 3, 4, 5]
    assert assigned_anew(rig) == []


@virtual
async def test_only_jobs_that_are_due_are_given() -> None:
    rig = await leading()
    _, sink = await free_worker(rig, 9)
    await submit(rig, work(at=rig.clock.now_ms() + 5_000), work())
    await submit(rig)
    await asyncio.sleep(0.1)
    assert (assigned_anew(rig), sink.ids()) == ([], [2])


@virtual
async def test_unlike_jobs_are_given_in_their_order_as_far_as_credit_goes() -> None:
    """What follows a group that is given in part would be taken for the rest of it."""
    rig = await leading()
    both, sink = await free_worker(rig, 4, WorkerSpec("w", 9, ("default",), ("work", "send")))
    _, last = await free_worker(rig, 3, WorkerSpec("w", 9, ("default",), ("last",)))
    await submit(rig, work(1), work(2, "send"), work(3), work(1, "last"))
    await asyncio.sleep(0.1)
    assert assigned_anew(rig) == [(both, 1), (both, 2), (both, 1)]
    assert (sink.ids(), last.ids()) == ([1, 2, 3, 4], [7])
    assert assigned_later(rig) == [7]


@virtual
async def test_nothing_follows_unique_keys_as_some_may_create_nothing() -> None:
    rig = await leading()
    _, sink = await free_worker(rig, 9, WorkerSpec("w", 9, ("default",), ("work", "send")))
    await submit(rig, JobGroup(JobSpec("work"), [b"1"], unique_keys=["a"]))
    again = JobGroup(JobSpec("work"), [b"2", b"3"], unique_keys=["a", "b"])
    await submit(rig, again, work(1, "send"))
    await asyncio.sleep(0.1)
    assert len(assigned_anew(rig)) == 2
    assert [(job.job_id, job.name) for job in sink.jobs] == [(1, "work"), (2, "work"), (3, "send")]


@virtual
async def test_lone_jobs_that_gathered_are_given_with_the_credit_of_their_turn() -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 4)
    rig.log.held = True
    answers = [rig.submissions.submit(work()) for _ in range(3)]
    rig.desk.grant(worker_id, -2)
    rig.log.release()
    assert [await answer for answer in answers] == [Submitted(n, 1) for n in (1, 2, 3)]
    assert sink.ids() == [1, 2], "pushed before those who submitted get an answer"
    rig.desk.grant(worker_id, 1)
    await asyncio.sleep(0.1)
    assert (sink.ids(), assigned_anew(rig)) == ([1, 2, 3], [(worker_id, 2)])


@virtual
async def test_a_pair_shares_an_entry_however_full_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = await leading()
    _, sink = await free_worker(rig, 9)
    monkeypatch.setattr(proposer_module, "BATCH_COMMANDS_MAX", 1)
    monkeypatch.setattr(proposer_module, "BATCH_BYTES_TARGET", 1)
    rig.log.held = True
    answers = [submit(rig, work()) for _ in range(3)]
    while rig.log.pending or rig.proposer.queued:
        await asyncio.sleep(0)
        rig.log.commit()
    assert [await answer for answer in answers] == [Submitted(n, 1) for n in (1, 2, 3)]
    for entry in rig.log.entries:
        kinds = [type(command) for command in decode_batch(entry).commands]
        assert kinds.count(SubmitJobs) == kinds.count(AssignNew) <= 1
    assert sink.ids() == [1, 2, 3]


@virtual
async def test_a_repeated_request_gives_the_credit_back() -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 4)
    command = SubmitJobs([work()], "once", 1, 60_000)
    assert await rig.submissions.submit_alone(command) == Submitted(1, 1)
    assert await rig.submissions.submit_alone(command) == Submitted(1, 1, replayed=True)
    await asyncio.sleep(0.1)
    assert (sink.ids(), rig.credit(worker_id)) == ([1], 3)


@virtual
async def test_a_worker_that_left_in_the_same_entry_gets_nothing_and_another_does() -> None:
    rig = await leading()
    leaving, gone = await free_worker(rig, 4)
    rig.log.held = True
    rig.proposer.propose(RemoveWorker(leaving))
    answer = submit(rig, work())
    await asyncio.sleep(0)
    rig.log.release()
    assert await answer == Submitted(1, 1)
    _, sink = await free_worker(rig, 4)
    await asyncio.sleep(0.1)
    assert (gone.ids(), sink.ids()) == ([], [1])


@virtual
async def test_a_job_cancelled_in_the_same_entry_is_not_sent() -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 4)
    rig.log.held = True
    answer = submit(rig, work(2))
    rig.proposer.propose(CancelJobs([1]))
    await asyncio.sleep(0)
    rig.log.release()
    await answer
    await asyncio.sleep(0.1)
    assert (sink.ids(), rig.credit(worker_id)) == ([2], 3)


@virtual
async def test_refusals_give_the_credit_back() -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 4)
    rig.log.refusing = True
    with pytest.raises(NotLeader):
        await submit(rig, work(2))
    rig.log.refusing = False
    assert rig.credit(worker_id) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposer_module, "QUEUE_COMMANDS_MAX", 0)
        with pytest.raises(Overloaded):
            submit(rig, work(2))
    assert rig.credit(worker_id) == 4
    await submit(rig, work(2))
    assert sink.ids() == [1, 2]


@virtual
@pytest.mark.parametrize("committed", [True, False])
async def test_when_the_answer_got_lost_the_worker_says_what_it_has(committed: bool) -> None:
    rig = await leading()
    worker_id, sink = await free_worker(rig, 4)
    await submit(rig, work())
    rig.log.held = True
    answer = submit(rig, work(2))
    await asyncio.sleep(0.01)
    rig.log.lose(committed=committed)
    with pytest.raises(OutcomeUnknown):
        await answer
    rig.log.release()
    await asyncio.sleep(0.1)
    assert (sink.ids(), sink.kinds()) == ([1], ["jobs", "moved"])
    again = FakeSink()
    await rig.desk.register(SPEC, worker_id, [(1, 1)], again)
    rig.desk.grant(worker_id, 3)
    await asyncio.sleep(0.1)
    assert again.ids() == ([2, 3] if committed else [])


@virtual
async def test_who_gave_up_waiting_keeps_no_job_from_its_worker() -> None:
    rig = await leading()
    _, sink = await free_worker(rig, 4)
    answer = submit(rig, work())
    answer.cancel()
    await asyncio.sleep(0.1)
    assert sink.ids() == [1]


@virtual
async def test_a_connection_that_is_gone_hands_back() -> None:
    rig = await leading()
    worker_id, old = await free_worker(rig, 1)
    rig.log.held = True
    answer = submit(rig, work())
    await asyncio.sleep(0.01)
    new = FakeSink()
    await rig.desk.register(SPEC, worker_id, [], new)
    rig.log.release()
    await answer
    await asyncio.sleep(0.1)
    rig.desk.grant(worker_id, 1)
    await asyncio.sleep(0.1)
    assert old.ids() == []
    assert [(job.job_id, job.attempt) for job in new.jobs] == [(1, 2)]


@virtual
async def test_who_leads_no_more_takes_nothing() -> None:
    rig = await leading()
    _, sink = await free_worker(rig, 4)
    rig.log.held = True
    answer = submit(rig, work())
    await asyncio.sleep(0.01)
    await rig.resign()
    rig.log.lose(committed=True)
    with pytest.raises(OutcomeUnknown):
        await answer
    with pytest.raises(NotLeader):
        submit(rig, work())
    await asyncio.sleep(0.1)
    assert sink.ids() == []
    assert rig.raft.state.tables.jobs[1].state == lifecycle.RUNNING
