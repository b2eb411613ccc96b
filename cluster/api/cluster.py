"""/v1/cluster: who is a member, who leads, handing leadership over, raising the feature level."""

from __future__ import annotations

from cluster.actors.services import Services
from cluster.actors.upgrader import UpgradeRefused
from cluster.api.answers import ClusterAnswer, FeatureLevelAnswer, TransferAnswer, UpgradeAnswer
from cluster.api.errors import ProblemError
from cluster.api.health import warnings_of
from cluster.api.members import members_of
from cluster.api.models import TransferRequest, UpgradeRequest
from cluster.api.readiness import failing
from cluster.api.routing import Call, Consistency, Query, ReadQuery, Routes
from cluster.consensus import TransferError

routes = Routes("cluster")


class ClusterQuery(ReadQuery, forbid_unknown_fields=True, frozen=True):
    """Each node answers for itself by default: this is what one looks at when there is trouble."""

    consistency: Consistency = "stale"


_SHOWN_APART = frozenset(ClusterAnswer.__struct_fields__) | {"leader_http", "is_leader_ready"}


@routes.add(
    "GET",
    "/v1/cluster",
    "Show the cluster as the asked node sees it, or the leader",
    query=ClusterQuery,
    answer=ClusterAnswer,
)
async def get_cluster(call: Call[None, ClusterQuery]) -> ClusterAnswer:
    raft = call.services.raft
    status = raft.status()
    return ClusterAnswer(
        node_id=raft.node_id,
        leader_id=raft.leader_id,
        leader=raft.leader_http,
        role=status["role"],
        is_leader=raft.is_leader,
        has_quorum=raft.leader_id is not None,
        ready=not failing(call.services),
        term=status["term"],
        epoch=status["epoch"],
        applied_index=raft.applied_index,
        commit_index=raft.commit_index,
        digest=status["digest"],
        feature_level=_feature_level(call.services),
        members=members_of(call.services),
        warnings=warnings_of(call.services),
        consensus={name: value for name, value in status.items() if name not in _SHOWN_APART},
    )


@routes.add(
    "POST",
    "/v1/cluster/transfer",
    "Hand leadership to another member",
    body=TransferRequest,
    body_optional=True,
    answer=TransferAnswer,
    hands_over=True,
    problems=("transfer_failed",),
)
async def transfer(call: Call[TransferRequest, Query]) -> TransferAnswer:
    try:
        leader_id = await call.services.raft.transfer(call.body.to)
    except TransferError as error:
        raise ProblemError("transfer_failed", str(error)) from None
    return TransferAnswer(leader_id)


def _feature_level(services: Services) -> FeatureLevelAnswer:
    upgrades, raft = services.upgrades, services.raft
    return FeatureLevelAnswer(
        level=raft.feature_level,
        known=raft.support.highest,
        willing=upgrades.survey().willing,
        raises_in_seconds=upgrades.raises_in_s(),
    )


@routes.add(
    "POST",
    "/v1/cluster/upgrade",
    "Raise the feature level: older releases can serve the cluster no more",
    body=UpgradeRequest,
    body_optional=True,
    answer=UpgradeAnswer,
    problems=("upgrade_refused",),
)
async def upgrade(call: Call[UpgradeRequest, Query]) -> UpgradeAnswer:
    """Without waiting for `feature_level_delay_seconds`. Refused, with every reason, unless all
    members are connected and know the level."""
    request, raft = call.body, call.services.raft
    before = raft.feature_level
    try:
        level = await call.services.upgrades.raise_now(request.to, is_trial=request.dry_run)
    except UpgradeRefused as error:
        raise ProblemError("upgrade_refused", str(error)) from None
    return UpgradeAnswer(before, level, request.dry_run)
