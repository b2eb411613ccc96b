"""Frames between nodes, and frames between leader and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.micro import replay
from bench.micro.timing import Step, Work
from cluster.actors.services import LikeJobs
from cluster.api import frames
from cluster.consensus.wire import (
    Append,
    AppendReply,
    FrameDecoder,
    decode_entries,
    encode_entries,
    encode_frame,
)
from cluster.machine.commands import encode_batch
from quorate.worker import frames as worker_frames

FRAMES = 200


def steps(jobs: int, folder: Path) -> list[Step]:
    small, large = b"x" * 200, encode_batch(replay.submissions(replay.BATCH)[0])
    found = []
    for what, payload in (("200 B", small), (f"{len(large) // 1000} kB", large)):
        found += [
            Step(f"append with an entry of {what}, encoded", FRAMES,
                 lambda payload=payload: _encoding(payload), per="frame"),
            Step(f"append with an entry of {what}, decoded", FRAMES,
                 lambda payload=payload: _decoding(payload), per="frame"),
        ]  # fmt: skip
    return [
        *found,
        Step("acknowledgement, encoded and decoded", FRAMES, _replying, per="frame"),
        Step("jobs for a worker, encoded", jobs, lambda: _jobs_out(jobs)),
        Step("jobs for a worker, decoded there", jobs, lambda: _jobs_in(jobs)),
        Step("results of a worker, encoded there", jobs, lambda: _results_out(jobs)),
        Step("results of a worker, decoded", jobs, lambda: _results_in(jobs)),
    ]


def _encoding(payload: bytes) -> Work:
    def encode() -> None:
        for index in range(FRAMES):
            blob = encode_entries([(payload, index, 1)])
            encode_frame(Append(1, index, index, index, 1, 1), blob)

    return encode


def _decoding(payload: bytes) -> Work:
    sent = []
    for index in range(FRAMES):
        blob = encode_entries([(payload, index, 1)])
        head = encode_frame(Append(1, index, index, index, 1, 1), blob)
        sent.append(b"".join((head, *blob.parts)))

    def decode() -> None:
        decoder = FrameDecoder()
        for frame in sent:
            for _, blob in decoder.frames(frame):
                decode_entries(blob, 1, 7)

    return decode


def _replying() -> Work:
    def reply() -> None:
        decoder = FrameDecoder()
        for index in range(FRAMES):
            decoder.feed(encode_frame(AppendReply(1, index, index, False, True)))

    return reply


def _columns(jobs: int) -> list[LikeJobs]:
    return [
        LikeJobs(
            "noop", "default", 3_600_000, 3, batch, [1] * len(batch), [replay.PAYLOAD] * len(batch)
        )
        for batch in replay.ids(jobs)
    ]


def _results(jobs: int) -> list[tuple[Any, ...]]:
    return [
        ("completed", 1, batch, [1] * len(batch), None, None, 1_000) for batch in replay.ids(jobs)
    ]


def _jobs_out(jobs: int) -> Work:
    batches = _columns(jobs)
    return lambda: [frames.like(batch) for batch in batches]


def _jobs_in(jobs: int) -> Work:
    encoded = [frames.like(batch) for batch in _columns(jobs)]
    return lambda: [worker_frames.decode(frame) for frame in encoded]


def _results_out(jobs: int) -> Work:
    batches = _results(jobs)
    return lambda: [worker_frames.encode(batch) for batch in batches]


def _results_in(jobs: int) -> Work:
    encoded = [worker_frames.encode(batch) for batch in _results(jobs)]
    return lambda: [frames.decode(frame) for frame in encoded]
