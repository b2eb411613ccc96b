"""Every replicated timer, in one wheel: due, retry, deadlines, expiry, schedules, keys, stops.

A group is one timer for many jobs that share the moment, so a batch of a thousand delayed jobs
costs one insert. Groups hold ids, not rows: a firing looks each id up and checks that the row still
waits for this moment, so nothing has to be removed from a group. The members of a `BLOCK_DUE` group
are blocks, by the ids of their first jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from msgspec import Struct

from cluster.machine.tables import Block, Job, JobExtra
from cluster.timerwheel import Timer, TimerWheel

# What is due in the same millisecond fires in this order.
BLOCK_DUE, DUE, EXPIRE, DEADLINE, OVERDUE, SCHEDULE, KEYS, BACKFILL, STOP = range(9)
KEY_BUCKET_MS = 1_000  # keys expire in whole seconds, so that many share a timer


class TimerGroup(Struct, gc=False):
    """`live` members still want the timer; at zero it is cancelled."""

    kind: int
    members: Sequence[int] | Sequence[str]
    live: int


class Timers:
    """The wheel and the groups in it."""

    def __init__(self, now_ms: int = 0) -> None:
        self.wheel = TimerWheel(now_ms)
        self._key_buckets: dict[int, list[str]] = {}

    def add(self, due_ms: int, kind: int, members: Sequence[int] | Sequence[str]) -> Timer:
        return self.wheel.insert(due_ms, TimerGroup(kind, members, len(members)))

    def add_for_block(self, due_ms: int, kind: int, block: Block) -> Timer:
        """One for the jobs that are in the block."""
        ids = range(block.id, block.end)
        return self.wheel.insert(due_ms, TimerGroup(kind, ids, block.live))

    def join(self, timer: Timer, job_ids: Sequence[int]) -> None:
        """More jobs wait for `timer`. Until somebody joins, its members may be a range: that is
        smaller than a list of one, and the cyclic collector does not know it."""
        group = timer.payload
        assert isinstance(group, TimerGroup)
        if not isinstance(group.members, list):
            group.members = [*group.members]
        members: list[Any] = group.members
        members.extend(job_ids)
        group.live += len(job_ids)

    def drop(self, timer: Timer, count: int = 1) -> None:
        """So many members no longer wait for `timer`."""
        group = timer.payload
        assert isinstance(group, TimerGroup)
        group.live -= count
        if group.live == 0:
            self.wheel.cancel(timer)

    def release(self, job: Job) -> None:
        """The job no longer waits for its due or overdue timer."""
        timer = job.timer
        if timer is not None:
            job.timer = None
            self.drop(timer)

    def release_extra(self, extra: JobExtra) -> None:
        if extra.expire_timer is not None:
            self.drop(extra.expire_timer)
            extra.expire_timer = None
        if extra.deadline_timer is not None:
            self.drop(extra.deadline_timer)
            extra.deadline_timer = None
        if extra.stop_timer is not None:
            self.drop(extra.stop_timer)
            extra.stop_timer = None

    def expire_key(self, key: str, expires_ms: int) -> None:
        """Remember that `key` (prefixed by its table) may be forgotten at `expires_ms`."""
        bucket_ms = -(-expires_ms // KEY_BUCKET_MS) * KEY_BUCKET_MS
        bucket = self._key_buckets.get(bucket_ms)
        if bucket is None:
            bucket = self._key_buckets[bucket_ms] = []
            self.add(bucket_ms, KEYS, [""])
        bucket.append(key)

    def take_keys(self, bucket_ms: int) -> list[str]:
        return self._key_buckets.pop(bucket_ms, [])

    @property
    def key_buckets(self) -> int:
        return len(self._key_buckets)

    def keys_waiting(self) -> set[str]:
        """All keys that wait for their expiry, prefixed. A full scan, for invariants."""
        return {key for bucket in self._key_buckets.values() for key in bucket}

    def take_due(self, now_ms: int) -> list[tuple[int, int, list[Any]]]:
        """`(due_ms, kind, members)` of all that is due, in an order that does not depend on how
        the groups came about: a replica restored from a snapshot fires in the same order."""
        due = self.wheel.advance(now_ms)
        if not due:
            return []
        moments: dict[tuple[int, int], list[Sequence[Any]]] = {}
        for timer in due:
            group = timer.payload
            assert isinstance(group, TimerGroup)
            moments.setdefault((timer.due_ms, group.kind), []).append(group.members)
        return [
            (due_ms, kind, sorted(chain.from_iterable(groups)))
            for (due_ms, kind), groups in sorted(moments.items())
        ]
