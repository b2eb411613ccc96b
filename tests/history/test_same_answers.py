"""Whatever the jobs are and however they lie in buffer and file, every question has one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from history_rig import STATUSES, ended, finished, job, write_as_release_2
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.history import FinishedJob, PastAttempt
from cluster.history.buffer import Buffer
from cluster.history.inserts import BAND_BITS
from cluster.history.record import Query
from cluster.history.store import Store

NAMES, QUEUES, TAGS, SCHEDULES = ("send", "resize"), ("default", "mail"), ("eu", "us"), ("s", "t")
QUERIES = [
    Query(*values)
    for values in product((None, *STATUSES), (None, "mail"), (None, "send"), (None, "eu", "e"))
]

times = st.sampled_from((0, 5, 1_700_000_000_000, 1_700_000_000_007, (1 << 63) - 1))
attempts = st.builds(PastAttempt, st.integers(1, 9), st.integers(0, 3), times, times, st.text())
common = {
    "status": st.sampled_from(STATUSES),
    "name": st.sampled_from(NAMES),
    "queue": st.sampled_from(QUEUES),
    "tags": st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple),
    "finished_ms": times,
    "created_ms": times,
    "attempt": st.integers(0, 1 << 20),
    "worker_id": st.integers(0, 70_000),
    "payload": st.binary(max_size=9),
    "output": st.none() | st.binary(max_size=9),
}
rare = {
    "failures": st.integers(0, 300),
    "error_type": st.text(max_size=4),
    "log": st.text(max_size=9),
    "schedule_id": st.sampled_from(SCHEDULES),
    "nominal_ms": times,
    "unique_key": st.text(max_size=4),
    "expires_at_ms": times,
    "deadline_ms": times,
    "attempts": st.lists(attempts, max_size=2).map(tuple),
}
# Near each other, at the edge of a band, and far away; some twice.
job_ids = st.integers(1, 40) | st.integers(-3, 3).map(lambda n: (1 << BAND_BITS) + n)
kinds = st.fixed_dictionaries(common) | st.fixed_dictionaries(common, optional=rare)
lots = st.lists(st.tuples(kinds, st.lists(job_ids, max_size=30, unique=True)), max_size=6)


def rows_of(lots: list[tuple[dict[str, object], list[int]]]) -> list[FinishedJob]:
    """Jobs as they end: like ones together, each log entry with its index."""
    return [
        job(job_id, index, **fields)  # type: ignore[arg-type]
        for index, (fields, ids) in enumerate(lots, 1)
        for job_id in ids
    ]


def latest(rows: Sequence[FinishedJob]) -> list[FinishedJob]:
    """One row a job, newest id first: what there is to find."""
    by_id = {row.job_id: row for row in sorted(rows, key=lambda row: row.index)}
    return [by_id[job_id] for job_id in sorted(by_id, reverse=True)]


def matching(rows: Sequence[FinishedJob], query: Query) -> list[FinishedJob]:
    return [row for row in rows if query.accepts(row.status, row.queue, row.name, row.tags)]


def pages(store: Store, query: Query, limit: int) -> Iterator[FinishedJob]:
    before_id: int | None = 1 << 62
    while before_id is not None:
        rows, before_id = store.page(query, before_id, limit)
        yield from rows


def check(store: Store, expected: list[FinishedJob]) -> None:
    for row in expected:
        assert store.find(row.job_id) == row
    for query in QUERIES:
        assert list(pages(store, query, 7)) == matching(expected, query)
    for schedule_id, nominal_ms in product(SCHEDULES, (None, 5)):
        of_it = [row for row in expected if row.schedule_id == schedule_id]
        wanted = [row for row in of_it if nominal_ms in (None, row.nominal_ms)]
        assert store.runs(schedule_id, nominal_ms, 1 << 62, 1_000) == wanted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lots, st.integers(0, 100))
def test_chunks_of_columns_answer_as_single_rows_do(
    lots: list[tuple[dict[str, object], list[int]]], share: int
) -> None:
    rows = rows_of(lots)
    expected = latest(rows)
    cut = len(rows) * share // 100
    with TemporaryDirectory() as folder:
        # Everything in one transaction; some of it in an old file, the rest in a new transaction.
        at_once, upgraded = Store(Path(folder) / "a.sqlite"), Path(folder) / "b.sqlite"
        at_once.write(ended(rows), 9, durable=False)
        check(at_once, expected)
        write_as_release_2(upgraded, rows[:cut])
        mixed = Store(upgraded)
        mixed.write(ended(rows[cut:]), 9, durable=False)
        occasions = {(row.job_id, row.schedule_id, row.nominal_ms) for row in rows}
        if len(occasions) == len(expected):  # a job that comes back is of the same schedule
            check(mixed, expected)
        assert len(mixed.without_known(ended(rows))) == 0
        at_once.close()
        mixed.close()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lots, st.integers(1, 60))
def test_the_buffer_answers_as_the_file_will(
    lots: list[tuple[dict[str, object], list[int]]], before_id: int
) -> None:
    rows = rows_of(lots)
    expected = latest(rows)
    buffer = Buffer()
    for row in rows:
        buffer.add(row.index, [finished(row)])
        assert buffer.find(row.job_id) == row
    for query in QUERIES:
        assert list(buffer.newest(query, 1 << 62)) == matching(expected, query)
    below = [row for row in expected if row.job_id < before_id]
    assert list(buffer.newest(Query(), before_id)) == below
    for schedule_id, nominal_ms in product(SCHEDULES, (None, 5)):
        found = {row.job_id: row for row in buffer.runs(schedule_id, nominal_ms, before_id)}
        of_it = [row for row in below if row.schedule_id == schedule_id]
        assert found == {row.job_id: row for row in of_it if nominal_ms in (None, row.nominal_ms)}
