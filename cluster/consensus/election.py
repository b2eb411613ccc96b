"""When to campaign and whom to let campaign: pre-vote, stickiness, transfer, disconnect hint.

The engine counts votes and wins elections; this file only opens and shuts its doors. Raft thesis
4.2.3 and 9.6; a reply carries the voter's term and a higher one is adopted, else a node with a
higher term and a shorter log is locked out for ever (etcd #8243, #8501).
"""

from __future__ import annotations

import math

from .guards import log_is_current
from .interface import Role
from .parts import Parts
from .pin import now, uniform
from .space import Space
from .wire import HigherTerm, PreVote, PreVoteReply, RequestVote, TimeoutNow, VoteReply

NAPS_MAX = 3


class Election:
    def __init__(self, parts: Parts, space: Space) -> None:
        self._space = space
        self._config = parts.config
        self._engine = parts.engine
        self._journal = parts.journal
        self._network = parts.network
        self._outbox = parts.outbox
        self._guards = parts.guards
        self._counters = parts.counters
        self._roster = parts.roster
        self.last_heard = -math.inf
        self._naps = 0
        self._round = 0
        self._granted: set[str] = set()
        self._won = False
        self._asked_to_lead = False  # a transfer: campaign without pre-vote
        self._is_transfer = False  # the running campaign says so in its requests
        self._asked_in = 0  # the term in which the running round of pre-votes began
        self.promised: tuple[str, int] = ("", 0)
        self._promised_at = -math.inf
        self._votes: set[tuple[int, str]] = set()

    # What the driver tells -----------------------------------------------------------------

    def heard_leader(self) -> None:
        """A valid append of this term's leader: no reason to campaign."""
        self.last_heard = now()
        self._naps = 0
        self._won = False
        self._granted.clear()

    def slept(self) -> None:
        """This node was not scheduled for a while: that is no evidence against the leader."""
        if self._engine.is_leader() or self._engine.deadline() <= 0:
            return
        if self._naps < NAPS_MAX:  # on a machine that stutters all the time somebody must campaign
            self._naps += 1
            self._engine.rearm()
            # Nor is what was granted before: a vote asked for with that would depose whoever was
            # elected, or simply went on, while this node slept.
            self._granted.clear()
            self._won = False

    def peer_lost(self, peer: str) -> None:
        """The leader's connection closed: most likely its process died, so look for a new one."""
        engine = self._engine
        if engine.leader() != peer or not self._guards.on("disconnect_hint"):
            return
        engine.forget_leader()
        self.last_heard = -math.inf
        hint = now() + uniform(0, self._config.disconnect_hint_ms / 1000)
        engine.set_deadline(min(engine.deadline(), hint))

    def before_tick(self) -> None:
        """Stands between a passed deadline and the engine's campaign."""
        engine = self._engine
        if engine.is_leader() or engine.deadline() >= now():
            return
        if not self._roster.is_voter or not self._space.may_campaign():
            self._asked_to_lead = self._won = False
            engine.rearm()  # not (or no more) a voter: a campaign would count nobody's votes right
            return
        self._is_transfer = self._asked_to_lead
        if self._asked_to_lead or self._won or self._roster.is_alone:
            self._asked_to_lead = self._won = False
            self._counters.elections_started += 1
            return
        leader = engine.leader()
        if leader is not None and self._network.is_receiving(leader):
            engine.rearm()  # a large append is on its way
            return
        if not self._guards.on("c2_prevote"):
            self._counters.elections_started += 1
            return
        engine.rearm()
        engine.forget_leader()  # not heard for so long: this node does not know who leads
        self._ask_around()

    def is_sticky(self) -> bool:
        """A leader was heard within the shortest election timeout, or is this node itself."""
        window = self._config.election_min_ms / 1000
        engine = self._engine
        if not engine.is_leader():
            return now() - self.last_heard < window
        heard = sum(now() - engine.heard_from(peer) < window for peer in self._roster.voters)
        return heard + 1 >= self._roster.quorum

    # Pre-vote ----------------------------------------------------------------------------

    def _ask_around(self) -> None:
        self._round += 1
        self._asked_in = self._engine.term()
        self._granted = {self._config.node_id}
        self._counters.prevotes_started += 1
        question = PreVote(
            self._engine.term() + 1, self._journal.last_index, self._journal.last_term, self._round
        )
        for peer in self._roster.voters:
            self._outbox.send(peer, question)

    def on_pre_vote(self, peer: str, message: PreVote) -> None:
        """Answers without changing any state of this node."""
        journal, term = self._journal, self._engine.term()
        rival = self._granted and self._engine.leader() is None and peer < self._config.node_id
        granted = (
            message.term > term
            and not self.is_sticky()
            and log_is_current(
                message.last_term, message.last_index, journal.last_term, journal.last_index
            )
        )
        if granted:
            self.promised = (peer, message.term)
            self._promised_at = now()
            self._make_way(abandon=bool(rival))
        self._outbox.say(peer, PreVoteReply(term, message.round, granted))

    def _make_way(self, *, abandon: bool) -> None:
        """Two candidates at the same moment would split the votes: one of them waits a little."""
        if abandon:
            self._granted.clear()
            self._won = False
        engine = self._engine
        if not self._won and engine.deadline() > 0 and not self._roster.is_alone:
            engine.set_deadline(max(engine.deadline(), now() + self._grace()))

    def _grace(self) -> float:
        return uniform(0.25, 0.5) * self._config.election_min_ms / 1000

    def on_pre_vote_reply(self, peer: str, message: PreVoteReply) -> None:
        engine = self._engine
        if message.term > engine.term():
            if self._guards.on("c3_adopt_term"):
                engine.adopt_term(message.term)
            return
        if engine.is_leader() or message.round != self._round or not message.granted:
            return
        if not self._granted or self._asked_in != engine.term():
            return  # a leader was heard since, the round is already won, or the question is stale
        self._granted.add(peer)
        if self._roster.is_majority(self._granted):
            self._granted.clear()  # late answers must not start a second campaign
            self._won = True
            engine.set_deadline(0.0)

    # Votes ---------------------------------------------------------------------------------

    def request(self, term: int, last_index: int, last_term: int) -> RequestVote:
        """The engine campaigns: what goes out in its name."""
        return RequestVote(term, last_index, last_term, self._is_transfer)

    def on_request_vote(self, peer: str, message: RequestVote) -> None:
        engine = self._engine
        if message.term < engine.term():
            if self._guards.on("c3_higher_term"):
                self._outbox.say(peer, HigherTerm(engine.term()))
            return
        if message.term == engine.term() and engine.role() is Role.CANDIDATE:
            # The votes are split already; do not wait a whole timeout to try again.
            engine.set_deadline(min(engine.deadline(), now() + self._grace()))
        # Whoever was granted the pre-vote gets the vote, even if the old leader woke up meanwhile:
        # its term is over anyway, and refusing now would only leave the cluster without a leader.
        # A promise is for the campaign that follows at once, not for one that got stuck on its way.
        fresh = now() - self._promised_at < self._config.election_max_ms / 1000
        promised = fresh and self.promised == (peer, message.term)
        sticky = self._guards.on("c2_stickiness") and self.is_sticky() and not promised
        wanted = message.transfer and peer in self._roster.voters
        if message.term > engine.term() and sticky and not wanted:
            self._counters.dropped["sticky_vote"] += 1
            return
        engine.deliver(
            peer,
            {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
            },
        )

    def on_vote_reply(self, peer: str, message: VoteReply) -> None:
        """A6: the engine counts messages; let each voter through once per term, and no others."""
        vote = (message.term, peer)
        if self._guards.on("a6_members_only") and peer not in self._roster.voters:
            self._counters.dropped["foreign_vote"] += 1
            return
        if self._guards.on("a6_vote_once"):
            if vote in self._votes:
                self._counters.dropped["second_vote"] += 1
                return
            self._votes = {known for known in self._votes if known[0] == message.term} | {vote}
        self._engine.deliver(peer, {"type": "response_vote", "term": message.term})

    def on_higher_term(self, message: HigherTerm) -> None:
        if message.term > self._engine.term():
            self._engine.adopt_term(message.term)

    def on_timeout_now(self, peer: str, message: TimeoutNow) -> None:
        """The leader hands over: campaign at once, and say that it is wanted."""
        engine = self._engine
        if message.term != engine.term() or engine.leader() != peer or engine.is_leader():
            self._counters.dropped["stale_transfer"] += 1
            return
        self._asked_to_lead = True
        engine.deliver(peer, {"type": "timeout_now", "term": message.term})
