"""Two releases in one cluster: nodes are upgraded one by one, some go back, then there is no way
back any more.

The older release is a replica that cannot read what came after its level. It must never meet such a
thing: that, and nothing about how it is prevented, is what is judged here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.machine.commands import RaiseLevel
from cluster.machine.levels import BASE_LEVEL, BLOCKS, GATES, HIGHEST_LEVEL
from cluster.raft_state import BatchCallback, RaftState

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.world import World

NEW = HIGHEST_LEVEL
DELAY_S = 5.0  # from when all know the level until it is raised
RAISED_WITHIN_S = 60.0
UNKNOWN = msgspec.Raw(msgspec.msgpack.encode([0]))  # no release ever had this tag

_tags = {int(command.__struct_config__.tag): command for command in GATES}  # type: ignore[attr-defined]
_batch = msgspec.msgpack.Decoder(tuple[int, int, list[msgspec.Raw]])
_tag = msgspec.msgpack.Decoder(tuple[int, ...], strict=False)
_record = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])


def command_of(raw: msgspec.Raw) -> type:
    return _tags[msgspec.msgpack.decode(raw)[0]]


class OlderState(RaftState):
    """A replica of the release that `support` names; what came later it cannot read."""

    def met(self, what: str) -> None:
        """It was given this all the same."""

    def apply(self, entry: bytes, index: int) -> object:
        if self.support.highest < HIGHEST_LEVEL:
            entry = self._as_read(entry)
        return super().apply(entry, index)

    def _as_read(self, entry: bytes) -> bytes:
        """What is of a later release stands there as something unknown."""
        epoch, now_ms, commands = _batch.decode(entry)
        for at, raw in enumerate(commands):
            command = command_of(raw)
            if GATES[command] > self.support.highest and not self._is_refused:
                self.met(f"{command.__name__}, of level {GATES[command]}")
                commands[at] = UNKNOWN
        return msgspec.msgpack.encode((epoch, now_ms, commands))

    def load(self, chunks: Iterable[bytes]) -> Callable[[], Callable[[], None]]:
        records = list(chunks)
        adopt = super().load(records)  # the level stands in front, so it is complained about first
        if self.support.highest < BLOCKS:
            for record in records:
                if _record.decode(record[4:])[0] == "blocks":
                    raise ValueError("unknown section, written by a newer release")
        return adopt


class JudgedState(OlderState):
    """Tells the rollout what its node meets and proposes."""

    def __init__(self, rollout: Rollout, node: SimNode, *arguments: Any) -> None:
        self._rollout = rollout
        self._node = node
        super().__init__(*arguments)
        self.on_level(rollout.reached)

    def met(self, what: str) -> None:
        self._rollout.met(self._node, what)

    def propose_raw(self, commands: list[msgspec.Raw], callback: BatchCallback) -> None:
        for raw in commands:
            _, *fields = msgspec.msgpack.decode(raw)
            self._rollout.proposed(command_of(raw), fields, self.feature_level)
        super().propose_raw(commands, callback)


class Rollout:
    """Decides which node runs which release, and judges. Has chance of its own, so that worlds of
    one release do not change with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = Random(f"rollout {world.seed}")
        self._old = self._rng.randrange(BASE_LEVEL, NEW)
        self.releases = dict.fromkeys(world.node_ids, self._old)
        self.level = BASE_LEVEL  # as far as any node knows
        self.refusals = 0
        self.changes = 0
        self._wanders = self._rng.random() < 0.7
        self._stopped = False

    # -- the plan --------------------------------------------------------------------------------

    def begin(self) -> None:
        self.task = self._world.loop.create_task(self._roll(), name="rollout")

    async def _roll(self) -> None:
        """Up, perhaps down again, and in the end up, all of them; then somebody makes a mistake."""
        nodes, rng = list(self._world.nodes.values()), self._rng
        while self._wanders and not self._stopped and rng.random() < 0.75:
            await asyncio.sleep(rng.uniform(0.2, 5.0))
            self._change(rng.choice(nodes), rng.choice((self._old, NEW)))
        rng.shuffle(nodes)
        for node in nodes:
            await asyncio.sleep(rng.uniform(0.2, 3.0))
            self._change(node, NEW)
        while not self._stopped:
            await asyncio.sleep(rng.uniform(3.0, 9.0))
            if self.level == NEW or rng.random() < 0.1:
                self._change(rng.choice(nodes), self._old)

    def _change(self, node: SimNode, release: int) -> None:
        if self._stopped or self.releases[node.id] == release:
            return
        self._world.trace(f"{node.id} gets the release of level {release}")
        self.releases[node.id] = release
        self.changes += 1
        if node.alive:
            node.crash()
            self._start_later(node)

    def _start_later(self, node: SimNode) -> None:
        delay_s = self._rng.uniform(0.1, 2.0)
        self._world.loop.call_later(delay_s, lambda: None if node.alive else node.start())

    def finish(self) -> None:
        """Everybody has the new release, before what is down is started."""
        self._stopped = True
        self.task.cancel()
        for node in self._world.nodes.values():
            if self.releases[node.id] != NEW:
                self.releases[node.id] = NEW
                if node.alive:
                    node.crash()

    async def raised(self) -> None:
        """Once all run the new release, the level follows by itself."""
        deadline_s = self._world.loop.time() + RAISED_WITHIN_S
        nodes = self._world.nodes.values()
        while not all(node.alive and node.raft.feature_level == NEW for node in nodes):
            if self._world.loop.time() > deadline_s:
                levels = {node.id: node.raft.feature_level for node in nodes}
                self._world.fail(f"all run the new release, and the level was not raised: {levels}")
                return
            await asyncio.sleep(0.5)

    # -- what is judged --------------------------------------------------------------------------

    def met(self, node: SimNode, what: str) -> None:
        known = node.raft.support.highest
        self._world.fail(f"{node.id} met {what}; its release knows {known}")

    def proposed(self, command: type, fields: list[Any], level: int) -> None:
        if GATES[command] > level:
            self._world.fail(f"{command.__name__} was proposed at level {level}")
        if command is RaiseLevel:
            for node in self._world.nodes.values():
                if not node.alive or node.raft.support.highest < fields[0]:
                    self._world.fail(f"the level was raised to {fields[0]} without {node.id}")

    def reached(self, level: int) -> None:
        self.level = max(self.level, level)

    def refuses(self, node: SimNode, why: str) -> None:
        """A node ends itself, or cannot start, and says why. Right if its release is too old."""
        self._world.trace(f"{node.id} refuses: {why}")
        if "feature level" not in why or node.raft.support.highest >= self.level:
            self._world.fail(f"{node.id} ended without need: {why}")
        self.refusals += 1
        if node.alive:
            node.crash()
        self.releases[node.id] = NEW  # its operator has read it
        self._start_later(node)
