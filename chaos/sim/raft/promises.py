"""What a node owes to those it talks with, judged by what arrives at it and what leaves it.

Hardly one of these promises keeps the log right by itself, and most mistakes are made good by
another rule. So nothing global breaks at once when one is broken, and each is watched by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cluster.consensus import Role
from cluster.consensus.members import Members
from cluster.consensus.wire import (
    Append,
    AppendReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
)

if TYPE_CHECKING:
    from chaos.sim.raft.invariants import Shadow
    from chaos.sim.raft.node import Life
    from chaos.sim.raft.world import World
    from cluster.consensus.probe import Probe

REST_S = 0.25  # a little less than the shortest election timeout
NEARLY_ENTRIES = 300  # who lacks no more than so many entries may vote
OLD_TERM_SENDERS = (Append, RequestVote, SnapshotChunk)
Question = tuple[str, int, int]  # kind, term, number


class Manners:
    """One life of a node: what it was asked and told, and has not acted on yet."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.asked: dict[tuple[str, Question], int] = {}  # by whom, what: over which connection
        self.owes: dict[str, tuple[int, int]] = {}  # to whom: connection, the old term it spoke in
        self.told: dict[str, tuple[int, int]] = {}  # by whom: connection, a higher term
        self.led_at = -1e9  # when it was last seen leading, on its own clock
        self.followed_at = -1e9  # when it last heard a leader; a closed connection changes nothing
        self.sent: dict[tuple[str, int, int], int] = {}  # peer, connection, term: the last entry
        self.rounds: dict[tuple[str, int, int], tuple[int, int]] = {}  # lowest reset, how many


