"""The feature level: raised when all members know it and the way back is no longer wanted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actor_rig import LATENCY_S, Rig, virtual

from cluster.actors import completions, dispatcher, express
from cluster.actors.services import LevelTooLow
from cluster.actors.upgrader import HURRIED_S, HURRY_S, LOOK_S, Upgrader, UpgradeRefused
from cluster.consensus import PeerStatus
from cluster.machine import commands as c
from cluster.machine import snapshot
from cluster.machine.levels import BASE_LEVEL, BLOCKS, GATES, HIGHEST_LEVEL, MANY, Support
from cluster.machine.state import State

DELAY_S = 100.0
OLDER = Support(BASE_LEVEL)
NEWER = Support(HIGHEST_LEVEL)


def peer(name: str, support: Support | None, *, connected: bool = True) -> PeerStatus:
    return PeerStatus(name, connected, support.meta() if support is not None else {}, 0, 0.0)


async def leader(*others: PeerStatus, support: Support = NEWER) -> tuple[Rig, Upgrader]:
    """A leader of the release under test, in a cluster that was never raised."""
    rig = Rig(level=BASE_LEVEL)
    rig.raft.support = support
    rig.log.others = list(others)
    upgrader = Upgrader(rig.raft, rig.proposer, DELAY_S)
    await rig.lead([upgrader, rig.dispatcher])
    return rig, upgrader


@virtual
async def test_a_cluster_is_raised_when_all_know_the_level_and_the_delay_has_passed() -> None:
    rig, upgrader = await leader(peer("b", NEWER), peer("c", OLDER))
    await asyncio.sleep(DELAY_S + 1)
    assert rig.raft.feature_level == BASE_LEVEL
    assert upgrader.raises_in_s() is None
    rig.log.others[1] = peer("c", NEWER)
    await asyncio.sleep(DELAY_S / 2)
    assert rig.raft.feature_level == BASE_LEVEL
    assert 0 < (upgrader.raises_in_s() or 0) <= DELAY_S / 2 + LOOK_S
    await asyncio.sleep(DELAY_S / 2 + 2 * LOOK_S)
    assert rig.raft.feature_level == HIGHEST_LEVEL
    assert upgrader.raises_in_s() is None


@virtual
async def test_nothing_is_raised_while_a_member_is_away_or_says_nothing() -> None:
    for other in (peer("b", NEWER, connected=False), peer("b", None)):
        rig, _ = await leader(other, peer("c", NEWER))
        await asyncio.sleep(2 * DELAY_S)
        assert rig.raft.feature_level == BASE_LEVEL
        await rig.resign()


@virtual
async def test_a_member_that_was_away_for_a_moment_does_not_start_the_delay_anew() -> None:
    rig, _ = await leader(peer("b", NEWER))
    await asyncio.sleep(DELAY_S - 5)
    rig.log.others = [peer("b", NEWER, connected=False)]
    await asyncio.sleep(2)
    rig.log.others = [peer("b", NEWER)]
    await asyncio.sleep(3 + 2 * LOOK_S)
    assert rig.raft.feature_level == HIGHEST_LEVEL


@virtual
async def test_a_member_that_went_back_starts_the_delay_anew() -> None:
    rig, _ = await leader(peer("b", NEWER))
    await asyncio.sleep(DELAY_S - 5)
    rig.log.others = [peer("b", OLDER)]
    await asyncio.sleep(2 * LOOK_S)
    rig.log.others = [peer("b", NEWER)]
    await asyncio.sleep(DELAY_S - 5)
    assert rig.raft.feature_level == BASE_LEVEL
    await asyncio.sleep(5 + 2 * LOOK_S)
    assert rig.raft.feature_level == HIGHEST_LEVEL


@virtual
async def test_a_new_cluster_has_nothing_to_go_back_to() -> None:
    """So it is raised as soon as all its members are there."""
    born = Support(HIGHEST_LEVEL, born=HIGHEST_LEVEL)
    rig, _ = await leader(peer("b", born, connected=False), support=born)
    await asyncio.sleep(HURRIED_S / 2)
    assert rig.raft.feature_level == BASE_LEVEL
    rig.log.others = [peer("b", born)]
    await asyncio.sleep(HURRY_S + 3 * LATENCY_S)
    assert rig.raft.feature_level == HIGHEST_LEVEL


@virtual
async def test_any_member_can_hold_the_level() -> None:
    held = Support(HIGHEST_LEVEL, held=BASE_LEVEL)
    for rig, upgrader in (await leader(peer("b", held)), await leader(support=held)):
        await asyncio.sleep(2 * DELAY_S)
        assert rig.raft.feature_level == BASE_LEVEL
        with pytest.raises(UpgradeRefused, match="holds it at 2"):
            await upgrader.raise_now(None)
        await rig.resign()


@virtual
async def test_by_hand_nothing_is_waited_for_and_every_obstacle_is_named() -> None:
    rig, upgrader = await leader(
        peer("b", OLDER), peer("c", NEWER, connected=False), peer("d", None), peer("e", NEWER)
    )
    with pytest.raises(UpgradeRefused) as caught:
        await upgrader.raise_now(None)
    assert caught.value.reasons == [
        "b knows levels up to 2: upgrade it",
        "c is not connected: start it, or remove it",
        "d runs a release without feature levels: upgrade it",
    ]
    with pytest.raises(UpgradeRefused, match=f"me knows levels up to {HIGHEST_LEVEL}"):
        await upgrader.raise_now(HIGHEST_LEVEL + 1)
    with pytest.raises(UpgradeRefused, match="never goes back"):
        await upgrader.raise_now(BASE_LEVEL - 1)
    rig.log.others = [peer("b", NEWER)]
    assert await upgrader.raise_now(None, is_trial=True) == HIGHEST_LEVEL
    assert rig.raft.feature_level == BASE_LEVEL
    assert await upgrader.raise_now(None) == rig.raft.feature_level == HIGHEST_LEVEL
    assert await upgrader.raise_now(HIGHEST_LEVEL) == HIGHEST_LEVEL
    assert sum(isinstance(command, c.RaiseLevel) for command in rig.log.commands()) == 1


@virtual
async def test_a_leader_of_the_older_release_does_not_say_that_all_is_done() -> None:
    _, upgrader = await leader(peer("b", NEWER), support=OLDER)
    with pytest.raises(UpgradeRefused, match="me knows levels up to 2: upgrade it"):
        await upgrader.raise_now(None)


@virtual
async def test_a_leader_at_its_own_level_has_nothing_to_look_for() -> None:
    rig = Rig()
    upgrader = Upgrader(rig.raft, rig.proposer, DELAY_S)
    await rig.lead([upgrader])
    await asyncio.sleep(LOOK_S)
    assert upgrader._handle is None


@virtual
async def test_what_an_older_member_cannot_read_is_not_proposed() -> None:
    rig, _ = await leader(peer("b", OLDER))
    command = c.AssignNew(1, 1)
    with pytest.raises(LevelTooLow, match="AssignNew needs feature level 3, the cluster is at 2"):
        await rig.proposer.propose(command)
    with pytest.raises(LevelTooLow):
        rig.proposer.propose_together([(c.PurgeDead([]), None), (command, None)])
    await rig.proposer.propose(c.PurgeDead([]))
    worker_id, sink = await rig.worker(4)
    group = c.JobGroup(c.JobSpec("work"), [b"1"])
    await asyncio.sleep(LOOK_S)
    assert rig.express.parts([group]) == []
    await rig.proposer.propose(c.RaiseLevel(HIGHEST_LEVEL))
    assert [command for command, _ in rig.express.parts([group])] == [c.AssignNew(worker_id, 1)]
    assert not sink.jobs


@virtual
async def test_a_release_that_meets_a_level_it_does_not_know_stops_before_it_applies_more() -> None:
    said: list[str] = []
    told: list[int] = []
    effects: list[Any] = []
    rig = Rig(level=BASE_LEVEL, on_fatal=said.append)
    rig.raft.support = OLDER
    rig.raft.on_level(told.append)
    entry = c.encode_batch(c.Batch(1, 1, [c.RaiseLevel(HIGHEST_LEVEL)]))
    rig.raft.on_effects(lambda effect, index: effects.append(effect))
    assert rig.raft.apply(entry, 1) is None
    assert said == [
        f"the data is at feature level {HIGHEST_LEVEL}, this release knows levels up to 2: use a "
        f"release that knows level {HIGHEST_LEVEL}; a cluster never goes back to a lower one"
    ]
    assert told == [HIGHEST_LEVEL]
    digest = rig.raft.state.digest
    assert rig.raft.apply(c.encode_batch(c.Batch(1, 5, [c.PurgeDead([])])), 2) is None
    assert (rig.raft.state.digest, effects) == (digest, [])


@virtual
async def test_a_snapshot_above_the_level_is_refused_and_one_within_it_is_taken_over() -> None:
    state = State()
    state.level = HIGHEST_LEVEL
    chunks = list(snapshot.dump(state))
    rig = Rig(level=BASE_LEVEL)
    told: list[int] = []
    rig.raft.on_level(told.append)
    rig.raft.restore(chunks)
    assert (rig.raft.feature_level, told) == (HIGHEST_LEVEL, [HIGHEST_LEVEL])
    older = Rig(level=BASE_LEVEL)
    older.raft.support = OLDER
    with pytest.raises(ValueError, match="this release knows levels up to 2"):
        older.raft.restore(chunks)


def test_the_table_says_what_is_asked_for() -> None:
    assert express.LEVEL == GATES[c.AssignNew] == BLOCKS
    assert dispatcher.LEVEL == GATES[c.AssignMany] == MANY
    assert completions.LEVEL == GATES[c.CompleteMany] == MANY
