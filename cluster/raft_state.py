"""The replicated state: joins the machine (what a batch means) and consensus (in which order).

One replicated entry point, a batch. Whoever wants to know what changed subscribes to effects; this
module does not know actors, HTTP or any single command.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from cluster.clock import Clock
from cluster.consensus import Consensus, ConsensusConfig, Outcome, Role
from cluster.consensus.members import Standing
from cluster.consensus.observe import Health, applied_members, health_of
from cluster.machine import snapshot as machine_snapshot
from cluster.machine.apply import Strictness, apply
from cluster.machine.commands import decode_batch
from cluster.machine.effects import Effects
from cluster.machine.levels import BASE_LEVEL, OWN, Support, refusal
from cluster.machine.results import Rejected
from cluster.machine.state import State

log = logging.getLogger("quorate.raft")

JOIN_POLL_S = 0.01
EPOCH_RETRY_S = 0.02

EffectsListener = Callable[[Effects, int], None]
EntryListener = Callable[[int, int, bytes], None]
BatchCallback = Callable[[Outcome, Any], None]
_encode = msgspec.msgpack.Encoder().encode


class MemberLevels(NamedTuple):
    """What a member of the cluster knows; `support` is None while it is not connected, and of a
    release that does not say."""

    id: str
    connected: bool
    support: Support | None


def _report_bug(bug: Exception) -> None:
    log.critical("a reducer raised: this is a bug, please report it", exc_info=bug)


class RaftState:
    """One node's replica. `is_leader` only once this leader's epoch is committed and applied, so
    that everything acknowledged before is visible here."""

    def __init__(
        self,
        config: ConsensusConfig,
        clock: Clock,
        own_http: str,
        make_consensus: Callable[..., Consensus] = Consensus,
        support: Support = OWN,
        level: int = BASE_LEVEL,
    ) -> None:
        """`make_consensus(config, machine, on_role)`: simulation puts its own in, and may begin at
        another `level`."""
        Strictness.report = _report_bug
        self.state = State()
        self.support = support
        self.feature_level = self.state.level = level
        self._on_fatal = config.on_fatal
        self._is_refused = False
        self.node_id = config.node_id
        self._applied_index = 0
        self.is_leader = False
        self.epoch = 0
        self.undecodable_total = 0
        self.listener_errors_total = 0
        self._clock = clock
        self._own_http = own_http
        self._listeners: list[EffectsListener] = []
        self._entry_listeners: list[EntryListener] = []
        self._restored: list[Callable[[State], None]] = []
        self._preparing: list[Callable[[State], Callable[[], None]]] = []
        self._level_listeners: list[Callable[[int], None]] = []
        self._leadership: list[Callable[[bool], None]] = []
        self._leader_listeners: list[Callable[[str | None], None]] = []
        self._epoch_gates: list[Callable[[], bool]] = []
        self._truncate_gates: list[Callable[[int], Awaitable[None]]] = []
        self._leader_known = asyncio.Event()
        self.consensus = make_consensus(config, self, self._on_role)

    # -- subscriptions ---------------------------------------------------------------------------

    def on_effects(self, listener: EffectsListener) -> None:
        """`listener(effects, index)` after every batch, on every node, replay included."""
        self._listeners.append(listener)

    def on_entry(self, listener: EntryListener) -> None:
        """`listener(index, digest after it, entry)` for every batch in the log, replay included."""
        self._entry_listeners.append(listener)

    def on_restored(self, listener: Callable[[State], None]) -> None:
        """Called when a snapshot replaced the whole state."""
        self._restored.append(listener)

    def on_level(self, listener: Callable[[int], None]) -> None:
        """Called with the cluster's new feature level, also with one that ends this node."""
        self._level_listeners.append(listener)

    def before_restored(self, prepare: Callable[[State], Callable[[], None]]) -> None:
        """For projections of the whole state: `prepare(state)` builds it aside, in any thread, what
        it returns puts it in place."""
        self._preparing.append(prepare)

    def on_leadership(self, listener: Callable[[bool], None]) -> None:
        """Called with True when this node leads and with False when it does no more."""
        self._leadership.append(listener)

    def on_leader(self, listener: Callable[[str | None], None]) -> None:
        """Called on every node when another one leads than before, or none, with the base URL of
        the leader's API if that is known."""
        self._leader_listeners.append(listener)

    def hold_epoch(self, gate: Callable[[], bool]) -> None:
        """As long as `gate()` is false this node, elected, does not lead yet: no time is stamped
        into the log."""
        self._epoch_gates.append(gate)

    def before_truncation(self, gate: Callable[[int], Awaitable[None]]) -> None:
        """`gate(index)` must return before the log up to `index` may be dropped."""
        self._truncate_gates.append(gate)

    # -- what consensus calls --------------------------------------------------------------------

    def apply(self, entry: bytes, index: int) -> object:
        """Book one committed entry. Never raises: every node refuses a poisoned one alike."""
        try:
            batch = decode_batch(entry)
        except msgspec.MsgspecError:
            log.critical("log entry %d is not a batch; refused on every node", index)
            self.undecodable_total += 1
            self._applied_index = index
            return [Rejected.UNDECODABLE]
        if self._is_refused:
            return None
        results, effects = apply(self.state, batch)
        if self.state.level != self.feature_level:
            self._take_level()
            if self._is_refused:
                return None
        self._applied_index = index
        self._tell(effects, index)
        for listener in self._entry_listeners:
            listener(index, self.state.digest, entry)
        return results

    def _tell(self, effects: Effects, index: int) -> None:
        for listener in self._listeners:
            try:
                listener(effects, index)
            except Exception:
                # A projection's bug must not stop the log; it is loud and counted.
                self.listener_errors_total += 1
                log.exception("listener %r failed at log index %d", listener, index)

    def _take_level(self) -> None:
        """The cluster has been raised. A release that does not know the level must not go on: it
        would apply something else than the others, or pass over what it cannot read."""
        level = self.feature_level = self.state.level
        log.info("the cluster is at feature level %d", level)
        for listener in self._level_listeners:
            listener(level)
        if too_new := refusal(level, self.support.highest):
            self._is_refused = True
            self._on_fatal(too_new)

    def snapshot(self) -> Iterator[bytes]:
        return machine_snapshot.dump(self.state, self.state.level)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.load(chunks)()()

    def load(self, chunks: Iterable[bytes]) -> Callable[[], Callable[[], None]]:
        """Builds a state aside, in any thread; the answer puts it in place, on the loop."""
        state = machine_snapshot.load(chunks, self.support.highest)
        prepared = [prepare(state) for prepare in self._preparing]

        def adopt() -> Callable[[], None]:
            old, self.state = self.state, state
            for put in prepared:
                put()
            for listener in self._restored:
                listener(state)
            if state.level != self.feature_level:
                self._take_level()
            return old.tables.jobs.clear_slowly

        return adopt

    async def before_truncate(self, index: int) -> None:
        for gate in self._truncate_gates:
            await gate(index)

    # -- leadership ------------------------------------------------------------------------------

    def _on_role(self, role: Role, term: int, leader_id: str | None) -> None:
        if leader_id is not None:
            self._leader_known.set()
        else:
            self._leader_known.clear()
        for listener in self._leader_listeners:
            listener(self.leader_http)
        if role is Role.LEADER and term != self.epoch:
            self._resign()
            self.epoch = term
            self._open_epoch(term)
        elif role is not Role.LEADER:
            self.epoch = 0
            self._resign()

    def _open_epoch(self, term: int) -> None:
        """An empty batch of the new term: once applied, this replica holds all that was acked."""
        if not all(gate() for gate in self._epoch_gates):
            asyncio.get_running_loop().call_later(EPOCH_RETRY_S, self._reopen_epoch, term)
            return

        def opened(outcome: Outcome, results: object) -> None:
            if outcome is Outcome.APPLIED and self.epoch == term:
                self.is_leader = True
                log.info("leading: epoch %d open at log index %d", term, self.applied_index)
                for listener in self._leadership:
                    listener(True)
            elif self.epoch == term and self.consensus.role is Role.LEADER:
                asyncio.get_running_loop().call_later(EPOCH_RETRY_S, self._reopen_epoch, term)

        self.propose_raw([], opened)

    def _reopen_epoch(self, term: int) -> None:
        if self.epoch == term and self.consensus.role is Role.LEADER:
            self._open_epoch(term)

    def _resign(self) -> None:
        if self.is_leader:
            self.is_leader = False
            log.info("leading no more")
            for listener in self._leadership:
                listener(False)

    # -- proposing -------------------------------------------------------------------------------

    def propose_raw(self, commands: list[msgspec.Raw], callback: BatchCallback) -> None:
        """Put encoded commands into the log as one batch, stamped with epoch and time.

        `callback(outcome, results)` is called exactly once, with one result per command."""
        now_ms = max(self._clock.now_ms(), self.state.now_ms)
        self.consensus.propose(_encode((self.epoch, now_ms, commands)), callback)

    # -- facts -----------------------------------------------------------------------------------

    @property
    def leader_id(self) -> str | None:
        return self.consensus.leader_id

    @property
    def leader_http(self) -> str | None:
        """Base URL of the leader's API, None while it is unknown."""
        leader_id = self.consensus.leader_id
        if leader_id is None:
            return None
        if leader_id == self.node_id:
            return f"http://{self._own_http}"
        for peer in self.consensus.peers():
            if peer.id == leader_id and "http" in peer.meta:
                return f"http://{peer.meta['http']}"
        return None

    def others_http(self) -> list[str]:
        """Base URLs of the other connected members' APIs."""
        return [
            f"http://{peer.meta['http']}"
            for peer in self.consensus.peers()
            if peer.connected and "http" in peer.meta
        ]

    @property
    def applied_index(self) -> int:
        """The newest entry in `state`; one that came with a snapshot counts."""
        return max(self._applied_index, self.consensus.applied_index)

    @property
    def commit_index(self) -> int:
        return self.consensus.commit_index

    @property
    def caught_up(self) -> bool:
        """A leader is known and everything known to be committed is applied."""
        return self.leader_id is not None and self.consensus.applied_index >= self.commit_index

    @property
    def health(self) -> Health:
        """What keeps this member from doing its part."""
        return health_of(self.consensus)

    async def leader_elected(self, timeout_s: float) -> bool:
        """Wait until some leader is known."""
        try:
            await asyncio.wait_for(self._leader_known.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def joined(self) -> None:
        """Wait until a leader is known, has opened its epoch, and this replica has caught up."""
        while not (  # noqa: ASYNC110  (at start-up only, and no single event tells it)
            self.caught_up and (self.is_leader or self.leader_id != self.node_id)
        ):
            await asyncio.sleep(JOIN_POLL_S)

    async def read_index(self, timeout_ms: int) -> int:
        """Wait until `state` has all that was acknowledged before this call, on any member.

        Raises ReadError at the latest after `timeout_ms`."""
        return await self.consensus.read_index(timeout_ms)

    def voters(self) -> tuple[str, ...]:
        """The members that vote, as far as this node knows."""
        return self.consensus.members().voters

    @property
    def members_epoch(self) -> int:
        """How often the members have changed, as far as this node knows."""
        return self.consensus.members().epoch

    def folders(self) -> tuple[int, set[str]]:
        """The data folders of all members, and of those that were removed: no other cluster has
        one of them. With the epoch of the members as of what is applied here."""
        members = applied_members(self.consensus)
        found = {member.folder for member in members.members} | {f for _, f in members.removed}
        return members.epoch, found - {""}

    def levels(self) -> list[MemberLevels]:
        """What the members told about the feature levels they know, this one among them."""
        peers = {peer.id: peer for peer in self.consensus.peers()}
        found = []
        for member_id in self.consensus.members().ids:
            peer = peers.get(member_id)
            if member_id == self.node_id:
                found.append(MemberLevels(member_id, True, self.support))
            elif peer is None or not peer.connected:
                found.append(MemberLevels(member_id, False, None))
            else:
                found.append(MemberLevels(member_id, True, Support.read(peer.meta)))
        return found

    async def add_member(self, node_id: str, timeout_ms: int, *, is_learner: bool) -> None:
        """Let a node in. Raises MembershipError; only the leader can do it."""
        standing: Standing = "learner" if is_learner else "joining"
        await self.consensus.add_member(node_id, timeout_ms, standing)

    async def remove_member(self, node_id: str, timeout_ms: int) -> None:
        """Take a node out for good. Raises MembershipError; only the leader can do it."""
        await self.consensus.remove_member(node_id, timeout_ms)

    async def transfer(self, target: str | None, timeout_ms: int = 5_000) -> str:
        """Hand leadership over; returns the new leader's id. Raises TransferError."""
        return await self.consensus.transfer_leadership(target, timeout_ms)

    def status(self) -> dict[str, Any]:
        consensus = self.consensus
        own = {
            "id": self.node_id,
            "http": f"http://{self._own_http}",
            "role": consensus.role.name.lower(),
            "connected": True,
            "match_index": consensus.applied_index,
            "last_contact_ms": 0,
            "standing": consensus.status().get("standing", "voter"),
        }
        members = [own]
        for peer in consensus.peers():
            members.append(
                {
                    "id": peer.id,
                    "http": f"http://{peer.meta['http']}" if "http" in peer.meta else None,
                    "role": "leader" if peer.id == self.leader_id else "follower",
                    "connected": peer.connected,
                    "match_index": peer.match_index if self.is_leader else None,
                    "last_contact_ms": peer.last_contact_ms,
                    "standing": peer.standing,
                }
            )
        return {
            **consensus.status(),
            "node_id": self.node_id,
            "role": own["role"],
            "term": consensus.term,
            "epoch": self.state.epoch,
            "leader_id": self.leader_id,
            "leader_http": self.leader_http,
            "is_leader_ready": self.is_leader,
            "applied_index": self.applied_index,
            "commit_index": consensus.commit_index,
            "digest": f"{self.state.digest:08x}",
            "members": members,
        }
