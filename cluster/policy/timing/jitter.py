"""Jitter that every node computes alike: a hash of schedule and instant, not a draw."""

from __future__ import annotations

from zlib import crc32


def jitter_ms(schedule_id: str, nominal_ms: int, bound_ms: int) -> int:
    """Within [0, bound_ms)."""
    if bound_ms < 1:
        return 0
    # Two checksums: one alone would leave neighbouring instants with neighbouring answers.
    text = f"{nominal_ms}/{schedule_id}".encode()
    return (crc32(text) << 32 | crc32(text[::-1])) % bound_ms


def fire_ms(schedule_id: str, nominal_ms: int, following_ms: int | None, bound_ms: int) -> int:
    """When an occurrence is launched: never after the next one is planned, so order is kept."""
    jittered_ms = nominal_ms + jitter_ms(schedule_id, nominal_ms, bound_ms)
    return jittered_ms if following_ms is None else min(jittered_ms, following_ms)
