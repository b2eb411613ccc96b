"""What becomes of occurrences that are due: launched, made up for, or recorded as missed.

After an outage nothing floods: what is late is bounded by the plan, everything else is recorded
with a reason and counted. A month of missed minutes takes its time to count, so the work comes in
steps: `decide` is a generator, and whoever drives it lets others run between two steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from itertools import islice
from typing import NamedTuple

from cluster.plan import Missed, Plan
from cluster.policy.timing.calendars import Calendars
from cluster.policy.timing.records import Records
from cluster.policy.timing.walk import Occurrence, Omitted, next_occurrence, search, walk

ON_TIME_MS = 60_000  # a failover is not a missed run
COUNTED_MAX = 100_000  # steps; of what lies beyond it is only said that it was there
INTERVALS_MIN = 1_000  # below this many, an interval is stepped through like anything else
PROBE_MS = 2 * ON_TIME_MS

TOO_OLD, CATCHUP_SKIP, MERGED, BOUND = "too_old", "catchup_skip", "merged", "bound"
PAUSED, UNCOUNTED = "paused", "uncounted"

Steps = Generator[None, None, None]
Row = tuple[str, int, int, int]  # reason, first, last, how many
DROPPED = {"skip": CATCHUP_SKIP, "one": MERGED, "all": BOUND}


class Decision(NamedTuple):
    """Nominal times to launch, on time and late, both ascending; what is missed; what is next."""

    launches: list[int]
    late: list[int]
    missed: list[Missed]
    next: Occurrence | None


def decide(
    plan: Plan,
    schedule_id: str,
    due: tuple[int, int],
    now_ms: int,
    calendars: Calendars,
    accounted_ms: int = 0,
    counted_max: int = COUNTED_MAX,
) -> Generator[None, None, Decision]:
    """Everything due by `now_ms`, from the occurrence `due` (nominal, fire) on.

    What the plan omits between `accounted_ms` and the newest due occurrence is recorded, too;
    0: nothing is known of the time before `due`. Yields between steps, returns the decision."""
    if not may_omit(plan) and due[1] >= now_ms - ON_TIME_MS:
        # Nearly always so, and cheap: schedules of one expression share the answer.
        following = next_occurrence(plan, schedule_id, due[0], calendars)
        if following is None or following.fire_ms > now_ms:
            return Decision([due[0]], [], [], following)
    case = _Case(plan, schedule_id, now_ms, calendars, counted_max)
    if accounted_ms and may_omit(plan):
        yield from case.omitted_between(accounted_ms, due[0])
    case.occurs(*due)
    following = yield from case.walk_on(due[0])
    case.settle()
    return Decision(case.launches, case.late, case.records.all(), following)


def passed(
    plan: Plan,
    schedule_id: str,
    accounted_ms: int,
    now_ms: int,
    calendars: Calendars,
    counted_max: int = COUNTED_MAX,
) -> Generator[None, None, Decision]:
    """Everything up to `now_ms` is over, for the schedule was paused: nothing is launched, all of
    it is recorded, and the next occurrence comes after now. Yields as `decide`."""
    case = _Case(plan, schedule_id, now_ms, calendars, counted_max)
    case.pause()
    following = yield from case.walk_on(accounted_ms)
    return Decision([], [], case.records.all(), following)


def may_omit(plan: Plan) -> bool:
    """Whether the triggers may name instants that the plan takes out."""
    return bool(
        plan.unless
        or plan.blackouts
        or plan.blackout_windows
        or (plan.windows and plan.outside == "skip")
        or (plan.calendars and plan.on_holiday == "skip")
        or plan.gap == "skip"
    )


def is_interval(plan: Plan) -> bool:
    """One interval and nothing that moves or omits any of it: it can be counted by dividing."""
    plain = not (may_omit(plan) or plan.windows or plan.calendars)
    return plain and len(plan.triggers) == 1 and plan.triggers[0].every_ms > 0


class _Case:
    """One decision in the making. Late occurrences wait, oldest first, with what was omitted among
    them, until as many newer ones are known as the plan wants to make up for."""

    def __init__(
        self, plan: Plan, schedule_id: str, now_ms: int, calendars: Calendars, counted_max: int
    ) -> None:
        self.launches: list[int] = []
        self.late: list[int] = []
        self.records = Records()
        self._plan = plan
        self._id = schedule_id
        self._now_ms = now_ms
        self._calendars = calendars
        self._counted_max = counted_max
        self._kept = {"skip": 0, "one": 1, "all": plan.catchup_max}[plan.catchup]
        self._dropped = DROPPED[plan.catchup]
        self._oldest_ms = now_ms - plan.catchup_window_ms
        self._on_time_ms = now_ms - ON_TIME_MS
        self._waiting: deque[Row] = deque()  # a row without a reason is one occurrence
        self._waiting_runs = 0

    def pause(self) -> None:
        """Nothing is on time, nothing is made up for and nothing is too old."""
        self._kept, self._dropped, self._oldest_ms = 0, PAUSED, 0
        self._on_time_ms = self._now_ms + 1

    # -- booking ---------------------------------------------------------------------------------

    def occurs(self, nominal_ms: int, fire_ms: int) -> None:
        """The next occurrence that is due."""
        if fire_ms >= self._on_time_ms:
            self._flush(0 if self._plan.catchup == "one" else self._kept)
            self.launches.append(nominal_ms)
        elif nominal_ms < self._oldest_ms:
            self._omit((TOO_OLD, nominal_ms, nominal_ms, 1))
        else:
            self._waiting.append(("", nominal_ms, nominal_ms, 1))
            self._waiting_runs += 1
            self._shed(self._kept)

    def settle(self) -> None:
        """Nothing more is due."""
        self._flush(self._kept)

    def _omit(self, row: Row) -> None:
        if self._waiting:
            self._waiting.append(row)
        else:
            self.records.add(*row)

    def _take(self, ahead: Records) -> None:
        for row in ahead.take():
            self._omit(row)

    def _flush(self, kept: int) -> None:
        """The newest `kept` of those that wait are made up for."""
        self._shed(kept)
        for row in self._waiting:
            if row[0]:
                self.records.add(*row)
            else:
                self.late.append(row[1])
        self._waiting.clear()
        self._waiting_runs = 0

    def _shed(self, kept: int) -> None:
        """Give up the oldest until `kept` wait; what was omitted before those is recorded."""
        waiting = self._waiting
        while waiting and (self._waiting_runs > kept or waiting[0][0]):
            reason, *where = waiting.popleft()
            self._waiting_runs -= not reason
            self.records.add(reason or self._dropped, *where)

    # -- walking ---------------------------------------------------------------------------------

    def omitted_between(self, after_ms: int, before_ms: int) -> Steps:
        """Books what the plan takes out between two moments."""
        for steps, what in enumerate(walk(self._plan, self._id, after_ms, self._calendars)):
            if what.nominal_ms >= before_ms:
                return
            if steps >= self._counted_max:
                self.records.add(UNCOUNTED, what.nominal_ms, before_ms - 1)
                return
            if isinstance(what, Omitted):
                self.records.add(what.reason, what.nominal_ms, what.nominal_ms)
            yield

    def walk_on(self, after_ms: int) -> Generator[None, None, Occurrence | None]:
        """Books what is due after `after_ms`, and returns the first that is not."""
        if is_interval(self._plan):
            after_ms = self._divide(after_ms)
        steps, ahead = 0, Records()  # omitted, but perhaps in the future
        while True:
            for what in walk(self._plan, self._id, after_ms, self._calendars):
                yield
                if isinstance(what, Omitted):
                    ahead.add(what.reason, what.nominal_ms, what.nominal_ms)
                    if what.nominal_ms > self._now_ms:
                        return (yield from self._search(what.nominal_ms, ahead))
                elif what.fire_ms > self._now_ms:
                    return what
                else:
                    self._take(ahead)
                    self.occurs(what.nominal_ms, what.fire_ms)
                steps += what.nominal_ms <= self._now_ms
                if steps == self._counted_max:
                    steps += 1  # once is enough
                    break
            else:
                self._take(ahead)
                return None
            self._take(ahead)
            after_ms = yield from self._leap(what.nominal_ms)

    def _search(self, after_ms: int, ahead: Records) -> Generator[None, None, Occurrence | None]:
        """Nothing is due any more: what is omitted from here on is jumped over and recorded when it
        has passed, unless no run comes any more, whose launch would record it."""
        following = yield from search(self._plan, self._id, after_ms, self._calendars)
        if following is None:
            omitted = walk(self._plan, self._id, after_ms, self._calendars)
            for what in islice(omitted, self._counted_max):
                if isinstance(what, Omitted):
                    ahead.add(what.reason, what.nominal_ms, what.nominal_ms)
                yield
            self._take(ahead)
        return following

    def _divide(self, after_ms: int) -> int:
        """Counts an interval's missed occurrences but for the newest; how far that leads."""
        plan, trigger = self._plan, self._plan.triggers[0]
        every_ms = trigger.every_ms
        newest_ms = min(self._on_time_ms, self._now_ms) - plan.jitter_ms
        newest_ms = min(newest_ms, plan.end_ms) if plan.end_ms else newest_ms
        count = (newest_ms - after_ms) // every_ms - self._kept - 1
        if count < INTERVALS_MIN or (after_ms - trigger.anchor_ms) % every_ms:
            return after_ms
        self._shed(0)
        too_old = min(max(-(-(self._oldest_ms - after_ms) // every_ms) - 1, 0), count)
        edge_ms, last_ms = after_ms + too_old * every_ms, after_ms + count * every_ms
        if too_old:
            self.records.add(TOO_OLD, after_ms + every_ms, edge_ms, too_old)
        if count > too_old:
            self.records.add(self._dropped, edge_ms + every_ms, last_ms, count - too_old)
        return last_ms

    def _leap(self, after_ms: int) -> Generator[None, None, int]:
        """Too many to count: looks, from now backwards, for a start that leaves enough to make up
        for. What lies between is known to exist, no more."""
        first = next(iter(walk(self._plan, self._id, after_ms, self._calendars)), None)
        back_ms = PROBE_MS + self._plan.jitter_ms
        while first is not None and (start_ms := self._now_ms - back_ms) >= first.nominal_ms:
            runs = steps = 0
            for what in walk(self._plan, self._id, start_ms, self._calendars):
                yield
                steps += 1
                runs += isinstance(what, Occurrence)
                if what.nominal_ms > self._now_ms or steps > self._counted_max:
                    break
            if runs > self._kept or steps > self._counted_max:
                self._shed(0)
                self.records.add(UNCOUNTED, first.nominal_ms, start_ms)
                return start_ms
            back_ms *= 4
        return after_ms
