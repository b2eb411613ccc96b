"""/v1/cluster/clock: which time the cluster runs at, and accepting a clock that was refused."""

from __future__ import annotations

from .transport import Consistency, Transport
from .views import ClockView, read


class ClusterClock:
    """The clock of the asked node or the leader, with what is known of the others'."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, *, consistency: Consistency | None = None) -> ClockView:
        """The asked node's clock; with consistency "leader" the leader's."""
        response = await self._transport.request(
            "GET", "/v1/cluster/clock", params={"consistency": consistency}
        )
        return read(response.body, ClockView)

    async def accept(self) -> ClockView:
        """Follows the leader's wall clock although it jumped or the others' differ. What became due
        through the jump starts at once; nothing happens when the clock is not refused."""
        response = await self._transport.request(
            "POST", "/v1/cluster/clock/accept", replayable=False
        )
        return read(response.body, ClockView)
