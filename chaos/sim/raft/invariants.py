"""What Raft promises, checked from outside after every callback of every node (I1 to I8).

Keeps of each node what it last saw (`Shadow`), so a look costs only what changed. The ideas are
those of the Raft paper's figure 3; where this adapter promises more, that is checked as well: what
a leader counts is on the follower's disk, and nothing is said that a loss of power could unsay.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from chaos.sim.raft.promises import Promises
from cluster.consensus import Role
from cluster.consensus.members import config_of
from cluster.consensus.probe import Mark, Probe
from cluster.consensus.wire import (
    AppendReply,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    VoteReply,
)

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life
    from chaos.sim.raft.world import World

STICKY_S = 0.25  # a little less than the shortest election timeout
PROMISE_S = 3.0  # so long at most, a vote follows the granted pre-vote
Entry = tuple[int, bytes]  # term, bytes
Vote = tuple[int, int, str | None]  # log generation, term, voted for


class Shadow:
    """A node as it was when last looked at; outlives the node's death."""

    def __init__(self, node_id: str) -> None:
        self.id = node_id
        self.life: Life | None = None
        self.mark: Mark | None = None
        self.first = 1  # terms[0] belongs to this index
        self.terms = [0]
        self.durable = 1
        self.votes: deque[Vote] = deque([(0, 0, None)])  # the first is the newest durable one
        self.spoken_term = 0
        self.promise = (0, 0, 0)  # in which term, index, term of the entry
        self.counted: dict[str, int] = {}
        self.heard = -1e9  # when its leader spoke, by its own clock
        self.heard_before = -1e9  # as of the look before
        self.voters: tuple[str, ...] = ()  # as it knows them

    @property
    def last(self) -> int:
        return self.first + len(self.terms) - 1

    @property
    def term(self) -> int:
        return self.mark[0] if self.mark is not None else 0

    def term_at(self, index: int) -> int | None:
        position = index - self.first
        return self.terms[position] if 0 <= position < len(self.terms) else None

    def note_vote(self, probe: Probe) -> None:
        """Keeps what is on its way to the disk, and the newest that has arrived there."""
        term, vote = probe.mark()[:2]
        if self.votes[-1][1:] != (term, vote):
            self.votes.append((probe.vote_generation, term, vote))
        while len(self.votes) > 1 and self.votes[1][0] <= probe.durable_generation:
            self.votes.popleft()

    def holds(self, index: int, term: int) -> bool:
        """On disk; what is behind a snapshot was committed, and is compared elsewhere."""
        if index > self.durable:
            return False
        return index < self.first or self.term_at(index) == term


