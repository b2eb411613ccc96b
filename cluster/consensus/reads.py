"""Linearizable reads without a log entry: ReadIndex (Raft thesis 6.4), closing A10.

A leader remembers its commit index and then asks a majority whether it still leads; a follower asks
its leader. What was committed before the question is covered by the answer, whatever happens
later, and no clock takes part, so a node that slept or was cut off finds out by itself. One round
serves every read that waited when it began. A read that loses its leader looks for the next one
until its deadline; it never ends without an answer.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .interface import ReadCallback, ReadError, ReadFailure
from .parts import Parts
from .pin import now
from .replicator import Replicator
from .wire import HigherTerm, ReadAnswer, ReadAsk, ReadPing, ReadPong

logger = logging.getLogger("quorate.consensus.reads")


@dataclass(slots=True)
class Read:
    callback: ReadCallback
    deadline: float


@dataclass(frozen=True, slots=True)
class Question:
    """A follower's. The connection is part of it: a restarted follower counts from 1 again."""

    peer: str
    epoch: int
    seq: int


@dataclass(slots=True)
class Round:
    """A leader's question to all voters, asked after `index` was noted."""

    term: int
    seq: int
    index: int
    reads: list[Read]
    questions: list[Question]
    sent_at: float = 0.0
    confirmed_by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Asked:
    """This follower's question and the reads that wait for its answer."""

    leader: str
    epoch: int
    seq: int
    sent_at: float
    reads: list[Read]


@dataclass(slots=True)
class Confirmed:
    """Reads that may be served once `index` is applied here."""

    index: int
    reads: list[Read]


