"""A batch request from its bytes to the groups of one command."""

from __future__ import annotations

from pathlib import Path

from bench.harness import batch_body
from bench.micro.replay import BATCH, NOW_MS
from bench.micro.timing import Step, Work
from cluster.api.batch import decode_batch
from cluster.api.intake import group_jobs
from cluster.settings import Settings


def steps(jobs: int, folder: Path) -> list[Step]:
    return [
        Step("decode a batch of JSON", jobs, lambda: _decoding(jobs)),
        Step("group it by what jobs have in common", jobs, lambda: _grouping(jobs)),
    ]


def _decoding(jobs: int) -> Work:
    body = batch_body(BATCH, "noop")
    return lambda: [decode_batch(body, "application/json") for _ in range(jobs // BATCH)]


def _grouping(jobs: int) -> Work:
    items, _ = decode_batch(batch_body(BATCH, "noop"), "application/json")
    settings = Settings()
    return lambda: [group_jobs(items, NOW_MS, settings) for _ in range(jobs // BATCH)]