class Invariants:
    def __init__(self, world: World, members: tuple[str, ...]) -> None:
        self._world = world
        self._is_lone = len(members) == 1
        self.shadows = {node_id: Shadow(node_id) for node_id in members}
        self.promises = Promises(world, self.shadows)
        self.leaders: dict[int, tuple[str, Life]] = {}
        self.committed: dict[int, Entry] = {}
        self.committed_in: list[tuple[int, int]] = []  # (term of who committed, highest index)
        self.top = 1  # highest committed index
        self.members = self.voters = members  # by the newest committed configuration
        self._known: dict[tuple[int, int], tuple[int, bytes]] = {}  # (index, term): before, bytes
        self._votes: dict[tuple[str, int], str] = {}
        self._voters: dict[tuple[str, int, int], dict[str, None]] = {}  # candidate, life, term
        self._would_vote: dict[tuple[str, int, int], dict[str, None]] = {}  # candidate, life, round
        self._campaigns: dict[tuple[str, int], dict[int, None]] = {}  # candidate, life: terms
        self._fewest: dict[tuple[str, int], int] = {}
        self._transfers: dict[tuple[str, int], None] = {}
        self._wanted: dict[tuple[str, int, int], int] = {}  # candidate, life, round: the term
        self._granted_at: dict[tuple[str, str, int], float] = {}  # voter, candidate, term

    def _fail(self, reason: str) -> None:
        self._world.fail(reason)

    # What leaves a node --------------------------------------------------------------------

    def on_sent(self, life: Life, peer: str, message: Message) -> None:
        self.promises.on_sent(life, peer, message)
        if isinstance(message, AppendReply):
            if message.success:
                self._check_promise(life, message)
        elif isinstance(message, VoteReply):
            self._vote(life, message.term, peer)
        elif isinstance(message, RequestVote):
            self._vote(life, message.term, life.id)
            if message.transfer:
                self._transfers[life.id, message.term] = None
            self._check_campaign(life, message)
        elif isinstance(message, PreVoteReply) and message.granted:
            asked = (peer, self._world.machines[peer].lives, message.round)
            self._granted_at[life.id, peer, self._wanted.get(asked, 0)] = self._world.loop.time()
            self._grant_round(life.id, peer, message.round)
        elif isinstance(message, PreVote):
            self._wanted[life.id, life.node.lives, message.round] = message.term
            self._needed(life)

    def on_taken(self, life: Life, peer: str, epoch: int, message: Message) -> None:
        """A vote counts when it arrives."""
        self.promises.on_taken(life, peer, epoch, message)
        if isinstance(message, VoteReply):
            key = (life.id, life.node.lives, message.term)
            self._voters.setdefault(key, {})[peer] = None

    def _check_promise(self, life: Life, message: AppendReply) -> None:
        """I6: an acknowledgement is about what the disk holds, at the moment it leaves."""
        probe, index = life.probe, message.next_index - 1
        shadow = self.shadows[life.id]
        if probe is None:
            return
        if index > probe.durable_index:
            self._fail(f"{life.id} acknowledges {index}, its disk holds {probe.durable_index}")
        self._check_said(life, message.term)
        term = probe.term_at(index)
        if term is not None and (message.term, index) >= shadow.promise[:2]:
            shadow.promise = (message.term, index, term)

    def _check_said(self, life: Life, term: int) -> None:
        """A term that was spoken of must survive."""
        shadow = self.shadows[life.id]
        if life.probe is not None:
            shadow.note_vote(life.probe)
        if shadow.votes[0][1] < term:
            self._fail(f"{life.id} speaks of term {term}, its disk holds {shadow.votes[0][1:]}")
        shadow.spoken_term = max(shadow.spoken_term, term)

    def _vote(self, life: Life, term: int, candidate: str) -> None:
        """I8: one vote a term, over all incarnations."""
        known = self._votes.setdefault((life.id, term), candidate)
        if known != candidate:
            self._fail(f"{life.id} votes for {known} and {candidate} in term {term}")
        self._check_said(life, term)

    def _grant_round(self, voter: str, candidate: str, number: int) -> None:
        key = (candidate, self._world.machines[candidate].lives, number)
        friends = self._would_vote.setdefault(key, {})
        friends[voter] = None

    def _check_campaign(self, life: Life, message: RequestVote) -> None:
        """Nobody disturbs with a campaign that a majority would not have granted."""
        if message.transfer or life.probe is None:
            return
        key = (life.id, life.node.lives)
        terms = self._campaigns.setdefault(key, {})
        if message.term in terms:
            return
        terms[message.term] = None
        needed = self._needed(life)
        rounds = [set(by) for (*whose, _), by in self._would_vote.items() if tuple(whose) == key]
        if len(terms) > sum(len(by) >= needed for by in rounds):
            self._fail(f"{life.id} campaigns in term {message.term}, which nobody asked for")

    def _needed(self, life: Life) -> int:
        """Friends that win a round. The request may wait for the disk while a member comes or goes,
        and earlier rounds of this life were won among fewer, perhaps."""
        key = (life.id, life.node.lives)
        now = len(life.probe.voters) // 2 if life.probe is not None else 0
        needed = self._fewest[key] = min(now, self._fewest.get(key, now))
        return needed

    def stopped(self, life: Life) -> None:
        """A node that was asked to end leaves its whole log on the disk, unless that was full."""
        probe, disk = life.probe, life.host.disk
        if probe is None or disk is None or not disk.is_flushed:
            return
        shadow = self.shadows[life.id]
        shadow.durable = probe.last_index
        shadow.votes = deque([shadow.votes[-1]])

    def forget(self, node_id: str) -> None:
        """Its disk was lost, and the cluster has let it in again as a new member."""
        self.shadows[node_id] = Shadow(node_id)

    # A look at a node ----------------------------------------------------------------------

    def look(self, life: Life) -> None:
        probe = life.probe
        if probe is None:
            return
        self.promises.look(life, probe)
        mark = probe.mark()
        shadow = self.shadows[life.id]
        shadow.heard_before, shadow.heard = shadow.heard, probe.heard_leader_at
        before = shadow.mark
        if shadow.life is not life:
            self._recovered(life, shadow, probe)
            before = None
        elif mark == before:
            return
        else:
            self.promises.check_suffix(life, probe)
        shadow.mark = mark
        if before is None or mark[5] != before[5] or mark[6] != before[6]:
            self._compare_log(life, shadow, probe)
        else:
            self._follow_trim(shadow, probe)
        self._check_monotone(life, before, mark)
        shadow.durable = probe.durable_index
        in_term, index, _ = shadow.promise
        if index > max(shadow.durable, probe.first_index) and mark[0] == in_term:
            self._fail(f"{life.id} acknowledged {index}, its disk is back at {shadow.durable}")
        shadow.note_vote(probe)
        self._check_calm(life, shadow, probe, before, mark)
        if mark[2] is Role.LEADER:
            self._check_leader(life, shadow, probe, before)
        shadow.voters = probe.voters
        if before is None or mark[3] > before[3]:
            self._committed(life, shadow, probe, before[3] if before else 1, mark[3])

    def _recovered(self, life: Life, shadow: Shadow, probe: Probe) -> None:
        """Everything that was durable, or was said, is still there after a restart."""
        term, vote = probe.mark()[:2]
        _, durable_term, durable_vote = shadow.votes[0]
        said = max(durable_term, shadow.spoken_term)
        if term < said:
            self._fail(f"{life.id} restarts in term {term} after it spoke of {said}")
        if term == durable_term and durable_vote is not None and vote != durable_vote:
            self._fail(f"{life.id} forgot its vote for {durable_vote} in term {term}")
        shadow.votes = deque([(0, term, vote)])  # read from the disk
        if self._is_lone:
            self._forget_unsaid(term, probe.last_index)
        for index in (shadow.durable, shadow.promise[1]):
            old = shadow.term_at(index) if index == shadow.durable else shadow.promise[2]
            if index <= max(1, probe.first_index) or old is None:
                continue
            if probe.term_at(index) != old:
                self._fail(
                    f"{life.id} restarts without entry {index} of term {old}, which was durable; "
                    f"its log ends at {probe.last_index}"
                )
        shadow.life = life
        shadow.counted = {}
        shadow.heard = shadow.heard_before = -1e9

    def _forget_unsaid(self, term: int, last: int) -> None:
        """A lone node leads before its disk knows; what a loss of power then takes from it, nobody
        was told of, and the same term and indexes are given once more."""
        self.leaders = {led: by for led, by in self.leaders.items() if led <= term}
        self._known = {key: entry for key, entry in self._known.items() if key[0] <= last}

    def _follow_trim(self, shadow: Shadow, probe: Probe) -> None:
        drop = probe.first_index - shadow.first
        if drop > 0:
            del shadow.terms[:drop]
            shadow.first += drop

    def _compare_log(self, life: Life, shadow: Shadow, probe: Probe) -> None:
        """Finds what was cut and what was added; I7: equal index and term mean equal logs."""
        first, last = probe.first_index, probe.last_index
        same = min(shadow.last, last)
        while same >= max(first, shadow.first) and probe.term_at(same) != shadow.term_at(same):
            same -= 1
        if same < shadow.last:
            self._check_cut(life, shadow, probe, same)
        if same < max(first, shadow.first):  # a snapshot took the place of the log
            same = first
            shadow.first, shadow.terms = first, [probe.term_at(first) or 0]
        else:
            del shadow.terms[same - shadow.first + 1 :]
            self._follow_trim(shadow, probe)
        term = probe.term_at(same) or 0
        for index in range(same + 1, last + 1):
            content, _, own = probe.entry_at(index)
            known = self._known.setdefault((index, own), (term, content))
            if known[0] != term or known[1] != content:
                self._fail(f"{life.id} holds another entry {index} of term {own} than others do")
            term = own
            shadow.terms.append(own)
            configuration = config_of(content)
            if configuration is not None and probe.mark()[:3:2] == (own, Role.LEADER):
                self.promises.check_change(life, probe, index, configuration)

    def _check_cut(self, life: Life, shadow: Shadow, probe: Probe, keeps: int) -> None:
        """In the term in which it acknowledged an entry, no follower gives it up."""
        in_term, index, term = shadow.promise
        if keeps >= index or probe.first_index >= index or probe.term_at(index) == term:
            return
        if probe.mark()[0] == in_term:
            self._fail(f"{life.id} drops entry {index}, which it acknowledged in term {in_term}")
        shadow.promise = (in_term, keeps, shadow.term_at(keeps) or 0)

    def _check_monotone(self, life: Life, before: Mark | None, mark: Mark) -> None:
        """I5."""
        if mark[3] > max(mark[5], 1):
            self._fail(f"{life.id} commits {mark[3]}, its log ends at {mark[5]}")
        if mark[4] > mark[3]:
            self._fail(f"{life.id} applied {mark[4]}, committed is {mark[3]}")
        if before is None:
            return
        for position, name in ((0, "term"), (3, "commit index"), (4, "applied index")):
            if mark[position] < before[position]:  # type: ignore[operator]
                self._fail(
                    f"the {name} of {life.id} went back: {before[position]}, {mark[position]}"
                )

    def _check_calm(
        self, life: Life, shadow: Shadow, probe: Probe, before: Mark | None, mark: Mark
    ) -> None:
        """Nobody votes against a leader that it heard a moment ago, unless that was arranged."""
        candidate = mark[1]
        if before is None or mark[:2] == before[:2] or candidate in (None, life.id):
            return
        # A connection that closed says more than what was heard over it before.
        silent_s = life.clock.monotonic() - min(shadow.heard_before, shadow.heard)
        whom = (str(candidate), mark[0])
        granted_s = self._world.loop.time() - self._granted_at.get((life.id, *whom), -9.0)
        arranged = granted_s < PROMISE_S or whom in self._transfers or whom == probe.promised_vote
        if silent_s < STICKY_S and not arranged and mark[0] == before[0] + 1:
            self._fail(f"{life.id} votes for {candidate}, its leader spoke {silent_s:.3f} s ago")

    # Leaders -------------------------------------------------------------------------------

    def _check_leader(self, life: Life, shadow: Shadow, probe: Probe, before: Mark | None) -> None:
        term = shadow.term
        if before is None or before[2] is not Role.LEADER or before[0] != term:
            self._elected(life, shadow, probe, term)
        for peer in [peer for peer in shadow.counted if peer not in probe.voters]:
            del shadow.counted[peer]  # it left; whoever comes back has another disk
        for peer in probe.voters:
            if peer == life.id:
                continue
            other = self.shadows[peer]
            counted = max(probe.counted(peer), probe.acked(peer))
            known = shadow.counted.get(peer, 0)
            if counted == known:
                continue
            shadow.counted[peer] = counted
            if counted < known:
                self._fail(f"{life.id} takes back what {peer} acknowledged: {known}, {counted}")
            expected = probe.term_at(counted)
            if counted <= 1 or expected is None or other.term > term:
                continue
            if not other.holds(counted, expected):
                self._fail(
                    f"{life.id} counts entry {counted} of term {expected} for {peer}, whose disk "
                    f"ends at {other.durable} with term {other.term_at(other.durable)}"
                )

    def _elected(self, life: Life, shadow: Shadow, probe: Probe, term: int) -> None:
        self._world.trace(f"{life.id} leads term {term}, log ends at {shadow.last}")
        known = self.leaders.setdefault(term, (life.id, life))
        if known[1] is not life:
            self._fail(f"term {term} has two leaders: {known[0]} and {life.id}")
        shadow.counted = {}
        voters = [life.id, *self._voters.get((life.id, life.node.lives, term), {})]
        if not is_majority(voters, probe):
            self._fail(f"{life.id} leads term {term} with the votes of {voters}")
        highest = 1
        for in_term, index in self.committed_in:
            if in_term >= term:
                break
            highest = index
        if highest > shadow.last:
            self._fail(f"{life.id} leads term {term} without the committed entry {highest}")
        elif highest > shadow.first and shadow.term_at(highest) != self.committed[highest][0]:
            self._fail(f"{life.id} leads term {term} with another entry {highest} than committed")

    # Commits -------------------------------------------------------------------------------

    def _committed(self, life: Life, shadow: Shadow, probe: Probe, low: int, high: int) -> None:
        """I2: what one node has committed, no other ever sees otherwise."""
        for index in range(max(low + 1, probe.first_index + 1), high + 1):
            content, _, term = probe.entry_at(index)
            known = self.committed.get(index)
            if known is None:
                self.committed[index] = (term, content)
                self.top = max(self.top, index)
                configuration = config_of(content)
                if configuration is not None:
                    self.members, self.voters = configuration.ids, configuration.voters
                    self._world.trace(f"members {configuration.members}")
                self._world.entry_committed(index, content)
            elif known[0] != term or known[1] != content:
                self._fail(f"{life.id} commits another entry {index}: term {term}, not {known[0]}")
        if high > self.top:
            self._fail(f"{life.id} has a snapshot up to {high}, committed is {self.top}")
        if high > 1 and (not self.committed_in or high > self.committed_in[-1][1]):
            self._first_to_commit(life, shadow, probe, high)

    def _first_to_commit(self, life: Life, shadow: Shadow, probe: Probe, high: int) -> None:
        """Whoever commits first has a majority of disks behind it."""
        term = self.committed[high][0]
        if self.committed_in and self.committed_in[-1][0] == shadow.term:
            self.committed_in.pop()
        self.committed_in.append((shadow.term, high))
        holders = [node_id for node_id, one in self.shadows.items() if one.holds(high, term)]
        if not is_majority(holders, probe):
            self._fail(f"{life.id} commits entry {high} of term {term} held by {holders} only")


def is_majority(nodes: list[str], probe: Probe) -> bool:
    """Of the voters that the probed node knows."""
    voters = probe.voters
    return 2 * sum(node_id in voters for node_id in nodes) > len(voters)
