"""What others may see of a running node: its disk, a snapshot on its way, its timer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consensus_helpers import SMALL, ListMachine, entries, running, until
from consensus_world import World, command

from cluster.consensus import Consensus
from cluster.consensus.members import NOBODY
from cluster.consensus.observe import Health, applied_members, health_of, observe_timer

MakeWorld = Callable[..., World]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    return lambda **settings: World(monkeypatch, tmp_path, **settings)


def shell_of(world: World) -> Consensus:
    """What stands around the core in a real node."""
    shell = Consensus(world.core.config, ListMachine(), lambda *role: None)
    shell._core = world.core
    return shell


def test_a_node_that_has_not_started_is_not_ill(make: MakeWorld) -> None:
    shell = Consensus(make().core.config, ListMachine(), lambda *role: None)
    assert health_of(shell) == Health()


def test_a_full_disk_is_seen_until_it_has_space(make: MakeWorld) -> None:
    world = make()
    shell = shell_of(world)
    for is_full in (False, True, False):
        world.disk.is_full = is_full
        world.run()
        assert health_of(shell).disk_is_full is is_full


def test_a_disk_that_owes_an_answer_is_seen(make: MakeWorld) -> None:
    world = make()
    shell = shell_of(world)
    world.connect("b:1", "c:1")
    world.append("b:1", 1, (1, 0), command("a", 2, 1))
    assert health_of(shell).disk_silent_ms == 0
    world.disk.held = True
    world.append("b:1", 1, (2, 1), command("b", 3, 1), seq=2)
    world.pass_time(5.0)
    health = health_of(shell)
    assert health.disk_silent_ms > health.disk_stall_ms == world.core.config.disk_stall_ms


async def test_a_snapshot_on_its_way_is_seen(tmp_path: Path) -> None:
    async with running(tmp_path, 3, **SMALL) as cluster:
        await cluster.commit(*entries(0, 5))
        leader = await cluster.leader()
        behind = cluster.nodes.index(cluster.followers(leader)[0])
        await cluster.nodes[behind].consensus.stop()
        await cluster.commit(*entries(5, 200))
        await (await cluster.leader()).consensus.snapshot_now()
        node = await cluster.restart(behind)
        receiver: Any = node.consensus._receiver
        take, seen = receiver.on_chunk, []

        def on_chunk(*chunk: Any) -> int:
            have: int = take(*chunk)
            seen.append((health_of(node.consensus).snapshot_is_arriving, have))
            return have

        receiver.on_chunk = on_chunk
        await until(lambda: node.machine.entries == entries(0, 205))
        assert seen and all(arriving for arriving, have in seen if have)
        await until(lambda: not health_of(node.consensus).snapshot_is_arriving)


async def test_a_timer_tells_when_it_was_due(tmp_path: Path) -> None:
    async with running(tmp_path, 1, **SMALL) as cluster:
        late_s: list[float] = []
        began_s = time.monotonic()
        observe_timer(
            cluster.nodes[0].consensus, lambda due_s: late_s.append(time.monotonic() - due_s)
        )
        await until(lambda: len(late_s) > 3)
        assert all(-0.01 < late <= time.monotonic() - began_s for late in late_s)


async def test_the_members_that_are_applied_have_the_folders_of_this_life(tmp_path: Path) -> None:
    def folders(cluster: Any) -> set[frozenset[str]]:
        found = [applied_members(node.consensus).members for node in cluster.nodes]
        return {frozenset(member.folder for member in members) for members in found}

    lives = []
    for life in ("first", "second"):
        async with running(tmp_path / life, 3, **SMALL) as cluster:
            await until(lambda: len(folders(cluster)) == 1 and "" not in min(folders(cluster)))
            lives.append(min(folders(cluster)))
    assert len(lives[0] | lives[1]) == 6
    shell = Consensus(cluster.nodes[0].config, ListMachine(), lambda *role: None)
    assert applied_members(shell) == NOBODY
