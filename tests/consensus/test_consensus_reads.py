"""Linearizable reads (A10) against one real core: when an index is given, and when it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from consensus_world import World, command

from cluster.consensus import Outcome, ReadError, ReadFailure, Role
from cluster.consensus.wire import (
    HigherTerm,
    ReadAnswer,
    ReadAsk,
    ReadPing,
    ReadPong,
    TimeoutNow,
    VoteReply,
)

MakeWorld = Callable[..., World]
FIVE = ("b:1", "c:1", "d:1", "e:1")
BASE = [command("base2", 2, 1)]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def build(*disabled: str, **options: object) -> World:
        return World(monkeypatch, tmp_path, disabled=frozenset(disabled), **options)  # type: ignore[arg-type]

    return build


class Reader:
    """Reads the machine of a world as a client would: the moment the index is given."""

    def __init__(self, world: World, timeout_ms: int = 2000) -> None:
        self.answer: int | ReadError | None = None
        self.seen: list[bytes] | None = None
        self._world = world
        world.network.sent.clear()
        world.core.read_index(self._ended, timeout_ms)
        assert self.answer is None  # never from inside of the call
        world.run()

    def _ended(self, answer: int | ReadError) -> None:
        assert self.answer is None, "a read ended twice"
        self.answer = answer
        if isinstance(answer, int):
            self.seen = list(self._world.machine.entries)

    @property
    def reason(self) -> ReadFailure | None:
        return self.answer.reason if isinstance(self.answer, ReadError) else None


def sent(world: World, kind: type) -> list[tuple[str, object]]:
    return [(peer, message) for peer, message, _ in world.network.sent if isinstance(message, kind)]


def lead(world: World, *voters: str) -> None:
    """Leads with the no-op committed."""
    world.win_election(*voters)
    for voter in voters:
        world.acknowledge(voter, world.journal.last_index)
    assert world.core.is_leader_ready()


# The leader ---------------------------------------------------------------------------------------


def test_a_read_waits_for_a_majority(make: MakeWorld) -> None:
    world = make(peers=FIVE)
    lead(world, "b:1", "c:1")
    read = Reader(world)
    assert sent(world, ReadPing) == [(peer, ReadPing(1, 1)) for peer in FIVE]
    world.receive("b:1", ReadPong(1, 1))
    world.receive("b:1", ReadPong(1, 1))  # twice the same voter
    world.receive("d:1", ReadPong(1, 7))  # another round
    world.receive("e:1", ReadPong(0, 1))  # another term
    assert read.answer is None
    world.receive("c:1", ReadPong(1, 1))
    assert read.answer == world.engine.commit_index()


@pytest.mark.parametrize("guarded", [True, False])
def test_a10_a_deposed_leader_that_does_not_know_it_yet_serves_nothing_stale(
    make: MakeWorld, guarded: bool
) -> None:
    """It slept; b and c elected c, which committed and acknowledged "new" meanwhile."""
    world = make(*([] if guarded else ["a10_read_index"]))
    lead(world, "b:1", "c:1")
    read = Reader(world)
    world.receive("b:1", HigherTerm(2))
    assert world.engine.role() is Role.FOLLOWER
    if not guarded:
        assert (read.seen, b"new" in world.machine.entries) == ([], False)
        return
    assert read.answer is None
    last = (world.journal.last_index, 1)
    world.append("c:1", 2, last, command("new", last[0] + 1, 2))
    world.pass_time(0.06)
    ((peer, ask),) = sent(world, ReadAsk)
    assert isinstance(ask, ReadAsk)
    world.receive(peer, ReadAnswer(ask.seq, last[0] + 1))
    assert read.answer is None  # known, but not applied
    world.append("c:1", 2, (last[0] + 1, 2), commit=last[0] + 1)
    assert read.seen == [b"new"]


def test_a_pong_that_arrives_after_leadership_ended_confirms_nothing(make: MakeWorld) -> None:
    world = make()
    lead(world, "b:1", "c:1")
    read = Reader(world)
    world.receive("b:1", HigherTerm(2))
    world.receive("c:1", ReadPong(1, 1))
    assert read.answer is None


def test_a_new_leader_reads_nothing_before_its_own_term_has_committed(make: MakeWorld) -> None:
    """Its commit index may lag behind what the old leader acknowledged."""
    world = make(entries=BASE, term=1)
    world.win_election("b:1", "c:1")
    read = Reader(world)
    assert sent(world, ReadPing) == []
    world.acknowledge("b:1", 3)
    assert sent(world, ReadPing) == [(peer, ReadPing(2, 1)) for peer in ("b:1", "c:1")]
    world.receive("b:1", ReadPong(2, 1))
    assert (read.answer, read.seen) == (3, [b"base2"])


def test_the_index_is_that_of_when_the_question_was_asked(make: MakeWorld) -> None:
    """A later commit would do no harm, an earlier one would: so it is noted before the ping."""
    world = make()
    lead(world, "b:1", "c:1")
    read = Reader(world)
    index = world.engine.commit_index()
    world.core.propose(b"x", lambda outcome, result: None)
    world.run()
    world.acknowledge("b:1", index + 1)
    world.receive("c:1", ReadPong(1, 1))
    assert read.answer == index


def test_one_round_serves_all_that_waited_and_the_next_one_those_that_came_meanwhile(
    make: MakeWorld,
) -> None:
    world = make()
    lead(world, "b:1", "c:1")
    first = Reader(world)
    late = [Reader(world) for _ in range(50)]
    assert sent(world, ReadPing) == []  # one round at a time
    world.receive("b:1", ReadPong(1, 1))
    assert first.answer is not None
    assert all(read.answer is None for read in late)
    assert sent(world, ReadPing) == [(peer, ReadPing(1, 2)) for peer in ("b:1", "c:1")]
    world.receive("c:1", ReadPong(1, 2))
    assert all(read.answer is not None for read in late)
    assert world.core.counters.read_rounds == 2


def test_a_lost_ping_is_sent_again(make: MakeWorld) -> None:
    world = make()
    lead(world, "b:1", "c:1")
    read = Reader(world)
    world.pass_time(0.06)
    assert ("b:1", ReadPing(1, 1)) in sent(world, ReadPing)
    world.receive("b:1", ReadPong(1, 1))
    assert read.answer is not None


def test_a_lone_node_reads_what_its_own_disk_has(make: MakeWorld) -> None:
    world = make(peers=())
    world.disk.held = True
    world.run()
    read = Reader(world)
    assert read.answer is None  # the no-op is not durable, so nothing is committed
    world.disk.held = False
    world.finish_disk()
    world.run()
    assert read.answer == world.engine.applied_index()


def test_a_transfer_leaves_no_gap(make: MakeWorld) -> None:
    """The old leader goes on confirming only until somebody is in the next term."""
    world = make()
    lead(world, "b:1", "c:1")
    world.core.outbox.send("b:1", TimeoutNow(1))
    read = Reader(world)
    world.receive("b:1", HigherTerm(2))
    world.receive("c:1", ReadPong(1, 1))
    assert read.answer is None


# The follower -------------------------------------------------------------------------------------


def follow(world: World, leader: str = "b:1") -> None:
    world.connect("b:1", "c:1")
    world.append(leader, 2, (2, 1), commit=2)
    assert world.engine.leader() == leader


def test_a_follower_asks_its_leader_and_waits_until_it_has_applied(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    read = Reader(world)
    assert sent(world, ReadAsk) == [("b:1", ReadAsk(1))]
    world.receive("c:1", ReadAnswer(1, 2))  # was not asked
    world.receive("b:1", ReadAnswer(9, 2))  # another question
    assert read.answer is None
    world.receive("b:1", ReadAnswer(1, 3))
    assert read.answer is None
    world.append("b:1", 2, (2, 1), command("x", 3, 2), commit=3)
    assert (read.answer, read.seen) == (3, [b"base2", b"x"])


def test_reads_that_come_while_a_question_is_out_go_with_the_next(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    first = Reader(world)
    late = [Reader(world) for _ in range(20)]
    assert sent(world, ReadAsk) == []
    world.receive("b:1", ReadAnswer(1, 2))
    assert first.answer == 2
    assert all(read.answer is None for read in late)
    assert sent(world, ReadAsk) == [("b:1", ReadAsk(2))]
    world.receive("b:1", ReadAnswer(2, 2))
    assert [read.answer for read in late] == [2] * 20


def test_a_question_is_asked_again_of_the_next_leader(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    read = Reader(world)
    world.append("c:1", 3, (2, 1), commit=2)
    assert ("c:1", ReadAsk(2)) in sent(world, ReadAsk)
    world.receive("c:1", ReadAnswer(2, 2))
    assert read.answer == 2


def test_a_question_is_asked_again_on_the_next_connection(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    read = Reader(world)
    world.network.sent.clear()
    world.disconnect("b:1")
    world.connect("b:1")
    world.append("b:1", 2, (2, 1), commit=2)
    assert ("b:1", ReadAsk(2)) in sent(world, ReadAsk)
    world.receive("b:1", ReadAnswer(1, 2))  # of the question that is given up
    assert read.answer is None
    world.receive("b:1", ReadAnswer(2, 2))
    assert read.answer == 2


def test_a_refusal_is_no_index_and_no_busy_loop(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    read = Reader(world)
    assert world.receive("b:1", ReadAnswer(1, 0)) == []
    assert read.answer is None
    world.pass_time(0.06)
    assert sent(world, ReadAsk) == [("b:1", ReadAsk(2))]


def test_a_leader_answers_a_follower_once_a_majority_confirmed(make: MakeWorld) -> None:
    world = make()
    lead(world, "b:1", "c:1")
    assert world.receive("b:1", ReadAsk(5)) == [ReadPing(1, 1)]
    assert world.receive("b:1", ReadAsk(5)) == []  # asked again: it is in the round
    replies = world.receive("c:1", ReadPong(1, 1))
    assert replies == []
    assert world.sent_to("b:1") == [ReadAnswer(5, world.engine.commit_index())]


def test_a_question_of_an_earlier_life_gives_no_answer_to_a_later_one(make: MakeWorld) -> None:
    """A restarted follower counts from 1 again: an index noted before it asked would be stale."""
    world = make()
    lead(world, "b:1", "c:1")
    world.receive("b:1", ReadAsk(1))
    world.disconnect("b:1")
    world.connect("b:1")
    world.receive("b:1", ReadAsk(1))
    world.receive("c:1", ReadPong(1, 1))
    assert [m for m in world.sent_to("b:1") if isinstance(m, ReadAnswer)] == []
    assert ("c:1", ReadPing(1, 2)) in sent(world, ReadPing)
    world.receive("c:1", ReadPong(1, 2))
    assert ReadAnswer(1, 2) in world.sent_to("b:1")


def test_who_does_not_lead_says_so(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    assert world.receive("c:1", ReadAsk(3)) == [ReadAnswer(3, 0)]


def test_only_a_follower_of_the_same_term_confirms(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    assert world.receive("b:1", ReadPing(2, 4)) == [ReadPong(2, 4)]
    assert world.receive("c:1", ReadPing(2, 4)) == []  # does not lead this term
    assert world.receive("c:1", ReadPing(1, 4)) == [HigherTerm(2)]
    assert world.receive("c:1", ReadPing(3, 4)) == []  # has not shown itself as leader yet
    assert world.engine.term() == 2


# Ends ---------------------------------------------------------------------------------------------


def test_a_read_says_in_time_what_was_missing(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    world.connect("b:1", "c:1")
    nobody = Reader(world, timeout_ms=50)
    patient = Reader(world, timeout_ms=10_000)
    world.pass_time(0.07)
    assert nobody.reason is ReadFailure.NO_LEADER
    world.append("b:1", 2, (2, 1), commit=2)
    unanswered = Reader(world, timeout_ms=50)
    world.pass_time(0.07)
    assert unanswered.reason is ReadFailure.NO_ANSWER
    ask = world.core.reads._asked
    assert ask is not None
    world.receive("b:1", ReadAnswer(ask.seq, 9))
    assert patient.answer is None
    world.pass_time(10.1)
    assert patient.reason is ReadFailure.BEHIND
    assert len(world.core.reads) == 0


def test_a_leader_without_followers_says_so(make: MakeWorld) -> None:
    world = make()
    lead(world, "b:1", "c:1")
    read = Reader(world, timeout_ms=50)
    world.pass_time(0.07)
    assert read.reason is ReadFailure.NO_QUORUM
    assert world.core.counters.reads_failed == 1
    again = Reader(world)  # the round without readers is given up, not joined
    assert ("b:1", ReadPing(1, 2)) in sent(world, ReadPing)
    world.receive("b:1", ReadPong(1, 1))
    assert again.answer is None


def test_waiting_reads_are_bounded(make: MakeWorld) -> None:
    world = make()
    limit = world.core.config.reads_max
    reads: list[int | ReadError] = []
    for _ in range(limit + 2):
        world.core.read_index(reads.append, 5000)
    world.run()
    assert [read.reason for read in reads if isinstance(read, ReadError)] == [
        ReadFailure.OVERLOADED
    ] * 2
    assert len(world.core.reads) == limit


def test_a_node_that_fails_leaves_nobody_without_an_answer(make: MakeWorld) -> None:
    world = make()
    lead(world, "b:1", "c:1")
    reads = [Reader(world), Reader(world)]
    ended: list[tuple[Outcome, object]] = []
    world.core.propose(b"in the log", lambda outcome, why: ended.append((outcome, why)))
    world.run()
    world.core.intake_open = False
    world.core.propose(b"queued", lambda outcome, why: ended.append((outcome, why)))
    world.core.fail("the disk broke")
    assert [read.reason for read in reads] == [ReadFailure.STOPPED] * 2
    assert ended == [(Outcome.UNKNOWN, "the disk broke"), (Outcome.REFUSED, "the disk broke")]


def test_a_callback_that_raises_hurts_nobody(make: MakeWorld) -> None:
    world = make(peers=())
    world.run()

    def raises(answer: int | ReadError) -> None:
        raise RuntimeError("my own fault")

    world.core.read_index(raises, 1000)
    assert Reader(world).answer is not None
    assert world.core.counters.errors["callback"] == 1
    assert world.fatal == []


def test_a_follower_that_becomes_leader_goes_on_with_its_reads(make: MakeWorld) -> None:
    world = make(entries=BASE, term=1)
    follow(world)
    read = Reader(world, timeout_ms=10_000)
    world.receive("b:1", TimeoutNow(2))
    world.receive("c:1", VoteReply(3))
    assert world.engine.role() is Role.LEADER
    world.acknowledge("c:1", 3)
    world.receive("c:1", ReadPong(3, 2))
    assert read.answer == 3
