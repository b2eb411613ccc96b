"""The feature level: it is raised when all members know the next one, and never goes back."""

from __future__ import annotations

from cluster.machine.commands import RaiseLevel
from cluster.machine.effects import Effects
from cluster.machine.registry import reduces
from cluster.machine.results import DONE, Result
from cluster.machine.state import State


@reduces(RaiseLevel)
def raise_level(state: State, command: RaiseLevel, effects: Effects) -> Result:
    """Whether this release knows the level is not for the machine to say: all members must book the
    same. One that does not know it stops before it applies anything more."""
    state.level = max(state.level, command.level)
    return DONE
