"""What an ingest process answers by itself, what it asks, and what it leaves to the node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.api.plain import Head
from cluster.ingest.counter import Counter
from cluster.ingest.messages import (
    Accepted,
    Declined,
    Message,
    Submitting,
    Unknown,
    Wire,
    settings_from_dict,
    settings_to_dict,
)
from cluster.machine.commands import JobGroup, SubmitJobs
from cluster.machine.lifecycle import READY
from cluster.machine.model import JobSpec
from cluster.machine.results import Submitted
from cluster.machine.views import JobView
from cluster.settings import Settings

LONE, BATCH = "/v1/jobs", "/v1/jobs/batch"
JOB = b'{"name":"t","payload":{"to":"a"}}'
LEADER = "http://leader"
LARGE = SubmitJobs([JobGroup(JobSpec("t"), [b"x" * 300])], "key", 7, 8)


class Desk:
    """A counter, what it said to the node, and what it answered."""

    def __init__(self, **settings: Any) -> None:
        self.said: list[Submitting] = []
        self.answers: list[bytes | None] = []
        self.counter = Counter(Settings(**settings), self._said, lambda transport, received: None)

    def _said(self, message: Message) -> None:
        assert isinstance(message, Submitting)
        self.said.append(message)

    def take(self, body: bytes, path: str = LONE, key: str = "", minimal: bool = False) -> bool:
        head = Head(path, len(body), key, minimal)
        return self.counter.take(head, body, self.answers.append)

    async def asked(self, count: int = 1) -> list[Submitting]:
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(self.said) == count
        return self.said

    async def accept(self, first: int, count: int, *, replayed: bool = False) -> None:
        """The node's answer to the oldest question."""
        asked = self.said.pop(0)
        ids = range(first, first + count) if asked.is_lone else ()
        views = [JobView(i, JobSpec("t"), b"", READY, 1_000, 1_000, 0, 0) for i in ids]
        result = Submitted(first, count, None, replayed)
        self.counter.answered(Accepted(asked.number, result, 42, LEADER, views))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def parsed(self) -> tuple[int, dict[str, str], Any]:
        """The oldest answer."""
        answer = self.answers.pop(0)
        assert answer is not None
        head, body = answer.split(b"\r\n\r\n", 1)
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert int(headers["Content-Length"]) == len(body)
        return int(status.split()[1]), headers, msgspec.json.decode(body)


def sizes(asked: Submitting) -> list[tuple[str, int]]:
    return [(group.spec.queue, len(group.payloads)) for group in asked.command.groups]


async def test_lone_jobs_are_asked_together_and_answered_one_by_one() -> None:
    desk = Desk()
    for number in range(3):
        assert desk.take(b'{"name":"t","payload":%d}' % number)
    (asked,) = await desk.asked()
    assert (sizes(asked), asked.is_lone) == ([("default", 3)], True)
    await desk.accept(7, 3)
    for number in range(3):
        status, headers, job = desk.parsed()
        assert (status, headers["Location"]) == (201, f"/v1/jobs/{number + 7}")
        assert (headers["X-Quorate-Index"], headers["X-Quorate-Leader"]) == ("42", LEADER)
        assert (job["id"], job["payload"], job["status"]) == (str(number + 7), number, "pending")
    assert desk.counter.is_idle


async def test_lone_jobs_wait_behind_two_questions() -> None:
    desk = Desk()
    for count in (1, 2):
        desk.take(JOB)
        await desk.asked(count)
    for _ in range(5):
        desk.take(JOB)
    await desk.asked(2)
    await desk.accept(1, 1)
    said = await desk.asked(2)
    assert sizes(said[1]) == [("default", 5)]


async def test_a_batch_is_asked_whole_with_its_key() -> None:
    desk = Desk()
    body = b'[{"name":"t"},{"name":"t","queue":"mail"}]'
    assert desk.take(body, BATCH, key="k")
    (asked,) = await desk.asked()
    assert (sizes(asked), asked.is_lone) == ([("default", 1), ("mail", 1)], False)
    command = asked.command
    assert (command.request_key, command.request_ttl_ms) == ("k", 86_400_000)
    await desk.accept(1, 2, replayed=True)
    status, headers, answer = desk.parsed()
    assert (status, answer) == (201, {"ids": ["1", "2"], "errors": []})
    assert headers["Idempotency-Replayed"] == "true"


