"""Lone jobs share a command: who gets which id, and what becomes of those that wait."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import Rig, virtual

from cluster.actors import submissions as submissions_module
from cluster.actors.services import NotLeader, OutcomeUnknown, Overloaded
from cluster.actors.submissions import Submissions, may_gather
from cluster.consensus import Role
from cluster.machine.commands import JobGroup, SubmitJobs, decode_batch
from cluster.machine.model import JobSpec
from cluster.machine.results import Submitted

MAIL, WORK = JobSpec("mail"), JobSpec("work")


def one(spec: JobSpec = WORK, payload: bytes = b"null", run_at_ms: int = 0) -> JobGroup:
    return JobGroup(spec, [payload], run_at_ms)


async def leading() -> tuple[Rig, Submissions]:
    rig = Rig()
    await rig.lead()
    return rig, rig.submissions


async def busy() -> tuple[Rig, Submissions]:
    """Both places in flight are taken, so whatever comes has to wait."""
    rig, submissions = await leading()
    rig.log.held = True
    for _ in range(2):
        rig.proposer.propose(SubmitJobs([one()]))
        await asyncio.sleep(0)
    return rig, submissions


@virtual
async def test_a_lone_job_does_not_wait_for_company() -> None:
    _, submissions = await leading()
    assert await submissions.submit(one()) == Submitted(1, 1)
    assert await submissions.submit(one()) == Submitted(2, 1)


@virtual
async def test_those_that_wait_share_a_command_and_get_their_own_ids() -> None:
    rig, submissions = await busy()
    groups = [one(payload=b"1"), one(payload=b"2"), one(MAIL), one(), one(run_at_ms=10**13)]
    several = JobGroup(MAIL, [b"1", b"2"])
    futures = [submissions.submit(group) for group in [*groups, several, one(payload=b"3")]]
    rig.log.commit(2)
    await asyncio.sleep(0)
    (entry, _) = rig.log.pending[0]
    (command,) = decode_batch(entry).commands
    assert isinstance(command, SubmitJobs)
    sizes = [(group.spec.name, len(group.payloads)) for group in command.groups]
    assert sizes == [("work", 2), ("mail", 1), ("work", 1), ("work", 1), ("mail", 2), ("work", 1)]
    rig.log.commit()
    results = [await future for future in futures]
    firsts = [3, 4, 5, 6, 7, 8, 10]
    assert results == [Submitted(n, 2 if n == 8 else 1) for n in firsts]
    assert rig.raft.state.tables.jobs[10].payload == b"3"
    assert groups[0].payloads == [b"1"]  # what the caller gave is still the caller's
    assert submissions.waiting_bytes == 0


@virtual
async def test_a_command_takes_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions_module, "GATHERED_JOBS_MAX", 3)
    rig, submissions = await busy()
    futures = [submissions.submit(one()) for _ in range(7)]
    assert rig.proposer.queued == 3
    rig.log.held = False
    rig.log.commit(2)
    assert [(await future) for future in futures] == [Submitted(n, 1) for n in range(3, 10)]


@virtual
async def test_too_much_that_waits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions_module, "GATHERED_BYTES_MAX", 10)
    monkeypatch.setattr(submissions_module, "WAITING_BYTES_MAX", 20)
    rig, submissions = await busy()
    for _ in range(2):
        submissions.submit(one(payload=b"0123456789"))
    with pytest.raises(Overloaded):
        submissions.submit(one())
    rig.log.commit(2)
    await asyncio.sleep(0)
    assert submissions.waiting_bytes == 0
    submissions.submit(one())


@virtual
async def test_who_gave_up_does_not_hurt_the_others() -> None:
    rig, submissions = await busy()
    first, second = submissions.submit(one()), submissions.submit(one())
    first.cancel()
    rig.log.held = False
    rig.log.commit(2)
    assert await second == Submitted(4, 1)


@virtual
async def test_all_hear_that_leadership_ended_before_their_turn() -> None:
    rig, submissions = await busy()
    futures = [submissions.submit(one()) for _ in range(2)]
    rig.raft._on_role(Role.FOLLOWER, 2, None)
    for future in futures:
        with pytest.raises(NotLeader):
            await future
    with pytest.raises(NotLeader):
        submissions.submit(one())
    assert submissions.waiting_bytes == 0


@virtual
async def test_all_hear_that_nothing_commits_any_more() -> None:
    rig, submissions = await busy()
    futures = [submissions.submit(one()) for _ in range(2)]
    for future in futures:
        with pytest.raises(Overloaded):
            await future
    assert rig.proposer.queued == 0


@virtual
async def test_all_hear_that_the_outcome_is_unknown() -> None:
    rig, submissions = await busy()
    futures = [submissions.submit(one()) for _ in range(2)]
    rig.log.commit(2)
    await asyncio.sleep(0)
    rig.log.lose(committed=False)
    for future in futures:
        with pytest.raises(OutcomeUnknown):
            await future


def test_unique_keys_and_large_groups_stay_alone() -> None:
    assert may_gather(one())
    assert not may_gather(JobGroup(WORK, [b""], unique_keys=["k"]))
    assert not may_gather(JobGroup(WORK, [b""] * 21))
