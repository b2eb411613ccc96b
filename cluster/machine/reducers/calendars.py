"""Business calendars: named days, the same on every node. What they mean is up to the policy."""

from __future__ import annotations

from cluster.machine.commands import DeleteCalendar, PutCalendar
from cluster.machine.effects import Effects
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, Rejected, Result
from cluster.machine.state import State
from cluster.machine.tables import CalendarRow, nominals

CALENDARS_MAX = 1_000


@reduces(PutCalendar)
def put_calendar(state: State, command: PutCalendar, effects: Effects) -> Result:
    tables = state.tables
    old = tables.calendars.get(command.name)
    if command.expected_version and (old is None or old.version != command.expected_version):
        return Rejected.STALE_VERSION
    if old is None and len(tables.calendars) >= CALENDARS_MAX:
        return Rejected.FULL
    version, users = (old.version + 1, old.users) if old is not None else (1, {})
    tables.put_calendar(
        CalendarRow(
            command.name, nominals(command.days), tuple(command.labels), command.description,
            command.source, version, state.now_ms, users,
        )
    )  # fmt: skip
    effects.calendars_changed.append(command.name)
    return DONE


@reduces(DeleteCalendar)
def delete_calendar(state: State, command: DeleteCalendar, effects: Effects) -> Result:
    row = state.tables.calendars.get(command.name)
    if row is None:
        return Rejected.UNKNOWN_CALENDAR
    if row.users:
        return Rejected.IN_USE
    state.tables.drop_calendar(command.name)
    effects.calendars_changed.append(command.name)
    return DONE
