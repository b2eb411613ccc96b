"""What links and the outbox promise about dead peers, strange frames and resending."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from fake_cluster import FakeCluster, StartWorker, pack, unpack

from quorate import QuorateError, Scheduler, Worker, WorkerRefused
from quorate.worker import frames
from quorate.worker.outbox import FRAME_BYTES_MAX, Outbox


def test_frames_of_a_later_release_are_read() -> None:
    assert frames.decode(pack(["weather", 1, {}])) is None
    assert frames.decode(pack(["ack", 3, [], "new field"])) == frames.Ack(3)
    assert frames.decode(pack(["jobs", [[1, 2, "a"]]])) == frames.Jobs(
        [frames.Assignment(1, 2, "a")]
    )
    for bad in (pack(["jobs", 3]), pack(3), b"\xc1", b""):
        with pytest.raises(msgspec.MsgspecError):
            frames.decode(bad)


async def test_results_gather_and_stay_held_until_acknowledged() -> None:
    outbox = Outbox()
    outbox.done((1, 1), b"1", None)
    outbox.done((2, 1), None, "log")
    outbox.failed((3, 2), "ValueError", "bad", True, None)
    outbox.released((4, 1))
    outbox.credit(4)
    sent = [unpack(frame) for frame in outbox.frames()]
    assert sent == [
        ["done", 1, [[1, 1, b"1", None], [2, 1, None, "log"]], 4],
        ["failed", 2, [[3, 2, "ValueError", "bad", True, None]], 0],
        ["released", 3, [[4, 1]], 0],
    ]
    assert outbox.frames() == []
    outbox.ack(1)
    assert outbox.held == {(3, 2), (4, 1)}
    outbox.restart([(4, 1)], 7)
    again = [unpack(frame) for frame in outbox.frames()]
    assert again == [["failed", 4, [[3, 2, "ValueError", "bad", True, None]], 7]]
    outbox.ack(3)  # of the connection before: means nothing now
    assert outbox.held == {(3, 2)}
    outbox.ack(4)
    await outbox.wait_empty()


async def test_a_node_that_reads_columns_gets_successes_without_rows() -> None:
    outbox = Outbox()
    outbox.columns = True
    outbox.done((1, 1), None, None)
    outbox.done((2, 3), None, None)
    outbox.credit(2)
    assert [unpack(frame) for frame in outbox.frames()] == [
        ["completed", 1, [1, 2], [1, 3], None, None, 2]
    ]
    outbox.done((3, 1), b"3", None)
    outbox.done((4, 1), None, "log")
    outbox.released((5, 1))
    assert [unpack(frame) for frame in outbox.frames()] == [
        ["completed", 2, [3, 4], [1, 1], [b"3", None], [None, "log"], 0],
        ["released", 3, [[5, 1]], 0],
    ]
    outbox.ack(1)
    assert outbox.held == {(3, 1), (4, 1), (5, 1)}
    outbox.columns = False  # the next leader is of an older release
    outbox.restart([(4, 1)], 0)
    assert [unpack(frame) for frame in outbox.frames()] == [
        ["done", 4, [[3, 1, b"3", None]], 0],
        ["released", 5, [[5, 1]], 0],
    ]


async def test_large_results_are_spread_over_frames() -> None:
    outbox = Outbox()
    for number in range(5):
        outbox.done((number, 1), b"x" * (FRAME_BYTES_MAX // 2), None)
    outbox.credit(5)
    sent = [unpack(frame) for frame in outbox.frames()]
    assert [len(frame[2]) for frame in sent] == [1, 1, 1, 1, 1]
    assert [frame[3] for frame in sent] == [5, 0, 0, 0, 0]


async def test_a_flood_of_live_log_is_cut() -> None:
    outbox = Outbox()
    for _ in range(1000):
        outbox.log((1, 1), "x" * 10_000)
    size = sum(len(frame) for frame in outbox.frames())
    assert 500_000 < size < 1_200_000


async def test_a_silent_node_is_left(fake: FakeCluster, start_worker: StartWorker) -> None:
    fake.ttl_seconds = 0.3
    fake.silent = True
    await start_worker()
    first = fake.workers["w1"]
    await fake.until(lambda: fake.workers["w1"] is not first)
    fake.silent = False
    assert fake.workers["w1"].hello["worker_id"] == "w1"


async def test_an_idle_worker_beats_its_heart(fake: FakeCluster, start_worker: StartWorker) -> None:
    fake.ttl_seconds = 2.0  # a busy machine stands still for less
    await start_worker()
    link = fake.workers["w1"]
    await fake.until(lambda: link.frames.count(["heartbeat"]) >= 4)
    assert fake.workers["w1"] is link


async def test_a_drain_by_the_cluster_ends_the_worker(
    fake: FakeCluster, app: Scheduler, start_worker: StartWorker
) -> None:
    gate = asyncio.Event()

    @app.task()
    async def work() -> str:
        await gate.wait()
        return "done"

    worker = await start_worker(app, grace=0)  # a drain waits for jobs, whatever the grace
    handle = await work.submit()
    link = fake.workers["w1"]
    await fake.until(lambda: fake.status(int(handle.id)) == "running")
    assert link.socket is not None
    await link.socket.send_bytes(pack(["drain"]))
    await fake.until(lambda: ["drain"] in link.frames)
    gate.set()
    async with asyncio.timeout(60):
        await worker.task  # type: ignore[attr-defined]
    assert await handle.result(60) == "done"
    assert link.frames[-1] == ["bye"]


async def test_a_refused_registration_ends_the_worker(fake: FakeCluster) -> None:
    fake.refuse_workers = ("validation", "slots is too large")
    with pytest.raises(WorkerRefused, match="slots is too large"):
        async with asyncio.timeout(60):
            await Worker(nodes=fake.urls).run()


async def test_a_worker_waits_for_a_cluster_that_is_not_there_yet(
    fake: FakeCluster, start_worker: StartWorker, app: Scheduler
) -> None:
    for node in fake.nodes:
        await node.stop()
    worker = Worker(app, nodes=fake.urls)
    async with worker:
        for node in fake.nodes:
            await node.start()
        async with asyncio.timeout(60):
            await worker.registered.wait()
    assert fake.workers == {}


async def test_leaving_with_results_that_nobody_took_is_an_error(
    fake: FakeCluster, app: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorate.worker.DELIVER_SECONDS", 0.2)
    monkeypatch.setattr("quorate.worker.stream.LEAVE_SECONDS", 0.2)
    worker = Worker(app, nodes=fake.urls)
    task = asyncio.ensure_future(worker.run())
    await worker.registered.wait()
    fake.acking = False
    await app.submit("simulate")
    link = fake.workers["w1"]
    await fake.until(lambda: [frame for frame in link.frames if frame[0] == "done"])
    worker.stop()
    with pytest.raises(QuorateError, match="1 results could not be delivered"):
        async with asyncio.timeout(60):
            await task
