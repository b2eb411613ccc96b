"""Figures of availability: silences, outcomes, table and plot; a load that keeps its pace."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from chaos.live.asking import Answer, Asker, Unknown
from chaos.live.availability import load
from chaos.live.availability.__main__ import read, write
from chaos.live.availability.figures import Measured, Outage, outcome, quantile, silence_ms
from chaos.live.availability.ills import ILLS
from chaos.live.availability.page import BEGIN, END, circumstances, fill, plot, table
from chaos.live.judge.history import Run


@pytest.mark.parametrize(
    ("moments_s", "expected_ms"),
    [
        ([9.0, 10.5, 11.0, 13.0, 14.5], 2_000),
        ([10.0, 14.0], 4_000),  # those at the very borders are outside
        ([], 4_000),
        ([9.0, 12.9, 15.0], 2_900),
        ([11.0, 12.0, 12.5], 1_500),  # and then nothing until the end
    ],
)
def test_the_longest_silence_in_a_window(moments_s: list[float], expected_ms: float) -> None:
    assert silence_ms(moments_s, 10.0, 14.0) == pytest.approx(expected_ms)


def test_quantiles_are_of_the_nearest_rank() -> None:
    values = [float(n) for n in range(30, 0, -1)]
    assert [quantile(values, share) for share in (0.5, 0.9, 0.99)] == [15, 27, 30]
    assert quantile([7.0], 0.5) == 7


def ran(job_id: str, attempt: int = 1, outcome: str = "completes") -> Run:
    return Run(job_id, attempt, "pid 1", 1.0, 2.0, outcome)


@pytest.mark.parametrize(
    ("ids", "runs", "completed", "expected"),
    [
        (["1", "2"], [ran("1"), ran("2")], 2, (0, 0, 0)),
        (["1", "2"], [ran("1"), ran("2", outcome="")], 2, (1, 0, 0)),
        (["1", "2"], [ran("1"), ran("2")], 1, (1, 0, 0)),
        (["1", "1"], [ran("1")], 2, (0, 1, 0)),  # two requests, one job
        (["1"], [ran("1"), ran("2")], 2, (0, 1, 0)),  # a job that nobody was told of
        (["1"], [ran("1"), ran("1")], 1, (0, 1, 1)),  # one attempt, two runs
        (["1"], [ran("1"), ran("1", 2)], 1, (0, 0, 1)),  # at least once, and said so
    ],
)
def test_what_became_of_the_jobs(
    ids: list[str], runs: list[Run], completed: int, expected: tuple[int, int, int]
) -> None:
    assert outcome(ids, runs, completed) == expected


def measured(fault: str, *submissions_ms: float) -> Measured:
    outages = [Outage(ms, ms * 2) for ms in submissions_ms]
    return Measured(
        fault, ILLS[fault].about, 500.0, outages, 12_345, 0, 0, 3, 9,
        "2026-11-21T20:00:00+00:00", "abc1234", [1.5, 2.5],
    )  # fmt: skip


ENOUGH = 300  # requests
TOLD = [measured("leader-kill", 100, 200, 1_500), measured("leader-deaf", 40, 50, 60)]


def test_the_table_tells_quantiles_and_outcome() -> None:
    head, line, first, second = table(TOLD).splitlines()
    assert head.count("|") == line.count("|") == first.count("|")
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[1:8] == ["3", "200 ms", "1.5 s", "1.5 s", "400 ms", "3 s", "3 s"]
    assert cells[8:] == ["12,345", "0", "0", "3"]
    assert "hears nobody" in second
    assert "2026-11-21 at 500 jobs a second, commit abc1234; load" in circumstances(TOLD)


def test_the_page_gets_its_table_and_keeps_the_rest() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    filled = fill(page, TOLD)
    assert filled.startswith(f"before\n{BEGIN}\n| fault")
    assert filled.endswith(f"{END}\nafter\n")
    assert "old" not in filled
    assert fill(filled, TOLD) == filled
    with pytest.raises(ValueError, match="no <!-- availability"):
        fill("no marks", TOLD)


def test_the_plot_has_two_bars_for_each_fault_and_longer_ones_for_longer_silences() -> None:
    root = ElementTree.fromstring(plot(TOLD))
    bars = [
        float(each.attrib["width"])
        for each in root.iter("{http://www.w3.org/2000/svg}rect")
        if each.attrib.get("height") == "14"
    ]
    assert len(bars) == 4
    assert bars[0] < bars[1]
    assert bars[2] < bars[0]


def test_figures_of_a_fault_replace_its_older_ones(tmp_path: Path) -> None:
    file = tmp_path / "data" / "figures.json"
    write(file, {each.fault: each for each in TOLD})
    newer = measured("leader-deaf", 70)
    write(file, {**read(file), "leader-deaf": newer})
    assert read(file) == {"leader-kill": TOLD[0], "leader-deaf": newer}
    assert len(file.read_text().splitlines()) == 4


class Flaky(Asker):
    """Every third request gets no answer."""

    def __init__(self) -> None:
        super().__init__(None, ["a", "b"])  # type: ignore[arg-type]
        self.keys: list[tuple[str, str]] = []
        self.enough = asyncio.Event()

    async def ask(self, url: str, *_: Any, **__: Any) -> Answer:
        body, key = _[2], _[3]
        self.keys.append((url, key))
        await asyncio.sleep(0)
        if len(self.keys) >= ENOUGH:
            self.enough.set()
        if len(self.keys) % 3 == 0:
            raise Unknown("lost")
        return Answer(201, "", {"ids": [job["payload"] for job in body]})


async def test_a_load_repeats_what_got_no_answer_elsewhere_and_stops_with_all_answered() -> None:
    asker = Flaky()
    made = load.Load(asker, rate=20_000.0)
    made.start()
    await asker.enough.wait()
    await made.stop()
    made.check()
    keys = [key for _, key in asker.keys]
    assert made.repeated == len(keys) - len(set(keys)) > 0
    assert len(made.ids) == len(set(made.ids)) == load.BATCH * len(set(keys))
    assert made.accepted_s == sorted(made.accepted_s)
    lost, again = next(
        (one, other)
        for n, one in enumerate(asker.keys)
        for other in asker.keys[n + 1 :]
        if one[1] == other[1]
    )
    assert lost[0] != again[0]


async def test_a_counted_load_keeps_numbers_only() -> None:
    asker = Flaky()
    made = load.Load(asker, rate=200_000.0, batch=50, is_counted=True)
    made.start()
    await asker.enough.wait()
    await made.stop()
    made.check()
    assert made.ids == []
    assert made.acknowledged == 50 * len({key for _, key in asker.keys})
