"""Ready queues: which jobs may be assigned next, in order.

A projection of the state, fed by effects on every node so that a new leader dispatches at once. A
lane is one (queue, task name), because a job goes only to a worker that offers both. Inside a lane
there is one FIFO per priority.

Entries are rows, and spans of blocks. A row that is not READY any more is stale, and so is a span
whose jobs are gone: it is dropped when it reaches the head. So assignment and cancellation cost
nothing here; only what the leader took but could not assign has to be given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, groupby
from operator import attrgetter

from cluster.machine import lifecycle
from cluster.machine.effects import Effects
from cluster.machine.state import State
from cluster.machine.tables import Block, Job

READY = lifecycle.READY
STALE_ROWS_MIN = 1_024  # below this a compaction is not worth it
LANES_KEPT_MIN = 1_000  # names of queues and tasks are the users', so empty lanes go again

HeadKey = tuple[int, int, int]


class Span:
    """The jobs of a block that nobody took here, from the id `at` on. `left` counts them, and those
    that are gone but were not passed yet."""

    __slots__ = ("at", "block", "left")

    def __init__(self, block: Block) -> None:
        self.block = block
        self.at = block.id
        self.left = block.live

    def head(self) -> int:
        """The next job's id, 0 if there is none."""
        return self.block.next_live(self.at)

    def take(self, count: int, below: int) -> list[Job]:
        """Remove up to `count` jobs with ids below `below`."""
        taken: list[Job] = []
        block, end = self.block, min(below, self.block.end)
        while len(taken) < count and 0 < (first := self.head()) < end:
            until = block.next_gone(first, min(first + count - len(taken), end))
            taken += block.show(range(first, until))
            self.at = until
        self.left -= len(taken)
        return taken


Entry = Job | Span


class Lane:
    """Ready jobs of one (queue, task name), a FIFO per priority; 1 is the most urgent."""

    __slots__ = ("_jobs", "levels", "name", "queue", "stale")

    def __init__(self, queue: str, name: str) -> None:
        self.queue = queue
        self.name = name
        self.levels: list[tuple[int, deque[Entry]]] = []
        self.stale = 0  # at most so many entries are stale
        self._jobs = 0

    def level(self, priority: int) -> deque[Entry]:
        for known, entries in self.levels:
            if known == priority:
                return entries
        entries = deque[Entry]()
        self.levels.append((priority, entries))
        self.levels.sort(key=lambda entry: entry[0])
        return entries

    def add(self, entry: Job | Block) -> None:
        level = self.level(entry.kind.spec.priority)
        if isinstance(entry, Job):
            level.append(entry)
            self._jobs += 1
        else:
            level.append(Span(entry))
            self._jobs += entry.live

    def add_first(self, job: Job) -> None:
        self.level(job.kind.spec.priority).appendleft(job)
        self._jobs += 1

    def head(self) -> HeadKey | None:
        """The next job's sort key, with stale entries before it dropped."""
        for priority, entries in self.levels:
            while entries:
                entry = entries[0]
                if isinstance(entry, Job):
                    if entry.state == READY:
                        return priority, entry.run_at_ms, entry.id
                elif first := entry.head():
                    return priority, entry.block.run_at_ms, first
                self._drop_first(entries)
        return None

    def _drop_first(self, entries: deque[Entry]) -> None:
        entry = entries.popleft()
        self._jobs -= 1 if isinstance(entry, Job) else entry.left

    def take(self, priority: int, bound: HeadKey | None, count: int) -> list[Job]:
        """Remove up to `count` jobs of one level, for as long as they come before `bound`."""
        taken: list[Job] = []
        entries = self.level(priority)
        while entries and len(taken) < count:
            entry = entries[0]
            if isinstance(entry, Job):
                if entry.state == READY:
                    if bound is not None and (priority, entry.run_at_ms, entry.id) > bound:
                        return taken
                    taken.append(entry)
            else:
                run = entry.take(count - len(taken), _below(priority, entry.block, bound))
                taken += run
                self._jobs -= len(run)
                if entry.head():
                    return taken
            self._drop_first(entries)
        return taken

    def take_any(self, count: int) -> list[Job]:
        """Remove up to `count` jobs, most urgent first, then longest due."""
        taken: list[Job] = []
        for priority, entries in self.levels:
            if entries and len(taken) < count:
                taken += self.take(priority, None, count - len(taken))
        return taken

    def trim(self, priority: int, gone: int) -> None:
        """`gone` jobs of one level are not ready any more: drop those at the head, and all others
        when they are the greater part, so that a head which nobody serves pins no memory."""
        entries = self.level(priority)
        while entries and not _is_ready(entries[0]):
            self._drop_first(entries)
        self.stale += gone
        if self.stale > STALE_ROWS_MIN and self.stale > len(self) // 2:
            self.compact()

    def compact(self) -> None:
        self.stale = self._jobs = 0
        for _, entries in self.levels:
            ready = [entry for entry in entries if _is_ready(entry)]
            entries.clear()
            entries.extend(ready)
            self._jobs += sum(1 if isinstance(entry, Job) else entry.left for entry in ready)

    def __len__(self) -> int:
        """How many jobs wait, stale ones included."""
        return self._jobs


