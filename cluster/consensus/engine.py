"""pysyncobj with its doors replaced: messages, log, apply and timers go through our own parts.

The engine still owns roles, votes, follower appends and commit counting. Overrides are possible
because `self.__x()` inside SyncObj is `self._SyncObj__x()`; `pin` makes sure that these names
exist. This file decides nothing: every override forwards to `Hooks`.
"""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from pysyncobj.config import SyncObjConf
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj
from pysyncobj.transport import Transport

from .guards import ALL_ON, Guards
from .interface import ConsensusConfig, FatalError, Role
from .journal import Journal
from .pin import now, uniform
from .roster import Roster

_ROLES = {0: Role.FOLLOWER, 1: Role.CANDIDATE, 2: Role.LEADER}
NEVER_S = 10**9
SEND_BYTES = (
    20 << 20
)  # above entry_bytes_max, so the library's own splitting is never reached (B12)


class Member(Node):  # type: ignore[misc]
    """A member known by its stable id; hashes alike in every process, for replayable simulation."""

    def __init__(self, id: str) -> None:
        super().__init__(id, stable_hash=zlib.crc32(id.encode()))

    def __hash__(self) -> int:
        return int(self.stable_hash)


class Hooks(Protocol):
    """What the engine calls back into; nothing here may raise anything but FatalError."""

    def engine_sends(self, peer: str, message: dict[str, Any]) -> None: ...
    def role_changes(self, old: Role, new: Role) -> None: ...
    def before_tick(self) -> None: ...
    def heartbeat_due(self) -> None: ...
    def apply_committed(self) -> None: ...
    def take_proposals(self) -> None: ...


class EngineTransport(Transport):  # type: ignore[misc]
    """The library's side of the seam: sends become hook calls, events become its callbacks."""

    def __init__(self, hooks: Hooks) -> None:
        super().__init__(None, None, [])
        self._hooks = hooks

    def send(self, node: Member, message: dict[str, Any]) -> bool:
        self._hooks.engine_sends(node.id, message)
        return True


def engine_settings(config: ConsensusConfig, journal: Journal, guards: Guards) -> SyncObjConf:
    fallback_ms = max(config.leader_fallback_ms, config.election_max_ms)
    if not guards.on("c2_check_quorum"):
        fallback_ms = NEVER_S * 1000
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=True,
        commandsWaitLeader=False,
        dynamicMembershipChange=False,
        journalFile=journal,
        fullDumpFile=None,
        useFork=False,
        password=None,
        tcp_keepalive=None,
        appendEntriesPeriod=config.heartbeat_ms / 1000,
        raftMinTimeout=config.election_min_ms / 1000,
        raftMaxTimeout=config.election_max_ms / 1000,
        leaderFallbackTimeout=fallback_ms / 1000,
        connectionTimeout=max(1.0, config.election_max_ms / 1000),
        appendEntriesBatchSizeBytes=SEND_BYTES,
        logCompactionMinEntries=NEVER_S,
        logCompactionMinTime=NEVER_S,
    )


