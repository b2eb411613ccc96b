"""/livez and /readyz: for supervisors and load balancers. Each node answers for itself."""

from __future__ import annotations

from cluster.actors.services import Services
from cluster.api.answers import HealthAnswer
from cluster.api.errors import ProblemError
from cluster.api.readiness import checks_of, failing
from cluster.api.routing import Call, Query, Routes

routes = Routes("health")


class ReadyQuery(Query, forbid_unknown_fields=True, frozen=True):
    """`verbose`, with or without a value, lists the checks, and warnings that are no reason to stay
    away."""

    verbose: str | None = None


def warnings_of(services: Services) -> list[str]:
    """What an operator should know, one sentence each."""
    return services.clocks.warnings() + services.vitals.warnings()


@routes.add("GET", "/livez", "Tell that the event loop turns", answer=HealthAnswer, local=True)
async def livez(call: Call[None, Query]) -> HealthAnswer:
    return HealthAnswer("ok")


@routes.add(
    "GET",
    "/readyz",
    "Tell whether this node has joined, caught up, can write and is not draining",
    query=ReadyQuery,
    answer=HealthAnswer,
    local=True,
    problems=("not_ready",),
)
async def readyz(call: Call[None, ReadyQuery]) -> HealthAnswer:
    wrong = failing(call.services)
    if wrong:
        raise ProblemError("not_ready", wrong)
    if call.query.verbose is None:
        return HealthAnswer("ok")
    checks = {name: not reason for name, reason in checks_of(call.services).items()}
    return HealthAnswer("ok", checks, warnings_of(call.services))
