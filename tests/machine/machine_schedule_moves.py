"""Random commands about schedules, backfills and calendars; see `machine_moves`."""

from __future__ import annotations

from collections.abc import Callable

from machine_values import NUMBER_MAX, QUEUES, Move, later, pick, spec_of

from cluster.machine import commands as c
from cluster.machine.model import OVERLAPS
from cluster.machine.state import State
from cluster.machine.tables import ScheduleRow
from cluster.plan import Missed, Plan, Trigger

CALENDARS = ("de", "us")
PLAIN = Plan((Trigger("* * * * *"),))
HOLIDAYS = Plan((Trigger("* * * * *"),), calendars=("de",), on_holiday="skip")


def _schedule_id(state: State, choice: int) -> str:
    known = list(state.tables.schedules)
    return known[choice % len(known)] if known and choice < NUMBER_MAX else "nobody"


def _put(state: State, m: Move) -> c.Command:
    """As the first release did."""
    name = ("", "", "nightly", "s1")[m.a % 4]
    bounds = (0, 300)[m.b % 2], (0, 900)[m.c % 2]
    return c.PutSchedule(
        name, spec_of(m.b), b"{}", "* * * * *", 0, later(state, m.d), m.c % 2 == 0, *bounds
    )


def _put_plan(state: State, m: Move) -> c.Command:
    name = ("", "nightly", "s1", "s2")[m.a % 4]
    old = state.tables.schedules.get(name)
    version = old.version if old is not None else 1
    fire_ms = later(state, m.d)
    return c.PutSchedule(
        name, spec_of(m.b), b"{}", "", 0, fire_ms, m.c != 1, 0, (0, 0, 900)[m.d % 3],
        HOLIDAYS if m.b > 8 else PLAIN, OVERLAPS[m.c % 6], (0, 0, 0, 1, 3)[m.b % 5],
        max(fire_ms - m.a % 3, 0), m.c == 7, "note", (0, 0, version, 9)[m.d % 4], "because",
    )  # fmt: skip


def _pause(state: State, m: Move) -> c.Command:
    return c.PauseSchedule(_schedule_id(state, m.a), "note")


def _missed(state: State, m: Move) -> list[Missed]:
    first_ms = max(state.now_ms - 50 * m.c, 0)
    return [Missed(("paused", "merged", "bound")[m.b % 3], first_ms, first_ms + m.d, 1 + m.d)]


def _resume(state: State, m: Move) -> c.Command:
    fire_ms = later(state, m.d)
    return c.ResumeSchedule(
        _schedule_id(state, m.a), fire_ms, fire_ms * (m.b % 2), _missed(state, m)[: m.c % 2]
    )


def _fire(state: State, m: Move) -> c.Command:
    """As the first release did."""
    schedule_id = _schedule_id(state, m.a)
    row = state.tables.schedules.get(schedule_id)
    expected = row.next_fire_ms if row is not None and m.b < 9 else m.b
    return c.FireSchedule(schedule_id, expected, later(state, m.d), m.c % 3)


def _due(state: State, choice: int) -> ScheduleRow | None:
    due = list(state.due_schedules) or list(state.tables.schedules)
    return state.tables.schedules[due[choice % len(due)]] if due else None


def _fire_plan(state: State, m: Move) -> c.Command:
    """Some late ones, perhaps some on time, and the next one a little later."""
    row = _due(state, m.a)
    if row is None:
        return c.FireSchedule("nobody", 1, 2)
    first_ms = row.next_nominal_ms
    late = [first_ms + n for n in range(m.b % 5)] if m.b < 10 else []
    launches = [first_ms + 5 + n for n in range((1, 1, 0, 2)[m.c % 4])]
    next_ms = max(first_ms + 10, state.now_ms + m.d - 2) if m.d else 0
    version = (0, row.version, row.version, 7)[m.d % 4]
    return c.FireSchedule(
        row.id, row.next_fire_ms, next_ms, 0, next_ms and next_ms - m.a % 2, launches, late,
        _missed(state, m)[: m.a % 2], version, "" if next_ms else "end_at",
    )  # fmt: skip


def _trigger(state: State, m: Move) -> c.Command:
    changes = c.JobChanges(b"new", QUEUES[m.c % 2]) if m.d % 3 == 0 else c.JobChanges()
    return c.TriggerSchedule(_schedule_id(state, m.a), changes, OVERLAPS[m.b % 6])


def _backfill(state: State, m: Move) -> c.Command:
    last_ms = state.now_ms + (1 if m.d == 5 else 0)
    nominals = sorted({max(last_ms - n, 0) for n in range(m.c + 1)})
    return c.StartBackfill(
        _schedule_id(state, m.a), nominals, OVERLAPS[m.b % 6], (0, 0, 60, 6_000)[m.d % 4]
    )


def _stop_backfill(state: State, m: Move) -> c.Command:
    return c.StopBackfill(_schedule_id(state, m.a), 1 + m.b % 3)


def _replan(state: State, m: Move) -> c.Command:
    schedule_id = _schedule_id(state, m.a)
    row = state.tables.schedules.get(schedule_id)
    expected_ms, version = (row.next_fire_ms, row.version) if row is not None else (0, 0)
    fire_ms = later(state, m.d)
    return c.ReplanSchedule(
        schedule_id, version + (m.b == 7), expected_ms + (m.c == 7), fire_ms, fire_ms, "tzdata",
        _missed(state, m)[: m.b % 2],
    )  # fmt: skip


def _put_calendar(state: State, m: Move) -> c.Command:
    days = list(range(m.b, m.b + m.c))
    return c.PutCalendar(
        CALENDARS[m.a % 3 // 2], days, [str(day) for day in days], "text", "{}", (0, 0, 1)[m.d % 3]
    )


def _delete_calendar(state: State, m: Move) -> c.Command:
    return c.DeleteCalendar(CALENDARS[m.a % 2])


def _delete(state: State, m: Move) -> c.Command:
    return c.DeleteSchedule(_schedule_id(state, m.a))


def _complete_run(state: State, m: Move) -> c.Command:
    """Runs of schedules end, or nothing that waits would ever start."""
    runs = [i for ids in state.tables.runs.values() for i in ids]
    job = state.tables.jobs.get(pick(runs, m.a))
    if job is None or job.state != 10:
        return c.CancelJobs([pick(runs, m.a)])
    if m.b % 3 == 0:
        failure = c.JobFailure(job.id, job.attempt, "E", "m", later(state, m.d))
        return c.FailJobs(0, [failure])
    return c.CompleteJobs(0, [job.id], [job.attempt])


def _releases(state: State, m: Move) -> c.Command:
    return c.SetReleases(f"tzdata {m.a}")


SCHEDULE_KINDS: tuple[Callable[[State, Move], c.Command], ...] = (
    _put, _put_plan, _put_plan, _pause, _resume, _fire, _fire_plan, _fire_plan, _trigger,
    _backfill, _backfill, _stop_backfill, _replan, _put_calendar, _delete_calendar, _delete,
    _complete_run, _complete_run, _complete_run, _releases,
)  # fmt: skip
