"""Asks another node for pieces of its history, over the same HTTP that clients use."""

from __future__ import annotations

import aiohttp
import msgspec

from cluster.actors.fetcher import AskError, AskLaterError, Held
from cluster.history.gaps import Place

HISTORY_PATH = "/v1/cluster/history"
PIECE_PATH = "/v1/cluster/history/piece"
ANSWER_BYTES_MAX = 1 << 20
PIECE_BYTES_MAX = 256 << 20  # a single job may be large
KEPT_SECONDS = 30.0


class _Lack(msgspec.Struct):
    first_index: int
    last_index: int


class _Status(msgspec.Struct):
    """As much of the answer as is wanted."""

    cluster_id: str
    complete_to: int
    lacks: list[_Lack]


_decode = msgspec.json.Decoder(_Status).decode


class PeerHistoryClient:
    """A session for as long as something is being asked; `close` it in the loop that asked."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def held(self, base_url: str) -> Held:
        """Raises AskError. The caller sets the deadline."""
        body = await self._get(base_url + HISTORY_PATH, {}, ANSWER_BYTES_MAX)
        try:
            status = _decode(body)
        except msgspec.MsgspecError as error:
            raise AskError(f"not what a node tells of its history: {error}") from error
        gaps = [(lack.first_index, lack.last_index) for lack in status.lacks]
        return Held(status.cluster_id, status.complete_to, gaps)

    async def piece(self, base_url: str, start: Place, last_index: int, since_ms: int) -> bytes:
        """Raises AskError, AskLaterError if the node has no time. The caller sets the deadline."""
        query = {
            "index": start.entry,
            "after_id": start.after_id,
            "last_index": last_index,
            "since_ms": since_ms,
        }
        return await self._get(base_url + PIECE_PATH, query, PIECE_BYTES_MAX)

    async def _get(self, url: str, query: dict[str, int], bytes_max: int) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=KEPT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._session.get(url, params=query, allow_redirects=False) as answer:
                if (answer.content_length or 0) > bytes_max:
                    raise AskError(f"an answer of {answer.content_length} bytes")
                body = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise AskError(str(error) or type(error).__name__) from error
        if answer.status == 200:
            return body
        kind = AskLaterError if "Retry-After" in answer.headers else AskError
        raise kind(f"status {answer.status}: {_detail(body)}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Problem(msgspec.Struct):
    detail: str


def _detail(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Problem).detail
    except msgspec.MsgspecError:
        return "no reason given"
