"""The follower's side of replication: what a leader sends is checked, cut to size, then believed.

The engine would truncate its log on every append and commit on every snapshot chunk (A1, A2); here
each message is turned into one that it handles correctly, and the answer is given for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from .counters import Counters
from .election import Election
from .engine import Engine
from .guards import AppendPlan, Guards, entries_are_sound, plan_append
from .interface import FatalError
from .journal import Journal
from .outbox import Outbox
from .recovery import Entry
from .space import Space
from .wire import Append, AppendReply, HigherTerm, SnapshotChunk, decode_entries

logger = logging.getLogger("quorate.consensus.acceptor")


@dataclass
class Acceptor:
    engine: Engine
    journal: Journal
    outbox: Outbox
    election: Election
    guards: Guards
    counters: Counters
    space: Space
    leader_commit: int = 0  # the highest index that this term's leader called committed
    leader_commit_term: int = 0
    agreed: int = 0  # up to here the log equals that of this term's leader

    def on_append(self, peer: str, message: Append, blob: bytes) -> None:
        if not self._is_from_leader(peer, message.term):
            return
        entries = decode_entries(blob, message.count, message.prev_index + 1)
        if not entries_are_sound(message, entries):
            self.counters.dropped["unsound_entries"] += 1
            return
        self._note_commit(message.term, message.commit_index)
        if self.space.is_out:  # it is heard, as a heartbeat is
            message, entries = msgspec.structs.replace(message, count=0), []
        plan = self._plan(message, entries)
        if plan.fatal is not None:
            raise FatalError(plan.fatal)
        self._pass_on(peer, message.term, plan, message.commit_index)
        if plan.reset_to is None:
            self.agreed = max(self.agreed, plan.matched)
        if message.seq == 0:
            return  # only told the commit index: no answer wanted
        if self.space.is_out:
            self.space.tell(peer)
        if plan.reset_to is not None:
            reply = AppendReply(message.term, message.seq, plan.reset_to, True, False)
            self.outbox.say(peer, reply)
        elif message.count:
            reply = AppendReply(message.term, message.seq, plan.matched + 1, False, True)
            self.outbox.say(peer, reply)
        else:
            self._answer_heartbeat(peer, message, plan.matched)

    def on_chunk_heard(self, peer: str, message: SnapshotChunk) -> bool:
        """A chunk is a heartbeat; whether its content is wanted is decided elsewhere."""
        if not self._is_from_leader(peer, message.term):
            return False
        self._note_commit(message.term, message.index)
        end = AppendPlan(self.journal.last_index, self.journal.last_term, [])
        commit = self.engine.commit_index()
        if not self.guards.on("a1_chunk_commit"):
            commit = message.index  # what the library does: commit without a match
        self._pass_on(peer, message.term, end, commit, bounded=False)
        return True

    def _note_commit(self, term: int, index: int) -> None:
        """The next leader is believed anew: a wrong claim must not outlive the one who made it."""
        if term > self.leader_commit_term:
            self.leader_commit_term, self.leader_commit, self.agreed = term, 0, 0
        self.leader_commit = max(self.leader_commit, index)

    def _is_from_leader(self, peer: str, term: int) -> bool:
        engine = self.engine
        if term < engine.term():
            self.counters.dropped["old_leader"] += 1
            if self.guards.on("c3_higher_term"):
                self.outbox.say(peer, HigherTerm(engine.term()))
            return False
        known = engine.leader()
        if term == engine.term() and (engine.is_leader() or known not in (None, peer)):
            self.counters.errors["two_leaders"] += 1
            logger.critical("%s claims term %d, which %s leads", peer, term, known)
            return False
        return True

    def _plan(self, message: Append, entries: list[Entry]) -> AppendPlan:
        if self.guards.on("a2_keep_matching"):
            return plan_append(
                self.journal,
                self.engine.commit_index(),
                message,
                entries,
                agreed=self.agreed,
                whole_terms=self.guards.on("c7_whole_term"),
            )
        own = self.journal.term_at(message.prev_index)
        if own != message.prev_term:
            end = (self.journal.last_index, self.journal.last_term)
            return AppendPlan(*end, [], reset_to=min(message.prev_index, end[0] + 1))
        matched = message.prev_index + len(entries)
        return AppendPlan(message.prev_index, message.prev_term, entries, matched)

    def _pass_on(
        self, peer: str, term: int, plan: AppendPlan, commit: int, *, bounded: bool = True
    ) -> None:
        """The commit index never exceeds what is known to match the leader."""
        if bounded:
            known = plan.matched if plan.reset_to is None else 0
            commit = min(commit, known)
        self.engine.deliver(
            peer,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit,
                "entries": plan.entries,
                "prevLogIdx": plan.prev_index,
                "prevLogTerm": plan.prev_term,
            },
        )
        self.election.heard_leader()

    def _answer_heartbeat(self, peer: str, message: Append, matched: int) -> None:
        """At once, whatever the disk does: claims only what is already durable."""
        journal = self.journal
        if journal.hard_state_generation <= journal.durable_generation:
            claim = min(matched, journal.durable_index)
            reply = AppendReply(message.term, message.seq, claim + 1, False, True)
            self.outbox.send(peer, reply)
        else:
            reply = AppendReply(message.term, message.seq, matched + 1, False, True)
            self.outbox.say(peer, reply)
