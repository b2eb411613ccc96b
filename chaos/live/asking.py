"""One HTTP request to one node, sorted by what its sender may believe afterwards.

Never repeats anything: a history needs to know of every single request. What may repeat is
`insist`, for requests that carry an idempotency key.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
import msgspec

# Refused before anything reached the log.
NOT_APPLIED = frozenset({"no_quorum", "not_leader", "overloaded", "not_ready", "disk_full"})
ANSWER_S = 1.5
PAUSE_S = 0.02


class Unknown(Exception):
    """No answer, or none that tells: the request may be applied now, later or never."""


class NotApplied(Exception):
    """It was refused before it could do anything."""


@dataclass(frozen=True)
class Answer:
    status: int
    code: str  # of the problem document, "" for a success
    body: Any


@dataclass
class Asker:
    """The conversation of all clients with one cluster, and what was counted of it."""

    session: aiohttp.ClientSession
    urls: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    async def ask(
        self,
        url: str,
        method: str,
        path: str,
        body: object = None,
        key: str | None = None,
        answer_s: float = ANSWER_S,
    ) -> Answer:
        """A definite answer. Raises NotApplied or Unknown."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None if body is None else msgspec.json.encode(body)
        timeout = aiohttp.ClientTimeout(total=answer_s)
        try:
            async with self.session.request(
                method, url + path, data=data, headers=headers, timeout=timeout
            ) as response:
                raw = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise NotApplied("nobody listens") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unknown(repr(error)) from error
        return self._judge(response.status, raw, f"{method} {path}")

    def _judge(self, status: int, raw: bytes, request: str) -> Answer:
        body = msgspec.json.decode(raw) if raw else None
        if status < 300:
            return Answer(status, "", body)
        code = str(body.get("code")) if isinstance(body, dict) else ""
        self.counts[code] += 1
        if code in NOT_APPLIED:
            raise NotApplied(code)
        if code == "outcome_unknown":
            raise Unknown(code)
        if status >= 500:
            self.unexpected.append(f"{request}: {status} {raw[:300]!r}")
            raise Unknown(f"{status} {code}")
        return Answer(status, code, body)

    async def insist(
        self, rng: Random, method: str, path: str, body: object, key: str, patience_s: float
    ) -> Answer | None:
        """Asks one node after another until one answers; None when patience ends."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + patience_s
        at = rng.randrange(len(self.urls))
        while loop.time() < give_up_s:
            try:
                return await self.ask(self.urls[at % len(self.urls)], method, path, body, key)
            except (NotApplied, Unknown):
                at += 1
                await asyncio.sleep(rng.uniform(PAUSE_S / 2, PAUSE_S * 2))
        return None
