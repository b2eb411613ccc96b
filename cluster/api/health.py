"""/livez and /readyz: for supervisors and load balancers. Each node answers for itself."""

from __future__ import annotations

from cluster.actors.services import Services
from cluster.api.answers import HealthAnswer
from cluster.api.errors import ProblemError
from cluster.api.routing import Call, Query, Routes

routes = Routes("health")


class ReadyQuery(Query, forbid_unknown_fields=True, frozen=True):
    """`verbose`, with or without a value, lists the checks, and warnings that are no reason to stay
    away."""

    verbose: str | None = None


def checks_of(services: Services) -> dict[str, bool]:
    """What must hold for a node to be worth talking to."""
    raft = services.raft
    return {
        "leader_known": raft.leader_id is not None,
        "caught_up": raft.caught_up,
        "not_draining": not services.draining,
    }


@routes.add("GET", "/livez", "Tell that the process answers", answer=HealthAnswer, local=True)
async def livez(call: Call[None, Query]) -> HealthAnswer:
    return HealthAnswer("ok")


@routes.add(
    "GET",
    "/readyz",
    "Tell whether this node has joined, caught up and is not draining",
    query=ReadyQuery,
    answer=HealthAnswer,
    local=True,
    problems=("not_ready",),
)
async def readyz(call: Call[None, ReadyQuery]) -> HealthAnswer:
    checks = checks_of(call.services)
    failing = [name for name, passed in checks.items() if not passed]
    if failing:
        raise ProblemError("not_ready", "failing: " + ", ".join(failing))
    if call.query.verbose is None:
        return HealthAnswer("ok")
    return HealthAnswer("ok", checks, call.services.clocks.warnings())
