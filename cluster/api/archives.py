"""Finished jobs that this node's history lacks: another node's may have them.

A node that came up to date through a snapshot never saw the jobs end that finished meanwhile. Until
it has fetched them, whoever asks such a node for one job gets the answer of a node that did. Lists
are not completed this way; they say that they are incomplete.
"""

from __future__ import annotations

import aiohttp
from aiohttp import web
from yarl import URL

from cluster.actors.services import Services
from cluster.api.errors import ProblemError

ARCHIVE_SECONDS = 3.0  # a confirmed read and a look at the disk, at most
ASKED_BY = "X-Quorate-Archive-Of"  # such a request is not passed on any further


class NotHereError(ProblemError):
    """The job existed, is not live, and is not in this node's history."""


async def from_others(
    request: web.Request, services: Services, session: aiohttp.ClientSession
) -> web.Response | None:
    """The first answer of another node that knows the job; None when nobody can be found."""
    if ASKED_BY in request.headers:
        return None
    timeout = aiohttp.ClientTimeout(total=ARCHIVE_SECONDS)
    headers = {ASKED_BY: services.raft.node_id}
    for base in services.raft.others_http():
        # Confirmed there too: a node that lags would show the job as it was before it ended.
        url = URL(base + request.raw_path, encoded=True).update_query(consistency="linearizable")
        try:
            async with session.get(url, headers=headers, timeout=timeout) as answer:
                if answer.status == 200:
                    kind = answer.headers.get("Content-Type", "application/json")
                    return web.Response(body=await answer.read(), headers={"Content-Type": kind})
        except (aiohttp.ClientError, TimeoutError, OSError):
            continue
    return None
