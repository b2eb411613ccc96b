"""How fresh a read is: the three levels, and where each is answered. See docs/consistency.md.

stale: by the asked node from what it has. leader: by whoever believes to lead, from what it has
applied. linearizable: by the asked node, once a majority has confirmed how far it must have come.
"""

from __future__ import annotations

from cluster.actors.services import Services
from cluster.api.errors import ProblemError
from cluster.consensus import ReadError, ReadFailure

LEVELS = ("stale", "leader", "linearizable")
CONFIRM_MS = 2_000  # an election takes a fraction of it; longer means that there is no majority

# What a client can do differs: another node may help, or nothing but waiting.
_CODES = {
    ReadFailure.BEHIND: "not_ready",
    ReadFailure.STOPPED: "not_ready",
    ReadFailure.OVERLOADED: "overloaded",
}


async def confirm(services: Services) -> None:
    """Wait until this node has applied all that was acknowledged before this call.

    Raises no_quorum, not_ready or overloaded, at the latest after CONFIRM_MS."""
    try:
        await services.raft.read_index(CONFIRM_MS)
    except ReadError as error:
        raise ProblemError(
            _CODES.get(error.reason, "no_quorum"),
            f"no linearizable read: {error}; try again, or read with consistency=stale",
        ) from None
