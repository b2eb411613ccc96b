"""Old logs must replay: tags and fields are append-only, and so is what they mean.

A failure here is not repaired by making the files anew. Add a command or a field with a default.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from machine_replicas import book

from cluster.machine import commands as c
from cluster.machine import invariants, snapshot
from cluster.machine.commands import Command
from cluster.machine.model import Attempt, JobSpec, RetrySpec, WorkerSpec
from cluster.machine.results import Rejected
from cluster.machine.state import State
from cluster.plan import Missed, Plan, Span, Trigger, Window

GOLDEN = Path(__file__).parent / "golden"
LOGS = sorted(path.stem for path in GOLDEN.glob("*.bin"))

SPEC = JobSpec("mail", "slow", 2, 7, RetrySpec("fixed", 5, 6, False), 9_000, ("a", "b"))
WORKER = WorkerSpec("host", 3, ("q",), ("t",), {"zone": "1"}, 7_000, "10.0.0.1", "poll")
PLAN = Plan(
    (Trigger("0 3 * * *"), Trigger("", 60_000, 5), Trigger("", 0, 0, (1, 2))),
    (Trigger("0 3 1 * *"),), "Europe/Berlin", "skip", "both", True, ("de",), "next",
    (Window(1, 2, (0, 6)),), "skip", (Span(3, 4),), (Window(5, 6),), 7, 8, 9, "all", 10, 11,
)  # fmt: skip
MISSED = Missed("too_old", 1, 2, 3)
SAMPLES: list[Command] = [
    c.SubmitJobs(
        [
            c.JobGroup(SPEC, [b"x", b""], 1, 2, 3, ["k", ""], 2, 4),
            c.JobGroup(JobSpec("plain"), [b"{}"]),
        ],
        "request",
        99,
        5,
    ),
    c.AssignJobs(1, [2, 3]),
    c.CompleteJobs(1, [2, 3], [4, 5], [b"o", None], [None, "log"]),
    c.FailJobs(1, [c.JobFailure(2, 3, "E", "m", 4, "l", "timeout")]),
    c.ReleaseJobs(1, [2], [3]),
    c.CancelJobs([1, 2], "why"),
    c.RetryJobs([1], 2, c.JobChanges(b"p", "q", 3, 4, 5)),
    c.PurgeDead([1, 2]),
    c.PutSchedule(
        "s", SPEC, b"p", "* * * * *", 1, 2, True, 3, 4, PLAN, "skip", 5, 6, True, "n", 7, "why"
    ),
    c.PauseSchedule("s", "note"),
    c.ResumeSchedule("s", 1, 2, [MISSED]),
    c.FireSchedule("s", 1, 2, 3, 4, [5, 6], [7], [MISSED], 8, "end_at"),
    c.TriggerSchedule("s", c.JobChanges(b"p", "q", 3, 4, 5), "buffer_one"),
    c.DeleteSchedule("s"),
    c.RegisterWorker(WORKER),
    c.DrainWorker(1),
    c.RemoveWorker(1, True, "why"),
    c.UpdateWorker(1, WORKER),
    c.StartBackfill("s", [1, 2], "buffer_all", 3, "note"),
    c.StopBackfill("s", 1),
    c.PutCalendar("de", [1, 2], ["a", "b"], "text", "{}", 3),
    c.DeleteCalendar("de"),
    c.ReplanSchedule("s", 1, 2, 3, 4, "tzdata", [MISSED]),
    c.SetReleases("tzdata 2026.6"),
    c.AssignNew(1, 2),
    c.AssignMany([1, 2], [1, 2], [3, 4, 5]),
    c.CompleteMany([1, 2], [1, 1], [2, 3], [4, 5], [b"o", None], [None, "log"]),
    c.RaiseLevel(3),
]
# Written down once: tag, then fields in order. What the first release wrote has fewer fields.
FIRST_BYTES = json.loads((GOLDEN / "commands.json").read_text())
BYTES = json.loads((GOLDEN / "commands-2.json").read_text())
# What a leader of the first release may leave out, because the rest has defaults.
SHORTEST: dict[str, list[object]] = {
    "SubmitJobs": [1, [[["mail"], [b"{}"]]]],
    "CompleteJobs": [3, 1, [2], [1]],
    "FailJobs": [4, 1, [[1, 1, "E", "m", 0]]],
    "CancelJobs": [6, [1]],
    "RetryJobs": [7, [1]],
    "PutSchedule": [9, "", ["mail"], b"", "", 0, 0],
    "PauseSchedule": [10, "s"],
    "FireSchedule": [12, "s", 1, 2],
    "RegisterWorker": [15, ["host", 1, [], []]],
    "RemoveWorker": [17, 1],
    "CompleteMany": [27, [1], [1], [2], [1]],
}


def entries_of(name: str) -> Iterator[bytes]:
    data, at = (GOLDEN / f"{name}.bin").read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


@pytest.mark.parametrize("name", LOGS)
def test_a_golden_log_replays_to_the_same_digests(name: str) -> None:
    entries = entries_of(name)
    for end in json.loads((GOLDEN / f"{name}.json").read_text()):
        state = State()
        for _ in range(end["entries"]):
            book(state, next(entries))
        assert f"{state.digest:08x}" == end["digest"]
        assert len(state.tables.jobs) == end["jobs"]
        assert len(state.tables.dead) == end["dead"]
    assert next(entries, None) is None


@pytest.mark.parametrize("name", LOGS)
def test_a_golden_snapshot_is_read(name: str) -> None:
    state = snapshot.load([(GOLDEN / f"{name}.snapshot").read_bytes()])
    end = json.loads((GOLDEN / f"{name}.json").read_text())[-1]
    assert f"{state.digest:08x}" == end["digest"]
    assert len(state.tables.jobs) == end["jobs"] > 0
    assert len(state.tables.dead) == end["dead"] > 0
    invariants.check(state)


def test_the_golden_logs_know_every_command() -> None:
    told = {
        type(command)
        for name in LOGS
        for entry in entries_of(name)
        for command in c.decode_batch(entry).commands
    }
    assert told == {type(command) for command in SAMPLES}


def test_every_command_has_a_sample() -> None:
    assert {type(command) for command in SAMPLES} == set(get_args(Command))


@pytest.mark.parametrize("command", SAMPLES, ids=lambda command: type(command).__name__)
def test_a_command_is_written_as_ever(command: Command) -> None:
    encoded = msgspec.msgpack.encode(command)
    assert encoded.hex() == BYTES[type(command).__name__]
    assert msgspec.msgpack.decode(encoded, type=Command) == command


@pytest.mark.parametrize("name", FIRST_BYTES)
def test_a_command_of_the_first_release_is_read_as_ever(name: str) -> None:
    first = bytes.fromhex(FIRST_BYTES[name])
    told = msgspec.msgpack.decode(first)
    command = msgspec.msgpack.decode(first, type=Command)
    assert type(command).__name__ == name
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(command))[: len(told)] == told


def test_values_inside_rows_are_written_as_ever() -> None:
    attempt = Attempt(1, 2, 3, 4, "failed", "E", "m", "l")
    assert msgspec.to_builtins(attempt) == [1, 2, 3, 4, "failed", "E", "m", "l"]
    batch = c.encode_batch(c.Batch(7, 8, [c.DrainWorker(1)]))
    assert msgspec.msgpack.decode(batch) == [7, 8, [[16, 1]]]


@pytest.mark.parametrize("name", SHORTEST)
def test_fields_with_defaults_may_be_missing(name: str) -> None:
    (command,) = c.decode_batch(msgspec.msgpack.encode([1, 2, [SHORTEST[name]]])).commands
    assert type(command).__name__ == name


@pytest.mark.parametrize("name", BYTES)
def test_fields_of_a_newer_release_are_passed_over(name: str) -> None:
    fields = msgspec.msgpack.decode(bytes.fromhex(BYTES[name]))
    newer = msgspec.msgpack.encode([1, 2, [[*fields, "new", [1, [2]]]], "new"])
    (command,) = c.decode_batch(newer).commands
    assert msgspec.msgpack.encode(command).hex() == BYTES[name]


def test_refusals_keep_their_numbers() -> None:
    """They travel in results, and the digest covers them."""
    assert [(r.value, r.name) for r in Rejected] == [
        (1, "STALE_EPOCH"), (2, "INTERNAL"), (3, "UNKNOWN_JOB"), (4, "STALE_ATTEMPT"),
        (5, "NOT_READY"), (6, "FINISHED"), (7, "NOT_DEAD"), (8, "CONFLICT"), (9, "KEY_MISMATCH"),
        (10, "UNKNOWN_SCHEDULE"), (11, "STALE_FIRE"), (12, "PAUSED"), (13, "UNKNOWN_WORKER"),
        (14, "UNDECODABLE"), (15, "STALE_VERSION"), (16, "IN_USE"), (17, "UNKNOWN_CALENDAR"),
        (18, "UNKNOWN_BACKFILL"), (19, "ENDED"), (20, "FULL"),
    ]  # fmt: skip
