"""Log entries to bytes and back: encoded once by the leader, decoded by every node."""

from __future__ import annotations

from pathlib import Path

from bench.micro import replay
from bench.micro.timing import Step, Work
from cluster.machine.commands import Batch, decode_batch, encode_batch


def steps(jobs: int, folder: Path) -> list[Step]:
    runs = {
        "submit": replay.submissions(jobs),
        "assign": replay.assignments(jobs),
        "complete": replay.completions(jobs),
    }
    found = []
    for name, batches in runs.items():
        found.append(Step(f"{name}, encoded", jobs, lambda batches=batches: _encoding(batches)))
        found.append(Step(f"{name}, decoded", jobs, lambda batches=batches: _decoding(batches)))
    return found


def _encoding(batches: list[Batch]) -> Work:
    return lambda: [encode_batch(batch) for batch in batches]


def _decoding(batches: list[Batch]) -> Work:
    entries = [encode_batch(batch) for batch in batches]
    return lambda: [decode_batch(each) for each in entries]
