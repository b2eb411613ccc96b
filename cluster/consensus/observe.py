"""What others may see of a running node without being able to change anything.

Apart from the public interface, because nothing that decides anything may depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .consensus import Consensus
from .members import NOBODY, Members


@dataclass(frozen=True)
class Health:
    """What keeps a member from doing its part. `disk_silent_ms`: for how long the journal's disk
    has owed an answer. `snapshot_is_arriving`: the log here was so far behind that the leader began
    to send the whole state."""

    disk_is_full: bool = False
    disk_silent_ms: int = 0
    disk_stall_ms: int = 0  # from which silence on a leader counts its disk as hung
    snapshot_is_arriving: bool = False


def health_of(consensus: Consensus) -> Health:
    core, receiver = consensus._core, consensus._receiver
    if core is None:
        return Health()
    return Health(
        core.counters.disk_full,
        round(core.disk_silent_s() * 1000),
        core.config.disk_stall_ms,
        receiver is not None and receiver.is_receiving,
    )


def applied_members(consensus: Consensus) -> Members:
    """The configuration as of what this node has applied: committed, but perhaps an old one."""
    core = consensus._core
    return core.roster.at(core.engine.applied_index()) if core is not None else NOBODY


def observe_timer(consensus: Consensus, listener: Callable[[float], None]) -> None:
    """`listener(due_at)` each time the one timer of this node fires, which it does many times a
    second, idle or not; `due_at`, on the monotonic clock, is when it should have."""
    consensus._ticker.on_due = listener
