"""How long a failed job waits: one function per strategy, one row per strategy in the table.

Decides nothing else: whether there is a retry at all is a matter of the job's limits.
"""

from collections.abc import Callable
from typing import Protocol

SHIFT_MAX = 62  # doubling further than this exceeds any cap that fits into an int64
FIBONACCI_STEPS_MAX = 92  # the same for Fibonacci numbers


class RandomSource(Protocol):
    """The part of `random.Random` that is needed; seeded in tests and simulations."""

    def randint(self, a: int, b: int, /) -> int: ...


def exponential(failures: int, base_ms: int, max_ms: int) -> int:
    """base, 2 base, 4 base, 8 base ..."""
    return min(max_ms, base_ms << min(failures - 1, SHIFT_MAX))


def linear(failures: int, base_ms: int, max_ms: int) -> int:
    """base, 2 base, 3 base, 4 base ..."""
    return min(max_ms, base_ms * failures)


def fibonacci(failures: int, base_ms: int, max_ms: int) -> int:
    """base, base, 2 base, 3 base, 5 base ..."""
    current, following = 1, 1
    for _ in range(min(failures - 1, FIBONACCI_STEPS_MAX)):
        current, following = following, current + following
    return min(max_ms, base_ms * current)


def fixed(_failures: int, base_ms: int, max_ms: int) -> int:
    """base, base, base ..."""
    return min(max_ms, base_ms)


STRATEGIES: dict[str, Callable[[int, int, int], int]] = {
    "exponential": exponential,
    "linear": linear,
    "fibonacci": fibonacci,
    "fixed": fixed,
}


def retry_delay_ms(
    strategy: str, failures: int, base_ms: int, max_ms: int, jitter: bool, rng: RandomSource
) -> int:
    """The pause before the next attempt, from 0 to max_ms, after `failures` failures (at least 1).

    Jitter is "equal" (Brooker, Exponential Backoff And Jitter, 2015): half of the pause is kept,
    the other half is drawn. Full jitter spreads a burst twice as wide, but lets a job that failed
    five times try again at once, against what its owner wrote down.

    Raises ValueError for a strategy that is not in the table.
    """
    delay_of = STRATEGIES.get(strategy)
    if delay_of is None:
        raise ValueError(f"retry strategy {strategy!r} is unknown: use {', '.join(STRATEGIES)}")
    delay_ms = delay_of(max(failures, 1), base_ms, max_ms)
    if jitter:
        delay_ms = rng.randint(delay_ms - delay_ms // 2, delay_ms)
    return delay_ms