class Engine(SyncObj):  # type: ignore[misc]
    """Typed access to the engine's private state plus the overrides.

    Has no properties: SyncObj.__init__ evaluates every one of them before the state exists.
    """

    def __init__(
        self,
        config: ConsensusConfig,
        journal: Journal,
        hooks: Hooks,
        applied: int,
        roster: Roster,
        guards: Guards = ALL_ON,
    ) -> None:
        self._hooks = hooks
        self._rearms = guards.on("c2_rearm")
        self._config = config
        self._journal = journal
        self._nodes: dict[str, Member] = {}
        self._seam = EngineTransport(hooks)
        super().__init__(
            Member(config.node_id),
            [self._node(peer) for peer in roster.voters],
            conf=engine_settings(config, journal, guards),
            nodeClass=Member,
            transport=self._seam,
        )
        self._SyncObj__needLoadDumpFile = False
        self._SyncObj__raftLastApplied = applied
        self._SyncObj__raftCommitIndex = applied
        self.set_members(roster.voters, roster.learners)

    # Typed state ---------------------------------------------------------------------------

    def role(self) -> Role:
        return _ROLES[self._SyncObj__raftState]

    def is_leader(self) -> bool:
        return bool(self._SyncObj__raftState == 2)

    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    def leader(self) -> str | None:
        node = self._SyncObj__raftLeader
        return None if node is None else str(node.id)

    def forget_leader(self) -> None:
        self._SyncObj__raftLeader = None

    def commit_index(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    def set_commit_index(self, index: int) -> None:
        self._SyncObj__raftCommitIndex = index

    def applied_index(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    def set_applied_index(self, index: int) -> None:
        self._SyncObj__raftLastApplied = index

    def noop_index(self) -> int:
        """Index of the no-op of the latest leadership, 0 before the first."""
        return int(self._SyncObj__noopIDx or 0)

    def next_index(self, peer: str) -> int:
        return int(self._SyncObj__raftNextIndex[self._node(peer)])

    def set_next_index(self, peer: str, index: int) -> None:
        self._SyncObj__raftNextIndex[self._node(peer)] = index

    def match_index(self, peer: str) -> int:
        return int(self._SyncObj__raftMatchIndex.get(self._node(peer), 0))

    def set_match_index(self, peer: str, index: int) -> None:
        self._SyncObj__raftMatchIndex[self._node(peer)] = index

    def heard_from(self, peer: str) -> float:
        """When the leader last had an answer from a peer, on the engine's clock."""
        return float(self._SyncObj__lastResponseTime.get(self._node(peer), 0.0))

    def note_answer(self, peer: str) -> None:
        self._SyncObj__lastResponseTime[self._node(peer)] = now()

    def heartbeat_due_at(self) -> float:
        """When a leader speaks again, whether or not there is anything to say."""
        return float(self._SyncObj__newAppendEntriesTime)

    def deadline(self) -> float:
        return float(self._SyncObj__raftElectionDeadline)

    def set_deadline(self, at: float) -> None:
        self._SyncObj__raftElectionDeadline = at

    def rearm(self) -> None:
        """A full random election timeout from now."""
        config = self._config
        delay = uniform(config.election_min_ms, config.election_max_ms) / 1000
        self.set_deadline(now() + delay)

    # Members -------------------------------------------------------------------------------

    def _node(self, peer: str) -> Member:
        node = self._nodes.get(peer)
        if node is None:
            node = self._nodes[peer] = Member(peer)
        return node

    def set_members(self, voters: tuple[str, ...], learners: tuple[str, ...]) -> None:
        """Who counts and who only listens; the engine's own way of changing this is unsafe (A7)."""
        self._SyncObj__otherNodes = {self._node(peer) for peer in voters}
        self._SyncObj__readonlyNodes = {self._node(peer) for peer in learners}
        present = {self._node(peer) for peer in (*voters, *learners)}
        indexes = (self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex)
        for known in (*indexes, self._SyncObj__lastResponseTime):
            for node in [node for node in known if node not in present]:
                del known[node]
        if self.is_leader():
            for node in present:
                indexes[0].setdefault(node, self._journal.last_index + 1)
                indexes[1].setdefault(node, 0)
                self._SyncObj__lastResponseTime.setdefault(node, now())

    # Steps ---------------------------------------------------------------------------------

    def deliver(self, peer: str, message: dict[str, Any]) -> None:
        """Hands a message that passed the guards to the engine."""
        self._SyncObj__onMessageReceived(self._node(peer), message)

    def peer_connected(self, peer: str) -> None:
        self._seam._onNodeConnected(self._node(peer))

    def peer_disconnected(self, peer: str) -> None:
        self._seam._onNodeDisconnected(self._node(peer))

    def adopt_term(self, term: int) -> None:
        """Somebody is ahead: follow, and give the new term a full timeout to show its leader."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(0)
        self.forget_leader()
        self.rearm()

    def step_down(self) -> None:
        """Leads no more, in the same term; the others elect after their timeouts."""
        self._SyncObj__setState(0)
        self.forget_leader()

    def append(self, command: bytes) -> int:
        """Adds a command of the current term to a leader's log and returns its index."""
        index = self._journal.last_index + 1
        self._journal.add(command, index, self.term())
        return index

    def tick(self) -> None:
        self.doTick(0.0)

    # Overrides -----------------------------------------------------------------------------

    def _onTick(self, timeToWait: float = 0.0) -> None:
        self._hooks.before_tick()
        super()._onTick(timeToWait)

    def _SyncObj__setState(self, new: int) -> None:
        state: dict[str, Any] = self.__dict__
        old = int(state["_SyncObj__raftState"])
        state["_SyncObj__raftState"] = new
        if old == new:
            return
        if old == 2 and self._rearms:
            self.rearm()  # a deposed leader's deadline is long past: no campaign on the next tick
        self._hooks.role_changes(_ROLES[old], _ROLES[new])

    def _SyncObj__sendAppendEntries(self) -> None:
        self._SyncObj__newAppendEntriesTime = now() + self._config.heartbeat_ms / 1000
        self._hooks.heartbeat_due()

    def _SyncObj__applyLogEntries(self) -> bool:
        self._hooks.apply_committed()
        return False

    def _checkCommandsToApply(self) -> None:
        self._hooks.take_proposals()

    def _SyncObj__sendNextNodeIdx(self, *arguments: object, **named: object) -> None:
        """The answer to an append is ours: it waits for the disk and carries term and sequence."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """Compaction is a step of the snapshot code."""

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:
        raise FatalError("the engine tried to load a snapshot by itself")

    def _SyncObj__doApplyCommand(self, command: bytes) -> object:
        raise FatalError("the engine tried to apply a command by itself")

    def _SyncObj__parseChangeClusterRequest(self, command: bytes) -> None:
        """A7: members change through entries of our own; nothing from the log is ever unpickled."""

    def _applyCommand(self, command: bytes, callback: object, commandType: object = None) -> None:
        raise FatalError("commands enter through the proposals only")
