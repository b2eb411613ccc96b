"""/v1/cluster/members: adding, removing and replacing nodes of a running cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from . import payloads
from .durations import Duration, to_seconds
from .errors import Conflict, NotCaughtUp, NotFound
from .transport import Consistency, Transport
from .views import MemberView, read

POLL_SECONDS = 0.1


class _Members(msgspec.Struct):
    epoch: int
    members: list[MemberView]


class Members:
    """The nodes of the cluster by their Raft addresses (host:port)."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, consistency: Consistency | None = None) -> Sequence[MemberView]:
        """Every member, voting or not."""
        response = await self._transport.request(
            "GET", "/v1/cluster/members", params={"consistency": consistency}
        )
        return read(response.body, _Members).members

    async def add(self, member_id: str, *, learner: bool = False) -> Sequence[MemberView]:
        """Lets a node in, which is (or will be) started with `--join`. Conflict when it is a member
        already, or while another change is under way."""
        body = payloads.encode({"id": member_id, "learner": learner})
        response = await self._transport.request(
            "POST", "/v1/cluster/members", body, replayable=False
        )
        return read(response.body, _Members).members

    async def remove(self, member_id: str) -> Sequence[MemberView]:
        """Takes a node out for good; NotFound when it is no member."""
        response = await self._transport.request(
            "DELETE", f"/v1/cluster/members/{quote(member_id, safe=':')}", replayable=False
        )
        return read(response.body, _Members).members

    async def wait_voting(self, member_id: str, timeout: Duration = 60.0) -> MemberView:
        """Returns once the member votes. NotCaughtUp after `timeout`."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + to_seconds(timeout)
        while True:
            found = next((m for m in await self.list() if m.id == member_id), None)
            if found is None:
                raise NotFound(f"{member_id} is not a member")
            if found.standing == "voter":
                return found
            if loop.time() >= give_up_at:
                raise NotCaughtUp(
                    f"{member_id} does not vote yet: is it running, with --join and --peers?"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def replace(self, old: str, new: str, timeout: Duration = 60.0) -> Sequence[MemberView]:
        """Adds `new`, waits until it votes, removes `old`. Interrupted, it may be called again."""
        try:
            await self.add(new)
        except Conflict as error:
            if error.code != "already_member":
                raise
        await self.wait_voting(new, timeout)
        try:
            return await self.remove(old)
        except NotFound:
            return await self.list()
