"""Any node answers any request: a follower passes it on to the leader, or says why it cannot."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from api_fakes import until

from cluster.api import forwarding
from cluster.api.app import TABLE
from cluster.api.forwarding import Forwarding

T = {"name": "t"}


@asynccontextmanager
async def leader_that(handler):
    """A leader that is no Quorate node at all, and does with requests what `handler` does."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_a_follower_answers_like_the_leader(pair):
    leader, follower = pair
    created = await follower("POST", "/v1/jobs", T, Idempotency_Key="k")
    assert (created.status, created.headers["Location"]) == (201, "/v1/jobs/1")
    assert created.headers["X-Quorate-Leader"] == leader.url
    assert created.headers["X-Quorate-Index"] == "1001"
    again = await leader("POST", "/v1/jobs", T, Idempotency_Key="k")
    assert (again.json, again.headers["Idempotency-Replayed"]) == (created.json, "true")
    assert await follower.get("/v1/jobs/1") == created.json
    listed = await follower.get("/v1/jobs?limit=1&status=pending")
    assert [job["job_id"] for job in listed["items"]] == ["1"]
    assert (await follower("PUT", "/v1/jobs/1/complete", {"attempt": 5})).code == "stale_attempt"
    assert (await follower("DELETE", "/v1/schedules/x")).code == "unknown_schedule"
    assert (await follower("GET", "/jobs/1")).status == 200
    assert (await follower("HEAD", "/v1/jobs/1")).status == 200
    assert len(follower.node.raft.state.tables.jobs) == 0


async def test_bodies_of_any_size_pass_both_ways(pair):
    leader, follower = pair
    jobs = [{"name": "t", "payload": "x" * 3000} for _ in range(1000)]
    answer = await follower("POST", "/v1/jobs/batch", jobs)
    assert (answer.status, len(answer.json["ids"])) == (201, 1000)
    page = await follower("GET", "/v1/jobs?limit=500")
    assert len(page.raw) > forwarding.WHOLE_BYTES_MAX
    assert page.raw == (await leader("GET", "/v1/jobs?limit=500")).raw

    async def pieces():
        for job in jobs[:50]:
            yield msgspec.json.encode(job) + b"\n"
            await asyncio.sleep(0)

    headers = {"Content-Type": "application/x-ndjson"}
    streamed = await follower.client.post("/v1/jobs/batch", data=pieces(), headers=headers)
    assert (streamed.status, len((await streamed.json())["ids"])) == (201, 50)


async def test_a_follower_answers_for_itself_where_it_can(pair):
    _, follower = pair
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/cluster"):
        answer = await follower("GET", path)
        assert (answer.status, answer.headers["X-Quorate-Index"]) == (200, "0"), path
    stale = await follower("GET", "/v1/stats?consistency=stale")
    assert (stale.status, stale.headers["X-Quorate-Index"]) == (200, "0")
    assert (await follower("GET", "/v1/workers?consistency=stale")).json["items"] == []


async def test_headers_pass_and_the_way_is_noted(api, node):
    seen = {}

    async def leader(request):
        seen.update(request.headers)
        return web.Response(status=299, text="ok", headers={"X-Own": "1", "Connection": "close"})

    async with leader_that(leader) as url:
        node.raft.follow("a", url)
        answer = await api("POST", "/v1/jobs", T, X_Custom="y", Idempotency_Key="k", Origin=api.url)
    assert (answer.status, answer.raw, answer.headers["X-Own"]) == (299, b"ok", "1")
    assert seen["X-Custom"] == "y" and seen["Idempotency-Key"] == "k"
    assert seen["X-Forwarded-By"] == node.raft.node_id
    assert seen["Host"] == url.removeprefix("http://")
    assert seen["Content-Type"] == "application/json" and "Origin" not in seen


async def test_without_a_leader_there_is_no_quorum(api, node, monkeypatch):
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.05)
    node.raft.follow(None, None)
    for method, body in (("GET", None), ("POST", T)):
        answer = await api(method, "/v1/jobs", body)
        assert (answer.status, answer.code) == (503, "no_quorum")
        assert answer.headers["Retry-After"] == "1"
        assert "X-Quorate-Leader" not in answer.headers
    assert (await api("GET", "/v1/jobs?consistency=stale")).status == 200


async def test_a_request_waits_for_the_end_of_an_election(api, node):
    node.raft.follow(None, None)
    request = asyncio.create_task(api("POST", "/v1/jobs", T))
    await asyncio.sleep(0.05)
    node.raft.is_leader = True
    node.raft.leader_id = node.raft.node_id
    assert (await request).status == 201


