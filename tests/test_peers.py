"""The comparison with other queues: its ledger, its ratios and its protocol, without any peer."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from bench.peers import disk, table
from bench.peers.adapters import kit
from bench.peers.catalogue import ADAPTERS, PEERS, named
from bench.peers.harness import Figures
from bench.peers.outcome import Ledger, check, latencies_ms
from bench.peers.processes import Driver, cpu_seconds, family, memory_mib

OURS = Figures("quorate", 1_000, 100_000.0, 20_000.0, 30_000.0, 0.5, 4.0, 8.0, 300.0)
THEIRS = Figures("celery", 1_000, 2_000.0, 500.0, 600.0, 20.0, 2.0, 4.0, 150.0)
TASK = """
import kit
if __name__ == "__main__":
    kit.drive(lambda texts: [kit.ran(text) for text in texts], lambda: 0, chunk=7, lanes=2)
"""
ASYNC_TASK = """
import asyncio, kit
async def submit(texts):
    for text in texts:
        kit.ran(text)
async def left():
    return 3
asyncio.run(kit.drive_async(submit, left, chunk=7, lanes=2))
"""


def test_a_run_without_faults_says_so() -> None:
    faults = check(range(3), [(2, 30), (0, 10), (1, 20)])
    assert not faults
    assert str(faults) == "none"


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        ([(0, 10), (2, 30)], "1 lost"),
        ([(0, 10), (1, 20), (2, 30), (1, 40)], "1 doubled"),
        ([(0, 10), (1, 20), (2, 30), (7, 40)], "1 unknown"),
        ([(0, 10), (0, 20), (7, 40)], "2 lost, 1 doubled, 1 unknown"),
    ],
)
def test_a_fault_is_found(ran: list[tuple[int, int]], words: str) -> None:
    assert str(check(range(3), ran)) == words


def test_latency_runs_from_the_call_to_the_task() -> None:
    sent = [(5, 1_000_000), (6, 2_000_000), (7, 3_000_000)]
    assert latencies_ms(sent, [(6, 2_500_000), (5, 4_000_000)]) == [3.0, 0.5]


@pytest.mark.parametrize("column", table.COLUMNS, ids=lambda column: column[0])
def test_a_ratio_above_one_always_means_that_quorate_was_better(column: table.Column) -> None:
    _, figure, _, more_is_better = column
    good = Figures("good", 1_000, 9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.0)
    bad = Figures("bad", 1_000, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0)
    assert table.ratio(good, bad, figure, more_is_better) == 9
    assert table.ratio(bad, good, figure, more_is_better) == pytest.approx(1 / 9)


def test_a_ratio_compares_within_one_round() -> None:
    slow = [{"quorate": OURS, "celery": THEIRS}]
    doubled = {"quorate": replace(OURS, end_to_end=40_000.0), "celery": replace(THEIRS, p50_ms=8.0)}
    lines = table.ratios_table(PEERS, [*slow, doubled])
    (cells,) = [line.split(" | ") for line in lines if line.startswith("| celery")]
    assert cells[1:6] == ["50", "60", "50", "40", "1.25"]


def test_a_fault_in_any_round_shows_in_the_table() -> None:
    rounds = [{"celery": THEIRS}, {"celery": replace(THEIRS, faults="3 lost", jobs=900)}]
    (line,) = [line for line in table.figures_table(PEERS, rounds) if "celery" in line]
    assert "900 to 1,000" in line
    assert line.endswith("| NO: 3 lost |")


def test_a_round_in_which_a_peer_failed_is_left_out() -> None:
    lines = table.figures_table(PEERS, [{"quorate": OURS}, {}])
    assert [line for line in lines if "celery" in line] == []
    assert len([line for line in lines if line.startswith("| quorate")]) == 1


def test_a_peer_that_cannot_keep_up_has_no_latency() -> None:
    rounds = [{"quorate": OURS, "celery": replace(THEIRS, p50_ms=nan, p99_ms=nan)}]
    (figures,) = [line for line in table.figures_table(PEERS, rounds) if "celery" in line]
    (ratios,) = [line for line in table.ratios_table(PEERS, rounds) if "celery" in line]
    assert figures.split(" | ")[6:8] == ["-", "-"]
    assert ratios.split(" | ")[5:7] == ["-", "-"]


def test_the_file_system_is_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\nc {tmp_path}/x xfs rw 0 0\n")
    (tmp_path / "x").mkdir()
    assert disk.kind(tmp_path, mounts) == "tmpfs"
    assert disk.kind(tmp_path / "x", mounts) == "xfs"
    assert disk.kind(Path("/"), mounts) == "ext4"


def test_every_peer_has_its_adapter_and_a_pinned_version() -> None:
    assert [peer.name for peer in PEERS if not (ADAPTERS / peer.driver[1]).is_file()] == []
    assert [peer.name for peer in PEERS if peer.packages and "==" not in peer.packages[0]] == []
    assert named("") == list(PEERS)
    assert [peer.name for peer in named("saq, quorate")] == ["saq", "quorate"]
    with pytest.raises(ValueError, match="unknown peers: nosuch"):
        named("saq,nosuch")


def test_a_payload_has_its_number_and_its_size() -> None:
    assert len(kit.payload(123)) == kit.PAYLOAD_BYTES
    assert int(kit.payload(123)[: kit.NUMBER_DIGITS]) == 123


@pytest.mark.parametrize("program", [TASK, ASYNC_TASK], ids=["blocking", "asyncio"])
async def test_an_adapter_obeys_orders_and_writes_every_job_down(
    program: str, tmp_path: Path
) -> None:
    (tmp_path / "adapter.py").write_text(program)
    env = {**os.environ, "PYTHONPATH": str(ADAPTERS), "PEERS_RECORDS": str(tmp_path)}
    driver = Driver("driver", [sys.executable, "adapter.py"], tmp_path, env, piped=True)
    ledger = Ledger(tmp_path)
    try:
        await driver.begin()
        took = await driver.order("submit", first=0, count=40)
        await driver.order("pace", first=40, count=5, rate=1_000)
        left = (await driver.order("left"))["left"]
    finally:
        await driver.stop()
    assert took["began_ns"] <= took["ended_ns"]
    assert left == (3 if "async" in program else 0)
    assert ledger.ran_count() == 45
    assert not check(range(45), ledger.ran())
    assert [number for number, _ in ledger.sent()] == [*range(40, 45)]
    assert min(latencies_ms(ledger.sent(), ledger.ran())) >= 0


async def test_a_client_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; sys.exit('no such broker')"]
    driver = Driver("driver", program, tmp_path, os.environ, piped=True)
    with pytest.raises(RuntimeError, match="no such broker"):
        await driver.begin()


async def test_cpu_time_counts_children_that_are_gone_already(tmp_path: Path) -> None:
    burn = "sum(range(6_000_000))"
    program = (
        "import subprocess, sys, json\n"
        f"subprocess.run([sys.executable, '-c', '{burn}'], check=True)\n"
        "print(json.dumps({'ready': 1}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    driver = Driver("driver", [sys.executable, "-c", program], tmp_path, os.environ, piped=True)
    try:
        await driver.begin()
        spent, alone = cpu_seconds([driver.pid]), family([driver.pid])
        memory = memory_mib([driver.pid])
    finally:
        await driver.stop()
    assert alone == [driver.pid]
    assert spent >= 0.05  # starting two interpreters and the child's sum
    assert memory > 1
