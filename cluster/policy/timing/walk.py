"""The occurrences of a plan, one after another: triggers, then calendars, windows and blackouts.

Every stage can start at any instant and yields the same from there on, so nothing has to be
remembered between two questions but the last answer.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import lru_cache

from msgspec import Struct, structs

from cluster.plan import Plan
from cluster.policy.timing.blackouts import outside_blackouts
from cluster.policy.timing.calendars import Calendars, named_days, observed
from cluster.policy.timing.days import DAY_S, YEARS_MAX
from cluster.policy.timing.errors import GaveUp
from cluster.policy.timing.hits import Hit, Note
from cluster.policy.timing.jitter import fire_ms
from cluster.policy.timing.jumps import resume_ms
from cluster.policy.timing.parse import depends_on_id
from cluster.policy.timing.triggers import Hits, named, next_every_ms
from cluster.policy.timing.windows import within
from cluster.policy.timing.zones import zone

CACHE_ENGINES_MAX = 4096
CACHE_NEXT_MAX = 16_384
STEPS_MAX = 100_000  # instants looked at for one answer: a second or two, only for odd plans
HORIZON_MS = (
    (YEARS_MAX + 1) * 366 * DAY_S * 1000
)  # no run by then is none, as for a bare expression
SEARCHED_MAX = 1_000_000  # by a search that lets others run in between

Search = Generator[None, None, Hit | None]


class Occurrence(Struct, frozen=True, gc=False):
    """`nominal_ms` is when it was meant, and its name in the schedule; `fire_ms` when it runs."""

    nominal_ms: int
    fire_ms: int
    notes: tuple[Note, ...] = ()


class Omitted(Struct, frozen=True, gc=False):
    """What the triggers name and no run comes from: "gap holiday blackout window excluded"."""

    nominal_ms: int
    reason: str
    text: str


def walk(
    plan: Plan, schedule_id: str, after_ms: int, calendars: Calendars
) -> Iterator[Occurrence | Omitted]:
    """Everything strictly after `after_ms`, in order; nothing is computed ahead but one step."""
    waiting: Hit | None = None
    for hit in _bounded(plan, _engine_of(plan, schedule_id, calendars), after_ms):
        if waiting is not None:
            # What is omitted says nothing of the next run, and may go on for months.
            following_ms = None if hit.reason else hit.at_ms
            yield _jittered(plan, schedule_id, waiting, following_ms, calendars)
            waiting = None
        if hit.reason:
            yield Omitted(hit.at_ms, hit.reason, hit.text)
        elif plan.jitter_ms:
            waiting = hit
        else:
            yield Occurrence(hit.at_ms, hit.at_ms, hit.notes)
    if waiting is not None:
        yield _jittered(plan, schedule_id, waiting, None, calendars)


def next_occurrence(
    plan: Plan, schedule_id: str, after_ms: int, calendars: Calendars
) -> Occurrence | None:
    """The first occurrence strictly after `after_ms`; None when there is none any more.

    Raises GaveUp when very many instants in a row do not run: then nobody knows."""
    if _is_interval(plan):
        at_ms = next_every_ms(plan.triggers[0].anchor_ms, plan.triggers[0].every_ms, after_ms)
        return Occurrence(at_ms, at_ms)
    key = _key(plan, schedule_id)
    holidays = named_days(plan, calendars)
    hit = _next(*key, holidays, after_ms)
    if hit is None:
        return None
    if not plan.jitter_ms:
        return Occurrence(hit.at_ms, hit.at_ms, hit.notes)
    return _jittered(plan, schedule_id, hit, None, calendars)


def search(
    plan: Plan, schedule_id: str, after_ms: int, calendars: Calendars
) -> Generator[None, None, Occurrence | None]:
    """As `next_occurrence`, in small steps, between which others may run, and so looks farther."""
    key = _key(plan, schedule_id)
    hit = yield from _search(*key, named_days(plan, calendars), after_ms, SEARCHED_MAX)
    return _jittered(plan, schedule_id, hit, None, calendars) if hit is not None else None


@lru_cache(maxsize=CACHE_NEXT_MAX)
def _next(plan: Plan, hash_id: str, holidays: frozenset[int], after_ms: int) -> Hit | None:
    """Shared by all schedules of one plan, so that their burst costs one evaluation."""
    work = _search(plan, hash_id, holidays, after_ms, STEPS_MAX)
    while True:
        try:
            next(work)
        except StopIteration as done:
            answer: Hit | None = done.value
            return answer


def _search(
    plan: Plan, hash_id: str, holidays: frozenset[int], after_ms: int, steps_max: int
) -> Search:
    engine = _engine(plan, hash_id, holidays)
    moment = zone(plan.timezone)
    hits = _bounded(plan, engine, after_ms)
    for _ in range(steps_max):
        hit = next(hits, None)
        if hit is None or not hit.reason:
            return hit
        if hit.at_ms > after_ms + HORIZON_MS:
            return None
        from_ms = resume_ms(plan, moment, hit, hash_id)
        if from_ms > hit.at_ms:
            hits = _bounded(plan, engine, from_ms)
        yield
    raise GaveUp(f"none of the next {steps_max} instants runs")


def _bounded(plan: Plan, hits: Hits, after_ms: int) -> Iterator[Hit]:
    """The hits within [start, end), at most one at an instant."""
    last_ms = after_ms = max(after_ms, plan.start_ms - 1)
    for hit in hits(after_ms):
        if plan.end_ms and hit.at_ms >= plan.end_ms:
            return
        if hit.at_ms > last_ms:
            last_ms = hit.at_ms
            yield hit


def _engine_of(plan: Plan, schedule_id: str, calendars: Calendars) -> Hits:
    holidays = named_days(plan, calendars)
    return _engine(*_key(plan, schedule_id), holidays)


@lru_cache(maxsize=CACHE_ENGINES_MAX)
def _engine(plan: Plan, hash_id: str, holidays: frozenset[int]) -> Hits:
    moment = zone(plan.timezone)
    hits = named(plan, hash_id)
    hits = observed(plan, moment, holidays, hits)
    hits = within(plan, moment, hits)
    return outside_blackouts(plan, moment, hits)


@lru_cache(maxsize=CACHE_NEXT_MAX)
def _bare(plan: Plan) -> tuple[Plan, bool]:
    """The plan less what does not decide the instants; whether the schedule's id decides too."""
    crons = [trigger.cron for trigger in (*plan.triggers, *plan.unless) if trigger.cron]
    hashed = any(map(depends_on_id, crons))
    return structs.replace(plan, jitter_ms=0, catchup="one", catchup_max=1), hashed