class Promises:
    def __init__(self, world: World, shadows: Mapping[str, Shadow]) -> None:
        self._world = world
        self._shadows = shadows
        self._manners: dict[str, Manners] = {}

    def _of(self, life: Life) -> Manners:
        manners = self._manners.get(life.id)
        if manners is None or manners.life is not life:
            manners = self._manners[life.id] = Manners(life)
        return manners

    # What arrives ----------------------------------------------------------------------------

    def on_taken(self, life: Life, peer: str, epoch: int, message: Message) -> None:
        manners, probe = self._of(life), life.probe
        if (question := _question(message)) is not None:
            manners.asked[peer, question] = epoch
        if probe is None or life.host.epoch(peer) != epoch:
            return
        term = probe.mark()[0]
        if isinstance(message, OLD_TERM_SENDERS) and message.term < term:
            manners.owes[peer] = (epoch, message.term)
        if isinstance(message, HigherTerm | PreVoteReply) and message.term > term:
            manners.told[peer] = (epoch, message.term)
        if isinstance(message, AppendReply) and message.reset and message.term == term:
            manners.sent.pop((peer, epoch, term), None)
            self._count_round(manners, (peer, epoch, term), message.next_index)

    def _count_round(self, manners: Manners, who: tuple[str, int, int], reset_to: int) -> None:
        """A follower whose log differs is asked once per term of its log, not once per entry."""
        lowest, count = manners.rounds.get(who, (1 << 60, 0))
        if reset_to >= lowest:
            return
        manners.rounds[who] = (reset_to, count + 1)
        terms = len(set(self._shadows[who[0]].terms))
        if count + 1 > terms + 2:
            self._fail(
                f"{manners.life.id} needs {count + 1} rounds to find where the log of {who[0]}"
                f" differs, which has {terms} terms"
            )

    # What leaves -----------------------------------------------------------------------------

    def on_sent(self, life: Life, peer: str, message: Message) -> None:
        manners = self._of(life)
        if (answered := _answered(message)) is not None:
            asked_on = manners.asked.get((peer, answered))
            if asked_on not in (None, life.host.epoch(peer)):
                self._fail(
                    f"{life.id} answers {peer} on connection {life.host.epoch(peer)} what was"
                    f" asked on connection {asked_on}: {message}"
                )
        if peer in manners.owes and getattr(message, "term", 0) > manners.owes[peer][1]:
            del manners.owes[peer]
        if isinstance(message, TimeoutNow):
            self._check_handover(life, peer, message)
        elif isinstance(message, PreVote):
            self._check_rest(life, manners)
        elif isinstance(message, Append) and message.count:
            self._check_once(manners, peer, message)

    def _check_once(self, manners: Manners, peer: str, message: Append) -> None:
        """A3: over one connection nothing is sent again, unless the follower asks for it."""
        life = manners.life
        stream = (peer, life.host.epoch(peer), message.term)
        sent = manners.sent.get(stream, 0)
        if message.prev_index < sent:
            self._fail(
                f"{life.id} sends entries from {message.prev_index + 1} on to {peer}, which was"
                f" sent {sent} already and did not ask"
            )
        manners.sent[stream] = message.prev_index + message.count

    def _check_handover(self, life: Life, peer: str, message: TimeoutNow) -> None:
        """C11: who is told to lead has everything already."""
        probe, heir = life.probe, self._shadows[peer]
        if probe is None or heir.term > message.term:
            return
        last = probe.last_index
        if not heir.holds(last, probe.term_at(last) or 0):
            self._fail(
                f"{life.id} hands over to {peer}, whose disk holds {heir.durable} of {last} entries"
            )

    def _check_rest(self, life: Life, manners: Manners) -> None:
        """C2: whoever led a moment ago gives the others time to elect somebody."""
        rested_s = life.clock.monotonic() - manners.led_at
        if rested_s < REST_S and manners.followed_at < manners.led_at:
            self._fail(f"{life.id} wants to lead again {rested_s:.3f} s after it led")

    # A look at a node ------------------------------------------------------------------------

    def look(self, life: Life, probe: Probe) -> None:
        manners = self._of(life)
        if probe.mark()[2] is Role.LEADER:
            manners.led_at = life.clock.monotonic()
            self._check_ready(life, probe)
        manners.followed_at = max(manners.followed_at, probe.heard_leader_at)
        if (manners.owes or manners.told) and life.host.has_read_all and not probe.is_halted:
            self._check_terms(manners, probe)

    def _check_terms(self, manners: Manners, probe: Probe) -> None:
        """C3: an old term is contradicted, and a higher one adopted, by whoever hears of it."""
        life = manners.life
        for peer, (epoch, term) in manners.told.items():
            if life.host.epoch(peer) == epoch and probe.mark()[0] < term:
                self._fail(f"{life.id} goes on in term {probe.mark()[0]}, {peer} told it of {term}")
        manners.told.clear()
        if probe.mark()[6] > probe.durable_generation:
            return  # what it says of its term may still wait for the disk
        for peer, (epoch, term) in manners.owes.items():
            if life.host.epoch(peer) == epoch:
                self._fail(f"{life.id} does not tell {peer} that term {term} is over")
        manners.owes.clear()

    def check_suffix(self, life: Life, probe: Probe) -> None:
        """A5: a snapshot whose last entry the log holds takes the place of what is before it, and
        of nothing behind it. A new life is another matter: what was not durable may be gone."""
        before, first = self._shadows[life.id], probe.first_index
        if not before.first < first == probe.last_index < before.last:
            return
        if before.term_at(first) == probe.term_at(first):
            self._fail(f"{life.id} drops {first + 1} to {before.last} for snapshot {first}")

    # What a leader does ----------------------------------------------------------------------

    def _check_ready(self, life: Life, probe: Probe) -> None:
        """What a leader inherited is complete once an entry of its own term is applied."""
        term, applied = probe.mark()[0], probe.mark()[4]
        if life.consensus.is_leader_ready and probe.term_at(applied) != term:
            self._fail(f"{life.id} is ready to lead term {term} with an applied index of {applied}")

    def check_change(self, life: Life, probe: Probe, index: int, members: Members) -> None:
        """A7: a leader changes the members as of `index`."""
        term, commit = probe.mark()[0], probe.mark()[3]
        if probe.term_at(commit) != term:
            self._fail(f"{life.id} changes the members before it commits in term {term}")
        before = self._shadows[life.id].voters
        for comer in [voter for voter in members.voters if voter not in before]:
            durable = self._shadows[comer].durable
            if index - durable > NEARLY_ENTRIES:
                self._fail(f"{comer} gets its vote at entry {index}, its disk ends at {durable}")

    def _fail(self, reason: str) -> None:
        self._world.fail(reason)


def _question(message: Message) -> Question | None:
    match message:
        case Append():
            return ("append", message.term, message.seq)
        case SnapshotChunk():
            return ("chunk", message.term, message.seq)
        case RequestVote():
            return ("vote", message.term, 0)
        case PreVote():
            return ("prevote", 0, message.round)
        case _:
            return None


def _answered(message: Message) -> Question | None:
    """Which question a message answers. That a snapshot is installed is news rather than an
    answer: it may be told over a later connection than the chunks came on."""
    match message:
        case AppendReply():
            return ("append", message.term, message.seq)
        case SnapshotReply():
            return ("chunk", message.term, message.seq)
        case VoteReply():
            return ("vote", message.term, 0)
        case PreVoteReply():
            return ("prevote", 0, message.round)
        case _:
            return None
