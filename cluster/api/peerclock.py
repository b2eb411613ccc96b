"""Asks another node for its clock, over the same HTTP that clients use."""

from __future__ import annotations

import aiohttp
import msgspec

from cluster.actors.clockwatch import AskError
from cluster.actors.peerclocks import ClockAnswer

READING_PATH = "/v1/cluster/clock/reading"
ANSWER_BYTES_MAX = 4_096
KEPT_SECONDS = 30.0  # a connection that is there already makes for a short round trip

_decode = msgspec.json.Decoder(ClockAnswer).decode


class PeerClockClient:
    """One session for all peers; `ask` inside the loop that will `close` it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, base_url: str) -> ClockAnswer:
        """Raises AskError. The caller sets the deadline."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=KEPT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        try:
            async with self._session.get(base_url + READING_PATH, allow_redirects=False) as answer:
                if answer.status != 200 or (answer.content_length or 0) > ANSWER_BYTES_MAX:
                    raise AskError(f"status {answer.status}")
                body = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise AskError(str(error)) from error
        try:
            return _decode(body)
        except msgspec.MsgspecError as error:
            raise AskError(f"not a reading: {error}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
