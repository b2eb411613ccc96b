"""Read-only views of calendars, for the API edge."""

from __future__ import annotations

from msgspec import Struct

from cluster.machine.state import State
from cluster.machine.tables import CalendarRow


class CalendarView(Struct, gc=False):
    """`days` since 1970-01-01, increasing; `users` are the schedules that name it."""

    name: str
    days: tuple[int, ...]
    labels: tuple[str, ...]
    description: str
    source: str
    version: int
    changed_ms: int
    users: tuple[str, ...]


def calendar(state: State, name: str) -> CalendarView | None:
    row = state.tables.calendars.get(name)
    return None if row is None else _view(row)


def calendars(state: State) -> list[CalendarView]:
    """All of them, by name."""
    return [_view(row) for row in state.tables.calendars.values()]


def _view(row: CalendarRow) -> CalendarView:
    return CalendarView(
        row.name, tuple(row.days), row.labels, row.description, row.source, row.version,
        row.changed_ms, tuple(sorted(row.users)),
    )  # fmt: skip
