"""Finding jobs: live ones in the state, finished ones in this node's history.

One job at most stands in several places (a revived one is live and still in history as failed);
the state is right then.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from cluster.actors.services import Services
from cluster.api.answers import JobAnswer
from cluster.api.archives import NotHereError
from cluster.api.errors import ProblemError
from cluster.api.models import JobFilterRequest
from cluster.api.render import job_answer
from cluster.api.routing import HISTORY_HEADER
from cluster.history import FinishedJob
from cluster.machine import lifecycle, views
from cluster.machine.model import Attempt, JobSpec
from cluster.machine.views import JobFilter, JobView

LIVE_STATUSES = ("", "pending", "running")
DEAD_STATUSES = ("", "failed")
FINISHED_STATUSES = ("", "completed", "failed", "cancelled", "skipped")
ID_DIGITS_MAX = 18  # more than any sequence reaches, less than 64 bits
ID_MAX = 10**ID_DIGITS_MAX

STATE_OF = {name: state for state, name in lifecycle.STATUS.items() if name not in LIVE_STATUSES}

_decode_spec = msgspec.msgpack.Decoder(JobSpec).decode


def finished_view(row: FinishedJob) -> JobView:
    """A row of the history as the view that live jobs have, too."""
    return JobView(
        row.job_id,
        _decode_spec(row.spec),
        row.payload,
        STATE_OF[row.status],
        row.created_ms,
        row.run_at_ms,
        row.attempt,
        row.failures,
        row.worker_id,
        row.started_ms,
        row.finished_ms,
        row.error_type,
        row.error_message,
        row.output,
        row.log,
        row.unique_key,
        row.schedule_id,
        row.nominal_ms,
        row.expires_at_ms,
        row.deadline_ms,
        [
            Attempt(
                a.attempt, a.worker_id, a.started_ms, a.ended_ms,
                a.outcome, a.error_type, a.error_message, a.log,
            )
            for a in row.attempts
        ],
    )  # fmt: skip


def unknown_job(
    job_id: object, *, is_known: bool = False, is_complete: bool = True
) -> ProblemError:
    """`is_known`: the id was given once, so another node's history may have the job. With
    `is_complete` this node's has all that is kept."""
    text = f"no job has the id {job_id!s:.40}"
    if not is_known:
        return ProblemError("unknown_job", text)
    if is_complete:
        return NotHereError("unknown_job", text)
    text += ", as far as this node knows: its history is incomplete"
    return NotHereError("unknown_job", text, headers={HISTORY_HEADER: "incomplete"})


def parse_job_id(text: str | int) -> int:
    """The id behind a text from outside. Raises unknown_job for what can be none."""
    if isinstance(text, int):
        if 0 < text < ID_MAX:
            return text
    elif text.isascii() and text.isdigit() and len(text) <= ID_DIGITS_MAX:
        return int(text)
    raise unknown_job(text)


def parse_worker_id(text: str) -> int:
    """`w7` to 7. Raises unknown_worker."""
    digits = text[1:]
    known = text.startswith("w") and digits.isascii() and digits.isdigit()
    if not known or len(digits) > ID_DIGITS_MAX:
        raise ProblemError("unknown_worker", f"no worker has the id {text:.40}")
    return int(digits)


async def find_job(services: Services, job_id: int) -> JobView:
    """The job, wherever it is. Raises unknown_job."""
    view = views.job(services.raft.state, job_id)
    if view is not None:
        return view
    finished = services.history.get(job_id)
    is_known = views.is_known(services.raft.state, job_id)
    if finished is None and is_known:
        finished = await services.history.lookup(job_id)
        # While the disk was asked, the job may have come back to life.
        view = views.job(services.raft.state, job_id)
        if view is not None:
            return view
    if finished is None:
        raise unknown_job(job_id, is_known=is_known, is_complete=services.history.is_complete)
    return finished_view(finished)


async def answer_of(services: Services, job_id: int) -> JobAnswer:
    """The job as clients see it. Raises unknown_job."""
    return answer(services, await find_job(services, job_id))


def plain_answer(services: Services, job_id: int) -> JobAnswer | None:
    """As `answer_of`, of a job that is probably live; None when it is not."""
    view = views.job(services.raft.state, job_id)
    return None if view is None else answer(services, view)


def answer(services: Services, view: JobView) -> JobAnswer:
    return job_answer(view, services.live.progress(view.id))


def encode_cursor(before_id: int) -> str:
    return base64.urlsafe_b64encode(b"i%d" % before_id).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> int:
    """The id below which the next page starts; 0 for the first page."""
    if not cursor:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))
        if text[:1] == b"i":
            return int(text[1:])
    except (ValueError, binascii.Error):
        pass
    raise ProblemError(
        "validation", "query parameter: this cursor did not come from a page", pointer="/cursor"
    )


def filter_of(request: JobFilterRequest) -> JobFilter:
    return JobFilter(
        request.status or "", request.queue or "", request.name or "", request.tag or ""
    )


async def page(
    services: Services, wanted: JobFilter, before_id: int, limit: int
) -> tuple[list[JobView], int]:
    """Newest first: `limit` jobs below `before_id` (0: from the newest), and where the next page
    starts (0: there is none)."""
    found: list[JobView] = []
    while True:
        part, before_id = await _round(services, wanted, before_id, limit - len(found))
        found += part
        if not before_id or len(found) >= limit:
            return found, before_id


async def _round(
    services: Services, wanted: JobFilter, before_id: int, limit: int
) -> tuple[list[JobView], int]:
    """One look at each source. A source that gave all it was asked for may have more below its
    last id, so only ids from there up are complete."""
    state = services.raft.state
    by_id: dict[int, JobView] = {}
    floor = 0

    def add(rows: list[JobView]) -> None:
        nonlocal floor
        for view in rows:
            by_id.setdefault(view.id, view)
        if len(rows) > limit:
            floor = max(floor, rows[-1].id)

    history: list[JobView] = []
    if wanted.status in FINISHED_STATUSES:
        rows = await services.history.list(
            wanted.status or None,
            wanted.queue or None,
            wanted.name or None,
            wanted.tag or None,
            before_id or None,
            limit + 1,
        )
        history = [finished_view(row) for row in rows]
    # No await from here on: the sources must be of one moment, or a job could slip between them.
    if wanted.status in LIVE_STATUSES:
        add(views.jobs(state, wanted, before_id, limit + 1))
    if wanted.status in DEAD_STATUSES:
        add(views.dead_jobs(state, wanted, before_id, limit + 1))
    if len(history) > limit:
        floor = max(floor, history[-1].id)
    for view in history:
        if view.id not in by_id and views.job(state, view.id) is None:
            by_id[view.id] = view
    complete = sorted((i for i in by_id if i >= floor), reverse=True)
    chosen = [by_id[i] for i in complete[:limit]]
    if len(complete) > limit:
        return chosen, chosen[-1].id
    return chosen, floor
