"""What must be true of schedules: each occurrence runs once or is written down once, in order.

The model knows only what schedules said, event by event, and at the end compares it with the plan,
walked from the beginning in one go, as if nothing had ever gone wrong.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.sim.timetable import Entry
from cluster.machine.effects import Effects
from cluster.machine.model import ScheduleEvent
from cluster.policy.timing import Occurrence, Omitted, walk
from cluster.policy.timing.catchup import UNCOUNTED

if TYPE_CHECKING:
    from chaos.sim.node import SimNode
    from chaos.sim.world import World

LATE_MS = 2_000
PLANNED = ("launched", "late")
OMISSIONS = ("skipped", "missed", "merged")
# Not "holiday": calendars change while time passes, so a holiday is an occurrence that did not run.
NEVER_RUNS = ("gap", "blackout", "window", "excluded")


@dataclass
class Stretch:
    """Occurrences that were written down together."""

    first_ms: int
    last_ms: int
    count: int
    reason: str

    @property
    def kind(self) -> str:
        return self.reason if self.reason in NEVER_RUNS else ""


@dataclass
class Book:
    """All that one schedule said. `runs` are the planned ones by nominal time."""

    entry: Entry
    start_ms: int
    overlap: str
    runs: dict[int, str] = field(default_factory=dict)
    stretches: list[Stretch] = field(default_factory=list)
    newest_ms: dict[str, int] = field(default_factory=dict)
    backfilled: Counter[int] = field(default_factory=Counter)
    planned: dict[int, None] = field(default_factory=dict)  # jobs alive
    others: dict[int, None] = field(default_factory=dict)  # alive, launched by hand or to backfill
    cursor_ms: int = 0
    # Named after the moment in which they were skipped: asked for by hand, or launched at once.
    by_hand: dict[int, None] = field(default_factory=dict)
    waiting_by_hand: dict[int, None] = field(default_factory=dict)  # and dropped later, perhaps
    changed: bool = False  # to another overlap policy: what waited meets what no longer waits


class Occurrences:
    """One checker for all schedules of the timetable."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.books: dict[str, Book] = {}
        self._known = 0
        self._unfinished: set[tuple[str, int]] = set()
        self.backfills: dict[tuple[str, int], list[int]] = {}  # acknowledged ones

    # -- listening -------------------------------------------------------------------------------

    def on_entry(self, node: SimNode, effects: Effects, index: int) -> None:
        state = node.raft.state
        if len(state.tables.schedules) > self._known:
            self._meet(node)
        if effects.schedule_events:
            self._hear(node, effects)
        for finished in effects.jobs_finished:
            extra = finished.job.extra
            if extra is not None and extra.schedule_id in self.books:
                book = self.books[extra.schedule_id]
                book.planned.pop(finished.job.id, None)
                book.others.pop(finished.job.id, None)

    def _meet(self, node: SimNode) -> None:
        """Schedules that exist since this entry."""
        schedules = node.raft.state.tables.schedules
        self._known = len(schedules)
        for entry in self._world.timetable.values():
            row = schedules.get(entry.id)
            if row is not None and entry.id not in self.books:
                self.books[entry.id] = Book(entry, row.accounted_ms, entry.overlap)

    def _hear(self, node: SimNode, effects: Effects) -> None:
        heard: dict[str, list[ScheduleEvent]] = {}
        for schedule_id, event in effects.schedule_events:
            if schedule_id in self.books:
                heard.setdefault(schedule_id, []).append(event)
        ended = {finished.job.id for finished in effects.jobs_finished}
        for schedule_id, events in heard.items():
            book = self.books[schedule_id]
            busy = bool(book.planned or book.others)
            for event in events:
                self._note(book, event, node.raft.state.now_ms)
            row = node.raft.state.tables.schedules.get(schedule_id)
            book.overlap = row.overlap if row is not None else book.overlap
            self._judge_overlap(book, events, busy, ended)

    def _note(self, book: Book, event: ScheduleEvent, now_ms: int) -> None:
        if event.kind in PLANNED:
            self._note_run(book, event, now_ms)
            book.planned[event.job_id] = None
        elif event.kind == "backfilled":
            book.backfilled[event.nominal_ms] += 1
            book.others[event.job_id] = None
        elif event.kind == "triggered":
            book.others[event.job_id] = None
        elif event.kind in OMISSIONS:
            if event.nominal_ms <= book.start_ms:
                book.backfilled[event.nominal_ms] += event.count
                return
            waited = event.count == 1 and event.nominal_ms in book.waiting_by_hand
            if event.nominal_ms == event.at_ms or waited:
                book.by_hand[event.nominal_ms] = None
                return
            stretch = Stretch(event.nominal_ms, event.last_ms, event.count, event.reason)
            book.stretches.append(stretch)
            book.cursor_ms = max(book.cursor_ms, event.last_ms)
        elif event.kind == "changed":
            book.changed = True
        elif event.kind in ("buffered", "catchup"):
            if event.nominal_ms != event.at_ms:
                book.cursor_ms = max(book.cursor_ms, event.last_ms)
            else:  # somebody asked for it by hand, perhaps after the last one of the plan
                book.waiting_by_hand[event.nominal_ms] = None

    def _note_run(self, book: Book, event: ScheduleEvent, now_ms: int) -> None:
        name, nominal_ms = book.entry.id, event.nominal_ms
        if nominal_ms in book.runs:
            self._world.fail(f"{name}: {nominal_ms} was launched twice")
        if nominal_ms > now_ms:
            self._world.fail(f"{name}: {nominal_ms} was launched early")
        if nominal_ms < book.newest_ms.get(event.kind, 0) and not book.changed:
            self._world.fail(f"{name}: {nominal_ms} {event.kind} after newer ones")
        book.newest_ms[event.kind] = nominal_ms
        book.runs[nominal_ms] = event.kind
        book.cursor_ms = max(book.cursor_ms, nominal_ms)
        bound = book.entry.max_executions
        if bound and len(book.runs) > bound:
            self._world.fail(f"{name}: {len(book.runs)} executions of at most {bound}")

    def _judge_overlap(
        self, book: Book, events: list[ScheduleEvent], busy: bool, ended: set[int]
    ) -> None:
        """At the end of an entry: what began and ended within it is forgiven either way."""
        launched = [event for event in events if event.kind in PLANNED]
        alive = [job_id for job_id in book.planned if job_id not in ended]
        if launched and book.overlap != "allow_all" and len(alive) > 1:
            self._world.fail(f"{book.entry.id}: {len(alive)} runs at once under {book.overlap}")
        dropped = any(event.reason == "overlap" for event in events)
        if dropped and not busy and not any(event.job_id for event in events):
            self._world.fail(f"{book.entry.id}: skipped for an overlap with nothing")

    def totals(self) -> tuple[int, int]:
        """How many ran and how many were written down."""
        runs = sum(len(book.runs) for book in self.books.values())
        return runs, sum(each.count for book in self.books.values() for each in book.stretches)

    # -- the end ---------------------------------------------------------------------------------

    def at_end(self) -> None:
        for book in self.books.values():
            self._compare(book)
        for (schedule_id, number), nominals in self.backfills.items():
            told = self.books[schedule_id].backfilled
            least = 0 if (schedule_id, number) in self._unfinished else 1
            wrong = [nominal_ms for nominal_ms in nominals if not least <= told[nominal_ms] <= 1]
            if wrong:
                self._world.fail(f"{schedule_id}: {len(wrong)} of a backfill are lost or doubled")

    def before_deletion(self, leader: SimNode) -> None:
        """Whatever is due has had its time; backfills that still go on end with their schedule."""
        state = leader.raft.state
        for row in state.tables.schedules.values():
            if 0 < row.next_fire_ms < state.now_ms - LATE_MS:
                self._world.fail(f"{row.id} did not fire at {row.next_fire_ms}")
        for schedule_id, number in self.backfills:
            row = state.tables.schedules.get(schedule_id)
            waiting = row.waiting if row is not None else None
            backfill = waiting.backfills.get(number) if waiting is not None else None
            if backfill is not None and not backfill.finished_ms:
                self._unfinished.add((schedule_id, number))

    def _compare(self, book: Book) -> None:
        """Everything up to the newest that was told was told, and told right."""
        name, seen, missing = book.entry.id, 0, Counter[str]()
        open_stretches: list[Stretch] = []
        coming = sorted(book.stretches, key=lambda stretch: stretch.first_ms, reverse=True)
        for what in walk(book.entry.plan, name, book.start_ms, self._world.days):
            nominal_ms = what.nominal_ms
            if nominal_ms > book.cursor_ms:
                break
            while coming and coming[-1].first_ms <= nominal_ms:
                open_stretches.append(coming.pop())
            open_stretches = [each for each in open_stretches if each.last_ms >= nominal_ms]
            run = book.runs.get(nominal_ms)
            kind = _kind(what)
            if run is not None:
                seen += 1
                if kind:
                    self._world.fail(f"{name}: {nominal_ms} is omitted ({kind}) and was {run}")
                continue
            if not kind and nominal_ms in book.by_hand:
                continue
            missing[kind] += 1
            if not any(each.kind == kind for each in open_stretches):
                self._world.fail(f"{name}: nobody knows what became of {nominal_ms} ({kind})")
                return
        if seen != len(book.runs):
            self._world.fail(f"{name}: {len(book.runs) - seen} runs that the plan does not name")
        self._compare_counts(name, book.stretches, missing)

    def _compare_counts(self, name: str, stretches: list[Stretch], missing: Counter[str]) -> None:
        if any(each.reason == UNCOUNTED for each in stretches):
            return
        told = Counter[str]()
        for each in stretches:
            told[each.kind] += each.count
        if told != missing:
            self._world.fail(f"{name}: {dict(told)} written down, {dict(missing)} did not run")


def _kind(what: Occurrence | Omitted) -> str:
    """Why it never runs; empty for what might have."""
    return what.reason if isinstance(what, Omitted) else ""
