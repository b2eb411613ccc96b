"""Snapshots: cut anywhere, broken anywhere, and never larger in one piece than has to be."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_moves import KINDS
from machine_replicas import dump, garbled, live
from machine_values import NUMBER_MAX, Move

from cluster.machine import commands as c
from cluster.machine import invariants, snapshot
from cluster.machine.apply import apply
from cluster.machine.model import JobSpec, WorkerSpec
from cluster.machine.snapshot_format import FORMAT, SECTIONS, JobColumns
from cluster.machine.state import State

LENGTH = struct.Struct("<I")


def busy_state(seed: int = 7) -> State:
    """A state with something in every section."""
    rng = random.Random(seed)

    def move() -> Move:
        return Move(rng.randrange(len(KINDS)), *(rng.randint(0, NUMBER_MAX) for _ in range(4)))

    state, _ = live([(rng.randint(0, 7), [move() for _ in range(4)]) for _ in range(60)])
    return state


BUSY = busy_state()


def records(data: bytes) -> list[tuple[str, bytes]]:
    """Sections and their records, length included."""
    found, at = [], 0
    while at < len(data):
        (length,) = LENGTH.unpack_from(data, at)
        record = data[at : at + LENGTH.size + length]
        found.append((msgspec.msgpack.decode(record[LENGTH.size :])[0], record))
        at += len(record)
    return found


def record(section: str, body: object) -> bytes:
    encoded = msgspec.msgpack.encode((section, body))
    return LENGTH.pack(len(encoded)) + encoded


def test_the_busy_state_fills_every_section() -> None:
    assert {section for section, _ in records(dump(BUSY))} == set(SECTIONS)


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_chunks_may_be_cut_anywhere(sizes: list[int]) -> None:
    data, at = dump(BUSY), 0
    chunks: list[bytes] = []
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    restored = snapshot.load([b"", *chunks, b""])
    invariants.check(restored)
    assert dump(restored) == data


def test_a_truncated_snapshot_is_refused() -> None:
    data = dump(BUSY)
    for end in [*range(0, len(data), 11), *range(len(data) - 40, len(data))]:
        with pytest.raises(ValueError, match="snapshot"):
            snapshot.load([data[:end]])


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_a_damaged_byte_is_refused_or_harmless(at: int, value: int) -> None:
    """Checksums are the business of consensus; here, nothing but ValueError may come out."""
    try:
        restored = snapshot.load([garbled(dump(BUSY), at, value)])
    except ValueError:
        return
    dump(restored)


def test_sections_are_read_in_order_and_once() -> None:
    parts = records(dump(BUSY))
    whole = b"".join(data for _, data in parts)
    header, end = parts[0][1], parts[-1][1]
    no_specs = b"".join(data for section, data in parts if section != "specs")
    for broken in (
        b"",
        end,
        header,
        header + header + end,
        header + end + end,
        whole + header,
        whole + b"\x00",
        b"".join(data for _, data in reversed(parts)),
        no_specs,
        header + record("tomorrow", []) + end,
        header + record("end", "1"),
        header + record("jobs", [1, 2, 3]) + end,
    ):
        with pytest.raises(ValueError, match="snapshot"):
            snapshot.load([broken])


def test_another_format_is_refused() -> None:
    header = msgspec.msgpack.decode(records(dump(State()))[0][1][LENGTH.size :])[1]
    header[0] = FORMAT + 1
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}"):
        snapshot.load([record("header", header) + record("end", FORMAT + 1)])


def test_an_endless_record_is_refused_before_it_is_read() -> None:
    def endless() -> object:
        yield LENGTH.pack((1 << 32) - 1)
        pytest.fail("read on")

    with pytest.raises(ValueError, match="longer than any"):
        snapshot.load(endless())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ids", [1, 1]),
        ("ids", [1, 77]),
        ("ids", [1]),
        ("specs", 1),
        ("specs", -1),
        ("specs", [0, -1]),
        ("specs", [0]),
        ("states", 21),
        ("states", 3),
        ("states", 10),
        ("payloads", [b""]),
        ("run_at_ms", [1, 2, 3]),
        ("run_at_ms", -(1 << 63)),
        ("timers", [5, 1 << 63]),
        ("extra_at", [0]),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(field: str, value: object) -> None:
    state = State()
    apply(
        state, c.Batch(1, 1_000, [c.SubmitJobs([c.JobGroup(JobSpec("mail"), [b"", b""], 5_000)])])
    )
    parts = []
    for section, data in records(dump(state)):
        part = data
        if section == "jobs":
            body = msgspec.msgpack.decode(data[LENGTH.size :], type=tuple[str, JobColumns])[1]
            setattr(body, field, value)
            part = record("jobs", body)
        parts.append(part)
    if field == "run_at_ms" and isinstance(value, int):
        snapshot.load(parts)  # odd, but a number as any other
        return
    with pytest.raises(ValueError, match="snapshot"):
        snapshot.load(parts)


def test_a_worker_that_holds_a_stranger_is_refused() -> None:
    state = State()
    apply(state, c.Batch(1, 1_000, [c.RegisterWorker(WorkerSpec("host", 1, ("*",), ()))]))
    state.tables.workers[1].running[9] = None
    with pytest.raises(ValueError, match="holds no such job: 9"):
        snapshot.load([dump(state)])


def test_large_payloads_make_small_records() -> None:
    state = State()
    payloads = [b"x" * (1 << 20)] * 10 + [b""] * 990
    group = c.JobGroup(JobSpec("mail"), payloads)
    schedule = c.PutSchedule("", JobSpec("mail"), b"x" * (3 << 20), "", 1_000, 5_000)
    worker = c.RegisterWorker(WorkerSpec("host", 1, ("*",), ()))
    failures = [c.JobFailure(i, 1, "E", "m" * (3 << 20), 0) for i in (11, 12)]
    apply(state, c.Batch(1, 1_000, [c.SubmitJobs([group]), worker, schedule, schedule]))
    apply(state, c.Batch(1, 1_001, [c.AssignJobs(1, [11, 12]), c.FailJobs(1, failures)]))
    parts = records(dump(state))
    assert max(len(data) for _, data in parts) <= snapshot.RECORD_BYTES_TARGET + (3 << 20)
    assert len(parts) < 30
    restored = snapshot.load([data for _, data in parts])
    assert dump(restored) == dump(state)


def test_jobs_of_one_moment_share_its_memory_after_a_restart() -> None:
    state = State()
    for now_ms in (1_000_000, 2_000_000):
        group = c.JobGroup(JobSpec("mail"), [b""] * 3, now_ms + 5_000_000)
        apply(state, c.Batch(1, now_ms, [c.SubmitJobs([group])]))
    jobs = list(snapshot.load([dump(state)]).tables.jobs.values())
    assert len({id(job.created_ms) for job in jobs}) == 2
    assert len({id(job.run_at_ms) for job in jobs}) == 2
    assert len({id(job.timer) for job in jobs}) == 2
    assert len({id(job.kind) for job in jobs}) == 1


def test_ten_thousand_jobs_survive_with_order_and_counts() -> None:
    state = State()
    for n in range(50):
        spec = JobSpec(f"task{n % 3}", f"queue{n % 2}", tags=(str(n % 7),))
        group = c.JobGroup(spec, [b"%d" % i for i in range(200)], 0 if n % 2 else 9_000 + n)
        apply(state, c.Batch(1, 1_000 + n, [c.SubmitJobs([group])]))
    apply(state, c.Batch(1, 2_000, [c.CancelJobs(list(range(1, 9_000, 3)))]))
    restored = snapshot.load([dump(state)])
    invariants.check(restored)
    assert list(restored.tables.jobs) == list(state.tables.jobs)
    assert dump(restored) == dump(state)
