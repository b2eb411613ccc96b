"""What the decoder refuses, and how much it refuses with it."""

from __future__ import annotations

import msgspec
import pytest
from machine_replicas import book

from cluster.machine import commands as c
from cluster.machine import invariants
from cluster.machine.model import JobSpec
from cluster.machine.results import Rejected
from cluster.machine.state import State
from cluster.plan import TIME_MS_MAX

PACK = msgspec.msgpack.encode
GOOD = [13, "nobody"]
LATE = TIME_MS_MAX + 1

BAD: dict[str, object] = {
    "unknown tag": [99, 1],
    "no tag": [],
    "not a command": 7,
    "missing field": [2, 1],
    "wrong type": [2, "w1", [1]],
    "fraction": [2, 1.5, [1]],
    "due too late": [1, [[["mail"], [b""], LATE]]],
    "due before time began": [1, [[["mail"], [b""], -1]]],
    "expires too late": [1, [[["mail"], [b""], 0, LATE]]],
    "deadline too late": [1, [[["mail"], [b""], 0, 0, LATE]]],
    "negative ttl": [1, [[["mail"], [b""], 0, 0, 0, ["k"], 0, -5]]],
    "request ttl too long": [1, [], "k", 0, LATE],
    "fewer keys than jobs": [1, [[["mail"], [b"", b""], 0, 0, 0, ["k"]]]],
    "priority 0": [1, [[["mail", "q", 0], [b""]]]],
    "priority 11": [1, [[["mail", "q", 11], [b""]]]],
    "negative timeout": [1, [[["mail", "q", 5, 3, [], -1], [b""]]]],
    "fewer attempts than jobs": [3, 1, [1, 2], [1]],
    "more outputs than jobs": [3, 1, [1], [1], [b"", b""]],
    "fewer logs than jobs": [3, 1, [1], [1], None, []],
    "retry too late": [4, 1, [[1, 1, "E", "m", LATE]]],
    "fewer attempts than released": [5, 1, [1, 2], [1]],
    "replay too late": [7, [1], LATE],
    "replay with priority 0": [7, [1], 0, [None, None, 0]],
    "fires too late": [9, "", ["mail"], b"", "", 0, LATE],
    "resumes in the past": [11, "s", -1],
    "skips too much": [12, "s", 1, 2, 1 << 40],
    "bottomless worker": [15, ["host", -1, [], []]],
}


@pytest.mark.parametrize("why", BAD)
def test_one_bad_command_is_refused_alone(why: str) -> None:
    state = State()
    results, effects = book(state, PACK([1, 1_000, [GOOD, BAD[why], GOOD]]))
    assert results == [
        Rejected.UNKNOWN_SCHEDULE, Rejected.UNDECODABLE, Rejected.UNKNOWN_SCHEDULE,
    ]  # fmt: skip
    assert not effects.jobs_ready
    assert not state.tables.jobs
    invariants.check(state)


def test_text_that_is_no_utf_8_is_refused_alone() -> None:
    entry = PACK([1, 1_000, [GOOD, [14, "??"], GOOD]]).replace(b"??", b"\xff\xff")
    results, _ = book(State(), entry)
    assert results[1] is Rejected.UNDECODABLE


def test_a_bottomless_pit_is_refused() -> None:
    pit = b"\x91" * 100_000 + b"\xc0"
    with pytest.raises(msgspec.DecodeError):
        c.decode_batch(b"\x93\x01\x02\x91\x93\x0e\xa1s" + pit)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\xc1",
        PACK(None),
        PACK([]),
        PACK([1, 2]),
        PACK({"epoch": 1}),
        PACK([1, 2, {}]),
        PACK([-1, 2, []]),
        PACK([1 << 63, 2, []]),
        PACK([1, -1, []]),
        PACK([1, LATE, []]),
        PACK([1, 2, []]) + b"\x00",
        PACK([1, 2, [GOOD]])[:-1],
    ],
)
def test_what_is_no_batch_is_a_decode_error(entry: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        c.decode_batch(entry)


def test_columns_of_different_lengths_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="columns of 2 and 1 rows"):
        c.ReleaseJobs(1, [1, 2], [1])
    with pytest.raises(ValueError, match="columns of 0 and 1 rows"):
        c.JobGroup(JobSpec("mail"), [], unique_keys=["k"])


def test_a_batch_survives_the_codec() -> None:
    batch = c.Batch(1, 2, [c.SubmitJobs([c.JobGroup(JobSpec("mail"), [b"\x00\xff"])], "k")])
    assert c.decode_batch(c.encode_batch(batch)) == batch