async def test_leadership_that_moves_during_a_request_moves_the_request(pair):
    leader, follower = pair
    old = leader.node.raft  # the one that is asked, and leads until the proposal is refused
    follower.node.raft.is_leader = True
    follower.node.raft.leader_id = "b"

    def refuse(group):
        old.follow("b", follower.url)
        return submit(group)

    submit = leader.node.services.submissions.submit
    leader.node.services.submissions.submit = refuse
    answer = await leader("POST", "/v1/jobs", {**T, "payload": "kept"})
    assert answer.status == 201
    assert follower.node.raft.state.tables.jobs[1].payload == b'"kept"'


async def test_requests_do_not_go_round_in_circles(pair, monkeypatch):
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.05)
    leader, follower = pair
    leader.node.raft.follow("b", follower.url)  # each takes the other for the leader
    answer = await follower("POST", "/v1/jobs", T)
    assert (answer.status, answer.code) == (503, "no_quorum")


async def test_a_dead_leader_is_no_quorum_until_another_leads(pair, monkeypatch):
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.1)
    leader, follower = pair
    follower.node.raft.follow("c", f"http://127.0.0.1:{unused_port()}")
    answer = await follower("POST", "/v1/jobs", T)
    assert (answer.status, answer.code) == (503, "no_quorum")
    request = asyncio.create_task(follower("POST", "/v1/jobs", {**T, "payload": "y" * 5000}))
    await asyncio.sleep(0.03)
    follower.node.raft.follow("a", leader.url)
    assert (await request).status == 201


async def test_an_answer_that_got_lost_is_an_unknown_outcome(api, node, monkeypatch):
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.05)
    asked = []

    async def vanishing(request):
        asked.append((request.method, await request.read()))
        request.transport.abort()
        return web.Response()

    async with leader_that(vanishing) as url:
        node.raft.follow("a", url)
        answer = await api("POST", "/v1/jobs", T)
        assert (answer.status, answer.code) == (504, "outcome_unknown")
        assert asked == [("POST", msgspec.json.encode(T))]
        asked.clear()
        answer = await api("GET", "/v1/jobs/1")
        assert (answer.status, answer.code) == (503, "no_quorum")
        assert len(asked) >= 2  # reading again does no harm


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/schedules/x"), ("POST", "/v1/jobs")])
async def test_nothing_is_sent_twice_when_a_kept_connection_breaks(api, node, method, path):
    """aiohttp repeats DELETE by itself: found by killing leaders, two of whose clients were told
    that somebody else had deleted a schedule."""
    asked = []

    async def vanishing(request):
        asked.append(request.method)
        if request.method == "GET":
            return web.json_response({})  # keeps the connection
        request.transport.abort()
        return web.Response()

    async with leader_that(vanishing) as url:
        node.raft.follow("a", url)
        assert (await api("GET", "/v1/stats")).status == 200
        answer = await api(method, path, T if method == "POST" else None)
    assert (answer.status, answer.code) == (504, "outcome_unknown")
    assert asked == ["GET", method]


async def test_a_silent_leader_is_not_waited_for_when_another_leads(pair):
    leader, follower = pair
    asked, silence = asyncio.Queue(), asyncio.Event()

    async def silent(request):
        await asked.put(request.method)
        await silence.wait()
        return web.Response()

    async with leader_that(silent) as url:
        follower.node.raft.follow("c", url)
        reading = asyncio.create_task(follower("GET", "/v1/stats"))
        writing = asyncio.create_task(follower("POST", "/v1/jobs", T))
        assert {await asked.get(), await asked.get()} == {"GET", "POST"}
        follower.node.raft.follow("a", leader.url)
        assert (await reading).status == 200  # asked again, of the new leader
        answer = await writing
        silence.set()
    assert (answer.status, answer.code) == (504, "outcome_unknown")


async def test_a_leader_that_handed_over_may_still_answer(pair):
    leader, follower = pair
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request):
        asked.set()
        await go_on.wait()
        return web.json_response({}, status=201)

    async with leader_that(slow) as url:
        follower.node.raft.follow("c", url)
        writing = asyncio.create_task(follower("POST", "/v1/jobs", T))
        await asked.wait()
        follower.node.raft.follow("a", leader.url)
        go_on.set()
        assert (await writing).status == 201


async def test_a_silent_leader_is_given_up(api, node, monkeypatch):
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.05)
    silence = asyncio.Event()

    async def silent(request):
        await silence.wait()
        return web.Response()

    for row in TABLE:
        monkeypatch.setitem(row.__dict__, "patience_s", 0.05)
    async with leader_that(silent) as url:
        node.raft.follow("a", url)
        answer = await api("POST", "/v1/jobs", T)
        assert (answer.status, answer.code) == (504, "outcome_unknown")
        silence.set()