def _key(plan: Plan, schedule_id: str) -> tuple[Plan, str]:
    bare, hashed = _bare(plan)
    return bare, schedule_id if hashed else ""


def _is_interval(plan: Plan) -> bool:
    return (
        len(plan.triggers) == 1
        and plan.triggers[0].every_ms > 0
        and not (plan.unless or plan.calendars or plan.windows or plan.blackouts)
        and not (plan.blackout_windows or plan.start_ms or plan.end_ms or plan.jitter_ms)
    )


def _jittered(
    plan: Plan, schedule_id: str, hit: Hit, following_ms: int | None, calendars: Calendars
) -> Occurrence:
    """Without `following_ms` the run after it is looked up, which jitter may not pass."""
    if not plan.jitter_ms:
        return Occurrence(hit.at_ms, hit.at_ms, hit.notes)
    if following_ms is None:
        try:
            holidays = named_days(plan, calendars)
            following = _next(*_key(plan, schedule_id), holidays, hit.at_ms)
            following_ms = following.at_ms if following is not None else None
        except GaveUp:
            pass  # it is far away
    at_ms = fire_ms(schedule_id, hit.at_ms, following_ms, plan.jitter_ms)
    notes = hit.notes
    if at_ms > hit.at_ms:
        notes = (
            *notes,
            Note("jitter", f"{at_ms - hit.at_ms} ms later than planned, by its jitter"),
        )
    return Occurrence(hit.at_ms, at_ms, notes)
