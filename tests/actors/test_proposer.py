"""Group commit: what shares an entry, and how every command gets its own answer."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import Rig, virtual

from cluster.actors import proposer as proposer_module
from cluster.actors.services import DiskFull, NotLeader, OutcomeUnknown, Overloaded
from cluster.consensus import BUSY, DISK_FULL, Outcome, Role
from cluster.machine.commands import CancelJobs, JobGroup, PauseSchedule, SubmitJobs, decode_batch
from cluster.machine.model import JobSpec
from cluster.machine.results import PerJob, Rejected, Submitted


def submission(count: int) -> SubmitJobs:
    return SubmitJobs([JobGroup(JobSpec("work"), [b"null"] * count)])


@virtual
async def test_a_lone_command_goes_in_the_same_turn() -> None:
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    rig.proposer.propose(submission(1))
    await asyncio.sleep(0)
    assert len(rig.log.pending) == 1


@virtual
async def test_a_burst_shares_one_entry_behind_those_in_flight() -> None:
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    futures = []
    for count in (1, 2):  # fill both places in flight
        futures.append(rig.proposer.propose(submission(count)))
        await asyncio.sleep(0)
    for count in range(3, 103):
        futures.append(rig.proposer.propose(submission(count)))
    await asyncio.sleep(0)
    assert len(rig.log.pending) == 2
    rig.log.commit(2)
    await asyncio.sleep(0)
    assert [len(decode_batch(entry).commands) for entry, _ in rig.log.pending] == [100]
    rig.log.commit()
    results = [await future for future in futures]
    assert [r.count for r in results if isinstance(r, Submitted)] == list(range(1, 103))


@virtual
async def test_results_reach_the_futures_of_their_own_commands() -> None:
    rig = Rig()
    await rig.lead()
    first = rig.proposer.propose(submission(1))
    second = rig.proposer.propose(PauseSchedule("none"))
    third = rig.proposer.propose(CancelJobs([1]))
    assert isinstance(await first, Submitted)
    assert await second is Rejected.UNKNOWN_SCHEDULE
    assert await third == PerJob([0])


@virtual
async def test_commands_proposed_together_share_the_last_ones_answer() -> None:
    rig = Rig()
    await rig.lead()
    together = rig.proposer.propose_all([submission(1), submission(2), PauseSchedule("none")])
    alone = rig.proposer.propose(submission(3))
    assert await together is Rejected.UNKNOWN_SCHEDULE
    assert await alone == Submitted(4, 3)


@virtual
async def test_commands_proposed_together_are_refused_together_when_leadership_ends() -> None:
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    in_flight = []
    for _ in range(proposer_module.ENTRIES_IN_FLIGHT_MAX):
        in_flight.append(rig.proposer.propose(submission(1)))
        await asyncio.sleep(0)
    together = rig.proposer.propose_all([submission(1), submission(2)])
    await rig.resign()
    with pytest.raises(NotLeader):
        await together
    assert rig.proposer.queued == 0


@virtual
async def test_a_node_that_does_not_lead_refuses_at_once() -> None:
    rig = Rig()
    with pytest.raises(NotLeader):
        rig.proposer.propose(submission(1))


@virtual
async def test_a_full_disk_is_told_apart_from_a_lost_leadership() -> None:
    rig = Rig()
    await rig.lead()
    rig.log.refusing = True
    with pytest.raises(NotLeader):
        await rig.proposer.propose(submission(1))
    rig.log.refusal = f"{DISK_FULL}: on the leader, n1"
    with pytest.raises(DiskFull, match="on the leader, n1"):
        await rig.proposer.propose(submission(1))
    rig.log.refusal = f"{BUSY}: 20000 proposals for the quorum"
    with pytest.raises(Overloaded, match="20000 proposals"):
        await rig.proposer.propose(submission(1))


@virtual
async def test_commands_that_wait_when_leadership_ends_were_never_proposed() -> None:
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    in_flight = []
    for _ in range(2):
        in_flight.append(rig.proposer.propose(submission(1)))
        await asyncio.sleep(0)
    waiting = rig.proposer.propose(submission(1))
    rig.log.become(Role.FOLLOWER)
    with pytest.raises(NotLeader):
        await waiting
    rig.log.lose(committed=True)
    with pytest.raises(OutcomeUnknown):
        await in_flight[0]


@virtual
async def test_a_full_queue_is_said_so_and_empties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposer_module, "QUEUE_COMMANDS_MAX", 3)
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    futures = [rig.proposer.propose(submission(1)) for _ in range(3)]
    with pytest.raises(Overloaded):
        rig.proposer.propose(submission(1))
    await asyncio.sleep(0)
    rig.log.commit()
    assert isinstance(await futures[2], Submitted)
    assert rig.proposer.queued == 0
    rig.proposer.propose(submission(1))


@virtual
async def test_commands_behind_a_stuck_log_are_refused_in_time() -> None:
    """The leader still leads (heartbeats are answered), but nothing commits."""
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    in_flight = []
    for _ in range(2):
        in_flight.append(rig.proposer.propose(submission(1)))
        await asyncio.sleep(0)
    first = rig.proposer.propose(submission(1))
    await asyncio.sleep(3.0)
    second = rig.proposer.propose(submission(1))
    with pytest.raises(Overloaded):
        await asyncio.wait_for(first, 2.1)
    assert not second.done()
    with pytest.raises(Overloaded):
        await asyncio.wait_for(second, 3.1)
    assert (rig.proposer.queued, rig.proposer._queue_bytes) == (0, 0)
    rig.log.release()
    for future in in_flight:
        assert isinstance(await future, Submitted)
    assert isinstance(await rig.proposer.propose(submission(1)), Submitted)
    assert len(rig.raft.state.tables.jobs) == 3  # the refused ones never reached the log


@virtual
async def test_an_entry_that_did_not_decode_is_answered() -> None:
    rig = Rig()
    await rig.lead()
    rig.log.held = True
    futures = [rig.proposer.propose(submission(1)) for _ in range(2)]
    await asyncio.sleep(0)
    _, callback = rig.log.pending.popleft()
    callback(Outcome.APPLIED, [Rejected.UNDECODABLE])
    assert [await future for future in futures] == [Rejected.UNDECODABLE] * 2
    assert isinstance(await later(rig), Submitted)


async def later(rig: Rig) -> object:
    rig.log.held = False
    return await rig.proposer.propose(submission(1))
