"""When a schedule fires next: cron or interval, with a bounded catch-up of missed occurrences."""

from __future__ import annotations

from cluster.policy.cron import next_every_ms, next_fire_ms

SKIPPED_COUNTED_MAX = 100_000  # beyond this the exact number tells nobody anything


def first_occurrence(cron: str, every_ms: int, after_ms: int) -> int:
    """The first fire time after `after_ms`; an interval starts one interval from now."""
    return next_fire_ms(cron, after_ms) if cron else after_ms + every_ms


def next_occurrence(
    cron: str, every_ms: int, nominal_ms: int, now_ms: int, catch_up_ms: int
) -> tuple[int, int]:
    """The occurrence after `nominal_ms`, and how many were skipped as older than the window.

    Occurrences inside `catch_up_ms` before now are launched one by one, late but not lost."""
    oldest_ms = now_ms - catch_up_ms
    if not cron:
        following_ms = nominal_ms + every_ms
        if following_ms >= oldest_ms:
            return following_ms, 0
        next_ms = next_every_ms(nominal_ms, every_ms, oldest_ms - 1)
        return next_ms, (next_ms - following_ms) // every_ms
    following_ms, skipped = next_fire_ms(cron, nominal_ms), 0
    while following_ms < oldest_ms and skipped < SKIPPED_COUNTED_MAX:
        following_ms = next_fire_ms(cron, following_ms)
        skipped += 1
    if following_ms < oldest_ms:
        following_ms = next_fire_ms(cron, oldest_ms - 1)
    return following_ms, skipped
