"""The parts of a drill's script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from ..errors import QuorateError

Phase = Literal["baseline", "fault", "recovery", "validation", "failback"]


class Step(NamedTuple):
    """One thing that is done, in order. Those of `failback` are done whatever came before."""

    phase: Phase
    text: str
    run: Callable[[], Awaitable[str | None]]  # may answer what came of it, for the report


class DrillError(QuorateError):
    """The drill cannot go on; one line that says why."""

    code = "drill_failed"
