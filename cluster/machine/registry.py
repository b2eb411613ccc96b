"""Which reducer books which command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cluster.machine.effects import Effects
from cluster.machine.results import Result
from cluster.machine.state import State

C = TypeVar("C")
Reducer = Callable[[State, Any, Effects], Result]
REDUCERS: dict[type, Reducer] = {}


def reduces(
    command: type[C],
) -> Callable[[Callable[[State, C, Effects], Result]], Callable[[State, C, Effects], Result]]:
    """Register the one reducer of a command."""

    def register(
        function: Callable[[State, C, Effects], Result],
    ) -> Callable[[State, C, Effects], Result]:
        assert command not in REDUCERS, f"two reducers for {command.__name__}"
        REDUCERS[command] = function
        return function

    return register
