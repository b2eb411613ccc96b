"""/v1/cluster/backup: all that the asked node has, as one file."""

from __future__ import annotations

import asyncio
from contextlib import closing

from aiohttp import web

from cluster.api.consistency import confirm
from cluster.api.errors import ProblemError
from cluster.api.routing import HISTORY_HEADER, Call, Consistency, Query, Routes
from cluster.backup import BackupError
from cluster.backup.take import take

routes = Routes("cluster")

MEDIA = "application/x-tar"


class BackupQuery(Query, forbid_unknown_fields=True, frozen=True):
    """`history`: with the finished jobs. With `stale` a node without a majority gives what it has,
    and `leader` means no more than that here."""

    history: bool = False
    consistency: Consistency = "linearizable"


@routes.add(
    "POST",
    "/v1/cluster/backup",
    "Take a backup: a tar of the whole state at one place in the log",
    query=BackupQuery,
    media=(MEDIA,),
    local=True,
    problems=("backup_failed", "no_quorum"),
)
async def backup(call: Call[None, BackupQuery]) -> web.StreamResponse:
    services, query = call.services, call.query
    if query.consistency == "linearizable":
        await confirm(services)
    try:
        taken = await take(
            services.backups,
            services.raft.state,
            services.clock.now_ms(),
            with_history=query.history,
        )
    except BackupError as error:
        raise ProblemError("backup_failed", str(error)) from None
    manifest = taken.manifest
    lacking = {HISTORY_HEADER: "incomplete"} if manifest.history_lacks else {}
    with closing(taken):
        response = web.StreamResponse(
            headers={
                "Content-Type": MEDIA,
                "X-Quorate-Index": str(manifest.index),
                "Content-Disposition": f'attachment; filename="quorate-{manifest.index}.tar"',
                **lacking,
            }
        )
        await response.prepare(call.request)
        pieces = taken.pieces()
        # A piece is read off the loop: the disk may be slow. One that ends early has no end mark.
        while piece := await asyncio.to_thread(next, pieces, b""):
            await response.write(piece)
        await response.write_eof()
    return response
