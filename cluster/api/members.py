"""/v1/cluster/members: who belongs to the cluster, and changing that while it runs.

A member is added as one that listens, and votes by itself once it has caught up. One change at a
time; a second one is refused until the first is committed.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from aiohttp import web

from cluster.actors.services import NotLeader, Services
from cluster.api.answers import Member, MembersAnswer
from cluster.api.errors import ProblemError, outcome_unknown
from cluster.api.forwarding import HANDED_OVER
from cluster.api.models import MemberRequest
from cluster.api.routing import Call, Query, ReadQuery, Routes, respond
from cluster.consensus import ConsensusStartError, MembershipError, TransferError

routes = Routes("cluster")

CHANGE_MS = 5_000

_CODES = {
    "already_member": "already_member",
    "not_a_member": "unknown_member",
    "change_pending": "change_pending",
    "last_voter": "membership_refused",
    "too_many": "membership_refused",
    "no_majority": "membership_refused",
}


def _answer(services: Services) -> MembersAnswer:
    rows = sorted(members_of(services), key=lambda row: row.id)
    return MembersAnswer(services.raft.members_epoch, rows)


def members_of(services: Services) -> list[Member]:
    """The members as this node sees them, with what they told about their clocks."""
    clocks = services.clocks
    rows = [msgspec.convert(member, Member) for member in services.raft.status()["members"]]
    skews_s = clocks.skews_s()
    for row in rows:
        known = clocks.peers.get(row.id)
        if row.id == services.raft.node_id:
            row.version, row.releases, row.clock_skew_seconds = clocks.version, clocks.releases, 0.0
        elif known is not None:
            row.version, row.releases = known.answer.version, known.answer.releases
            row.clock_skew_seconds = skews_s[row.id]
    _add_levels(services, rows)
    return rows


def _add_levels(services: Services, rows: list[Member]) -> None:
    supports = {member.id: member.support for member in services.raft.levels()}
    for row in rows:
        support = supports.get(row.id)
        if support is not None:
            row.feature_levels = (support.lowest, support.highest)
            row.feature_level_max = support.held or None


def _refusal(services: Services, error: MembershipError) -> Exception:
    if error.code == "unknown":
        return outcome_unknown()
    if error.code in ("not_leader", "refused"):
        return NotLeader(services.raft.leader_http)  # nothing was changed: ask the next leader
    return ProblemError(_CODES[error.code], str(error))


@routes.add("GET", "/v1/cluster/members", "List the members", answer=MembersAnswer)
async def list_members(call: Call[None, ReadQuery]) -> MembersAnswer:
    return _answer(call.services)


@routes.add(
    "POST",
    "/v1/cluster/members",
    "Let a node in; it votes once it has caught up",
    body=MemberRequest,
    answer=MembersAnswer,
    status=201,
    problems=("validation", "already_member", "change_pending", "membership_refused"),
)
async def add_member(call: Call[MemberRequest, Query]) -> web.StreamResponse:
    """Start the node with `--join` and `--peers`, members of this cluster, before or after."""
    services, request = call.services, call.body
    try:
        await services.raft.add_member(request.id, CHANGE_MS, is_learner=request.learner)
    except ConsensusStartError as error:
        raise ProblemError("validation", str(error), pointer="/id") from None
    except MembershipError as error:
        raise _refusal(services, error) from None
    where = f"/v1/cluster/members/{quote(request.id, safe=':')}"
    return respond(_answer(services), 201, {"Location": where})


@routes.add(
    "DELETE",
    "/v1/cluster/members/{member_id}",
    "Take a node out for good; the leader hands over first",
    answer=MembersAnswer,
    hands_over=True,
    problems=("unknown_member", "change_pending", "membership_refused", "transfer_failed"),
)
async def remove_member(call: Call[None, Query]) -> MembersAnswer:
    """The data folder of a removed node is never let in again: a node that shall come back starts
    with an empty one."""
    services = call.services
    try:
        await services.raft.remove_member(call.path("member_id"), CHANGE_MS)
    except MembershipError as error:
        if error.code != "is_leader":
            raise _refusal(services, error) from None
        try:
            await services.raft.transfer(None)
        except TransferError as failed:
            raise ProblemError("transfer_failed", str(failed)) from None
        # This node is told to end once it is removed: the answer is not to go through it.
        raise ProblemError(
            "handed_over",
            f"{services.raft.leader_id} leads now; ask again to remove this node",
            leader=services.raft.leader_http,
            headers={HANDED_OVER: "1"},
        ) from None
    return _answer(services)
