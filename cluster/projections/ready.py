"""Ready queues: which jobs may be assigned next, in order.

A projection of the state, fed by effects on every node so that a new leader dispatches at once. A
lane is one (queue, task name), because a job goes only to a worker that offers both. Inside a lane
there is one FIFO per priority.

Entries are rows, and a row that is not READY any more is stale: it is dropped when it reaches the
head. So assignment and cancellation cost nothing here; only what the leader took but could not
assign has to be given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import groupby

from cluster.machine import lifecycle
from cluster.machine.effects import Effects
from cluster.machine.state import State
from cluster.machine.tables import Job, SpecRow

READY = lifecycle.READY
STALE_ROWS_MIN = 1_024  # below this a compaction is not worth it
LANES_KEPT_MIN = 1_000  # names of queues and tasks are the users', so empty lanes go again

HeadKey = tuple[int, int, int]


class Lane:
    """Ready jobs of one (queue, task name), a FIFO per priority; 1 is the most urgent."""

    __slots__ = ("levels", "name", "queue", "stale")

    def __init__(self, queue: str, name: str) -> None:
        self.queue = queue
        self.name = name
        self.levels: list[tuple[int, deque[Job]]] = []
        self.stale = 0  # at most so many entries are stale

    def level(self, priority: int) -> deque[Job]:
        for known, jobs in self.levels:
            if known == priority:
                return jobs
        jobs = deque[Job]()
        self.levels.append((priority, jobs))
        self.levels.sort(key=lambda entry: entry[0])
        return jobs

    def head(self) -> tuple[HeadKey, deque[Job]] | None:
        """The next job's sort key and its FIFO, with stale entries before it dropped."""
        for priority, jobs in self.levels:
            while jobs and jobs[0].state != READY:
                jobs.popleft()
            if jobs:
                first = jobs[0]
                return (priority, first.run_at_ms, first.id), jobs
        return None

    def trim(self, priority: int, gone: int) -> None:
        """`gone` jobs of one level are not ready any more: drop those at the head, and all others
        when they are the greater part, so that a head which nobody serves pins no memory."""
        jobs = self.level(priority)
        while jobs and jobs[0].state != READY:
            jobs.popleft()
        self.stale += gone
        if self.stale > STALE_ROWS_MIN and self.stale > len(self) // 2:
            self.stale = 0
            for _, entries in self.levels:
                ready = [job for job in entries if job.state == READY]
                entries.clear()
                entries.extend(ready)

    def __len__(self) -> int:
        return sum(len(jobs) for _, jobs in self.levels)


def _kind_of(job: Job) -> SpecRow:
    return job.kind


class ReadyQueues:
    """All lanes. `version` grows with every new lane, so that workers can cache their lanes."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._lanes_max = LANES_KEPT_MIN
        self.version = 0

    def prepare(self, state: State) -> Callable[[], None]:
        """Start over from a state that is not in use yet: after a restart or an installed
        snapshot. In any thread; what it returns makes it so, on the loop."""
        new = ReadyQueues()
        new._fill(state)

        def adopt() -> None:
            self._lanes, self._lanes_max = new._lanes, new._lanes_max
            self.version += new.version + 1

        return adopt

    def rebuild(self, state: State) -> None:
        self.prepare(state)()

    def _fill(self, state: State) -> None:
        # By moment first: one sort of a million jobs would hold up the other threads.
        by_moment: dict[int, list[Job]] = {}
        for job in state.tables.jobs.values():
            if job.state == READY:
                by_moment.setdefault(job.run_at_ms, []).append(job)
        for moment in sorted(by_moment):
            self._add(sorted(by_moment[moment], key=lambda job: job.id))

    def feed(self, effects: Effects) -> None:
        if effects.jobs_ready:
            self._add(effects.jobs_ready)
        for _, jobs in effects.jobs_assigned:
            self._trim(jobs)
        if effects.jobs_withdrawn:
            self._trim(effects.jobs_withdrawn)

    def _add(self, jobs: Iterable[Job]) -> None:
        last_kind, level = None, deque[Job]()
        for job in jobs:
            kind = job.kind
            if kind is not last_kind:
                level = self._lane(kind.lane).level(kind.spec.priority)
                last_kind = kind
            level.append(job)

    def _lane(self, key: tuple[str, str]) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= self._lanes_max:
                self._drop_empty_lanes()
            lane = self._lanes[key] = Lane(*key)
            self.version += 1
        return lane

    def _drop_empty_lanes(self) -> None:
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane}
        self._lanes_max = max(2 * len(self._lanes), LANES_KEPT_MIN)

    def _trim(self, jobs: Iterable[Job]) -> None:
        """Followers take nothing, so what the leader assigned is dropped here."""
        for kind, run in groupby(jobs, key=_kind_of):
            lane = self._lanes.get(kind.lane)
            if lane is not None:
                lane.trim(kind.spec.priority, sum(1 for _ in run))

    def lanes_of(self, queues: Sequence[str], tasks: Sequence[str]) -> list[Lane]:
        """The lanes that a worker with these offers can serve; `*` offers any queue."""
        offered, any_queue = set(tasks), "*" in queues
        wanted = set(queues)
        return [
            lane
            for (queue, name), lane in self._lanes.items()
            if name in offered and (any_queue or queue in wanted)
        ]

    def take(self, lanes: Sequence[Lane], count: int) -> list[Job]:
        """Remove up to `count` jobs from `lanes`, most urgent first, then longest due."""
        taken: list[Job] = []
        heads: list[tuple[HeadKey, int, deque[Job]]] = [
            (head[0], n, head[1]) for n, lane in enumerate(lanes) if (head := lane.head())
        ]
        heapify(heads)  # not a search through all lanes per job: there may be a thousand lanes
        while heads and len(taken) < count:
            key, n, jobs = heappop(heads)
            self._take_run(jobs, key[0], heads[0][0] if heads else None, count, taken)
            head = lanes[n].head()
            if head is not None:
                heappush(heads, (head[0], n, head[1]))
        return taken

    @staticmethod
    def _take_run(
        jobs: deque[Job], priority: int, bound: HeadKey | None, count: int, taken: list[Job]
    ) -> None:
        """Take from one FIFO for as long as its head comes before `bound`."""
        while jobs and len(taken) < count:
            job = jobs[0]
            if job.state == READY:
                if bound is not None and (priority, job.run_at_ms, job.id) > bound:
                    return
                taken.append(job)
            jobs.popleft()

    def give_back(self, jobs: Sequence[Job]) -> None:
        """What was taken but not assigned goes to the front again, in order."""
        for job in reversed(jobs):
            if job.state == READY:
                self._lane(job.kind.lane).level(job.kind.spec.priority).appendleft(job)

    def waiting(self, lanes: Sequence[Lane]) -> int:
        """How many entries wait in these lanes, stale ones included."""
        return sum(len(lane) for lane in lanes)