async def test_a_minimal_batch_names_its_ends() -> None:
    desk = Desk()
    assert desk.take(b'[{"name":"t"},{"name":"t"}]', BATCH, minimal=True)
    await desk.asked()
    await desk.accept(5, 2)
    _, headers, answer = desk.parsed()
    assert answer == {"first": "5", "last": "6", "count": 2, "errors": []}
    assert headers["Preference-Applied"] == "return=minimal"


async def test_a_repetition_of_what_was_accepted_in_part_is_left_to_the_node() -> None:
    desk = Desk()
    desk.take(b'[{"name":"t"},{"name":"t"}]', BATCH, key="k")
    await desk.asked()
    await desk.accept(5, 1, replayed=True)
    assert desk.answers == [None]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (LONE, b""),
        (LONE, b"{"),
        (LONE, b'{"name":1}'),
        (LONE, b'{"name":"t","unique_key":"u"}'),
        (LONE, b'{"name":"t","schedule":"* * * * *"}'),
        (LONE, b'{"name":"t","payload":"0123456789"}'),
        (BATCH, b"[]"),
        (BATCH, b'[{"name":"t"},{"name":1}]'),
        (BATCH, b'[{"name":"t","unique_key":"u"}]'),
        (BATCH, b"[" + b",".join([b'{"name":"t"}'] * 10_001) + b"]"),
    ],
)
async def test_what_may_be_refused_is_left_to_the_node(path: str, body: bytes) -> None:
    desk = Desk(payload_max_bytes=10)
    assert not desk.take(body, path)
    assert desk.counter.is_idle


async def test_a_lone_job_with_a_key_is_left_to_the_node() -> None:
    assert not Desk().take(JOB, key="k")


@pytest.mark.parametrize("path", [LONE, BATCH])
async def test_what_the_node_declines_goes_to_the_node(path: str) -> None:
    desk = Desk()
    assert desk.take(JOB if path == LONE else b'[{"name":"t"}]', path)
    (asked,) = await desk.asked()
    desk.counter.answered(Declined(asked.number))
    await asyncio.sleep(0)
    assert desk.answers == [None]
    assert desk.counter.is_idle


@pytest.mark.parametrize("path", [LONE, BATCH])
async def test_an_unknown_outcome_is_told_here(path: str) -> None:
    desk = Desk()
    desk.take(JOB if path == LONE else b'[{"name":"t"}]', path)
    (asked,) = await desk.asked()
    desk.counter.answered(Unknown(asked.number, 7, None))
    await asyncio.sleep(0)
    status, headers, problem = desk.parsed()
    assert (status, problem["code"], problem["instance"]) == (504, "outcome_unknown", path)
    assert "X-Quorate-Leader" not in headers


async def test_times_follow_the_clock_of_the_node() -> None:
    desk = Desk()
    desk.counter.ahead_ms = 10**10
    soon = desk.counter._now_ms()
    desk.take(b'{"name":"t","delay_seconds":60}')
    (asked,) = await desk.asked()
    (group,) = asked.command.groups
    assert 0 <= group.run_at_ms - soon - 60_000 < 10_000


class Pipe:
    """A transport that hands bytes to the other end in pieces of a given size."""

    def __init__(self, other: Wire, size: int) -> None:
        self._other = other
        self._size = size

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), self._size):
            self._other.data_received(data[start : start + self._size])


@pytest.mark.parametrize("size", [1, 3, 7, 1 << 20])
def test_messages_survive_being_cut(size: int) -> None:
    heard: list[Message] = []
    far = Wire(heard.append, lambda: None)
    near = Wire(heard.append, lambda: None)
    pipe: Any = Pipe(far, size)
    near.connection_made(pipe)
    sent = [Declined(1), Submitting(2, LARGE, True), Unknown(3, 4, "http://n")]
    for message in sent:
        near.send(message)
    assert heard == sent


def test_settings_arrive_as_they_are(tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path, peers=("127.0.0.1:7002",), cluster_secret="x" * 20, ingest=2, fsync=False
    )
    assert settings_from_dict(settings_to_dict(settings)) == settings
