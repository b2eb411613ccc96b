"""Windows of the local day: when jobs may start, and when they may not."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.plan import Plan, Window
from cluster.policy.timing.days import DAY_S, weekday
from cluster.policy.timing.hits import Hit, Note, clock_text, day_text
from cluster.policy.timing.triggers import Hits
from cluster.policy.timing.zones import Zone

OUTSIDE = ("defer", "skip")
OFF_PEAK = Window(22 * 3600, 6 * 3600)
DAYS_AHEAD_MAX = 8  # a window opens at least once a week
SEARCHED_S = 60 * DAY_S  # unless the clocks jump over it


def is_open(windows: tuple[Window, ...], local_s: int) -> bool:
    day, second = divmod(local_s, DAY_S)
    return any(_holds(window, day, second) for window in windows)


def next_opening_s(windows: tuple[Window, ...], local_s: int) -> int | None:
    """The first local time after `local_s` at which a window opens."""
    today = local_s // DAY_S
    openings = [
        day * DAY_S + window.start_s
        for day in range(today, today + DAYS_AHEAD_MAX + 1)
        for window in windows
        if not window.weekdays or weekday(day) in window.weekdays
    ]
    return min((opening_s for opening_s in openings if opening_s > local_s), default=None)


def opens_at_s(windows: tuple[Window, ...], moment: Zone, at_s: int) -> int | None:
    """The first instant after `at_s` at which a window opens, or the clock jumps into one."""
    for stretch in moment.stretches(at_s):
        if stretch.start_s > at_s and is_open(windows, stretch.start_s + stretch.offset_s):
            return stretch.start_s
        opening_s = next_opening_s(windows, max(at_s, stretch.start_s) + stretch.offset_s)
        if opening_s is None or stretch.start_s > at_s + SEARCHED_S:
            return None
        if opening_s - stretch.offset_s < stretch.end_s:
            return opening_s - stretch.offset_s
    return None


def closes_at_s(windows: tuple[Window, ...], moment: Zone, at_s: int) -> int:
    """Up to where all of the clock after `at_s` is inside the windows; not beyond its next change,
    nor beyond a closing that another window covers."""
    stretch = next(moment.stretches(at_s))
    local_s = at_s + stretch.offset_s
    day, second = divmod(local_s, DAY_S)
    closings = [
        (day + (window.end_s <= window.start_s <= second)) * DAY_S + window.end_s
        for window in windows
        if _holds(window, day, second)
    ]
    return min(max(closings, default=local_s) - stretch.offset_s, stretch.end_s)


def closed_since_s(windows: tuple[Window, ...], moment: Zone, at_s: int) -> int:
    """An instant up to `at_s` at which a window closed; what is older cannot wait any more."""
    local_s = moment.local_s(at_s)
    today = local_s // DAY_S
    closings = [
        day * DAY_S + window.end_s + (DAY_S if window.end_s <= window.start_s else 0)
        for day in range(today - DAYS_AHEAD_MAX - 1, today + 1)
        for window in windows
        if not window.weekdays or weekday(day) in window.weekdays
    ]
    for closing_s in sorted(closings, reverse=True):
        closed_s = moment.instant_s(closing_s)
        if closed_s <= at_s and is_open(windows, moment.local_s(closed_s - 1)):
            return closed_s
    return at_s - DAYS_AHEAD_MAX * DAY_S


def within(plan: Plan, moment: Zone, hits: Hits) -> Hits:
    """The hits inside the plan's windows; others are dropped or wait for the next opening."""
    if not plan.windows:
        return hits
    if plan.outside == "skip":
        return lambda after_ms: _dropping(plan.windows, moment, hits(after_ms))
    return lambda after_ms: _deferring(plan.windows, moment, hits, after_ms)


def _dropping(windows: tuple[Window, ...], moment: Zone, hits: Iterator[Hit]) -> Iterator[Hit]:
    for hit in hits:
        local_s = moment.local_s(hit.at_ms // 1000)
        if hit.reason or is_open(windows, local_s):
            yield hit
        else:
            text = f"{clock_text(local_s)} is outside the windows: skipped"
            yield Hit(hit.at_ms, (), "window", text)


def _deferring(
    windows: tuple[Window, ...], moment: Zone, hits: Hits, after_ms: int
) -> Iterator[Hit]:
    """From the last closing on, because what came since then waits for an opening to come.

    Whatever else waits for the same opening is that one occurrence, so it is jumped over."""
    from_ms = after_ms
    if not is_open(windows, moment.local_s(after_ms // 1000)):
        from_ms = min(from_ms, closed_since_s(windows, moment, after_ms // 1000) * 1000 - 1)
    while True:
        for hit in hits(from_ms):
            at_ms, note = _opening(windows, moment, hit)
            if at_ms is None:
                continue
            if note is None:
                if hit.at_ms > after_ms:
                    yield hit
                continue
            if at_ms > after_ms:
                yield Hit(at_ms, (*hit.notes, note))
            from_ms = at_ms
            break
        else:
            return


def _opening(windows: tuple[Window, ...], moment: Zone, hit: Hit) -> tuple[int | None, Note | None]:
    """When a hit runs, and a note if that is later than it says; None: at no time."""
    local_s = moment.local_s(hit.at_ms // 1000)
    if hit.reason or is_open(windows, local_s):
        return hit.at_ms, None
    runs_s = opens_at_s(windows, moment, hit.at_ms // 1000)
    if runs_s is None:
        return None, None
    opening_s = moment.local_s(runs_s)
    planned, opens = clock_text(local_s), clock_text(opening_s)
    if opening_s // DAY_S != local_s // DAY_S:
        planned, opens = f"{planned} on {day_text(local_s)}", f"{opens} on {day_text(opening_s)}"
    text = f"{planned} is outside the windows, runs at {opens}"
    return runs_s * 1000, Note("deferred", text)


def _holds(window: Window, day: int, second: int) -> bool:
    if window.end_s > window.start_s:
        return window.start_s <= second < window.end_s and _on(window, day)
    return (second >= window.start_s and _on(window, day)) or (
        second < window.end_s and _on(window, day - 1)
    )


def _on(window: Window, day: int) -> bool:
    return not window.weekdays or weekday(day) in window.weekdays
