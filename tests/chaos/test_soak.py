"""The verdict of a soak: a planted leak is found, noise and restarts are not taken for one."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from random import Random
from xml.etree import ElementTree

import pytest
from msgspec import structs

from chaos.live.soak.plot import SHOWN, plot
from chaos.live.soak.sample import Sample, read, write_head, write_row
from chaos.live.soak.verdict import FLOORS, judge, longest_lives, peaks, slope

MIB = 1 << 20
EVERY_S = 5.0


def sample(s: float, node: str = "n1", pid: int = 7, **values: float) -> Sample:
    plain = {
        "rss_bytes": 120 * MIB, "fds": 40, "threads": 8, "journal_bytes": 32 * MIB,
        "snapshot_bytes": MIB, "history_bytes": 5 * MIB, "proposals_queued": 3,
        "proposals_waiting": 1, "history_buffered": 20, "pending": 4, "running": 6,
        "log_bytes": MIB, "completed": 300 * s, "is_leader": 0,
    }  # fmt: skip
    return Sample(s, node, pid, **(plain | values))  # type: ignore[arg-type]


def hour(column: str, course: Callable[[float], float], pid: int = 7) -> list[Sample]:
    """Samples of one node whose one column takes this course; the argument is in hours."""
    return [
        sample(n * EVERY_S, pid=pid, **{column: course(n * EVERY_S / 3_600)}) for n in range(720)
    ]


def growing(samples: list[Sample]) -> list[str]:
    return [growth.column for growth in judge(samples) if not growth.is_flat]


def test_what_stays_is_flat() -> None:
    growths = judge(hour("fds", lambda at: 40))
    assert {growth.column for growth in growths} == set(FLOORS)
    assert all(growth.is_flat for growth in growths)
    assert growths[0].minutes == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize(
    ("column", "level", "leak_per_hour"),
    [
        ("rss_bytes", 120 * MIB, 15 * MIB),
        ("fds", 40, 12),
        ("threads", 8, 3),
        ("journal_bytes", 32 * MIB, 40 * MIB),
        ("snapshot_bytes", MIB, 2 * MIB),
        ("proposals_queued", 3, 900),
        ("history_buffered", 20, 3_000),
    ],
)
def test_a_planted_leak_is_found_under_noise(
    column: str, level: float, leak_per_hour: float
) -> None:
    rng = Random(1)

    def course(at: float) -> float:
        noise = rng.gauss(0, 0.02 * level)
        spike = level if rng.random() < 0.02 else 0
        return level + leak_per_hour * at + noise + spike

    assert growing(hour(column, course)) == [column]


def test_warming_up_and_waves_and_spikes_are_no_leak() -> None:
    rng = Random(1)

    def course(at: float) -> float:
        warming = 60 * MIB * min(at * 4, 1)
        wave = 5 * MIB * math.sin(at * 60)
        return 60 * MIB + warming + wave + (50 * MIB if rng.random() < 0.03 else 0)

    assert growing(hour("rss_bytes", course)) == []


def test_only_the_longest_life_of_a_node_is_judged() -> None:
    def leaking(at: float) -> float:
        return (100 + 100 * at) * MIB

    short = [each for each in hour("rss_bytes", leaking, pid=8) if each.s < 900]
    assert growing(short) == ["rss_bytes"]
    long = hour("rss_bytes", lambda at: 100 * MIB)
    assert growing([*short, *long]) == []
    assert [each.pid for each in longest_lives([*short, *long])["n1"]][:1] == [7]


def test_a_life_of_a_few_samples_says_nothing() -> None:
    assert judge([sample(n * EVERY_S) for n in range(11)]) == []


def test_a_life_of_less_than_half_the_time_is_told_but_not_judged() -> None:
    def leaking(at: float) -> float:
        return (100 + 100 * at) * MIB

    steady = hour("rss_bytes", lambda at: 100 * MIB)
    other = [structs.replace(each, node="n2") for each in hour("rss_bytes", leaking)]
    brief = [each for each in other if each.s < 0.45 * 3_600]
    assert growing([*steady, *brief]) == []
    assert "rss_bytes 144.9 MiB" in peaks([*steady, *brief])
    assert growing([*steady, *[each for each in other if each.s < 0.55 * 3_600]]) == ["rss_bytes"]


def test_the_slope_is_the_median_of_all_pairs() -> None:
    assert slope([(0, 0), (1, 2), (2, 4), (3, 600), (4, 8)]) == pytest.approx(2)


def test_samples_survive_their_file() -> None:
    samples = [sample(5.0), sample(10.0, "n2", 9, running=2.5)]
    file = io.StringIO()
    write_head(file)
    for each in samples:
        write_row(file, each)
    file.seek(0)
    assert read(file) == samples


def test_a_line_of_the_plot_is_broken_where_a_process_ended() -> None:
    samples = [sample(n * EVERY_S, "n1", 7 if n < 5 else 8) for n in range(10)]
    root = ElementTree.fromstring(plot(samples))
    courses = [
        each.attrib["d"]
        for each in root.iter("{http://www.w3.org/2000/svg}path")
        if "L" in each.attrib["d"]
    ]
    assert len(courses) == len(SHOWN)
    assert all(course.count("M") == 2 for course in courses)
