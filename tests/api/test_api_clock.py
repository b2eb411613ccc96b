"""/v1/cluster/clock: what a node tells of its clock, what it asks others, an operator's word."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from api_fakes import NOW_MS, Api, FakeNode

from cluster.actors.clockwatch import AskError
from cluster.actors.peerclocks import ClockAnswer
from cluster.api.peerclock import READING_PATH, PeerClockClient

HOUR_MS = 3_600_000


def jump(node: FakeNode, off_ms: int) -> None:
    node.clock.set_now(NOW_MS + off_ms)


async def test_a_node_shows_its_clock(api: Api) -> None:
    shown = await api.get("/v1/cluster/clock")
    assert (shown["standing"], shown["refused"], shown["off_seconds"]) == ("alone", False, 0.0)
    assert shown["wall"] == shown["now"] == "2026-11-18T11:06:40.000Z"
    assert (shown["releases"], shown["version"]) == ("tzdata 1", "1.0")
    assert shown["warnings"] == shown["peers"] == []


async def test_a_refused_clock_is_seen_everywhere_and_the_node_stays_ready(
    api: Api, node: FakeNode
) -> None:
    jump(node, HOUR_MS)
    shown = await api.get("/v1/cluster/clock")
    assert (shown["standing"], shown["off_seconds"]) == ("refused", 3600.0)
    assert (shown["wall"], shown["now"]) == ("2026-11-18T12:06:40.000Z", "2026-11-18T11:06:40.000Z")
    [warning] = shown["warnings"]
    assert "quorate cluster clock --accept" in warning
    assert (await api.get("/v1/cluster"))["warnings"] == [warning]
    ready = await api.get("/readyz?verbose")
    assert (ready["status"], ready["warnings"]) == ("ok", [warning])


async def test_jobs_keep_to_the_time_that_the_node_runs_at(api: Api, node: FakeNode) -> None:
    jump(node, HOUR_MS)
    job_id = await api.submit(delay_seconds=60)
    assert (await api.get(f"/v1/jobs/{job_id}"))["scheduled_at"] == "2026-11-18T11:07:40.000Z"


async def test_an_operator_accepts_the_clock(api: Api, node: FakeNode) -> None:
    jump(node, -HOUR_MS)
    await api.get("/v1/cluster/clock")
    answer = await api("POST", "/v1/cluster/clock/accept")
    assert (answer.status, answer.json["refused"]) == (200, False)
    assert answer.json["standing"] == "accepted"
    assert answer.json["now"] == "2026-11-18T10:06:40.000Z"
    again = await api("POST", "/v1/cluster/clock/accept")
    assert (again.status, again.json["standing"]) == (200, "accepted")


async def test_accepting_reaches_the_leader(pair: tuple[Api, Api]) -> None:
    leader, follower = pair
    jump(leader.node, HOUR_MS)
    jump(follower.node, 3 * HOUR_MS)
    answer = await follower("POST", "/v1/cluster/clock/accept")
    assert answer.json["now"] == "2026-11-18T12:06:40.000Z"
    assert (await follower.get("/v1/cluster/clock"))["standing"] == "refused"
    asked = await follower.get("/v1/cluster/clock?consistency=leader")
    assert asked["standing"] == "accepted"


async def test_members_have_versions_and_skews(api: Api, node: FakeNode) -> None:
    node.raft.members["b"] = "voter"
    answer = ClockAnswer(node_id="b", wall_ms=NOW_MS + 1_500, now_ms=0, version="2", releases="t 2")
    node.clocks.peers.answered("b", answer, 0, 0)
    for path in ("/v1/cluster", "/v1/cluster/members"):
        rows = {row["id"]: row for row in (await api.get(path))["members"]}
        own = rows[node.raft.node_id]
        assert (own["version"], own["releases"], own["clock_skew_seconds"]) == (
            "1.0",
            "tzdata 1",
            0,
        )
        assert (rows["b"]["version"], rows["b"]["releases"]) == ("2", "t 2")
        assert rows["b"]["clock_skew_seconds"] == 1.5
    assert "b: t 2" in (await api.get("/v1/cluster"))["warnings"][0]


async def test_one_node_reads_anothers_clock(api: Api, node: FakeNode) -> None:
    jump(node, HOUR_MS)
    client = PeerClockClient()
    answer = await client.ask(api.url)
    await client.close()
    assert answer == ClockAnswer(
        node_id=node.raft.node_id,
        wall_ms=NOW_MS + HOUR_MS,
        now_ms=NOW_MS,
        refused=True,
        version="1.0",
        releases="tzdata 1",
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "[]"), (200, "{}"), (404, "{}"), (302, "{}"), (200, " " * 5_000)],
    ids=["no reading", "half a reading", "not there", "elsewhere", "endless"],
)
async def test_what_is_no_reading_is_refused(status: int, body: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_get(READING_PATH, handler)
    client = PeerClockClient()
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        with pytest.raises(AskError):
            await client.ask(url)
    with pytest.raises(AskError):
        await client.ask(url)  # nobody listens any more
    await client.close()
