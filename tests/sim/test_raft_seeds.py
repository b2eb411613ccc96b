"""Whole histories of consensus under faults; `SEEDS=1000 pytest tests/sim` for a longer hunt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.sim.raft.host import SimDisk
from chaos.sim.raft.world import Shape, run_seed

SEEDS = int(os.environ.get("SEEDS", "16"))
SECONDS = 8.0
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_raft_keeps_its_promises(seed: int) -> None:
    report = run_seed(seed, SECONDS)
    assert not report.failures, (
        f"{report.failures[:3]}; replay: python -m chaos.sim --world raft --seed {seed}"
        f" --seconds {SECONDS}"
    )


@pytest.mark.parametrize(
    "seed", [50000559, 50003663, 50004603, 50004733, 60003118, 60003154, 71000739]
)
def test_what_failed_once_is_good(seed: int) -> None:
    assert not run_seed(seed, 6.0).failures


def test_a_stop_that_leaves_its_journal_unwritten_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def close(disk: SimDisk) -> None:
        disk.abandon()
        disk.is_flushed = True

    shape = Shape(members=3, plots=("orderly_end",))
    assert not run_seed(1, 4.0, shape=shape).failures
    monkeypatch.setattr(SimDisk, "close", close)
    reports = (run_seed(seed, 4.0, shape=shape) for seed in range(1, 10))
    assert any("which was durable" in "".join(report.failures) for report in reports)


def test_a_disk_that_is_lost_is_missed_and_replaced() -> None:
    """A7: nobody may count the empty one that is started in its place."""
    shape = Shape(members=3, spares=0, plots=("lost_disk",))
    reports = [run_seed(seed, 4.0, shape=shape) for seed in range(1, 4)]
    assert [report.failures for report in reports] == [[], [], []]
    assert any("loses its disk" in line for report in reports for line in report.tail)


def test_a_seed_is_one_history() -> None:
    first, again, other = run_seed(7, 4.0), run_seed(7, 4.0), run_seed(8, 4.0)
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert first.acknowledged + other.acknowledged > 20


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_history_does_not_depend_on_hashing(hash_seed: str) -> None:
    code = "from chaos.sim.raft.world import run_seed; print(run_seed(7, 4.0).digest)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == run_seed(7, 4.0).digest
