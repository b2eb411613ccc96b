"""The benchmark's own tools: rows exist, figures are judged and shared out as they should be."""

import importlib
from pathlib import Path

import pytest

from bench import machine, report
from bench.__main__ import ROWS
from bench.harness import Result
from bench.histogram import Latencies
from bench.machine import Weather
from bench.report import TARGETS, Bound, Target, filled, number
from bench.spend import group_of, shares_of
from bench.usage import usage_of

PAGE = f"""# Performance

{report.HEAD} what would move it |
|---|---|---|---|---|---|
| P2 | end to end | >= 50,000 jobs/s | | | the worker |
| P4 | submit to start | p50 <= 2 ms, p99 <= 6 ms | 1 | yes | the disk |

## After
"""


@pytest.mark.parametrize("module", sorted(set(ROWS.values())))
def test_every_row_can_be_measured(module: str) -> None:
    assert callable(importlib.import_module(f"bench.rows.{module}").measure)


def test_every_target_stands_in_the_page() -> None:
    rows = report.table(report.PAGE.read_text(encoding="utf-8"))
    assert [row for row in TARGETS if f"| {row} |" not in rows] == []


def end_to_end(rate: str, holds: bool = True) -> Result:
    return Result("P2", "end to end", {"rate": rate, "cpu": "0.4 s"}, ">= 50,000", holds)


def test_a_run_fills_in_what_it_measured_and_keeps_the_rest() -> None:
    page = filled(PAGE, [end_to_end("51,234 jobs/s")])
    assert (
        "| P2 | end to end | >= 50,000 jobs/s | 51,234 jobs/s, cpu 0.4 s | yes | the worker |"
        in (page)
    )
    assert "| P4 | submit to start | p50 <= 2 ms, p99 <= 6 ms | 1 | yes | the disk |" in page
    assert page.endswith("## After\n")


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (end_to_end("49,999 jobs/s"), "no"),
        (end_to_end("50,000 jobs/s"), "yes"),
        (end_to_end("60,000 jobs/s", holds=False), "outcome wrong"),
    ],
)
def test_a_target_is_judged_by_its_figure(result: Result, verdict: str) -> None:
    assert TARGETS["P2"].reached([result]) == verdict


def test_one_of_two_bounds_is_reached_in_part() -> None:
    target = Target((Bound("p50", 2), Bound("p99", 6)))
    result = Result("P4", "latency", {"p50": "1.95 ms", "p99": "7.10 ms"}, "")
    assert target.reached([result]) == "in part"


def test_results_without_the_judged_figure_are_left_out() -> None:
    other = Result("P2", "by thread", {"leader": "9 us"}, "")
    assert TARGETS["P2"].of([other, end_to_end("1 jobs/s")], "P2") == [end_to_end("1 jobs/s")]


def test_numbers_are_read_as_people_write_them() -> None:
    assert number("1,234.5 jobs/s") == 1234.5
    with pytest.raises(ValueError, match="no number"):
        number("fast")


def test_percentiles_keep_three_digits() -> None:
    latencies = Latencies([*[1.0] * 98, 40.0, 1000.0, -1.0])
    assert len(latencies) == 101
    assert latencies.at_ms(50) == pytest.approx(1.0, rel=1e-3)
    assert latencies.at_ms(99) == pytest.approx(40.0, rel=1e-3)
    assert latencies.at_ms(100) == pytest.approx(1000.0, rel=1e-3)


def test_a_sample_belongs_to_the_command_it_is_spent_for() -> None:
    loop = "run (asyncio/runners.py:190)"
    applying = [loop, "complete_jobs (cluster/machine/reducers/assignments.py:9)"]
    assert group_of([*applying, "Block.leave (cluster/machine/blocks.py:3)"]) == "apply: complete"
    assert group_of([loop, "Link.send (cluster/consensus/link.py:9)"]) == "node to node"
    assert group_of([loop]) == "event loop and sockets"
    assert group_of(["main (somewhere.py:1)"]) == "elsewhere"


def test_waiting_for_the_disk_is_no_work() -> None:
    samples = "\n".join(
        [
            "main (a.py:1);Link.send (cluster/consensus/link.py:9) 30",
            "main (a.py:1);FileStorage.sync_data (cluster/consensus/storage.py:7) 60",
            "main (a.py:1);Lane.take (cluster/projections/ready.py:7) 10",
        ]
    )
    assert shares_of(samples) == {"node to node": 0.75, "ready queues": 0.25}


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's /proc")
def test_cpu_time_of_this_process_grows_while_it_works() -> None:
    import os

    before = usage_of(os.getpid())
    sum(number * number for number in range(200_000))
    assert (usage_of(os.getpid()) - before).loop_cpu_s > 0


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's /proc")
def test_a_child_that_has_ended_is_counted() -> None:
    import os
    import subprocess
    import sys

    before = usage_of(os.getpid())
    while not (usage_of(os.getpid()) - before).children_cpu_s:  # in hundredths of a second
        subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert (usage_of(os.getpid()) - before).cpu_s > 0


def test_a_run_says_what_the_machine_was_like_and_what_its_host_took() -> None:
    before = Weather(50.0, 0.1, 0.4, {"user": 100, "idle": 100, "steal": 0})
    after = Weather(90.0, 0.2, 7.0, {"user": 150, "idle": 125, "steal": 25})
    text = machine.between(before, after)
    assert "loop 50 ms" in text and "loop 90 ms" in text and "p99 7.00 ms" in text
    assert "25.0% of the CPU time" in text


def test_the_machine_is_asked(tmp_path: Path) -> None:
    seen = machine.weather(tmp_path)
    assert seen.loop_ms > 0 and 0 < seen.sync_p50_ms <= seen.sync_p99_ms
