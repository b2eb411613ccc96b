"""What a schedule did: the jobs of its occurrences, and what was left out and why.

Both come from two sources, what is alive (the state) and what is over (this node's history), and
are told as one list, newest first.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.actors.services import Services
from cluster.api.errors import ProblemError
from cluster.api.intake import instant_ms
from cluster.api.lookup import answer, decode_cursor, encode_cursor, finished_view
from cluster.api.render import time_text
from cluster.api.routing import Call, Routes
from cluster.api.schedule_answers import RunsPage, ScheduleEventAnswer, ScheduleTimeline
from cluster.api.schedule_models import RunsQuery, TimelineQuery
from cluster.api.schedule_put import unknown_schedule
from cluster.history import PastEvent
from cluster.machine import views
from cluster.machine.chronicle import LAUNCHES, OMISSIONS
from cluster.machine.model import ScheduleEvent
from cluster.machine.views import JobView

routes = Routes("schedules")

REASONS = {
    "overlap": "another run was alive",
    "buffer_full": "as many as may wait were waiting",
    "replaced": "a newer occurrence took its place",
    "max_executions": "the last allowed run had started",
    "backlog_full": "more were late than may wait",
    "deleted": "the schedule was deleted",
    "too_old": "older than catchup_window_seconds",
    "catchup_skip": "missed while nobody could start it",
    "merged": "one run for several that were missed",
    "bound": "more were missed than catchup_max_runs",
    "gap": "this local time did not exist",
    "holiday": "a day of its calendar",
    "blackout": "in a blackout",
    "window": "outside its windows",
    "excluded": "named by except",
    "paused": "the schedule was paused",
    "uncounted": "at least one, in a stretch too long to be counted",
    "exhausted": "nothing comes any more",
    "asked": "asked to stop",
    "terminated": "stopped at once",
}
KINDS = {
    "launched": "started",
    "skipped": "left out",
    "missed": "left out",
    "merged": "left out",
    "buffered": "waits for a run to end",
    "catchup": "late, waits for its turn",
    "cancelled_other": "older runs in its way",
    "replanned": "planned anew",
    "changed": "definition changed",
    "backfill_started": "backfill started",
    "backfill_stopped": "backfill stopped",
    "backfill_finished": "backfill finished",
}


async def runs_of(
    services: Services, schedule_id: str, nominal_ms: int | None, before_id: int, limit: int
) -> list[JobView]:
    """Up to `limit` runs with ids below `before_id` (0: from the newest), newest first."""
    state = services.raft.state
    # Looked at before and after: a run that ends while the disk is asked must not slip through.
    found = {view.id: view for view in views.schedule_runs(state, schedule_id, nominal_ms)}
    rows = await services.history.runs(schedule_id, nominal_ms, before_id or None, limit)
    found |= {row.job_id: finished_view(row) for row in rows}
    found |= {view.id: view for view in views.schedule_runs(state, schedule_id, nominal_ms)}
    ids = [job_id for job_id in sorted(found, reverse=True) if not before_id or job_id < before_id]
    return [found[job_id] for job_id in ids[:limit]]


def _known(services: Services, schedule_id: str, found: object) -> None:
    """A schedule that is gone may have a past; one that never was has none."""
    if not found and views.schedule(services.raft.state, schedule_id) is None:
        raise unknown_schedule(schedule_id)


@routes.add(
    "GET",
    "/v1/schedules/{schedule_id}/runs",
    "List the jobs of a schedule, newest first",
    query=RunsQuery,
    answer=RunsPage,
    past=True,
    problems=("unknown_schedule", "validation", "history_unavailable"),
)
async def list_runs(call: Call[None, RunsQuery]) -> RunsPage:
    """With `nominal` those of one occurrence: one, unless it was backfilled. Those of a deleted
    schedule stay until the history forgets them."""
    services, query, schedule_id = call.services, call.query, call.path("schedule_id")
    nominal_ms = None if query.nominal is None else instant_ms(query.nominal, "/nominal")
    before_id = decode_cursor(query.cursor)
    found = await runs_of(services, schedule_id, nominal_ms, before_id, query.limit + 1)
    _known(services, schedule_id, found)
    shown = found[: query.limit]
    more = len(found) > len(shown)
    return RunsPage(
        [answer(services, view) for view in shown], encode_cursor(shown[-1].id) if more else None
    )


class Place(NamedTuple):
    """Where the next page of a timeline goes on: below this event and below this job."""

    seq: int = 0
    job_id: int = 0

    @property
    def cursor(self) -> str:
        return f"{self.seq}.{self.job_id}"

    @classmethod
    def read(cls, cursor: str) -> Place:
        if not cursor:
            return cls()
        seq, dot, job_id = cursor.partition(".")
        if not (dot and seq.isascii() and seq.isdigit() and job_id.isascii() and job_id.isdigit()):
            raise ProblemError(
                "validation", "query parameter: this cursor did not come from a page",
                pointer="/cursor",
            )  # fmt: skip
        return cls(int(seq[:19]), int(job_id[:19]))


class Told(NamedTuple):
    """Something of a timeline and the place behind it."""

    at_ms: int
    answer: ScheduleEventAnswer
    seq: int
    job_id: int


@routes.add(
    "GET",
    "/v1/schedules/{schedule_id}/timeline",
    "Tell what happened to a schedule, newest first",
    query=TimelineQuery,
    answer=ScheduleTimeline,
    past=True,
    problems=("unknown_schedule", "validation", "history_unavailable"),
)
async def schedule_timeline(call: Call[None, TimelineQuery]) -> ScheduleTimeline:
    """Launches, and every occurrence that was not launched with the reason."""
    services, limit, schedule_id = call.services, call.query.limit, call.path("schedule_id")
    place = Place.read(call.query.cursor)
    events = await services.history.schedule_events(schedule_id, place.seq or None, limit + 1)
    runs = await runs_of(services, schedule_id, None, place.job_id, limit + 1)
    view = views.schedule(services.raft.state, schedule_id)
    told = [_of_event(event) for event in events] + [_of_run(run) for run in runs]
    if not events and not call.query.cursor and view is not None:
        told += [_of_ring(event) for event in view.events]  # a node that joined lately
    _known(services, schedule_id, told)
    told.sort(key=lambda each: (each.at_ms, each.seq, each.job_id), reverse=True)
    shown = told[:limit]
    behind = Place(
        min((each.seq for each in shown if each.seq), default=place.seq),
        min((each.job_id for each in shown if each.job_id), default=place.job_id),
    )
    more = len(told) > limit
    return ScheduleTimeline(_folded(shown), behind.cursor if more else None)


def _folded(told: list[Told]) -> list[ScheduleEventAnswer]:
    """Like omissions in a row become one with a count; newest first, so older ones join newer."""
    folded: list[ScheduleEventAnswer] = []
    for _, event, _, _ in told:
        newer = folded[-1] if folded else None
        if (
            newer is not None
            and event.kind in OMISSIONS
            and (newer.kind, newer.reason) == (event.kind, event.reason)
        ):
            newer.last_nominal_at = newer.last_nominal_at or newer.nominal_at
            newer.nominal_at = event.nominal_at
            newer.count += event.count
        else:
            folded.append(event)
    return folded


def _of_event(event: PastEvent) -> Told:
    return Told(event.at_ms, _answer(event), event.seq, 0)


def _of_ring(event: ScheduleEvent) -> Told:
    return Told(event.at_ms, _answer(event), 0, 0)


def _of_run(view: JobView) -> Told:
    launched = ScheduleEvent(
        view.created_ms, "launched", view.nominal_ms, view.nominal_ms, job_id=view.id
    )
    return Told(view.created_ms, _answer(launched), 0, view.id)


def _answer(event: PastEvent | ScheduleEvent) -> ScheduleEventAnswer:
    return ScheduleEventAnswer(
        at=time_text(event.at_ms),
        kind=event.kind,
        reason=event.reason or None,
        nominal_at=time_text(event.nominal_ms),
        last_nominal_at=time_text(event.last_ms) if event.last_ms != event.nominal_ms else None,
        count=event.count,
        job_id=str(event.job_id) if event.job_id else None,
        text=_text(event),
    )


def _text(event: PastEvent | ScheduleEvent) -> str:
    """What a person reads: `left out: another run was alive`."""
    what = KINDS.get(event.kind, event.kind)
    if event.kind in LAUNCHES:
        return f"{what}: job {event.job_id}"
    why = REASONS.get(event.reason, event.reason)
    return f"{what}: {why}" if why else what
