"""Waits for a change of members: until it may begin, and until it is committed.

The rules are in `membership.py`; here is only the patience that a caller is spared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .core import Core
from .interface import MembershipError, Outcome, ProposalCallback
from .members import Members
from .pin import now

RETRY_S = 0.01


async def change_members(
    core: Core,
    wake: Callable[[], None],
    enter: Callable[[ProposalCallback], None],
    timeout_ms: int,
) -> Members:
    """The configuration after the change; MembershipError says why there was none."""
    ended: asyncio.Future[tuple[Outcome, object]] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome, result: object) -> None:
        if not ended.done():
            ended.set_result((outcome, result))

    deadline = now() + timeout_ms / 1000
    while True:
        try:
            enter(done)
            break
        except MembershipError as error:
            if not error.is_brief or now() > deadline:
                raise
        await asyncio.sleep(RETRY_S)
    wake()
    try:
        async with asyncio.timeout(deadline - now()):
            outcome, result = await ended
    except TimeoutError:
        outcome, result = Outcome.UNKNOWN, f"not committed within {timeout_ms} ms"
    if outcome is Outcome.APPLIED:
        return core.roster.current
    code = "refused" if outcome is Outcome.REFUSED else "unknown"
    raise MembershipError(code, str(result))
