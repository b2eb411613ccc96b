"""One consensus node without I/O of its own: everything that happens in one `run()`.

The network, the disk, the clock and the scheduling are given, so the same code runs on asyncio and
in a deterministic simulation. Order in `run()`: deliver what arrived, take proposals, start the
disk, send, let the engine commit and apply, tell. Nothing leaves it but through `on_fatal`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .acceptor import Acceptor
from .counters import Counters
from .doubts import Doubts
from .election import Election
from .engine import Engine
from .guards import Guards
from .install import Installer
from .interface import (
    ConsensusConfig,
    FatalError,
    ProposalCallback,
    ReadCallback,
    ReadFailure,
    ReplicatedMachine,
    Role,
    RoleCallback,
)
from .journal import NO_OP, Journal
from .members import CONFIG, Members, first_members
from .membership import Membership
from .mesh import Connected, Disconnected, Event, Network, Received, Refused
from .outbox import Outbox
from .parts import Parts
from .pin import now
from .proposals import Proposals
from .reads import Reads
from .replicator import Replicator
from .roster import Roster
from .sanity import absurdity_of
from .segments import Batch
from .snapreceive import Arrived
from .snapstore import SnapshotStore
from .space import Space
from .wire import (
    Append,
    AppendReply,
    FrameError,
    HigherTerm,
    Message,
    NoSpace,
    PreVote,
    PreVoteReply,
    ReadAnswer,
    ReadAsk,
    ReadPing,
    ReadPong,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
)

logger = logging.getLogger("quorate.consensus.core")

COMMAND = b"\x00"  # the library's command type 0
APPLY_SLICE_S = 0.02  # longer work is continued in the next run, so heartbeats are not starved
INTAKE_MAX = 512
ANNOUNCE_EVERY_S = 0.005


class Core:
    """Wires the parts of one node. `wake` schedules `run()` soon and only once."""

    def __init__(
        self,
        *,
        config: ConsensusConfig,
        machine: ReplicatedMachine,
        journal: Journal,
        network: Network,
        counters: Counters,
        wake: Callable[[], None],
        on_role: RoleCallback,
        applied: int,
        members: Members | None = None,
    ) -> None:
        """`members` is the configuration as of `applied`; by default the one of the first start."""
        self.config = config
        self.journal = journal
        self.network = network
        self.counters = counters
        self.guards = Guards(config.disabled_guards)
        self.halted = False
        self.intake_open = True
        self.handing_over = False
        self._machine = machine
        self._wake = wake
        self._on_role = on_role
        self._told: tuple[Role, int, str | None] | None = None
        self._slices_apply = self.guards.on("apply_slice")
        self._last_run = now()
        self._disk_moved = now()
        self.announced = applied
        self._announced_at = 0.0
        members = members or first_members((config.node_id, *config.peers))
        self.roster = Roster(config.node_id, members, applied)
        journal.watch(self.roster)
        self.engine = Engine(config, journal, self, applied, self.roster, self.guards)
        self.outbox = Outbox(network, journal, self.guards)
        self.proposals = Proposals(config, self.guards, counters)
        parts = Parts(
            config,
            self.engine,
            journal,
            network,
            self.outbox,
            self.guards,
            counters,
            self.roster,
        )
        self.space = Space(parts)
        self.doubts = Doubts(parts)
        self.election = Election(parts, self.space)
        self.replicator = Replicator(parts, self.space)
        self.reads = Reads(parts, self.replicator)
        self.acceptor = Acceptor(
            self.engine, journal, self.outbox, self.election, self.guards, counters, self.space
        )
        self._handlers = self._handlers_without_blob()
        self.membership = Membership(parts, self.proposals, self.replicator, self._may_change)
        self.installer: Installer | None = None
        self.roster.on_change = self._members_changed
        self._members_changed()
        if self.roster.is_alone:
            self.engine.set_deadline(0.0)  # nobody to wait for

    # The one loop --------------------------------------------------------------------------

    def run(self) -> None:
        if self.halted:
            return
        try:
            self._run()
        except Exception as error:
            if not isinstance(error, FatalError):
                logger.exception("consensus failed")
            self.fail(f"consensus: {error!r}")

    def _run(self) -> None:
        self._note_stall()
        self.space.look()
        self.counters.runs += 1
        self.membership.consider()  # before acks are counted, as they are by the voters of now
        inbox = self.network.inbox
        while inbox:
            self._handle(inbox.popleft())
        engine, journal = self.engine, self.journal
        self.take_proposals()
        self.replicator.send(heartbeat=False)  # first: the followers' disks are on the longer path
        journal.kick()
        engine.tick()
        journal.kick()
        self._watch_disk()
        self.proposals.expire()
        self.roster.settled(engine.applied_index())
        self.reads.step()
        self._tell()
        self.proposals.call_back()
        self.reads.call_back()
        self._announce()
        more = self.intake_open and self.proposals.has_queued
        if more or engine.applied_index() < self.appliable():
            self._wake()

    def _announce(self) -> None:
        """Tells followers the commit index early, but not more often than they can use it."""
        commit = self.engine.commit_index()
        if commit > self.announced and self._last_run - self._announced_at >= ANNOUNCE_EVERY_S:
            self.announced = commit
            self._announced_at = self._last_run
            self.replicator.send(heartbeat=False, announce=True)

    def on_durable(self, batch: Batch) -> None:
        """The disk finished a batch: release what waited for it."""
        if self.halted:
            return
        self.journal.on_durable(batch)
        self._disk_moved = now()
        self.outbox.release()
        if self.engine.is_leader():  # the commit index may follow
            self.replicator.count_disks()
            self._wake()

    def fail(self, reason: str) -> None:
        """Stops for good; nothing more leaves this node."""
        if not self.halted:
            self.halted = True
            self.config.on_fatal(reason)
            self.end_all(reason)

    def end_all(self, reason: str) -> None:
        """Nobody who waits is left without an answer."""
        self.proposals.leadership_lost(reason)
        self.proposals.call_back()
        self.reads.end_all(ReadFailure.STOPPED)
        self.reads.call_back()

    def propose(self, entry: bytes, callback: ProposalCallback) -> None:
        refusal = None
        if self.halted or not self.engine.is_leader():
            refusal = "not the leader"
        else:
            refusal = self.space.refusal()
        self.proposals.submit(entry, callback, refusal)
        self._wake()

    def read_index(self, callback: ReadCallback, timeout_ms: int) -> None:
        self.reads.submit(callback, timeout_ms)
        self._wake()

    # State ---------------------------------------------------------------------------------

    def is_leader_ready(self) -> bool:
        engine = self.engine
        if not self.guards.on("ready_after_noop"):
            return engine.is_leader()
        return engine.is_leader() and engine.applied_index() >= engine.noop_index()

    def known_commit_index(self) -> int:
        """What a node that lacks a snapshot has yet to reach counts too."""
        return max(self.engine.commit_index(), self.acceptor.leader_commit)

    def appliable(self) -> int:
        """A lone node commits only what its own disk holds (A9)."""
        commit = self.engine.commit_index()
        if not self.roster.is_alone or not self.guards.on("a9_own_disk"):
            return commit
        return min(commit, self.journal.durable_index)

    def disk_silent_s(self) -> float:
        return 0.0 if self.journal.is_durable else max(now() - self._disk_moved, 0.0)

    def _may_change(self) -> bool:
        """A change of members needs an entry of the own term to be committed first, and space."""
        if self.space.is_out:
            return False
        if not self.guards.on("a7_own_term"):
            return self.engine.is_leader()
        return self.intake_open and self.is_leader_ready()

    def _members_changed(self) -> None:
        """The log brought another configuration, or took one back."""
        self.engine.set_members(self.roster.voters, self.roster.learners)
        if self.engine.is_leader():
            self.replicator.members_changed()
        knows_any = bool(self.roster.current.members)
        self.network.set_peers(self.roster.links if knows_any else self.config.peers)

    def vet(self, node_id: str, folder: str) -> str:
        """Why the network must not talk with a node, or "" (A7, wiped disks)."""
        if not self.guards.on("a7_folder"):
            return ""
        return self.roster.refusal(self.engine.applied_index(), node_id, folder)

    def _note_stall(self) -> None:
        at = now()
        idle = at - self._last_run
        self._last_run = at
        self.counters.stall_max_ms = max(self.counters.stall_max_ms, round(idle * 1000, 1))
        if idle > self.config.election_min_ms / 2000:
            self._disk_moved = at  # its report may be among what was not looked at
            self.election.slept()

    def _watch_disk(self) -> None:
        """A leader's disk is in every quorum: hanging, it would block a majority that is well."""
        engine = self.engine
        if self.journal.is_durable:
            self._disk_moved = self._last_run
        hung = self._last_run - self._disk_moved > self.config.disk_stall_ms / 1000
        hung = hung and self.guards.on("disk_stall")
        if hung and engine.is_leader() and self.replicator.others_are_ahead():
            logger.error("the journal's disk hangs; another node has to lead")
            self.counters.errors["disk_stalled"] += 1
            engine.step_down()

    def _tell(self) -> None:
        engine = self.engine
        state = (engine.role(), engine.term(), engine.leader())
        if state != self._told:
            self._told = state
            self._on_role(*state)

    # Events --------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, Received):
            is_current = event.epoch == self.network.epoch(event.peer)
            if not is_current and self.guards.on("old_connection"):
                self.counters.dropped["old_connection"] += 1
                return
            absurdity = absurdity_of(event.message, len(event.blob), self.engine.term())
            if absurdity:
                self.counters.dropped[absurdity] += 1
                return
            try:
                self._dispatch(event.peer, event.message, event.blob)
            except FrameError as error:
                self.counters.dropped[error.reason] += 1
        elif isinstance(event, Connected):
            self.engine.peer_connected(event.peer)
            self.replicator.peer_connected(event.peer)
        elif isinstance(event, Refused):
            self._on_refused(event)
        elif isinstance(event, Disconnected) and not self.network.epoch(event.peer):
            self.engine.peer_disconnected(event.peer)
            self.election.peer_lost(event.peer)

    def _on_refused(self, event: Refused) -> None:
        reason = self.doubts.on_refused(event)
        if reason is not None:
            self.fail(reason)

    def _dispatch(self, peer: str, message: Message, blob: bytes) -> None:
        if isinstance(message, Append):
            self.acceptor.on_append(peer, message, blob)
        elif isinstance(message, SnapshotChunk):
            if self.acceptor.on_chunk_heard(peer, message) and self.installer is not None:
                self.installer.on_chunk(peer, message, blob)
        elif type(message) in self._handlers:
            self._handlers[type(message)](peer, message)
        else:
            self.counters.dropped["unexpected_message"] += 1

    def _handlers_without_blob(self) -> dict[type[Message], Callable[[str, Any], None]]:
        election, replicator, reads = self.election, self.replicator, self.reads
        return {
            AppendReply: replicator.on_reply,
            SnapshotReply: replicator.on_snapshot_reply,
            PreVote: election.on_pre_vote,
            PreVoteReply: election.on_pre_vote_reply,
            RequestVote: election.on_request_vote,
            VoteReply: election.on_vote_reply,
            HigherTerm: lambda _, message: election.on_higher_term(message),
            TimeoutNow: election.on_timeout_now,
            NoSpace: self.space.on_told,
            ReadPing: reads.on_ping,
            ReadPong: reads.on_pong,
            ReadAsk: reads.on_ask,
            ReadAnswer: reads.on_answer,
        }

    # Hooks of the engine -------------------------------------------------------------------

    def engine_sends(self, peer: str, message: dict[str, Any]) -> None:
        kind, term = message["type"], message["term"]
        if kind == "request_vote":
            request = self.election.request(
                term, message["last_log_index"], message["last_log_term"]
            )
            self.outbox.say(peer, request)
        elif kind == "response_vote":
            self.outbox.say(peer, VoteReply(term))
        else:
            raise FatalError(f"the engine sent {kind}")

    def role_changes(self, old: Role, new: Role) -> None:
        if new is Role.LEADER:
            self.counters.leaderships += 1
            self.replicator.begin()
        elif old is Role.LEADER:
            self.counters.step_downs += 1
            self.replicator.end()
            self.proposals.leadership_lost("leadership was lost")

    def before_tick(self) -> None:
        self.election.before_tick()

    def heartbeat_due(self) -> None:
        self.replicator.send(heartbeat=True)

    def take_proposals(self) -> None:
        engine = self.engine
        if not self.intake_open or not engine.is_leader():
            return
        for _ in range(INTAKE_MAX):
            proposal = self.proposals.next_queued()
            if proposal is None:
                return
            index = engine.append(COMMAND + proposal.entry)
            self.proposals.entered(proposal, index, engine.term())

    def apply_committed(self) -> None:
        """Applies what is committed, in slices, and ends the proposals it answers."""
        engine, journal = self.engine, self.journal
        commit = self.appliable()
        engine.set_commit_index(max(commit, engine.applied_index()))
        index = engine.applied_index()
        limit = now() + APPLY_SLICE_S
        while index < commit:
            command, index, term = journal.entry_at(index + 1)
            result = self._apply(command, index)
            engine.set_applied_index(index)
            self.proposals.applied(index, term, result)
            if now() > limit and self._slices_apply:
                return

    def _apply(self, command: bytes, index: int) -> object:
        """A11, C1: nothing an entry does can stop the log; other command types do not exist."""
        if command[:1] != COMMAND:
            if command != NO_OP and command[:1] != CONFIG:
                self.counters.errors["unknown_command"] += 1
            return None
        self.counters.entries_applied += 1
        try:
            return self._machine.apply(command[1:], index)
        except MemoryError:
            raise  # this node's trouble alone: going on would make it differ from the others
        except Exception as error:
            if not self.guards.on("c1_total_apply"):
                raise
            self.counters.errors["machine_raised"] += 1
            logger.exception("the machine raised at entry %d", index)
            return error

    # Snapshots -----------------------------------------------------------------------------

    def snapshot_arrived(self, peer: str, arrived: Arrived) -> None:
        if self.halted or self.installer is None:
            return
        try:
            self.installer.on_arrived(peer, arrived)
        except Exception as error:
            self.fail(f"a received snapshot cannot be installed: {error!r}")
        self._wake()

    def enable_snapshots(self, store: SnapshotStore, installer: Installer) -> None:
        self.replicator.snapshots = store
        self.installer = installer
