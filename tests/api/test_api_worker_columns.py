"""A worker that speaks columns: like jobs under one head, successes without rows."""

import pytest
from api_fakes import serving, until
from test_api_worker_stream import linked

from cluster.api import worker_stream


async def test_like_jobs_come_under_one_head_and_the_rest_in_rows(api):
    ids = [int(await api.submit(payload=n, max_retries=2, timeout_seconds=7)) for n in range(4)]
    other = int(await api.submit(payload="other", queue="default", max_retries=1))
    async with linked(api) as link:
        frame = await link.register(speaks=["columns", "klingon"])
        assert frame == ["registered", "w1", 10.0, [], ["columns"]]
        await link.send("credit", 9)
        head = ["like", "t", "default", 7000, 2]
        assert await link.next() == [*head, ids, [1] * 4, [b"0", b"1", b"2", b"3"], None]
        row = [other, 1, "t", "default", b'"other"', 3_600_000, 0, 0, 1]
        assert await link.next() == ["jobs", [row]]


async def test_completed_jobs_are_booked_and_stale_ones_named(api):
    ids = [int(await api.submit()) for _ in range(3)]
    async with linked(api) as link:
        await link.register(speaks=["columns"])
        await link.send("credit", 3)
        await link.next()
        outputs, logs = [b"1", None, b"3"], [None, "line", None]
        await link.send("completed", 1, ids, [1, 1, 2], outputs, logs, 3)
        assert await link.next() == ["ack", 1, [ids[2]]]
        await link.send("completed", 2, [ids[2]], [1])
        assert await link.next() == ["ack", 2, []]
    assert (await api.get(f"/v1/jobs/{ids[0]}"))["output"] == 1
    assert (await api.get(f"/v1/jobs/{ids[1]}"))["output"] is None
    assert (await api.get(f"/v1/jobs/{ids[1]}/logs"))["items"] == [{"attempt": 1, "text": "line"}]
    assert (await api.get(f"/v1/jobs/{ids[2]}"))["status"] == "completed"


async def test_rows_and_columns_share_a_commit(api, node):
    ids = [int(await api.submit()) for _ in range(4)]
    async with linked(api) as link:
        await link.register(speaks=["columns"])
        await link.send("credit", 4)
        await link.next()
        node.raft.held = []
        await link.send("done", 1, [[ids[0], 1]])
        await until(lambda: node.raft.held)
        before = node.proposer.commands_total
        await link.send("completed", 2, [ids[1]], [1])
        await link.send("done", 3, [[ids[2], 1, b"2", "log"], [77, 1]])
        await link.send("completed", 4, [ids[3]], [1], [b"3"])
        connection = next(iter(node.app[worker_stream.CONNECTIONS]))
        await until(lambda: connection._booking.items == 5)
        node.raft.release_held()
        acks = [await link.next() for _ in range(4)]
        assert acks == [["ack", 1, []], ["ack", 2, []], ["ack", 3, [77]], ["ack", 4, []]]
        assert node.proposer.commands_total == before + 1
    outputs = [(await api.get(f"/v1/jobs/{job_id}"))["output"] for job_id in ids]
    assert outputs == [None, None, 2, 3]
    assert (await api.get(f"/v1/jobs/{ids[2]}/logs"))["items"] == [{"attempt": 1, "text": "log"}]


@pytest.mark.parametrize("logs", [None, ["first", "second", "third"]])
async def test_an_output_beyond_the_limit_fails_its_job_alone(tmp_path, logs):
    async with serving(tmp_path, output_max_bytes=10) as api:
        ids = [int(await api.submit()) for _ in range(3)]
        async with linked(api) as link:
            await link.register(speaks=["columns"])
            await link.send("credit", 3)
            await link.next()
            outputs = [b'"small"', b'"far too large"', None]
            await link.send("completed", 1, ids, [1] * 3, outputs, logs)
            assert await link.next() == ["ack", 1, []]
        small, large, none = [await api.get(f"/v1/jobs/{job_id}") for job_id in ids]
        assert (small["output"], none["status"]) == ("small", "completed")
        assert (large["status"], large["error_type"]) == ("failed", "output_too_large")
        kept = [(await api.get(f"/v1/jobs/{job_id}/logs"))["items"] for job_id in ids]
        texts = [[item["text"] for item in items] for items in kept]
        assert texts == ([[text] for text in logs] if logs else [[], [], []])
