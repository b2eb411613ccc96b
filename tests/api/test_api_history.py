"""/v1/cluster/history: a node that lacks history fetches it over HTTP, and says so until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from api_fakes import Api

from cluster.actors.fetcher import AskError, AskLaterError, Fetcher
from cluster.api.peerhistory import HISTORY_PATH, PIECE_PATH, PeerHistoryClient
from cluster.api.routing import HISTORY_HEADER
from cluster.consensus import PeerStatus
from cluster.history.gaps import Place
from cluster.history.parcel import Seal

STALE = "/v1/jobs?consistency=stale"


@pytest.fixture
async def source() -> AsyncIterator[PeerHistoryClient]:
    client = PeerHistoryClient()
    yield client
    await client.close()


async def finish(api: Api, count: int) -> int:
    """Jobs that ended, all of them in the history; the log entry up to which."""
    ids = [int(await api.submit(payload=n)) for n in range(count)]
    worker = await api.worker()
    taken: set[int] = set()
    while taken < set(ids):
        jobs = await worker.take()
        taken |= {job.job_id for job in jobs}
        given, attempts = [job.job_id for job in jobs], [job.attempt for job in jobs]
        await api.node.desk.complete(worker.id, given, attempts, None, None)
    index = api.node.raft.applied_index
    await api.node.history.flushed(index)
    return index


def knows(follower: Api, leader: Api) -> None:
    """As if the follower had been started from the leader's snapshot."""
    node = follower.node
    node.raft.state = leader.node.raft.state
    node.raft.applied_index = leader.node.raft.applied_index
    address = leader.url.removeprefix("http://")
    node.raft.peers = [PeerStatus("a", True, {"http": address}, 0, 0.0)]
    node.history.skip_to(node.raft.applied_index, node.raft.state.now_ms)


async def fetched(follower: Api, source: PeerHistoryClient) -> Fetcher:
    """What the follower's fetcher has done once nothing is lacking."""
    node = follower.node
    raft = node.services.raft
    fetcher = node.services.fetcher = Fetcher(raft, node.history, source, None, 1e9)
    task = asyncio.create_task(fetcher.run())
    async with asyncio.timeout(20):
        while not node.history.is_complete:  # noqa: ASYNC110  (nobody signals it)
            await asyncio.sleep(0.01)
    task.cancel()
    return fetcher


async def test_a_node_that_skipped_entries_fetches_what_they_finished(
    pair: tuple[Api, Api], source: PeerHistoryClient
) -> None:
    leader, follower = pair
    await finish(leader, 30)
    knows(follower, leader)
    before = await follower("GET", STALE)
    assert before.headers[HISTORY_HEADER] == "incomplete"
    assert before.json["items"] == []
    await fetched(follower, source)
    after = await follower("GET", STALE)
    assert HISTORY_HEADER not in after.headers
    assert after.json["items"] == (await leader.get(STALE))["items"] != []
    shown = await follower.get(HISTORY_PATH)
    assert (shown["complete"], shown["activity"], shown["lacks"]) == (True, "complete", [])
    assert shown["rows_fetched"] == 30
    assert shown["bytes_fetched"] > 30
    assert shown["pieces_refused"] == 0


async def test_what_lacks_is_shown(pair: tuple[Api, Api]) -> None:
    leader, follower = pair
    index = await finish(leader, 1)
    knows(follower, leader)
    shown = await follower.get(HISTORY_PATH)
    assert shown["complete"] is False
    assert [(lack["first_index"], lack["last_index"]) for lack in shown["lacks"]] == [(1, index)]
    assert shown["lacks"][0]["until"].endswith("Z")
    shown = await leader.get(HISTORY_PATH)
    assert (shown["complete"], shown["complete_to"], shown["cluster_id"]) == (True, index, "c1")


async def test_a_job_that_may_be_in_what_lacks_is_not_said_to_be_unknown_for_sure(
    pair: tuple[Api, Api],
) -> None:
    leader, follower = pair
    await finish(leader, 1)
    knows(follower, leader)
    answer = await follower("GET", "/v1/jobs/1?consistency=stale")
    assert (answer.status, answer.code) == (404, "unknown_job")
    assert answer.headers[HISTORY_HEADER] == "incomplete"
    assert "history is incomplete" in answer.json["detail"]
    answer = await follower("GET", "/v1/jobs/77?consistency=stale")
    assert (answer.status, HISTORY_HEADER in answer.headers) == (404, False)


async def test_other_answers_say_nothing_of_it(pair: tuple[Api, Api]) -> None:
    leader, follower = pair
    await finish(leader, 1)
    knows(follower, leader)
    for path, says in (("/v1/cluster", False), ("/v1/stats?consistency=stale", False)):
        answer = await follower("GET", path)
        assert (answer.status, HISTORY_HEADER in answer.headers) == (200, says)


async def test_a_piece_is_refused_by_a_node_that_lacks_it(
    api: Api, source: PeerHistoryClient
) -> None:
    answer = await api("GET", f"{PIECE_PATH}?index=5&last_index=9")
    assert (answer.status, answer.code) == (409, "history_lacking")
    with pytest.raises(AskError, match="409: this node's history lacks log entry 5"):
        await source.piece(api.url, Place(5), 9, 0)
    for query in ("index=0&last_index=9", "last_index=9", "index=1&last_index=9&after_id=-1"):
        assert (await api("GET", f"{PIECE_PATH}?{query}")).status == 422


async def test_a_piece_is_sealed_for_its_cluster(api: Api, source: PeerHistoryClient) -> None:
    index = await finish(api, 3)
    parcel = Seal("c1", None).open(await source.piece(api.url, Place(1), index, 0))
    assert (parcel.rows, parcel.start, parcel.end) == (3, Place(1), Place(index + 1))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (web.Response(status=404, text="no such page"), "404: no reason given"),
        (web.Response(text="{}"), "not what a node tells"),
        (web.Response(body=bytes(2 << 20)), "an answer of 2097152 bytes"),
    ],
)
async def test_strange_answers_are_told(
    source: PeerHistoryClient, answer: web.Response, problem: str
) -> None:
    async def serve(request: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_get(HISTORY_PATH, serve)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        with pytest.raises(AskError, match=problem):
            await source.held(url)
    with pytest.raises(AskError):
        await source.held(url)  # nobody listens there any more


async def test_a_node_without_time_is_asked_again_later(source: PeerHistoryClient) -> None:
    async def serve(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "1"}, text='{"detail": "busy"}')

    app = web.Application()
    app.router.add_get(PIECE_PATH, serve)
    async with TestServer(app) as server:
        with pytest.raises(AskLaterError, match="503: busy"):
            await source.piece(str(server.make_url("")).rstrip("/"), Place(1), 2, 0)