class Reads:
    """Not thread-safe: lives on the loop. Callbacks are called by `call_back` alone."""

    def __init__(self, parts: Parts, replicator: Replicator) -> None:
        self._config = parts.config
        self._engine = parts.engine
        self._network = parts.network
        self._journal = parts.journal
        self._outbox = parts.outbox
        self._guards = parts.guards
        self._counters = parts.counters
        self._roster = parts.roster
        self._replicator = replicator
        self._resend_s = parts.config.heartbeat_ms / 1000
        self._seq = 0
        self._queued: list[Read] = []  # nobody was asked for them yet
        self._questions: dict[str, Question] = {}  # the newest of each follower
        self._round: Round | None = None
        self._asked: Asked | None = None
        self._ask_not_before = 0.0
        self._confirmed: list[Confirmed] = []
        self._ended: deque[tuple[Read, int | ReadError]] = deque()
        self._waiting = 0
        self._next_deadline = 0.0

    def __len__(self) -> int:
        return self._waiting

    def submit(self, callback: ReadCallback, timeout_ms: int) -> None:
        """`callback` gets an applied index that covers all that was acknowledged before this call,
        or a ReadError; once, and never from inside of this call."""
        read = Read(callback, now() + timeout_ms / 1000)
        self._counters.reads += 1
        if self._waiting >= self._config.reads_max:
            self._waiting += 1
            self._end(read, ReadError(ReadFailure.OVERLOADED))
            return
        self._waiting += 1
        if not self._guards.on("a10_read_index"):
            self._end(read, self._engine.applied_index())
            return
        if self._waiting == 1:
            self._next_deadline = read.deadline
        self._next_deadline = min(self._next_deadline, read.deadline)
        self._queued.append(read)

    def step(self) -> None:
        """Moves every read on as far as it gets; part of each run."""
        if self._engine.is_leader():
            self._lead()
        else:
            self._follow()
        self._serve_applied()
        if self._waiting and now() >= self._next_deadline:
            self._expire()

    def end_all(self, reason: ReadFailure) -> None:
        """This node stops: whoever waits is told."""
        for reads in self._everywhere():
            for read in reads:
                self._end(read, ReadError(reason))
            reads.clear()
        self._questions.clear()

    def call_back(self) -> None:
        """Tells those whose read ended; one that raises is logged and hurts nobody."""
        while self._ended:
            read, answer = self._ended.popleft()
            try:
                read.callback(answer)
            except Exception:
                self._counters.errors["callback"] += 1
                logger.exception("a read's callback raised")

    # The leader's side ---------------------------------------------------------------------

    def _lead(self) -> None:
        self._take_back_asked()
        current = self._round
        if current is not None and current.term != self._engine.term():
            self._take_back_round()
            current = None
        if current is None or not (current.reads or current.questions):
            self._begin_round()
        elif now() - current.sent_at >= self._resend_s:
            self._ping(current)

    def _begin_round(self) -> None:
        self._round = None
        if not (self._queued or self._questions):
            return
        index = self._commit_index()
        if index < self._engine.noop_index():
            return  # until an entry of this term commits, the commit index may lag behind the truth
        self._seq += 1
        questions = list(self._questions.values())
        self._round = Round(self._engine.term(), self._seq, index, self._queued, questions)
        self._queued = []
        self._questions = {}
        self._ping(self._round)
        self._count(self._round)

    def _commit_index(self) -> int:
        """A lone node has committed what its own disk holds (A9)."""
        commit = self._engine.commit_index()
        if not self._roster.is_alone or not self._guards.on("a9_own_disk"):
            return commit
        return min(commit, self._journal.durable_index)

    def _ping(self, current: Round) -> None:
        current.sent_at = now()
        ping = ReadPing(current.term, current.seq)
        for peer in self._roster.voters:
            if peer not in current.confirmed_by:
                self._outbox.send(peer, ping)

    def on_pong(self, peer: str, message: ReadPong) -> None:
        current, engine = self._round, self._engine
        if current is None or (message.term, message.seq) != (current.term, current.seq):
            return
        if engine.is_leader() and engine.term() == current.term:
            current.confirmed_by.add(peer)
            self._count(current)

    def _count(self, current: Round) -> None:
        if not self._roster.is_majority(current.confirmed_by | {self._config.node_id}):
            return
        self._round = None
        self._counters.read_rounds += 1
        self._wait_applied(current.index, current.reads)
        if current.questions:
            self._replicator.send(heartbeat=False, announce=True)  # they wait to apply that much
        for question in current.questions:
            if question.epoch == self._network.epoch(question.peer):
                self._outbox.send(question.peer, ReadAnswer(question.seq, current.index))

    def on_ask(self, peer: str, message: ReadAsk) -> None:
        if not self._engine.is_leader():
            self._outbox.send(peer, ReadAnswer(message.seq, 0))
            return
        question = Question(peer, self._network.epoch(peer), message.seq)
        if self._round is None or question not in self._round.questions:
            self._questions[peer] = question

    def _take_back_round(self) -> None:
        """Leadership ended: followers ask anew by themselves, the own reads start over."""
        self._questions.clear()
        if self._round is not None:
            self._queued = self._round.reads + self._queued
            self._round = None

    # The follower's side -------------------------------------------------------------------

    def on_ping(self, peer: str, message: ReadPing) -> None:
        """Promises nothing, so it needs no disk: a vote for a rival would have needed one."""
        engine = self._engine
        if message.term == engine.term() and engine.leader() == peer:
            self._outbox.send(peer, ReadPong(message.term, message.seq))
        elif message.term < engine.term() and self._guards.on("c3_higher_term"):
            self._outbox.say(peer, HigherTerm(engine.term()))

    def _follow(self) -> None:
        self._take_back_round()
        leader = self._engine.leader() or ""
        epoch = self._network.epoch(leader)
        asked = self._asked
        if asked is not None and (asked.leader, asked.epoch) != (leader, epoch):
            self._take_back_asked()
        asked = self._asked
        if asked is None or not asked.reads:
            self._ask(leader, epoch)
        elif now() - asked.sent_at >= self._resend_s:
            asked.sent_at = now()
            self._outbox.send(leader, ReadAsk(asked.seq))

    def _ask(self, leader: str, epoch: int) -> None:
        self._asked = None
        if not self._queued or not epoch or now() < self._ask_not_before:
            return
        self._seq += 1
        self._asked = Asked(leader, epoch, self._seq, now(), self._queued)
        self._queued = []
        self._outbox.send(leader, ReadAsk(self._seq))

    def on_answer(self, peer: str, message: ReadAnswer) -> None:
        asked = self._asked
        if asked is None or (asked.leader, asked.seq) != (peer, message.seq):
            return
        if message.index:
            self._asked = None
            self._wait_applied(message.index, asked.reads)
        else:
            self._ask_not_before = now() + self._resend_s  # it does not lead; news of who does come
            self._take_back_asked()

    def _take_back_asked(self) -> None:
        if self._asked is not None:
            self._queued = self._asked.reads + self._queued
            self._asked = None

    # Ends ----------------------------------------------------------------------------------

    def _wait_applied(self, index: int, reads: list[Read]) -> None:
        if reads:
            self._confirmed.append(Confirmed(index, reads))

    def _serve_applied(self) -> None:
        applied = self._engine.applied_index()
        if not any(confirmed.index <= applied for confirmed in self._confirmed):
            return
        for confirmed in self._confirmed:
            if confirmed.index <= applied:
                for read in confirmed.reads:
                    self._end(read, confirmed.index)
        self._confirmed = [c for c in self._confirmed if c.index > applied]

    def _end(self, read: Read, answer: int | ReadError) -> None:
        self._waiting -= 1
        self._counters.reads_failed += isinstance(answer, ReadError)
        self._ended.append((read, answer))

    def _everywhere(self) -> Iterator[list[Read]]:
        yield self._queued
        if self._round is not None:
            yield self._round.reads
        if self._asked is not None:
            yield self._asked.reads
        for confirmed in self._confirmed:
            yield confirmed.reads

    def _expire(self) -> None:
        at = now()
        for reads in self._everywhere():
            late = [read for read in reads if read.deadline <= at]
            if late:
                reason = self._what_is_missing(reads)
                reads[:] = [read for read in reads if read.deadline > at]
                for read in late:
                    self._end(read, ReadError(reason))
        waiting = [read.deadline for reads in self._everywhere() for read in reads]
        self._next_deadline = min(waiting, default=0.0)

    def _what_is_missing(self, reads: list[Read]) -> ReadFailure:
        if any(confirmed.reads is reads for confirmed in self._confirmed):
            return ReadFailure.BEHIND
        if self._engine.is_leader():
            return ReadFailure.NO_QUORUM
        if self._engine.leader() is None:
            return ReadFailure.NO_LEADER
        return ReadFailure.NO_ANSWER
