"""The conversation between a worker and the leader, frame by frame."""

import asyncio
import gc
import weakref
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import WSMsgType
from api_fakes import serving, until

from cluster.actors.services import Overloaded
from cluster.api import booking, outbox, worker_stream
from cluster.api.frames import SUBPROTOCOL, BadFrame, Done, decode
from cluster.consensus import Outcome

OFFER = {"name": "w", "slots": 4, "queues": ["default"], "tasks": ["t"], "labels": {"zone": "a"}}


class Link:
    """A worker's end of the socket."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, *frame):
        await self.socket.send_bytes(msgspec.msgpack.encode(frame))

    async def next(self):
        """The next frame that is not a heartbeat; None when the node closed."""
        while True:
            async with asyncio.timeout(60):
                message = await self.socket.receive()
            if message.type is not WSMsgType.BINARY:
                return None
            frame = msgspec.msgpack.decode(message.data)
            if frame != ["heartbeat"]:
                return frame

    async def register(self, **offer):
        await self.send("register", {**OFFER, **offer})
        frame = await self.next()
        assert frame[0] == "registered", frame
        return frame


@asynccontextmanager
async def linked(api):
    async with api.client.ws_connect("/v1/workers/stream", protocols=(SUBPROTOCOL,)) as socket:
        assert socket.protocol == SUBPROTOCOL
        yield Link(socket)


async def test_a_worker_registers_takes_jobs_and_reports(api):
    ids = [int(await api.submit(payload={"n": n}, timeout_seconds=9)) for n in range(3)]
    async with linked(api) as link:
        assert await link.register() == ["registered", "w1", 10.0, []]
        worker = await api.get("/v1/workers/w1")
        assert (worker["name"], worker["slots"], worker["labels"]) == ("w", 4, {"zone": "a"})
        assert (worker["status"], worker["protocol"]) == ("active", "stream")
        await link.send("credit", 2)
        kind, jobs = await link.next()
        assert kind == "jobs"
        assert jobs == [
            [ids[0], 1, "t", "default", b'{"n":0}', 9000, 0, 0, 3],
            [ids[1], 1, "t", "default", b'{"n":1}', 9000, 0, 0, 3],
        ]
        await link.send("done", 1, [[ids[0], 1, b'"out"', "log"], [ids[1], 1]], 2)
        frames = [await link.next(), await link.next()]
        assert ["ack", 1, []] in frames
        assert ["jobs", [[ids[2], 1, "t", "default", b'{"n":2}', 9000, 0, 0, 3]]] in frames
        await link.send("failed", 2, [[ids[2], 1, "OSError", "gone", False, "trace"]], 1)
        assert await link.next() == ["ack", 2, []]
    done = await api.get(f"/v1/jobs/{ids[0]}")
    assert (done["status"], done["output"]) == ("completed", "out")
    assert (await api.get(f"/v1/jobs/{ids[0]}/logs"))["items"] == [{"attempt": 1, "text": "log"}]
    failed = await api.get(f"/v1/jobs/{ids[2]}")
    assert (failed["status"], failed["error_type"]) == ("failed", "OSError")


async def test_stale_results_are_named_in_the_ack(api):
    job_id = int(await api.submit())
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 1)
        await link.next()
        await link.send("done", 7, [[job_id, 2, None, None], [999, 1, None, None]])
        assert await link.next() == ["ack", 7, [job_id, 999]]
        await link.send("released", 8, [[job_id, 1], [5, 5]])
        assert await link.next() == ["ack", 8, [5]]
    job = await api.get(f"/v1/jobs/{job_id}")
    assert (job["status"], job["failures"]) == ("pending", 0)


async def test_results_that_arrive_during_a_commit_share_the_next_one(api, node):
    ids = [int(await api.submit()) for _ in range(4)]
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 4)
        await link.next()
        node.raft.held = []
        await link.send("done", 1, [[ids[0], 1]])
        await until(lambda: node.raft.held)
        before = node.proposer.commands_total
        await link.send("done", 2, [[ids[1], 1], [77, 1]])
        await link.send("done", 3, [[ids[2], 1]])
        await link.send("failed", 4, [[ids[3], 1, "E", "m", False]])
        connection = next(iter(node.app[worker_stream.CONNECTIONS]))
        await until(lambda: connection._booking.items == 5)
        node.raft.release_held()
        acks = [await link.next() for _ in range(4)]
        assert acks == [["ack", 1, []], ["ack", 2, [77]], ["ack", 3, []], ["ack", 4, []]]
        assert node.proposer.commands_total == before + 2  # one of both done frames, one failed


async def test_cancel_and_drain_reach_the_worker(api):
    job_id = await api.submit()
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 1)
        await link.next()
        await api("POST", f"/v1/jobs/{job_id}/cancel")
        assert await link.next() == ["cancel", [[int(job_id), 1]]]
        drained = await api("POST", "/v1/workers/w1/drain")
        assert drained.json["status"] == "draining"
        assert await link.next() == ["drain"]


async def test_progress_and_live_logs_are_shown(api, node):
    job_id = await api.submit()
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 1)
        await link.next()
        await link.send("progress", [[int(job_id), 1, 0.25, "a quarter"]])
        await link.send("log", [[int(job_id), 1, "line 1\n"]])
        await until(lambda: node.live.log_text(int(job_id)))
        assert (await api.get(f"/v1/jobs/{job_id}"))["progress"] == {
            "fraction": 0.25,
            "message": "a quarter",
        }
        logs = await api.get(f"/v1/jobs/{job_id}/logs")
        assert logs["items"] == [{"attempt": 1, "text": "line 1\n"}]


async def test_bye_books_what_came_before_and_deregisters(api, node):
    ids = [int(await api.submit()) for _ in range(2)]
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 2)
        await link.next()
        await link.send("done", 1, [[ids[0], 1]])
        await link.send("bye")
        assert await link.next() == ["ack", 1, []]
    await until(lambda: not node.app[worker_stream.CONNECTIONS])
    assert (await api.get("/v1/workers"))["items"] == []
    assert (await api.get(f"/v1/jobs/{ids[0]}"))["status"] == "completed"
    returned = await api.get(f"/v1/jobs/{ids[1]}")
    assert (returned["status"], returned["failures"]) == ("pending", 0)


async def test_a_broken_connection_books_what_came_and_starts_the_grace(api, node):
    job_id = int(await api.submit())
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 1)
        await link.next()
        await link.send("done", 1, [[job_id, 1]])
    await until(lambda: not node.app[worker_stream.CONNECTIONS])
    assert (await api.get(f"/v1/jobs/{job_id}"))["status"] == "completed"
    assert not node.desk.is_connected(1)
    assert (await api.get("/v1/workers/w1"))["status"] == "lost"


async def test_a_worker_that_comes_back_keeps_its_running_jobs(api, node):
    ids = [int(await api.submit()) for _ in range(2)]
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 2)
        await link.next()
    await api("POST", f"/v1/jobs/{ids[1]}/cancel")
    async with linked(api) as link:
        running = [[ids[0], 1], [ids[1], 1]]
        frame = await link.register(worker_id="w1", running=running)
        assert frame == ["registered", "w1", 10.0, [[ids[1], 1]]]
        await link.send("done", 1, [[ids[0], 1]])
        assert await link.next() == ["ack", 1, []]


async def test_an_output_beyond_the_limit_fails_its_job_alone(tmp_path):
    async with serving(tmp_path, output_max_bytes=10) as api:
        ids = [int(await api.submit()) for _ in range(2)]
        async with linked(api) as link:
            await link.register()
            await link.send("credit", 2)
            await link.next()
            await link.send("done", 1, [[ids[0], 1, b'"small"'], [ids[1], 1, b'"far too large"']])
            assert await link.next() == ["ack", 1, []]
        assert (await api.get(f"/v1/jobs/{ids[0]}"))["output"] == "small"
        large = await api.get(f"/v1/jobs/{ids[1]}")
        assert (large["status"], large["error_type"]) == ("failed", "output_too_large")


@pytest.mark.parametrize(
    "first",
    [
        msgspec.msgpack.encode(["heartbeat"]),
        msgspec.msgpack.encode(["register"]),
        msgspec.msgpack.encode(["register", {**OFFER, "slots": 0}]),
        msgspec.msgpack.encode(["register", {**OFFER, "worker_id": "seven"}]),
        b"\xc1",
        b"",
    ],
)
async def test_a_bad_registration_is_told_and_closed(api, first):
    async with linked(api) as link:
        await link.socket.send_bytes(first)
        frame = await link.next()
        assert frame[:2] == ["error", "bad_frame"]
        assert await link.next() is None


@pytest.mark.parametrize(
    "frame",
    [
        ["done", "x", []],
        ["done", 1, [[1 << 63, 1]]],
        ["failed", 1, [[1, -1, "E", "m"]]],
        ["completed", 1, [5, 6], [1]],
        ["completed", 1, [5, 6], [1, 1], [None]],
        ["credit"],
        ["credit", 1 << 40],
        [["done"]],
        {},
        ["register", {}],
    ],
)
async def test_a_malformed_frame_is_told_and_closed(api, frame):
    async with linked(api) as link:
        await link.register()
        await link.socket.send_bytes(msgspec.msgpack.encode(frame))
        assert (await link.next())[:2] == ["error", "bad_frame"]
        assert await link.next() is None


async def test_text_frames_are_malformed(api):
    async with linked(api) as link:
        await link.register()
        await link.socket.send_str("hello")
        assert (await link.next())[:2] == ["error", "bad_frame"]


async def test_unknown_frames_and_further_fields_are_ignored(api):
    async with linked(api) as link:
        await link.register(shoe_size=43)
        await link.send("wave", 1, 2)
        await link.send("heartbeat", "extra")
        await link.send("done", 5, [], 0, "extra")
        assert await link.next() == ["ack", 5, []]


async def test_a_node_that_stops_leading_sends_its_workers_on(api, node):
    async with linked(api) as link:
        await link.register()
        node.raft.follow("other", "http://127.0.0.1:1")
        assert await link.next() == ["moved", "http://127.0.0.1:1"]
        assert await link.next() is None


async def test_results_of_unknown_outcome_are_not_acknowledged(api, node):
    job_id = int(await api.submit())
    async with linked(api) as link:
        await link.register()
        await link.send("credit", 1)
        await link.next()
        node.raft.fate = Outcome.UNKNOWN
        await link.send("done", 1, [[job_id, 1]])
        assert await link.next() == ["moved", node.raft.leader_http]


async def test_a_follower_refuses_the_upgrade_and_names_the_leader(api, node):
    node.raft.follow("other", "http://127.0.0.1:1")
    answer = await api(
        "GET", "/v1/workers/stream", Upgrade="websocket", Connection="Upgrade",
        Sec_WebSocket_Version="13", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    assert (answer.status, answer.code) == (503, "not_leader")
    assert answer.json["leader"] == "http://127.0.0.1:1"
    node.raft.follow(None, None)
    assert (await api("GET", "/v1/workers/stream")).json["leader"] is None


async def test_the_stream_is_no_ordinary_resource(api):
    answer = await api("GET", "/v1/workers/stream")
    assert (answer.status, answer.code) == (426, "upgrade_required")


async def test_heartbeats_flow_and_silence_ends_the_link(tmp_path):
    async with serving(tmp_path, worker_ttl_seconds=0.15) as api, linked(api) as link:
        await link.register()
        beats = 0
        async with asyncio.timeout(60):
            while (message := await link.socket.receive()).type is WSMsgType.BINARY:
                assert msgspec.msgpack.decode(message.data) == ["heartbeat"]
                beats += 1
        assert beats >= 1
        await until(lambda: not api.node.app[worker_stream.CONNECTIONS])


async def test_a_worker_that_reads_nothing_is_cut_off(api, node, monkeypatch):
    monkeypatch.setattr(outbox, "BYTES_MAX", 1 << 20)
    async with linked(api) as link:
        await link.register()
        connection = next(iter(node.app[worker_stream.CONNECTIONS]))
        await until(lambda: node.desk.is_connected(1))
        for _ in range(20):
            connection._outbox.put(b"\x91\xa1x" + b"\xc0" * 100_000)
        assert connection._outbox.closing
        await until(lambda: not node.desk.is_connected(1))


async def test_too_many_results_stop_the_reading(api, node, monkeypatch):
    monkeypatch.setattr(worker_stream, "RESULTS_WAITING_MAX", 5)
    async with linked(api) as link:
        await link.register()
        node.raft.held = []
        for seq in range(10):
            await link.send("done", seq, [[1000 + seq, 1], [2000 + seq, 1]])
        connection = next(iter(node.app[worker_stream.CONNECTIONS]))
        await until(lambda: connection._booking.items > 5)
        assert connection._booking.items < 20
        node.raft.release_held()
        for seq in range(10):
            assert await link.next() == ["ack", seq, [1000 + seq, 2000 + seq]]


async def test_results_wait_while_the_leader_has_too_much_to_do(api, node, monkeypatch):
    monkeypatch.setattr(booking, "OVERLOAD_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(booking, "OVERLOAD_TRIES_MAX", 3)
    add, calls = node.desk.completions.add, []

    def busy(report):
        calls.append(report)
        if len(calls) in (1, 2) or len(calls) > 3:
            raise Overloaded("busy")
        add(report)

    node.desk.completions.add = busy
    async with linked(api) as link:
        await link.register()
        await link.send("done", 1, [[5, 1]])
        assert await link.next() == ["ack", 1, [5]]
        await link.send("done", 2, [[5, 1]])
        assert await link.next() == ["error", "try_again", "busy"]
        assert await link.next() is None
    assert len(calls) == 6


async def test_a_connection_that_is_closed_needs_no_collector(api, node):
    """What is part of a cycle stays for as long as the node runs: the collector looks at what is
    old once in fifty million objects."""
    job_id = int(await api.submit())
    gc.collect()
    gc.disable()
    try:
        async with linked(api) as link:
            await link.register()
            await link.send("credit", 1)
            await link.next()
            await link.send("done", 1, [[job_id, 1]])
            assert await link.next() == ["ack", 1, []]
            (connection,) = node.app[worker_stream.CONNECTIONS]
            watched = weakref.ref(connection)
            del connection
        await until(lambda: not node.app[worker_stream.CONNECTIONS])
        await until(lambda: watched() is None)
    finally:
        gc.enable()


async def test_a_stopping_node_sends_its_workers_on(tmp_path):
    async with serving(tmp_path) as api, linked(api) as link:
        await link.register()
        await worker_stream.close_all(api.node.app)
        assert (await link.next())[0] == "moved"


def test_frames_of_this_release_are_understood_without_trailing_fields():
    frame = decode(msgspec.msgpack.encode(["done", 1, [[7, 2]]]))
    assert isinstance(frame, Done)
    assert (frame.items[0].job_id, frame.items[0].output, frame.credit) == (7, None, 0)
    assert decode(msgspec.msgpack.encode(["news", 1])) is None
    with pytest.raises(BadFrame):
        decode(msgspec.msgpack.encode(["done", 1, [[7]]]))
