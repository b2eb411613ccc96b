"""A node that has known no leader for a while says so, with whom it reaches."""

from __future__ import annotations

import asyncio

import pytest
from actor_rig import Rig, virtual

from cluster.actors.leaderwatch import AGAIN_S, PATIENCE_S, LeaderWatch
from cluster.consensus import PeerStatus, Role


def watched() -> tuple[Rig, LeaderWatch]:
    rig = Rig()
    rig.log.others = [
        PeerStatus("b", True, {}, 0, 0.0),
        PeerStatus("c", False, {}, 0, None),
    ]
    watch = LeaderWatch(rig.raft)
    watch.start()
    return rig, watch


@virtual
async def test_an_election_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    rig, watch = watched()
    await asyncio.sleep(PATIENCE_S / 2)
    rig.log.become(Role.LEADER)
    await asyncio.sleep(2 * AGAIN_S)
    assert (caplog.messages, watch.without_s()) == ([], 0.0)


@virtual
async def test_what_lasts_is_told_with_who_is_there_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig, watch = watched()
    await asyncio.sleep(PATIENCE_S + 0.1)
    told = (
        "no leader for 3 s, so nothing is accepted: "
        "2 of 3 voters are here, 2 are needed; not connected: c"
    )
    assert caplog.messages == [told]
    await asyncio.sleep(AGAIN_S)
    assert len(caplog.messages) == 2
    assert watch.without_s() == pytest.approx(AGAIN_S + PATIENCE_S + 0.1)
    rig.log.become(Role.LEADER)
    assert caplog.messages[2:3] == ["me leads, after 63.1 s without a leader"]
    rig.log.become(Role.FOLLOWER)
    watch.stop()
    await asyncio.sleep(2 * AGAIN_S)
    assert sum("no leader for" in message for message in caplog.messages) == 2
