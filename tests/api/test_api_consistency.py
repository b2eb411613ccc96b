"""The three levels of reads: who answers, from what, and how each is refused."""

import asyncio

import pytest

from cluster.api.app import TABLE
from cluster.api.routing import ReadQuery
from cluster.consensus import ReadFailure

LEVELS = ["stale", "leader", "linearizable"]
LOCAL = {"/livez", "/readyz", "/metrics", "/docs", "/docs/{file}", "/openapi.json"}
LOCAL |= {"/v1/cluster/clock/reading", "/v1/debug"}
LOCAL |= {"/v1/cluster/history", "/v1/cluster/history/piece"}
T = {"name": "t"}


def reads():
    return [row for row in TABLE if issubclass(row.query, ReadQuery)]


def test_every_get_of_replicated_state_takes_a_level():
    without = {row.path for row in TABLE if row.method == "GET" and row not in reads()}
    assert without == LOCAL | {"/v1/workers/stream"}
    assert [row.path for row in reads() if row.method != "GET"] == ["/v1/jobs/status"]


@pytest.mark.parametrize("row", reads(), ids=lambda row: f"{row.method} {row.path}")
async def test_every_read_honours_its_level(pair, row):
    leader, follower = pair
    path = row.path.replace("{job_id}", "1").replace("{schedule_id}", "s").replace("{", "")
    path = path.replace("}", "")
    body = {"ids": ["1"]} if row.method == "POST" else None
    for level, index, confirmed in (("stale", "0", 0), ("leader", "1000", 0)):
        answer = await follower(row.method, f"{path}?consistency={level}", body)
        assert answer.headers["X-Quorate-Index"] == index, level
        assert follower.node.raft.read_indexes == confirmed
    answer = await follower(row.method, f"{path}?consistency=linearizable", body)
    assert answer.headers["X-Quorate-Index"] == "0"  # here, but not before it was confirmed
    assert (follower.node.raft.read_indexes, leader.node.raft.read_indexes) == (1, 0)
    answer = await follower(row.method, f"{path}?consistency=perhaps", body)
    assert (answer.status, answer.code) == (422, "validation")
    assert [error["pointer"] for error in answer.json["errors"]] == ["/consistency"]
    assert "leader, linearizable, stale" in answer.json["detail"]


async def test_a_read_without_a_level_comes_from_the_leader_and_the_cluster_from_the_asked(pair):
    _, follower = pair
    assert (await follower("GET", "/v1/stats")).headers["X-Quorate-Index"] == "1000"
    assert (await follower("GET", "/v1/cluster")).json["node_id"] == "b"
    assert (await follower("GET", "/v1/cluster?consistency=leader")).json["node_id"] == "a"


async def test_the_document_names_levels_and_defaults(api):
    paths = (await api.get("/openapi.json"))["paths"]

    def level(path, method="get"):
        (found,) = [p for p in paths[path][method]["parameters"] if p["name"] == "consistency"]
        return found

    assert sorted(level("/v1/jobs")["schema"]["enum"]) == sorted(LEVELS)
    assert level("/v1/jobs")["in"] == "query"
    assert level("/v1/jobs")["schema"]["default"] == "leader"
    assert level("/v1/cluster")["schema"]["default"] == "stale"
    assert level("/v1/jobs/status", "post")
    assert "majority" in level("/v1/jobs")["schema"]["description"]


async def test_writes_and_the_nodes_own_pages_take_no_level(api):
    for method, path in (("POST", "/v1/jobs"), ("GET", "/livez"), ("GET", "/metrics")):
        answer = await api(method, f"{path}?consistency=stale", T if method == "POST" else None)
        assert (answer.status, answer.code) == (422, "validation")
        assert answer.json["errors"][0]["pointer"] == "/consistency"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ReadFailure.NO_LEADER, "no_quorum"),
        (ReadFailure.NO_QUORUM, "no_quorum"),
        (ReadFailure.NO_ANSWER, "no_quorum"),
        (ReadFailure.BEHIND, "not_ready"),
        (ReadFailure.STOPPED, "not_ready"),
        (ReadFailure.OVERLOADED, "overloaded"),
    ],
)
async def test_a_read_that_cannot_be_confirmed_is_refused_and_a_stale_one_is_not(
    api, node, failure, code
):
    await api.submit()
    node.raft.read_failure = failure
    answer = await api("GET", "/v1/jobs/1?consistency=linearizable")
    assert (answer.status, answer.code) == (503, code)
    assert answer.headers["Retry-After"] == "1"
    assert "consistency=stale" in answer.json["detail"]
    node.raft.follow(None, None)
    assert (await api("GET", "/v1/jobs/1?consistency=stale")).json["job_id"] == "1"


