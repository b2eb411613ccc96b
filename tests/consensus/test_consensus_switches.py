"""Guards whose loss shows on one node, each played with and without it.

Together with the schedules on whole clusters this covers every name in GUARDS; test_tidy holds
docs/consensus.md to the same list.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from consensus_helpers import until
from consensus_world import World, command

from cluster.consensus import Outcome, Role, TransferError
from cluster.consensus.counters import Counters
from cluster.consensus.guards import ALL_ON, GUARDS, Guards
from cluster.consensus.interface import ConsensusConfig
from cluster.consensus.journal import Journal
from cluster.consensus.proposals import Proposals
from cluster.consensus.recovery import Recovered
from cluster.consensus.replicator import WINDOW_MESSAGES
from cluster.consensus.snapsend import INSTALL_GRACE_S
from cluster.consensus.transfer import choose, transfer_leadership
from cluster.consensus.wire import Append, AppendReply, HigherTerm, SnapshotReply, TimeoutNow
from cluster.settings import Settings

MakeWorld = Callable[..., World]
guarded_or_not = pytest.mark.parametrize("guarded", [True, False])
ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeWorld:
    def build(*disabled: str, **options: object) -> World:
        return World(monkeypatch, tmp_path, disabled=frozenset(disabled), **options)  # type: ignore[arg-type]

    return build


def off(guarded: bool, *names: str) -> tuple[str, ...]:
    return () if guarded else names


def proposing(world: World, *entries: bytes) -> list[tuple[Outcome, object]]:
    ended: list[tuple[Outcome, object]] = []
    for entry in entries:
        world.core.propose(entry, lambda outcome, result: ended.append((outcome, result)))
    world.run()
    return ended


# The switch itself ------------------------------------------------------------------------------


def test_no_setting_reaches_the_switch() -> None:
    """Only what builds its own ConsensusConfig can name a guard: tests and simulations."""
    assert not [name for name in Settings.__struct_fields__ if "guard" in name]
    product = [*(ROOT / "cluster").rglob("*.py"), *(ROOT / "quorate").rglob("*.py")]
    users = {
        path.relative_to(ROOT).parts[:2]
        for path in [*product, ROOT / "node.py"]
        if "disabled_guards" in path.read_text(encoding="utf-8")
    }
    assert users == {("cluster", "consensus")}


def test_every_guard_is_asked_somewhere() -> None:
    """A name without a question would be a guard that cannot be lost."""
    asked = set()
    for path in (ROOT / "cluster" / "consensus").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "on"
                and isinstance(node.args[0], ast.Constant)
            ):
                asked.add(node.args[0].value)
    assert asked == set(GUARDS)


def test_all_guards_hold_unless_somebody_says_otherwise() -> None:
    default = next(f.default for f in fields(ConsensusConfig) if f.name == "disabled_guards")
    assert default == frozenset()
    assert all(ALL_ON.on(name) for name in GUARDS)


# Apply and callbacks ----------------------------------------------------------------------------


@guarded_or_not
def test_c1_a_poisoned_entry_does_not_halt_the_cluster(make: MakeWorld, guarded: bool) -> None:
    world = make(*off(guarded, "c1_total_apply"), peers=())
    world.run()
    original = world.machine.apply

    def apply(entry: bytes, index: int) -> object:
        if entry == b"poison":
            raise KeyError("absent")
        return original(entry, index)

    world.machine.apply = apply  # type: ignore[method-assign]
    proposing(world, b"one", b"poison", b"two")
    assert (world.machine.entries == [b"one", b"two"]) is guarded
    assert (world.fatal == []) is guarded


@guarded_or_not
def test_a11_a_callback_that_raises_applies_nothing_twice(make: MakeWorld, guarded: bool) -> None:
    """The library calls back between applying and counting what is applied (r07)."""
    world = make(*off(guarded, "a11_callbacks_outside"), peers=())
    world.run()

    def raising(outcome: Outcome, result: object) -> None:
        raise asyncio.InvalidStateError

    world.core.propose(b"x", raising)
    world.run()
    ended = proposing(world, b"y")
    assert (world.fatal == []) is guarded
    assert (world.machine.entries == [b"x", b"y"]) is guarded
    assert (ended == [(Outcome.APPLIED, 2)]) is guarded


@guarded_or_not
def test_a_leader_is_ready_only_with_the_state_it_inherited(make: MakeWorld, guarded: bool) -> None:
    world = make(*off(guarded, "ready_after_noop"), entries=[command("old", 2, 1)], term=1)
    world.win_election("b:1")
    assert world.machine.entries == []  # committed by the old leader, but not yet known here
    assert world.core.is_leader_ready() is not guarded
    world.acknowledge("b:1", world.journal.last_index)
    assert world.machine.entries == [b"old"]
    assert world.core.is_leader_ready()


# Durability in memory ---------------------------------------------------------------------------


@guarded_or_not
def test_aba_a_removed_entrys_write_counts_for_nothing(guarded: bool) -> None:
    journal = Journal(Recovered(), 1, Guards(off(guarded, "aba_durable")))
    batches = []

    class Disk:
        def write(self, batch: object) -> None:
            batches.append(batch)

    journal.attach(Disk())  # type: ignore[arg-type]
    for index in range(2, 6):
        journal.add(b"x", index, 1)
    journal.kick()
    journal.deleteEntriesFrom(1)
    journal.add(b"y", 2, 2)
    journal.kick()
    journal.on_durable(batches[0])
    assert journal.durable_index == (1 if guarded else 5)
    journal.on_durable(batches[1])
    assert journal.durable_index == (2 if guarded else 5)


# Leader -----------------------------------------------------------------------------------------


@guarded_or_not
def test_c4_an_installing_follower_keeps_its_leader(
    make: MakeWorld, guarded: bool, tmp_path: Path
) -> None:
    """It answers nothing for longer than the leader waits for its quorum."""
    world = make(*off(guarded, "c4_install_alive"), entries=[command("x", 2, 1)], term=1)
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    (tmp_path / "snap-00000000000000000003-00000000000000000002.snap").write_bytes(b"s" * 100)
    world.journal.trim(world.journal.last_index)
    world.engine.set_next_index("b:1", 1)
    world.pass_time(0.06)
    question = world.sent_to("b:1")[-1]
    index, seq, size = question.index, question.seq, question.size  # type: ignore[union-attr]
    world.receive("b:1", SnapshotReply(world.engine.term(), seq, index, size))
    world.pass_time(2.0)
    assert (world.engine.role() is Role.LEADER) is guarded
    world.pass_time(INSTALL_GRACE_S)  # silent for so long it is cut off, or dead
    assert world.engine.role() is not Role.LEADER


@guarded_or_not
def test_flow_what_is_in_flight_is_bounded(make: MakeWorld, guarded: bool) -> None:
    world = make(*off(guarded, "flow_window"))
    world.win_election("b:1")
    world.acknowledge("b:1", 2)
    world.network.sent.clear()
    for number in range(WINDOW_MESSAGES + 20):
        world.core.propose(b"%d" % number, lambda outcome, result: None)
        world.core.run()
    sent = [m for m in world.sent_to("b:1") if isinstance(m, Append) and m.count]
    assert (len(sent) == WINDOW_MESSAGES) is guarded
    last = sent[-1].prev_index + sent[-1].count
    world.acknowledge("b:1", last, seq=sent[-1].seq)
    assert world.core.replicator.acked("b:1") == last


@guarded_or_not
def test_c8_the_log_of_a_cut_off_leader_is_bounded(make: MakeWorld, guarded: bool) -> None:
    world = make(*off(guarded, "c8_bounds"), uncommitted_entries_max=50)
    world.win_election("b:1")
    ended = proposing(world, *[b"x"] * 200)
    assert len(ended) == (150 if guarded else 0)
    assert {outcome for outcome, _ in ended} <= {Outcome.REFUSED}
    assert world.journal.last_index == (52 if guarded else 202)


@guarded_or_not
def test_c6_a_proposal_that_never_commits_ends_as_unknown(make: MakeWorld, guarded: bool) -> None:
    """The quorum answers, so the leader stays, but no disk holds the entry."""
    world = make(*off(guarded, "c6_deadline"), proposal_timeout_ms=1000)
    world.win_election("b:1")
    world.acknowledge("b:1", 2)
    ended = proposing(world, b"x")
    for _ in range(30):
        world.acknowledge("b:1", 2)
        world.pass_time(0.05)
    assert world.engine.role() is Role.LEADER
    assert ended == ([(Outcome.UNKNOWN, "timed out")] if guarded else [])
    world.acknowledge("b:1", 3)  # it commits after all: nobody is told twice
    assert len(ended) == 1


@guarded_or_not
def test_disk_stall_a_leader_with_a_hanging_disk_makes_way(make: MakeWorld, guarded: bool) -> None:
    world = make(*off(guarded, "disk_stall"))
    world.win_election("b:1")
    world.disk.held = True
    proposing(world, b"x")
    for turn in range(100):
        for peer in ("b:1", "c:1"):
            world.acknowledge(peer, world.journal.last_index, seq=turn)
        world.pass_time(0.05)
        if world.engine.role() is not Role.LEADER:
            break
    assert (world.engine.role() is not Role.LEADER) is guarded


# Follower ---------------------------------------------------------------------------------------


@guarded_or_not
def test_c7_a_long_conflict_takes_one_round_trip_per_term(make: MakeWorld, guarded: bool) -> None:
    entries = [command("x", index, 1) for index in range(2, 52)]
    world = make(*off(guarded, "c7_whole_term"), entries=entries, term=1)
    world.connect("b:1")
    rounds, prev = 0, 51
    while True:
        rounds += 1
        reply = world.append("b:1", 3, (prev, 3 if prev > 1 else 0), seq=rounds)[-1]
        assert isinstance(reply, AppendReply)
        if reply.success:
            break
        prev = reply.next_index - 1
    assert (rounds <= 3) is guarded
    assert rounds == (2 if guarded else 51)


@guarded_or_not
def test_c3_an_old_candidate_and_an_old_leader_are_told(make: MakeWorld, guarded: bool) -> None:
    world = make(*off(guarded, "c3_higher_term"), term=5)
    world.connect("b:1")
    assert world.append("b:1", 3, (1, 0)) == ([HigherTerm(5)] if guarded else [])


# Transfer ---------------------------------------------------------------------------------------


@guarded_or_not
async def test_c11_a_transfer_waits_for_the_target_and_holds_the_intake(
    make: MakeWorld, guarded: bool
) -> None:
    """Under load the target is never level at the instant of asking."""
    world = make(*off(guarded, "c11_transfer_waits"))
    world.win_election("b:1")
    proposing(world, b"x")
    world.network.sent.clear()
    task = asyncio.create_task(transfer_leadership(world.core, world.run, "b:1", 500))
    await asyncio.sleep(0)
    assert (TimeoutNow(1) in world.sent_to("b:1")) is not guarded
    last = world.journal.last_index
    ended = proposing(world, b"y")
    assert (world.journal.last_index == last) is guarded  # it waits for whoever leads next
    world.acknowledge("b:1", world.journal.last_index)
    while TimeoutNow(1) not in world.sent_to("b:1"):
        await asyncio.sleep(0)
        if not guarded:
            break
    assert task.done() is False
    world.receive("b:1", Append(2, 1, 2, 3, 1, 0))
    assert await task == "b:1"
    assert world.core.intake_open
    expected = Outcome.REFUSED if guarded else Outcome.APPLIED
    assert [outcome for outcome, _ in ended] == [expected]


async def test_c11_a_transfer_that_fails_resumes_the_intake(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1")
    with pytest.raises(TransferError, match="did not take over"):
        await transfer_leadership(world.core, world.run, "b:1", 20)
    assert world.core.intake_open
    before = world.journal.last_index
    proposing(world, b"x")
    assert world.journal.last_index == before + 1


async def test_a_target_that_does_nothing_holds_the_intake_for_one_election_timeout(
    make: MakeWorld,
) -> None:
    world = make()
    world.core.config = replace(world.core.config, election_max_ms=40)
    world.win_election("b:1")
    world.acknowledge("b:1", world.journal.last_index)
    with pytest.raises(TransferError, match="did not take over when it was told"):
        await transfer_leadership(world.core, world.run, "b:1", 60_000)
    assert TimeoutNow(1) in world.sent_to("b:1")
    assert world.core.intake_open
    again = asyncio.create_task(transfer_leadership(world.core, world.run, "b:1", 60_000))
    await asyncio.sleep(0)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    assert world.core.intake_open and not world.core.handing_over


async def test_the_intake_stays_open_for_a_target_that_is_far_behind(make: MakeWorld) -> None:
    world = make()
    world.win_election("b:1", "c:1")
    for number in range(300):
        proposing(world, b"%d" % number)
    world.acknowledge("c:1", world.journal.last_index)
    task = asyncio.create_task(transfer_leadership(world.core, world.run, "b:1", 60_000))
    await asyncio.sleep(0.02)  # it looks again and again, and nothing changes
    assert world.core.intake_open
    with pytest.raises(TransferError, match="already running"):
        await transfer_leadership(world.core, world.run, "c:1", 60_000)
    world.acknowledge("b:1", world.journal.last_index - 10)
    await until(lambda: not world.core.intake_open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leadership_goes_to_a_member_that_answers(make: MakeWorld) -> None:
    """A paused process is connected still, and level with all others in an idle cluster."""
    world = make()
    world.win_election("b:1", "c:1")
    for peer in ("b:1", "c:1"):
        world.acknowledge(peer, world.journal.last_index)
    world.pass_time(0.4)
    world.acknowledge("c:1", world.journal.last_index)
    assert choose(world.core, None) == "c:1"


# The rules without a world ----------------------------------------------------------------------


def test_the_library_would_call_back_inside_of_apply() -> None:
    """What `a11_callbacks_outside` prevents, seen from the queue itself."""
    config = ConsensusConfig("a:1", "a:1", (), Path())
    for guards, expected in ((ALL_ON, []), (Guards(["a11_callbacks_outside"]), [1])):
        proposals = Proposals(config, guards, Counters())
        told: list[object] = []
        proposals.submit(b"x", lambda outcome, result, to=told: to.append(result), None)  # type: ignore[misc]
        proposal = proposals.next_queued()
        assert proposal is not None
        proposals.entered(proposal, 2, 1)
        proposals.applied(2, 1, 1)
        assert told == expected
