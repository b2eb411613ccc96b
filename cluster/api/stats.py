"""/v1/stats and /metrics: numbers of the whole cluster, and of this node."""

from __future__ import annotations

from aiohttp import web

from cluster.actors.services import Services
from cluster.api.answers import QueueCounts, StatsAnswer
from cluster.api.routing import Call, Query, Routes
from cluster.machine import views

routes = Routes("stats")


def stats_of(services: Services) -> StatsAnswer:
    """The replicated counts as this node has them."""
    raft = services.raft
    state = raft.state
    queues = views.queues(state)
    return StatsAnswer(
        queue_length=sum(queue.ready for queue in queues),
        active_workers=views.active_workers(state),
        jobs_by_status=views.jobs_by_status(state),
        queues={q.name: QueueCounts(q.scheduled, q.ready, q.retrying, q.running) for q in queues},
        totals=views.totals(state),
        slots_total=views.slots(state),
        slots_used=sum(queue.running for queue in queues),
        dead_letters=views.dead_count(state),
        leader=raft.leader_http,
        index=raft.applied_index,
    )


@routes.add("GET", "/v1/stats", "Count jobs, queues and workers", answer=StatsAnswer)
async def get_stats(call: Call[None, Query]) -> StatsAnswer:
    return stats_of(call.services)


@routes.add("GET", "/metrics", "Prometheus metrics of the asked node", local=True)
async def get_metrics(call: Call[None, Query]) -> web.Response:
    metrics = call.services.metrics
    return web.Response(body=metrics.render(), headers={"Content-Type": metrics.content_type})
