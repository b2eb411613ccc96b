"""The built-in task `simulate`: takes time and fails by chance, for trials and load tests."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated, Any

import msgspec

from ..context import GetContext
from .base import Executor, Tools, read_payload


class SimulatedFailure(Exception):
    """The failure that the payload asked for."""


class SimulatePayload(msgspec.Struct):
    """`execution_time_ms` milliseconds of doing nothing; fails with probability `fail_rate`."""

    execution_time_ms: Annotated[float, msgspec.Meta(ge=0)] = 0
    fail_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


_decoder = msgspec.json.Decoder(SimulatePayload | None)


class Simulate(Executor):
    """Sleeps, then succeeds or fails."""

    def __init__(self, tools: Tools) -> None:
        self._random = random.Random()

    async def start(self, payload: bytes, get_context: GetContext) -> dict[str, Any]:
        """Output: {"execution_time_ms": ...}."""
        asked = read_payload(payload, _decoder, "simulate") or SimulatePayload()
        if asked.execution_time_ms:
            await asyncio.sleep(asked.execution_time_ms / 1000)
        if self._random.random() < asked.fail_rate:
            raise SimulatedFailure("simulated failure")
        return {"execution_time_ms": asked.execution_time_ms}
