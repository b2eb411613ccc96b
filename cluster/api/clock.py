"""/v1/cluster/clock: which time a node runs at, how far the others' clocks are off, and accepting a
wall clock that was refused.
"""

from __future__ import annotations

from cluster.actors.peerclocks import ClockAnswer
from cluster.actors.services import Services
from cluster.api.answers import ClockStatusAnswer, PeerClockAnswer
from cluster.api.cluster import ClusterQuery
from cluster.api.peerclock import READING_PATH
from cluster.api.render import time_text
from cluster.api.routing import Call, Query, Routes

routes = Routes("cluster")


def _status(services: Services) -> ClockStatusAnswer:
    clocks = services.clocks
    reading, skews_s = clocks.read(), clocks.skews_s()
    peers = [
        PeerClockAnswer(
            id=peer_id,
            skew_seconds=skews_s[peer_id],
            round_trip_ms=known.round_trip_ms,
            age_seconds=(reading.elapsed_ms - known.taken_ms) / 1000,
            refused=known.answer.refused,
            version=known.answer.version,
            releases=known.answer.releases,
        )
        for peer_id, known in sorted(clocks.peers.all().items())
    ]
    return ClockStatusAnswer(
        node_id=services.raft.node_id,
        standing=clocks.standing,
        refused=clocks.is_refusing,
        wall=time_text(reading.wall_ms),
        now=time_text(reading.now_ms),
        replicated=time_text(services.raft.state.now_ms),
        off_seconds=reading.off_ms / 1000,
        bound_seconds=clocks.bound_ms / 1000,
        replicated_ahead_seconds=clocks.replicated_ahead_ms() / 1000,
        version=clocks.version,
        releases=clocks.releases,
        peers=peers,
        warnings=clocks.warnings(),
    )


@routes.add(
    "GET",
    "/v1/cluster/clock",
    "Show the clock of the asked node, or the leader's, against the others'",
    query=ClusterQuery,
    answer=ClockStatusAnswer,
)
async def get_clock(call: Call[None, ClusterQuery]) -> ClockStatusAnswer:
    return _status(call.services)


@routes.add(
    "POST",
    "/v1/cluster/clock/accept",
    "Follow the leader's wall clock although it jumped or the others' differ",
    answer=ClockStatusAnswer,
)
async def accept_clock(call: Call[None, Query]) -> ClockStatusAnswer:
    """What became due through the jump starts at once. Nothing happens when the clock is not
    refused."""
    call.services.clocks.accept()
    return _status(call.services)


@routes.add(
    "GET",
    READING_PATH,
    "Tell the asked node's clock: what the other nodes ask",
    answer=ClockAnswer,
    local=True,
)
async def get_reading(call: Call[None, Query]) -> ClockAnswer:
    return call.services.clocks.answer()