def _is_ready(entry: Entry) -> bool:
    return entry.state == READY if isinstance(entry, Job) else entry.head() > 0


def _below(priority: int, block: Block, bound: HeadKey | None) -> int:
    """The id behind the last job of the block that comes before `bound`."""
    if bound is None or (priority, block.run_at_ms) < bound[:2]:
        return block.end
    return bound[2] if (priority, block.run_at_ms) == bound[:2] else 0


_kind_of = attrgetter("kind")


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
        by_moment: dict[int, list[Job | Block]] = {}
        jobs = state.tables.jobs
        for entry in chain(jobs.all_rows(), jobs.blocks.values()):
            if entry.state == READY:
                by_moment.setdefault(entry.run_at_ms, []).append(entry)
        for moment in sorted(by_moment):
            self._add(sorted(by_moment[moment], key=lambda entry: entry.id))

    def feed(self, effects: Effects) -> None:
        if effects.jobs_ready:
            self._add(effects.jobs_ready)
        if effects.jobs_assigned:
            self._trim(effects.jobs_assigned)
        if effects.jobs_withdrawn:
            self._trim(effects.jobs_withdrawn)

    def _add(self, entries: Iterable[Job | Block]) -> None:
        last_kind, lane = None, None
        for entry in entries:
            kind = entry.kind
            if lane is None or kind is not last_kind:
                lane, last_kind = self._lane(kind.lane), kind
            lane.add(entry)

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
                lane.trim(kind.spec.priority, len(list(run)))

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
        if len(lanes) == 1:
            return lanes[0].take_any(count)
        taken: list[Job] = []
        heads = [(head, n) for n, lane in enumerate(lanes) if (head := lane.head())]
        heapify(heads)  # not a search through all lanes per job: there may be a thousand lanes
        while heads and len(taken) < count:
            key, n = heappop(heads)
            bound = heads[0][0] if heads else None
            taken += lanes[n].take(key[0], bound, count - len(taken))
            head = lanes[n].head()
            if head is not None:
                heappush(heads, (head, n))
        return taken

    def has_ready(self, queue: str, name: str) -> bool:
        """Whether a job of this lane waits to be taken."""
        lane = self._lanes.get((queue, name))
        return lane is not None and lane.head() is not None

    def give_back(self, jobs: Sequence[Job]) -> None:
        """What was taken but not assigned goes to the front again, in order."""
        for job in reversed(jobs):
            if job.state == READY:
                self._lane(job.kind.lane).add_first(job)

    def waiting(self, lanes: Sequence[Lane]) -> int:
        """How many jobs wait in these lanes, stale ones included."""
        return sum(len(lane) for lane in lanes)
