"""Successes that wait share a command; each worker is told of its own, whatever the others say."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import Rig, virtual

from cluster.actors import completions as completions_module
from cluster.actors.completions import LEVEL, Report
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.consensus import Role
from cluster.machine.commands import CompleteJobs, CompleteMany, DrainWorker
from cluster.machine.results import Rejected


async def leading(workers: int, rig: Rig | None = None) -> Rig:
    """Worker 1 runs job 1, and so on."""
    rig = rig or Rig()
    await rig.lead([rig.dispatcher])
    for _ in range(workers):
        await rig.submit()
        await rig.worker(1)
        await asyncio.sleep(0.01)
    return rig


async def busy(workers: int, rig: Rig | None = None) -> Rig:
    """Both places in flight are taken, so whatever comes has to wait."""
    rig = await leading(workers, rig)
    rig.log.held = True
    for _ in range(2):
        rig.proposer.propose(DrainWorker(99))
        await asyncio.sleep(0)
    return rig


def complete(rig: Rig, worker_id: int, *job_ids: int, text: str = "") -> asyncio.Task[list[int]]:
    count = len(job_ids)
    outputs: list[bytes | None] | None = [text.encode()] * count if text else None
    logs: list[str | None] | None = [text] * count if text else None
    work = rig.desk.complete(worker_id, list(job_ids), [1] * count, outputs, logs)
    return asyncio.ensure_future(work)


@virtual
async def test_a_lone_one_has_the_command_of_old() -> None:
    rig = await leading(1)
    assert await complete(rig, 1, 1) == []
    assert rig.log.commands()[-1] == CompleteJobs(1, [1], [1])


@virtual
async def test_those_that_wait_share_a_command_and_each_is_told_its_own() -> None:
    rig = await busy(3)
    first = complete(rig, 1, 1, 7)
    second = complete(rig, 2, 2, text="2")
    stranger = complete(rig, 3, 2)
    await asyncio.sleep(0)
    rig.log.release()
    await asyncio.sleep(0.1)
    assert [task.result() for task in (first, second, stranger)] == [[7], [], [2]]
    assert rig.log.commands()[-1] == CompleteMany(
        [1, 2, 3], [2, 1, 1], [1, 7, 2, 2], [1] * 4,
        [None, None, b"2", None], [None, None, "2", None],
    )  # fmt: skip
    assert rig.raft.state.totals.completed == 2


@virtual
async def test_a_command_does_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions_module, "GATHERED_JOBS_MAX", 2)
    rig = await busy(3)
    tasks = [complete(rig, n, n) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    rig.log.release()
    assert [await task for task in tasks] == [[], [], []]
    assert rig.log.commands()[-2:] == [
        CompleteMany([1, 2], [1, 1], [1, 2], [1, 1]),
        CompleteJobs(3, [3], [1]),
    ]


@virtual
async def test_outputs_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completions_module, "GATHERED_BYTES_MAX", 10)
    monkeypatch.setattr(completions_module, "WAITING_BYTES_MAX", 15)
    rig = await busy(3)
    taken = [complete(rig, n, n, text="12345") for n in (1, 2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await complete(rig, 3, 3)
    rig.log.release()
    assert [await task for task in taken] == [[], []]
    assert rig.desk.completions.waiting_bytes == 0
    assert await complete(rig, 3, 3) == []


@virtual
async def test_a_command_that_is_refused_as_a_whole_is_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that what is wrong with one result hurts nobody else."""
    rig = await busy(2)
    tasks = [complete(rig, 1, 1), complete(rig, 2, 2)]
    await asyncio.sleep(0)
    gathered = rig.desk.completions._open
    assert gathered is not None
    rig.log.commit(1)
    await asyncio.sleep(0)
    rig.log.pending.pop()  # as if it had not been understood
    gathered.set_result(Rejected.UNDECODABLE)
    rig.log.release()
    await asyncio.sleep(0.1)
    assert [await task for task in tasks] == [[], []]
    assert rig.log.commands()[-2:] == [CompleteJobs(1, [1], [1]), CompleteJobs(2, [2], [1])]


@virtual
async def test_all_are_told_when_leadership_ends_before_their_turn() -> None:
    rig = await busy(2)
    tasks = [complete(rig, 1, 1), complete(rig, 2, 2)]
    await asyncio.sleep(0)
    rig.log.become(Role.FOLLOWER)
    for task in tasks:
        with pytest.raises(NotLeader):
            await task
    with pytest.raises(NotLeader):
        await complete(rig, 1, 1)


@virtual
async def test_all_are_told_when_the_answer_gets_lost() -> None:
    rig = await leading(2)
    rig.log.held = True
    tasks = [complete(rig, 1, 1), complete(rig, 2, 2)]
    await asyncio.sleep(0.01)
    rig.log.lose(committed=True)
    for task in tasks:
        with pytest.raises(OutcomeUnknown):
            await task


@virtual
async def test_who_gave_up_waiting_hurts_nobody() -> None:
    rig = await busy(2)
    patient, hasty = complete(rig, 1, 1), complete(rig, 2, 2)
    await asyncio.sleep(0)
    hasty.cancel()
    rig.log.release()
    assert await patient == []


@virtual
async def test_one_result_that_cannot_be_booked_is_said_to_be_so() -> None:
    rig = await leading(1)
    told: list[Exception] = []

    class Teller:
        def booked(self, refused: list[int]) -> None:
            raise AssertionError(refused)

        def failed(self, error: Exception) -> None:
            told.append(error)

    report = Report(1, [1], [1], None, None, Teller())
    report.told(Rejected.INTERNAL)
    rig.log.refusing = True
    rig.desk.completions.one_by_one([report])
    await asyncio.sleep(0.01)
    rig.log.become(Role.FOLLOWER)
    rig.desk.completions.one_by_one([report])
    assert [type(error) for error in told] == [Overloaded, NotLeader, NotLeader]


@virtual
async def test_below_its_level_each_worker_has_a_command_of_its_own() -> None:
    rig = await busy(2, Rig(LEVEL - 1))
    tasks = [complete(rig, 1, 1), complete(rig, 2, 2, 7)]
    await asyncio.sleep(0)
    rig.log.release()
    assert [await task for task in tasks] == [[], [7]]
    assert rig.log.commands()[-2:] == [
        CompleteJobs(1, [1], [1]),
        CompleteJobs(2, [2, 7], [1, 1]),
    ]
