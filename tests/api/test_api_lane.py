"""The fast lane: nobody can tell it from the ordinary server, whatever is sent and however."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from api_fakes import FakeNode, until

from cluster.api import lane as lane_module
from cluster.api.door import Door
from cluster.api.plain import plain_head
from cluster.consensus import Outcome

JOB = b'{"name":"t","payload":{"to":"a"}}'


class Lane:
    """A connection that writes bytes and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        async with asyncio.timeout(60):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            body = await self._reader.readexactly(int(headers["Content-Length"]))
        is_json = "json" in headers["Content-Type"]
        return int(status.split()[1]), headers, msgspec.json.decode(body) if is_json else body

    async def ended(self) -> None:
        async with asyncio.timeout(60):
            assert await self._reader.read() == b""

    def close(self) -> None:
        self._writer.close()


class Served:
    """A node behind its door."""

    def __init__(self, node: FakeNode, runner: web.AppRunner) -> None:
        assert runner.server is not None
        self.node = node
        self.door = Door(node.services, runner.server)
        self.lanes: list[Lane] = []

    async def connect(self) -> Lane:
        self.lanes.append(Lane(*await asyncio.open_connection("127.0.0.1", self.door.port)))
        return self.lanes[-1]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    node = FakeNode(tmp_path)
    runner = web.AppRunner(node.app, access_log=None)
    await runner.setup()
    served = Served(node, runner)
    await served.door.open("127.0.0.1", 0)
    yield served
    for lane in served.lanes:
        lane.close()
    await served.door.close(1.0)
    await runner.cleanup()
    await node.close()


def post(body: bytes = JOB, *more: str, path: str = "/v1/jobs") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_a_plain_submission_is_answered_as_the_ordinary_server_does(served: Served) -> None:
    fast, ordinary = await served.connect(), await served.connect()
    fast.send(post())
    ordinary.send(post(JOB, "X-Nobody-Knows: this"))
    mine, theirs = await fast.answer(), await ordinary.answer()
    assert served.door.submitted_total == 1
    assert mine[0] == theirs[0] == 201
    assert mine[1].keys() == theirs[1].keys()
    assert mine[1]["Location"] == "/v1/jobs/1" and theirs[1]["Location"] == "/v1/jobs/2"
    same = ("Content-Type", "Content-Length", "Server", "X-Quorate-Leader")
    assert [mine[1][name] for name in same] == [theirs[1][name] for name in same]
    ids = {"id": "1", "job_id": "1"}
    assert mine[2] == {**theirs[2], **ids}


async def test_a_lane_goes_on_after_an_answer(served: Served) -> None:
    lane = await served.connect()
    for number in range(1, 4):
        lane.send(post(JOB, "Content-Type: application/json"))
        assert (await lane.answer())[2]["id"] == str(number)
    assert served.door.submitted_total == 3


async def test_requests_may_come_in_pieces_and_many_at_once(served: Served) -> None:
    lane = await served.connect()
    request = post(JOB)
    head = request.index(JOB)
    lane.send(request[:head])
    await until(lambda: served.door._lanes)
    for position in range(head, len(request)):
        lane.send(request[position : position + 1])
        await asyncio.sleep(0)
    assert (await lane.answer())[2]["id"] == "1"
    lane.send(post() * 20)
    assert [(await lane.answer())[2]["id"] for _ in range(20)] == [str(i) for i in range(2, 22)]
    assert served.door.submitted_total == 21


async def test_what_waits_for_the_same_entry_shares_a_command(served: Served) -> None:
    served.node.raft.held = []
    lanes = [await served.connect() for _ in range(10)]
    for lane in lanes:
        lane.send(post())
    await until(lambda: served.door.submitted_total == 10)
    for _ in range(10):
        await asyncio.sleep(0)
    while served.node.raft.held:
        served.node.raft.release_held()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        served.node.raft.held = served.node.raft.held or []
    ids = {(await lane.answer())[2]["id"] for lane in lanes}
    assert ids == {str(number) for number in range(1, 11)}
    assert served.node.proposer.commands_total < 10


