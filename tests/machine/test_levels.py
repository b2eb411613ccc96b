"""Feature levels: everything in the log has one; what is above the cluster's is read by nobody."""

from __future__ import annotations

import json
import random
import typing
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from machine_moves import KINDS
from machine_replicas import book, dump, facts, live
from machine_values import NUMBER_MAX, Move

from cluster.machine import commands as c
from cluster.machine import invariants, levels, snapshot
from cluster.machine.levels import BASE_LEVEL, BLOCKS, GATES, HIGHEST_LEVEL, Support
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.results import DONE, Given, Rejected
from cluster.machine.state import State

# The fields of everything that the first release wrote into its log.
FIRST_FIELDS: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "golden" / "fields-1.json").read_text()
)


def structs_of(kind: Any, found: dict[str, type[msgspec.Struct]]) -> dict[str, Any]:
    """Every struct that a value of this type may hold, by name."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            for inner in typing.get_type_hints(kind).values():
                structs_of(inner, found)
    else:
        for inner in get_args(kind):
            structs_of(inner, found)
    return found


def test_every_command_has_a_level() -> None:
    """A new one: the next level in LEVELS, HIGHEST_LEVEL, and a row in GATES."""
    assert set(GATES) == set(get_args(c.Command))
    assert set(GATES.values()) <= set(levels.LEVELS)
    assert max(levels.LEVELS) == HIGHEST_LEVEL


def test_every_field_has_a_level() -> None:
    """A field that was appended, also inside a value, has a row in FIELDS; one of a new struct came
    with the command that holds it."""
    later = {
        f"{name}.{field}"
        for name, struct in structs_of(c.Command, {}).items()
        for field in struct.__struct_fields__
        if name in FIRST_FIELDS and field not in FIRST_FIELDS[name]
    }
    assert later == set(levels.FIELDS)


def test_commands_of_the_first_release_are_of_the_first_level() -> None:
    assert {command.__name__ for command, level in GATES.items() if level == levels.FIRST} == set(
        json.loads((Path(__file__).parent / "golden" / "commands.json").read_text())
    )


def test_the_level_never_goes_back() -> None:
    state = State()
    assert state.level == BASE_LEVEL
    for level, expected in ((HIGHEST_LEVEL, HIGHEST_LEVEL), (BASE_LEVEL, HIGHEST_LEVEL)):
        results, _ = book(state, c.encode_batch(c.Batch(1, 1, [c.RaiseLevel(level)])))
        assert (results, state.level) == ([DONE], expected)


def test_replicas_of_different_levels_have_different_digests() -> None:
    one, other = State(), State()
    book(one, c.encode_batch(c.Batch(1, 1, [c.RaiseLevel(HIGHEST_LEVEL)])))
    book(other, c.encode_batch(c.Batch(1, 1, [c.RaiseLevel(BASE_LEVEL)])))
    assert one.digest != other.digest


def test_a_command_above_the_level_is_refused_as_by_a_release_that_cannot_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AssignNew stands for a command of the next release, PurgeDead for one that was there."""
    monkeypatch.setitem(GATES, c.AssignNew, levels.UNGATED_LEVEL + 1)
    monkeypatch.setattr("cluster.machine.apply.HIGHEST_LEVEL", levels.UNGATED_LEVEL + 1)
    newer = c.Batch(1, 1, [
        c.RegisterWorker(WorkerSpec("w", 1, ("q",), ("work",))),
        c.SubmitJobs([c.JobGroup(JobSpec("work"), [b"1"])]),
        c.AssignNew(1, 1), c.PurgeDead([]), c.RaiseLevel(levels.UNGATED_LEVEL + 1),
        c.SubmitJobs([c.JobGroup(JobSpec("work"), [b"2"])]),
        c.AssignNew(1, 1),
    ])  # fmt: skip
    state, old = State(), State()
    results, _ = book(state, c.encode_batch(newer))
    assert results[2] is Rejected.UNDECODABLE
    assert results[6] == Given([2])
    # Up to the raise, the release before books the same of an entry that it cannot read.
    unknown: Any = c.Unreadable("tag 27")
    until = [*newer.commands[:2], unknown, newer.commands[3]]
    mine, theirs = State(), State()
    from cluster.machine.apply import apply

    apply(mine, c.Batch(1, 1, list(newer.commands[:4])))
    apply(theirs, c.Batch(1, 1, until))
    assert mine.digest == theirs.digest != old.digest


def test_what_releases_without_levels_wrote_is_applied_at_any_level() -> None:
    ungated = [command for command, level in GATES.items() if level <= levels.UNGATED_LEVEL]
    assert all(levels.is_known(command, BASE_LEVEL) for command in ungated)
    assert c.AssignNew in ungated
    assert c.AssignMany not in ungated


def busy(seed: int) -> State:
    rng = random.Random(seed)

    def move() -> Move:
        return Move(rng.randrange(len(KINDS)), *(rng.randint(0, NUMBER_MAX) for _ in range(4)))

    state, _ = live([(rng.randint(0, 7), [move() for _ in range(4)]) for _ in range(40)])
    return state


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_of_the_level_before_blocks_has_none_and_says_the_same(seed: int) -> None:
    state = busy(seed)
    blocks = len(state.tables.jobs.blocks)
    older = b"".join(snapshot.dump(state, BLOCKS - 1))
    assert b"\xa6blocks" not in older
    assert (b"\xa6blocks" in dump(state)) == bool(blocks)
    twin = snapshot.load([older])
    invariants.check(twin)
    assert not twin.tables.jobs.blocks
    assert set(twin.tables.jobs) == set(state.tables.jobs)
    hours = c.encode_batch(c.Batch(9, state.now_ms + 90_000_000, []))
    results, effects = book(state, hours)
    twin_results, twin_effects = book(twin, hours)
    assert (results, twin.digest) == (twin_results, state.digest)
    assert sorted(facts(effects)[0]) == sorted(facts(twin_effects)[0])
    assert sorted(facts(effects)[3]) == sorted(facts(twin_effects)[3])
    invariants.check(twin)


def test_the_busy_states_have_blocks() -> None:
    assert any(busy(seed).tables.jobs.blocks for seed in range(4))


def test_a_snapshot_keeps_the_level_and_one_of_a_higher_level_is_refused() -> None:
    state = State()
    state.level = HIGHEST_LEVEL
    assert snapshot.load([dump(state)]).level == HIGHEST_LEVEL
    with pytest.raises(ValueError, match="this release knows levels up to 2"):
        snapshot.load([dump(state)], highest_level=BASE_LEVEL)
    state.level += 1
    with pytest.raises(ValueError, match="never goes back"):
        snapshot.load([dump(state)])


def test_members_tell_what_they_support() -> None:
    support = Support(5, 2, held=4, born=5)
    assert Support.read(support.meta()) == support
    assert Support.read({"levels": "5 2 4 5 9"}) == support  # a later release says more
    assert (support.willing, Support(3).willing, Support(3, held=9).willing) == (4, 3, 3)
    for meta in ({}, {"levels": ""}, {"levels": "5"}, {"levels": "a b c d"}):
        assert Support.read(meta) is None
