"""When a schedule fires next: cron or interval, with a bounded catch-up of missed occurrences."""

from __future__ import annotations

from cluster.policy.cron import catch_up, next_every_ms, next_fire_ms

SKIPPED_COUNTED_MAX = 1_000  # one step of a cron expression costs about 0.1 ms on the loop


def first_occurrence(cron: str, every_ms: int, after_ms: int) -> int:
    """The first fire time after `after_ms`; an interval starts one interval from now."""
    return next_fire_ms(cron, after_ms) if cron else after_ms + every_ms


def next_occurrence(
    cron: str, every_ms: int, nominal_ms: int, now_ms: int, catch_up_ms: int
) -> tuple[int, int]:
    """The occurrence after `nominal_ms`, and how many were skipped as older than the window.

    Occurrences inside `catch_up_ms` before now are launched one by one, late but not lost. Of a
    cron expression no more than `SKIPPED_COUNTED_MAX` skipped ones are counted."""
    if not cron:
        following_ms = nominal_ms + every_ms
        oldest_ms = now_ms - catch_up_ms
        if following_ms >= oldest_ms:
            return following_ms, 0
        next_ms = next_every_ms(nominal_ms, every_ms, oldest_ms - 1)
        return next_ms, (next_ms - following_ms) // every_ms
    next_ms = catch_up(cron, nominal_ms, now_ms, catch_up_ms)
    return next_ms, _count_skipped(cron, nominal_ms, next_ms)


def _count_skipped(cron: str, nominal_ms: int, next_ms: int) -> int:
    skipped, at_ms = 0, next_fire_ms(cron, nominal_ms)
    while at_ms < next_ms and skipped < SKIPPED_COUNTED_MAX:
        skipped += 1
        at_ms = next_fire_ms(cron, at_ms)
    return skipped
