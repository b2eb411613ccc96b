"""/v1/cluster/members: changes reach the leader, refusals have codes, a leader hands over first."""

import asyncio

import pytest
from api_fakes import serving

from cluster.consensus import ConsensusStartError, MembershipError

NEW = "10.0.0.4:7001"


async def test_a_node_is_added_and_removed(api, node):
    answer = await api("POST", "/v1/cluster/members", {"id": NEW})
    assert (answer.status, answer.headers["Location"]) == (201, f"/v1/cluster/members/{NEW}")
    assert answer.json["epoch"] == 1
    assert {(m["id"], m["standing"]) for m in answer.json["members"]} >= {(NEW, "joining")}
    assert (await api.get("/v1/cluster/members"))["members"] == answer.json["members"]
    answer = await api("DELETE", f"/v1/cluster/members/{NEW}")
    assert (answer.status, [m["id"] for m in answer.json["members"]]) == (200, [node.raft.node_id])
    await api("POST", "/v1/cluster/members", {"id": NEW, "learner": True})
    assert node.raft.changes == [("add", NEW, "joining"), ("remove", NEW), ("add", NEW, "learner")]


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (MembershipError("already_member", "x is one"), 409, "already_member"),
        (MembershipError("not_a_member", "x is none"), 404, "unknown_member"),
        (MembershipError("change_pending", "y is joining"), 409, "change_pending"),
        (MembershipError("last_voter", "nobody left"), 409, "membership_refused"),
        (MembershipError("too_many", "64"), 409, "membership_refused"),
        (MembershipError("no_majority", "bring it back"), 409, "membership_refused"),
        (MembershipError("unknown", "who knows"), 504, "outcome_unknown"),
        (ConsensusStartError("'x' is not an address"), 422, "validation"),
    ],
)
async def test_refusals_say_what_is_wrong(api, node, refusal, status, code):
    node.raft.refusals = [refusal]
    answer = await api("POST", "/v1/cluster/members", {"id": NEW})
    assert (answer.status, answer.code) == (status, code)
    if code == "validation":
        assert answer.json["errors"][0]["pointer"] == "/id"
    elif code != "outcome_unknown":
        assert answer.json["detail"] == str(refusal)
    assert node.raft.members == {}


@pytest.fixture
async def pair(tmp_path):
    """`(leader a, follower b)`; on request `a` hands over to `b`."""
    async with serving(tmp_path / "a") as old, serving(tmp_path / "b") as new:
        old.node.raft.node_id, new.node.raft.node_id = "a", "b"
        old.node.raft.leader_id, old.node.raft.leader_http = "a", old.url
        new.node.raft.follow("a", old.url)

        async def hand_over(target):
            new.node.raft.is_leader = True
            new.node.raft.hear_of("b", new.url)
            await asyncio.sleep(0.05)  # long enough for the old leader to be given up
            old.node.raft.follow("b", new.url)
            return "b"

        old.node.raft.transfer = hand_over
        new.node.raft.members = {"a": "voter"}
        old.node.raft.refusals = [MembershipError("is_leader", "a leads")]
        yield old, new


async def test_a_leader_hands_over_and_the_next_one_removes_it(pair, monkeypatch):
    """Asked of a follower; the old leader takes no part in the answer, as it will end."""
    monkeypatch.setattr("cluster.api.forwarding.SUPERSEDED_SECONDS", 0.0)
    old, new = pair
    answer = await new("DELETE", "/v1/cluster/members/a")
    assert (answer.status, new.node.raft.members) == (200, {})
    assert (old.node.raft.changes, new.node.raft.changes) == ([("remove", "a")],) * 2


async def test_a_leader_that_is_asked_itself_says_who_leads_now(pair):
    old, new = pair
    answer = await old("DELETE", "/v1/cluster/members/a")
    assert (answer.status, answer.code) == (503, "handed_over")
    assert (answer.json["leader"], answer.headers["Retry-After"]) == (new.url, "1")
    assert new.node.raft.members == {"a": "voter"}
    assert (await old("DELETE", "/v1/cluster/members/a")).status == 200


async def test_a_leader_that_nobody_can_follow_stays(api, node):
    async def nobody(target):
        return await type(node.raft).transfer(node.raft, "nobody")

    node.raft.transfer = nobody
    node.raft.refusals = [MembershipError("is_leader", "this one leads")]
    answer = await api("DELETE", f"/v1/cluster/members/{node.raft.node_id}")
    assert (answer.status, answer.code) == (409, "transfer_failed")


async def test_a_deposed_leader_refuses_for_sure(api, node, monkeypatch):
    monkeypatch.setattr("cluster.api.forwarding.LEADER_WAIT_SECONDS", 0.05)
    node.raft.refusals = [MembershipError("refused", "leadership was lost")]
    request = asyncio.create_task(api("POST", "/v1/cluster/members", {"id": NEW}))
    answer = await request
    assert (answer.status, node.raft.members) == (201, {NEW: "joining"})  # it still led: once more
    node.raft.follow(None, None)
    answer = await api("POST", "/v1/cluster/members", {"id": NEW})
    assert (answer.status, answer.code) == (503, "no_quorum")


@pytest.mark.parametrize("body", [{}, {"id": 7}, {"id": ""}, {"id": NEW, "role": "voter"}])
async def test_bodies_are_checked(api, node, body):
    answer = await api("POST", "/v1/cluster/members", body)
    assert (answer.status, answer.code) == (422, "validation")
    assert node.raft.changes == []