ELSEWHERE = {
    "another path": (post(JOB, path="/v1/nothing"), 404),
    "another method": (b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n", 200),
    "a query": (post(JOB, path="/v1/jobs?dry=1"), 422),
    "a key": (post(JOB, "Idempotency-Key: k"), 201),
    "a page of elsewhere": (post(JOB, "Origin: http://evil.example"), 403),
    "a packed body": (post(JOB, "Content-Encoding: gzip"), 415),
    "pieces": (
        b"POST /v1/jobs HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB),
        201,
    ),
    "MessagePack": (
        post(msgspec.msgpack.encode({"name": "t"}), "Content-Type: application/msgpack"),
        201,
    ),
    "two lengths": (post(JOB, f"Content-Length: {len(JOB)}"), 400),
    "a length and pieces": (post(JOB, "Transfer-Encoding: chunked"), 400),
    "no JSON": (post(b"{"), 400),
    "no UTF-8": (post(b'{"name":"t","payload":"\xff"}'), 400),
    "an unknown field": (post(b'{"name":"t","colour":1}'), 422),
    "a past moment": (post(b'{"name":"t","run_at":"2020-01-01T00:00:00Z"}'), 422),
    "a schedule": (post(b'{"name":"t","schedule":"* * * * *"}'), 201),
    "a unique key": (post(b'{"name":"t","unique_key":"u"}'), 201),
    "an empty body": (post(b""), 400),
    "no HTTP at all": (b"hello\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", ELSEWHERE)
async def test_whatever_is_not_plain_gets_its_ordinary_answer(served: Served, case: str) -> None:
    request, status = ELSEWHERE[case]
    lane = await served.connect()
    lane.send(request)
    assert (await lane.answer())[0] == status
    assert served.door.submitted_total == 0


async def test_a_lane_may_end_in_the_middle(served: Served) -> None:
    lane = await served.connect()
    lane.send(post() + post(b'{"name":1}') + post() + b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
    answers = [await lane.answer() for _ in range(4)]
    assert [status for status, _, _ in answers] == [201, 422, 201, 200]
    assert answers[1][2]["errors"][0]["pointer"] == "/name"


async def test_an_unknown_outcome_is_told(served: Served) -> None:
    served.node.raft.fate = Outcome.UNKNOWN
    lane = await served.connect()
    lane.send(post())
    status, headers, problem = await lane.answer()
    assert (status, problem["code"], problem["instance"]) == (504, "outcome_unknown", "/v1/jobs")
    assert headers["Content-Type"] == "application/problem+json" and headers["Retry-After"] == "1"


async def test_a_node_that_leads_no_more_lets_the_ordinary_server_look(served: Served) -> None:
    served.node.raft.fate = Outcome.REFUSED
    lane = await served.connect()
    lane.send(post())
    await until(lambda: served.door.submitted_total)
    served.node.raft.follow(None, None)
    status, _, problem = await lane.answer()
    assert (status, problem["code"]) == (503, "no_quorum")


async def test_a_connection_that_says_nothing_is_closed_and_one_at_work_is_not(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "IDLE_S", 0.02)
    served.node.raft.held = []
    silent, halfway, busy = [await served.connect() for _ in range(3)]
    halfway.send(post()[:-3])
    busy.send(post())
    await until(lambda: served.node.raft.held)
    await silent.ended()
    await halfway.ended()
    served.node.raft.release_held()
    assert (await busy.answer())[0] == 201
    await busy.ended()


async def test_what_is_under_way_is_answered_when_the_door_closes(served: Served) -> None:
    served.node.raft.held = []
    busy, idle = await served.connect(), await served.connect()
    busy.send(post())
    await until(lambda: served.node.raft.held)
    closing = asyncio.create_task(served.door.close(5.0))
    await idle.ended()
    served.node.raft.release_held()
    assert (await busy.answer())[0] == 201
    await busy.ended()
    await closing
    with pytest.raises(OSError):
        await served.connect()


HOST = b"POST /v1/jobs HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (HOST + b"Content-Length: 7", 7),
        (HOST + b"content-length:7\r\nUSER-AGENT: x/1 (y)\r\nAccept:", 7),
        (HOST + b"Content-Length: 7\r\nConnection: Keep-Alive", 7),
        (HOST + b"Content-Length: 7\r\nContent-Type: application/JSON; charset=utf-8", 7),
        (HOST, None),
        (HOST[:-2], None),
        (b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 7", None),
        (HOST + b"Content-Length: 7\r\nContent-Length: 7", None),
        (HOST + b"Content-Length: +7", None),
        (HOST + b"Content-Length: 7 7", None),
        (HOST + b"Content-Length: 0x7", None),
        (HOST + b"Content-Length : 7", None),
        (HOST + b"Content-Length: 7\r\n folded", None),
        (HOST + b"Content-Length: 7\nX: y", None),
        (HOST + b"Content-Length: 7\r\nAccept: a\rb", None),
        (HOST + b"Content-Length: 7\r\nAccept: a\x00b", None),
        (HOST + b"Content-Length: 7\r\nConnection: close", None),
        (HOST + b"Content-Length: 7\r\nTransfer-Encoding: chunked", None),
        (HOST + b"Content-Length: 7\r\nExpect: 100-continue", None),
        (HOST + b"Content-Length: 7\r\nX-Forwarded-By: n1", None),
        (b"POST /v1/jobs/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 7", None),
        (b"POST /v1/jobs HTTP/1.0\r\nHost: h\r\nContent-Length: 7", None),
    ],
)
def test_only_heads_without_any_doubt_are_plain(head: bytes, length: int | None) -> None:
    plain = plain_head(head)
    assert (plain.length if plain else None) == length


def test_a_plain_head_says_what_a_submission_may_say() -> None:
    head = b"POST /v1/jobs/batch HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
    plain = plain_head(head + b"Idempotency-Key: a b \r\nPrefer: return=minimal")
    assert plain == ("/v1/jobs/batch", 0, "a b", True)
    assert plain_head(head + b"Idempotency-Key:") is None
    assert plain_head(head + b"Prefer: wait") is None
