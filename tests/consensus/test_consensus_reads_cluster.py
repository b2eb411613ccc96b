"""Linearizable reads of real nodes over loopback: followers, failover, and a leader cut off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from consensus_helpers import TestNode, running, until

from cluster.consensus import Outcome, ReadError, ReadFailure, Role


def cut_off(node: TestNode) -> None:
    """From now on nothing leaves the node and nothing reaches it, and nobody is told."""
    mesh = node.consensus._core.network  # type: ignore[union-attr]
    mesh.send = lambda *_: True  # type: ignore[method-assign]

    class Deaf(type(mesh.inbox)):  # type: ignore[misc]
        def append(self, event: object) -> None: ...

    mesh.inbox = Deaf()


async def test_every_node_reads_what_was_acknowledged(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        for number in range(30):
            entry = b"entry %d" % number
            assert (await leader.propose(entry))[0] is Outcome.APPLIED
            reader = cluster.nodes[number % 3]
            await reader.consensus.read_index(5000)
            assert reader.machine.entries[-1] == entry


async def test_reads_share_rounds(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        nodes = [cluster.nodes[number % 3] for number in range(3000)]
        await asyncio.gather(*(node.consensus.read_index(10_000) for node in nodes))
        status = leader.consensus.status()
        assert status["reads_failed"] == 0
        assert int(str(status["read_rounds"])) < 100


async def test_a_leader_that_is_cut_off_reads_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, 3, leader_fallback_ms=60_000) as cluster:
        await cluster.commit(b"old")
        old = await cluster.leader()
        cut_off(old)
        new = await cluster.leader(but=old)
        assert (await new.propose(b"new"))[0] is Outcome.APPLIED
        assert old.consensus.role is Role.LEADER  # it still believes so
        with pytest.raises(ReadError) as caught:
            await old.consensus.read_index(300)
        assert caught.value.reason is ReadFailure.NO_QUORUM
        for node in cluster.followers(old):
            await node.consensus.read_index(5000)
            assert node.machine.entries == [b"old", b"new"]


async def test_a_read_outlives_its_leader(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        old = await cluster.leader()
        cut_off(old)
        reader = cluster.followers(old)[0]
        await reader.consensus.read_index(10_000)
        new = await cluster.leader(but=old)
        assert new is not old
        assert reader.machine.entries == [b"one"]


async def test_without_a_quorum_a_read_ends_with_the_reason(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        for follower in cluster.followers(leader):
            await follower.consensus.stop()
        with pytest.raises(ReadError):
            await leader.consensus.read_index(100)
        assert leader.machine.entries == [b"one"]  # what it has can still be looked at


async def test_reads_end_when_the_node_stops(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        node = await cluster.leader()
        cut_off(node)
        read = asyncio.ensure_future(node.consensus.read_index(60_000))
        await until(lambda: node.consensus._core and len(node.consensus._core.reads))
        await node.consensus.stop()
        with pytest.raises(ReadError) as caught:
            await read
        assert caught.value.reason is ReadFailure.STOPPED
        with pytest.raises(ReadError):
            await node.consensus.read_index(1000)


async def test_a_reader_that_gave_up_hurts_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        gone = asyncio.ensure_future(leader.consensus.read_index(5000))
        await asyncio.sleep(0)
        gone.cancel()
        await leader.consensus.read_index(5000)
        assert leader.consensus.status()["errors"] == {}
