"""/v1/cluster/history: what the asked node's history lacks, and pieces of it for other nodes."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from cluster.actors.services import Services
from cluster.api.answers import Time
from cluster.api.errors import ProblemError
from cluster.api.peerhistory import HISTORY_PATH, PIECE_PATH
from cluster.api.render import time_text
from cluster.api.routing import Call, Query, Routes
from cluster.history.exchange import BusyError, LackingError
from cluster.history.gaps import Place

routes = Routes("cluster")

MEDIA = "application/octet-stream"
ENTRY_MAX = (1 << 62) - 1

Entry = Annotated[int, Meta(ge=1, le=ENTRY_MAX)]


class LackAnswer(Struct):
    """What log entries from the first to the last one finished is not all here. All of it was
    finished at `until` or before."""

    first_index: int
    last_index: int
    until: Time | None


class HistoryAnswer(Struct):
    """`complete_to`: the log entry up to which this node's file has everything but what `lacks`.
    `kept_from`: what finished before was dropped, or may have been. `activity`: complete, waiting
    (for the next try), fetching (from `source`), or unavailable (no member has it)."""

    node_id: str
    cluster_id: str
    complete: bool
    activity: str
    complete_to: int
    kept_from: Time | None
    lacks: list[LackAnswer]
    source: str | None
    rows_fetched: int
    bytes_fetched: int
    pieces_fetched: int
    pieces_refused: int
    last_error: str | None


class PieceQuery(Query, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What jobs ended behind `after_id` of the entry `index`, up to the entry `last_index`; those
    that finished before `since_ms` are left out."""

    index: Entry
    last_index: Entry
    after_id: Annotated[int, Meta(ge=0, le=ENTRY_MAX)] = 0
    since_ms: Annotated[int, Meta(ge=0, le=ENTRY_MAX)] = 0


@routes.add(
    "GET",
    HISTORY_PATH,
    "Show what the asked node's history lacks",
    answer=HistoryAnswer,
    local=True,
    problems=("history_unavailable",),
)
async def get_history(call: Call[None, Query]) -> HistoryAnswer:
    return await _status(call.services)


async def _status(services: Services) -> HistoryAnswer:
    history, fetcher = services.history, services.fetcher
    standing = await history.exchange.standing()
    counts = history.exchange.counts
    return HistoryAnswer(
        node_id=services.raft.node_id,
        cluster_id=fetcher.cluster_id,
        complete=history.is_complete,
        activity=fetcher.activity,
        complete_to=standing.complete_to or 0,
        kept_from=time_text(standing.pruned_ms),
        lacks=[
            LackAnswer(gap.first_index, gap.last_index, time_text(gap.until_ms))
            for gap in history.lacks
        ],
        source=fetcher.source_id or None,
        rows_fetched=counts["rows_fetched"],
        bytes_fetched=counts["bytes_fetched"],
        pieces_fetched=fetcher.counts["pieces_fetched"],
        pieces_refused=fetcher.counts["pieces_refused"],
        last_error=fetcher.last_error or None,
    )


@routes.add(
    "GET",
    PIECE_PATH,
    "Give a piece of the asked node's history: what nodes that lack it ask for",
    query=PieceQuery,
    media=(MEDIA,),
    local=True,
    problems=("history_lacking", "overloaded", "history_unavailable"),
)
async def get_piece(call: Call[None, PieceQuery]) -> web.Response:
    query, services = call.query, call.services
    start = Place(query.index, query.after_id)
    try:
        sealed = await services.history.exchange.offer(
            services.fetcher.seal(), start, query.last_index, query.since_ms
        )
    except LackingError as error:
        raise ProblemError("history_lacking", str(error)) from None
    except BusyError as error:
        raise ProblemError("overloaded", str(error)) from None
    return web.Response(body=sealed, headers={"Content-Type": MEDIA})