async def test_a_confirmed_read_sees_a_job_as_finished_before_it_is_on_disk(api, node):
    """Archived rows wait in memory first: the read must not fall between the two."""
    node.history._writer_store.write = lambda *_, **__: (_ for _ in ()).throw(OSError("slow disk"))
    job_id = await api.submit()
    assert (await api("POST", f"/v1/jobs/{job_id}/cancel")).status == 200
    for path in (f"/v1/jobs/{job_id}", f"/jobs/{job_id}"):
        answer = await api("GET", f"{path}?consistency=linearizable")
        assert (answer.status, answer.json["status"]) == (200, "cancelled")
    listed = await api.get("/v1/jobs?consistency=linearizable&status=cancelled")
    assert [job["job_id"] for job in listed["items"]] == [str(job_id)]
    del node.history._writer_store.write


@pytest.mark.parametrize("asked", ["follower", "leader"])
async def test_what_a_history_lacks_is_found_in_another_one(pair, asked):
    """A node that was restored from a snapshot never saw the job end."""
    leader, follower = pair
    lacking, having = (follower, leader) if asked == "follower" else (leader, follower)
    lacking.node.raft.others = ["http://127.0.0.1:1", having.url]
    having.node.raft.others = [lacking.url]
    job_id = await leader.submit()
    assert (await leader("POST", f"/v1/jobs/{job_id}/cancel")).status == 200
    follower.node.raft.state = leader.node.raft.state
    if asked == "leader":
        follower.node.services.history = leader.node.history
        leader.node.services.history = Nothing()
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/timeline", f"/jobs/{job_id}"):
        for level in ("linearizable", "leader"):
            answer = await lacking("GET", f"{path}?consistency={level}")
            assert answer.status == 200, (path, level)
    assert (await lacking.get(f"/v1/jobs/{job_id}"))["status"] == "cancelled"
    stale = await lacking("GET", f"/v1/jobs/{job_id}?consistency=stale")
    assert (stale.status, stale.code) == (404, "unknown_job")
    never = await lacking("GET", "/v1/jobs/999?consistency=linearizable")
    assert (never.status, never.code) == (404, "unknown_job")


async def test_what_no_history_has_is_unknown_and_nobody_asks_in_circles(pair):
    leader, follower = pair
    leader.node.raft.others, follower.node.raft.others = [follower.url], [leader.url]
    leader.node.raft.state.next_job_id = 100  # job 7 ended long ago and was pruned everywhere
    follower.node.raft.state = leader.node.raft.state
    answer = await follower("GET", "/v1/jobs/7?consistency=linearizable")
    assert (answer.status, answer.code) == (404, "unknown_job")
    assert (follower.node.raft.read_indexes, leader.node.raft.read_indexes) == (1, 1)


class Nothing:
    """A history that has nothing."""

    is_complete = False

    def get(self, job_id):
        return None

    async def lookup(self, job_id):
        return None


async def test_a_follower_waits_for_a_job_by_itself(pair):
    """`wait` needs no leader either: each node hears of the end from the log."""
    leader, follower = pair
    await leader.submit()
    state, listeners = leader.node.raft.state, leader.node.raft._listeners
    follower.node.raft.state = state  # as if it had applied the same log
    listeners += follower.node.raft._listeners
    waiting = asyncio.create_task(follower.get("/v1/jobs/1?wait=5&consistency=linearizable"))
    while not follower.node.waiters._waiting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await leader("POST", "/v1/jobs/1/cancel")).status == 200
    assert (await waiting)["status"] == "cancelled"


async def test_reads_are_counted_by_level(pair):
    leader, follower = pair
    for level in LEVELS:
        await follower("GET", f"/v1/stats?consistency={level}")
    own = (await follower("GET", "/metrics")).raw
    assert b'quorate_reads_total{level="stale"} 1.0' in own
    assert b'quorate_reads_total{level="linearizable"} 1.0' in own
    assert b'level="leader"' not in own
    assert b'quorate_reads_total{level="leader"} 1.0' in (await leader("GET", "/metrics")).raw
