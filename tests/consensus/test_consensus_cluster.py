"""Real nodes over loopback: commit, failover, restart, crash, refusal."""

from __future__ import annotations

import asyncio
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from consensus_helpers import Cluster, TestNode, running, until

from cluster.consensus import (
    Consensus,
    ConsensusConfig,
    Outcome,
    Role,
    TransferError,
)


async def told(node: TestNode, role: tuple[Role, int, str | None]) -> None:
    await until(lambda: node.roles[-1:] == [role])


async def follows(node: TestNode, leader: TestNode) -> None:
    await until(lambda: node.consensus.leader_id == leader.id)


def dropped(node: TestNode, reason: str) -> int:
    counts = node.consensus.status()["dropped"]
    assert isinstance(counts, dict)
    return int(counts.get(reason, 0))


ENTRIES = [b"entry %d" % number for number in range(40)]


async def test_three_nodes_apply_the_same_log(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(*ENTRIES)
        assert await cluster.all_equal() == ENTRIES
        leader = await cluster.leader()
        assert leader.machine.indexes == sorted(leader.machine.indexes)
        for follower in cluster.followers(leader):
            assert follower.consensus.leader_id == leader.id
            known = (Role.FOLLOWER, leader.consensus.term, leader.id)
            await told(follower, known)
        metas = {peer.id: peer.meta for peer in leader.consensus.peers()}
        assert sorted(meta["http"] for meta in metas.values()) == sorted(
            f.config.meta["http"] for f in cluster.followers(leader)
        )


async def test_a_follower_refuses_proposals(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        outcome, reason = await cluster.followers(leader)[0].propose(b"x")
        assert outcome is Outcome.REFUSED
        assert "leader" in str(reason)


async def test_a_stopped_leader_is_replaced_and_catches_up(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(*ENTRIES[:10])
        old = await cluster.leader()
        await old.consensus.stop()
        new = await cluster.leader(but=old)
        assert new.consensus.term > 1
        for entry in ENTRIES[10:20]:
            assert (await new.propose(entry))[0] is Outcome.APPLIED
        await cluster.restart(cluster.nodes.index(old))
        await cluster.commit(*ENTRIES[20:])
        assert await cluster.all_equal() == ENTRIES


async def test_two_of_three_go_on_and_one_does_not(tmp_path: Path) -> None:
    async with running(tmp_path, 3, proposal_timeout_ms=400) as cluster:
        await cluster.commit(b"first")
        leader = await cluster.leader()
        one, two = cluster.followers(leader)
        await one.consensus.stop()
        assert (await leader.propose(b"second"))[0] is Outcome.APPLIED
        await two.consensus.stop()
        outcome, _ = await leader.propose(b"third")
        assert outcome is Outcome.UNKNOWN
        await until(lambda: leader.roles[-1][::2] == (Role.FOLLOWER, None))


async def test_proposals_end_when_leadership_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        for follower in cluster.followers(leader):
            follower.consensus.abort()
        futures = [leader.propose(entry) for entry in ENTRIES]
        outcomes = {(await future)[0] for future in futures}
        assert outcomes <= {Outcome.UNKNOWN, Outcome.REFUSED}
        assert leader.consensus.role is not Role.LEADER


async def test_proposals_end_when_the_node_stops(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        leader = await cluster.leader()
        futures = [leader.propose(entry) for entry in ENTRIES]
        await leader.consensus.stop()
        assert all(future.done() for future in futures)
        late = leader.propose(b"late")
        assert (await late)[0] is Outcome.REFUSED


async def test_a_callback_that_raises_hurts_nobody(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        leader = await cluster.leader()

        def raises(outcome: Outcome, result: object) -> None:
            raise ValueError("my own fault")

        leader.consensus.propose(b"one", raises)
        await cluster.commit(b"two")
        assert await cluster.all_equal() == [b"one", b"two"]
        assert leader.consensus.status()["errors"] == {"callback": 1}


async def test_a_callback_may_propose_again_and_is_never_called_from_inside(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        leader = await cluster.leader()
        depth = 0
        seen: list[int] = []
        done = asyncio.Event()

        def again(outcome: Outcome, result: object) -> None:
            nonlocal depth
            assert outcome is Outcome.APPLIED
            assert depth == 0
            depth += 1
            seen.append(len(seen))
            if len(seen) < 5:
                leader.consensus.propose(b"x", again)
            else:
                done.set()
            depth -= 1

        leader.consensus.propose(b"x", again)
        assert seen == []
        await asyncio.wait_for(done.wait(), 60)
        assert leader.machine.entries == [b"x"] * 5


async def test_one_node_commits_and_recovers(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        await cluster.commit(*ENTRIES)
        await cluster.nodes[0].consensus.stop()
        node = await cluster.restart(0)
        await cluster.commit(b"last")
        assert node.machine.entries == [*ENTRIES, b"last"]


async def test_a_crash_of_everything_keeps_every_acknowledged_entry(tmp_path: Path) -> None:
    """Nothing is flushed: the files are copied as they are while the nodes still run."""
    cluster = Cluster(tmp_path / "before", 3, segment_bytes=4096)
    await cluster.start()
    leader = await cluster.leader()
    futures = [leader.propose(b"load %d" % number) for number in range(500)]
    await until(lambda: sum(future.done() for future in futures) > 300)
    acknowledged = sum(
        future.done() and future.result()[0] is Outcome.APPLIED for future in futures
    )
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    for node in cluster.nodes:
        node.consensus.abort()
    folders = {node.id: tmp_path / "after" / node.config.data_dir.name for node in cluster.nodes}
    cluster.nodes = [
        TestNode(replace(node.config, data_dir=folders[node.id])) for node in cluster.nodes
    ]
    try:
        await cluster.start()
        await cluster.commit(b"after")
        state = await cluster.all_equal()
        assert state[:acknowledged] == [b"load %d" % number for number in range(acknowledged)]
        assert state[-1] == b"after"
        assert acknowledged > 300
    finally:
        await cluster.stop()


async def test_large_entries_reach_everybody(tmp_path: Path) -> None:
    async with running(tmp_path, 3, entry_bytes_max=4 << 20) as cluster:
        big = [bytes([number]) * (3 << 20) for number in range(4)]
        await cluster.commit(*big)
        assert await cluster.all_equal() == big
        leader = await cluster.leader()
        outcome, reason = await leader.propose(b"x" * ((4 << 20) + 1))
        assert outcome is Outcome.REFUSED
        assert "limit" in str(reason)


async def test_the_uncommitted_log_is_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, 3, uncommitted_entries_max=10) as cluster:
        leader = await cluster.leader()
        futures = [leader.propose(b"x") for _ in range(30)]
        outcomes = [(await future)[0] for future in futures]
        assert outcomes.count(Outcome.APPLIED) == 10
        assert outcomes.count(Outcome.REFUSED) == 20


async def test_leadership_moves_on_request(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(*ENTRIES[:5])
        old = await cluster.leader()
        target = cluster.followers(old)[1]
        assert await old.consensus.transfer_leadership(target.id, 5000) == target.id
        assert await cluster.leader() is target
        assert old.consensus.leader_id == target.id
        await cluster.commit(*ENTRIES[5:])
        assert await cluster.all_equal() == ENTRIES


async def test_a_failed_transfer_leaves_the_leader_working(tmp_path: Path) -> None:
    async with running(tmp_path, 3) as cluster:
        leader = await cluster.leader()
        follower = cluster.followers(leader)[0]
        await follower.consensus.stop()
        await until(lambda: not all(peer.connected for peer in leader.consensus.peers()))
        with pytest.raises(TransferError, match="not connected"):
            await leader.consensus.transfer_leadership(follower.id, 500)
        with pytest.raises(TransferError, match="not another voting member"):
            await leader.consensus.transfer_leadership("127.0.0.1:1", 500)
        with pytest.raises(TransferError, match="does not lead"):
            await cluster.followers(leader)[1].consensus.transfer_leadership(None, 500)
        assert (await leader.propose(b"x"))[0] is Outcome.APPLIED


async def test_a_returning_node_does_not_depose_the_leader(tmp_path: Path) -> None:
    """C2: pre-vote and stickiness keep the term where it is."""
    async with running(tmp_path, 3) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        term = leader.consensus.term
        for _ in range(2):
            position = cluster.nodes.index(cluster.followers(leader)[0])
            cluster.nodes[position].consensus.abort()
            node = await cluster.restart(position)
            await follows(node, leader)
            await cluster.commit(b"more")
        assert leader.consensus.term == term
        assert leader.consensus.role is Role.LEADER


async def test_a_stranger_with_another_secret_gets_nowhere(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        other = cluster.followers(leader)[0]
        await other.consensus.stop()
        impostor = TestNode(
            replace(other.config, data_dir=tmp_path / "x", cluster_secret="wrong guess")
        )
        await impostor.consensus.start()
        try:
            await until(lambda: dropped(leader, "bad_proof") > 0)
            assert not leader.consensus.peers()[0].connected
            assert impostor.machine.entries == []
        finally:
            await impostor.consensus.stop()


async def test_a_disk_error_ends_the_node_without_an_answer(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        node = await cluster.leader()
        disk = node.consensus._disk
        assert disk is not None

        def fails() -> None:
            raise OSError(28, "No space left on device")

        disk._files.sync = fails  # type: ignore[method-assign]
        future = node.propose(b"never durable")
        await until(lambda: node.fatal)
        assert "No space left" in node.fatal[0]
        assert node.machine.entries == []
        node.consensus.abort()
        assert (await future)[0] is Outcome.UNKNOWN
        node.fatal.clear()


async def test_stop_is_idempotent_and_needs_no_start(tmp_path: Path) -> None:
    config = ConsensusConfig("127.0.0.1:1", "127.0.0.1:1", (), tmp_path)
    node = Consensus(config, TestNode(config).machine, lambda role, term, leader: None)
    await node.stop()
    await node.stop()
    assert node.role is Role.FOLLOWER


async def test_nothing_is_ever_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("loads", "dumps", "load", "dump"):
        monkeypatch.setattr(f"pysyncobj.pickle.{name}", refuse)
    settings = {"trailing_entries": 2, "snapshot_journal_bytes": 2000, "segment_bytes": 1000}
    async with running(tmp_path, 3, **settings) as cluster:
        await cluster.commit(*ENTRIES)
        leader = await cluster.leader()
        await cluster.followers(leader)[0].consensus.stop()
        await cluster.commit(*[b"more" * 50] * 40)
        await leader.consensus.snapshot_now()
        await cluster.restart(cluster.nodes.index(cluster.followers(leader)[0]))
        await leader.consensus.transfer_leadership(None, 5000)
        await cluster.commit(b"last")
        assert (await cluster.all_equal())[-1] == b"last"


async def test_idle_strangers_are_limited_and_do_not_shut_members_out(tmp_path: Path) -> None:
    async with running(tmp_path, 2) as cluster:
        await cluster.commit(b"one")
        leader = await cluster.leader()
        host, port = leader.id.split(":")
        streams = [await asyncio.open_connection(host, int(port)) for _ in range(80)]
        await until(lambda: dropped(leader, "too_many_strangers") > 0)
        follower = cluster.followers(leader)[0]
        follower.consensus.abort()
        await cluster.restart(cluster.nodes.index(follower))
        await cluster.commit(b"two")
        assert await cluster.all_equal() == [b"one", b"two"]
        for _, writer in streams:
            writer.close()


async def test_garbage_from_a_stranger_ends_only_its_own_connection(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as cluster:
        node = await cluster.leader()
        host, port = node.id.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x80\x04cos\nsystem\n" * 10)
        assert await reader.read() == b""
        writer.close()
        assert dropped(node, "bad_greeting") == 1
        await cluster.commit(b"one")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_a_connection_over_a_dead_wire_is_given_up_within_seconds(tmp_path: Path) -> None:
    """Else a node that was cut off for some seconds stays away for as long again: TCP backs off."""
    async with running(tmp_path, 2) as cluster:
        await cluster.leader()
        for node in cluster.nodes:
            assert node.consensus._mesh is not None
            for link in node.consensus._mesh._links.values():
                assert link._transport is not None
                sock = link._transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000
