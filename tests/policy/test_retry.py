"""Retry pauses: the series, their caps, and how far chance may move them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.policy.retry import STRATEGIES, retry_delay_ms

RNG = random.Random(0)


def series(strategy: str, count: int, base_ms: int = 1000, max_ms: int = 10**9) -> list[int]:
    return [
        retry_delay_ms(strategy, failures, base_ms, max_ms, False, RNG)
        for failures in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("exponential", [1000, 2000, 4000, 8000, 16000, 32000]),
        ("linear", [1000, 2000, 3000, 4000, 5000, 6000]),
        ("fibonacci", [1000, 1000, 2000, 3000, 5000, 8000]),
        ("fixed", [1000, 1000, 1000, 1000, 1000, 1000]),
    ],
)
def test_series(strategy: str, expected: list[int]) -> None:
    assert series(strategy, 6) == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_cap_holds_for_a_million_failures(strategy: str) -> None:
    for failures in (50, 63, 64, 1000, 10**6):
        delay_ms = retry_delay_ms(strategy, failures, 1000, 300_000, False, RNG)
        assert delay_ms == (1000 if strategy == "fixed" else min(300_000, delay_ms))
        assert delay_ms <= 300_000
    assert retry_delay_ms(strategy, 10**6, 5000, 3000, True, RNG) <= 3000


@pytest.mark.parametrize("strategy", ["exponential", "linear", "fibonacci"])
def test_a_growing_series_ends_at_its_cap(strategy: str) -> None:
    assert retry_delay_ms(strategy, 10**6, 1, 300_000, False, RNG) == 300_000


@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    failures=st.integers(0, 10**6),
    base_ms=st.integers(0, 10**9),
    max_ms=st.integers(0, 10**12),
    seed=st.integers(0, 1000),
)
def test_jitter_keeps_at_least_half(
    strategy: str, failures: int, base_ms: int, max_ms: int, seed: int
) -> None:
    plain_ms = retry_delay_ms(strategy, failures, base_ms, max_ms, False, random.Random(seed))
    delay_ms = retry_delay_ms(strategy, failures, base_ms, max_ms, True, random.Random(seed))
    assert 0 <= plain_ms <= max_ms
    assert (plain_ms + 1) // 2 <= delay_ms <= plain_ms


def test_jitter_spreads_a_burst() -> None:
    rng = random.Random(1)
    delays = {retry_delay_ms("fixed", 1, 10_000, 10_000, True, rng) for _ in range(200)}
    assert len(delays) > 150
    assert max(delays) - min(delays) > 4000


def test_the_same_seed_gives_the_same_pauses() -> None:
    def draw() -> list[int]:
        rng = random.Random(3)
        return [retry_delay_ms("linear", n, 100, 9000, True, rng) for n in range(1, 50)]

    assert draw() == draw()


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ValueError, match="'cubic' is unknown: use exponential, linear"):
        retry_delay_ms("cubic", 1, 1, 1, False, RNG)