@asynccontextmanager
async def hanging_leader():
    """Takes requests and never answers, as a suspended process does."""
    silence = asyncio.Event()
    asked = asyncio.Queue()

    async def hang(request):
        asked.put_nowait(request.path)
        await silence.wait()
        return web.Response()

    async with leader_that(hang) as url:
        try:
            yield url, asked
        finally:
            silence.set()


async def test_a_hanging_leader_is_given_up_once_another_leads(pair, monkeypatch):
    monkeypatch.setattr(forwarding, "SUPERSEDED_SECONDS", 0.05)
    leader, follower = pair
    await leader.submit()
    async with hanging_leader() as (url, asked):
        follower.node.raft.follow("c", url)
        reading = asyncio.create_task(follower("GET", "/v1/jobs/1?wait=300"))
        asking = asyncio.create_task(follower("POST", "/v1/jobs/status", {"ids": ["1"]}))
        writing = asyncio.create_task(follower("POST", "/v1/jobs", T))
        for _ in range(3):
            await asked.get()
        follower.node.raft.follow("a", leader.url)
        assert (await asking).json["items"][0]["status"] == "pending"
        answer = await writing
        assert (answer.status, answer.code) == (504, "outcome_unknown")
        assert (await leader("POST", "/v1/jobs/1/cancel")).status == 200
        assert (await reading).json["status"] == "cancelled"
    assert len(leader.node.raft.state.tables.jobs) == 0  # the write was not sent twice


async def test_a_leader_that_is_back_in_time_is_waited_for(api, node, monkeypatch):
    monkeypatch.setattr(forwarding, "LEADERLESS_SECONDS", 0.02)
    monkeypatch.setattr(forwarding, "SUPERSEDED_SECONDS", 0.02)
    struck = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(request):
        await go_on.wait()
        return web.Response(status=299)

    async with leader_that(slow) as url:
        node.raft.follow("a", url)
        request = asyncio.create_task(api("POST", "/v1/jobs", T))
        await until(lambda: forwarding_of(node)._waiting)
        node.raft.follow(None, None)  # its connection broke; it still leads
        node.raft.follow("a", url)
        asyncio.get_running_loop().call_later(0.06, struck.set)
        await struck.wait()
        go_on.set()
        assert (await request).status == 299


async def test_an_earlier_change_of_leader_ends_no_later_request(api, node, monkeypatch):
    """Several transfers in a row: each request has the grace of its own leader's end."""
    monkeypatch.setattr(forwarding, "SUPERSEDED_SECONDS", 0.02)
    monkeypatch.setattr(forwarding, "LEADERLESS_SECONDS", 30)
    go_on = asyncio.Event()

    async def slow(request):
        await go_on.wait()
        return web.Response(status=299)

    async with leader_that(slow) as first, leader_that(slow) as second:
        node.raft.follow("a", first)
        early = asyncio.create_task(api("POST", "/v1/jobs", T))
        await until(lambda: len(forwarding_of(node)._waiting) == 1)
        node.raft.follow("b", second)
        late = asyncio.create_task(api("POST", "/v1/jobs", T))
        await until(lambda: len(forwarding_of(node)._waiting) == 2)
        node.raft.follow(None, None)
        assert (await early).code == "outcome_unknown"
        go_on.set()
        assert (await late).status == 299


def forwarding_of(node):
    (middleware,) = [m for m in node.app.middlewares if isinstance(m.__self__, Forwarding)]
    return middleware.__self__


async def test_a_leader_that_takes_no_body_is_given_up(api, node, monkeypatch):
    for row in TABLE:
        monkeypatch.setitem(row.__dict__, "patience_s", 0.2)

    async def deaf(reader, writer):
        await stop.wait()
        writer.close()

    stop = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1 << 10)
    node.raft.follow("a", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    answer = await api("POST", "/v1/jobs", b'{"name":"' + b"t" * (24 << 20) + b'"}')
    assert (answer.status, answer.code) == (504, "outcome_unknown")
    stop.set()
    server.close()


async def test_requests_that_wait_for_the_leader_are_bounded(api, node, monkeypatch):
    monkeypatch.setattr(forwarding, "FORWARDED_MAX", 2)
    monkeypatch.setattr(forwarding, "LEADER_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(forwarding, "LEADERLESS_SECONDS", 0.01)
    async with hanging_leader() as (url, asked):
        node.raft.follow("a", url)
        waiting = [asyncio.create_task(api("GET", "/v1/stats")) for _ in range(2)]
        for _ in waiting:
            await asked.get()
        answer = await api("GET", "/v1/stats")
        assert (answer.status, answer.code) == (503, "overloaded")
        node.raft.follow(None, None)
        assert [(await each).code for each in waiting] == ["no_quorum"] * 2
    assert forwarding_of(node)._waiting == {}
