"""What the rest of the node sees of consensus: the machine it drives, its settings, its outcomes.

Knows nothing of jobs and nothing of pysyncobj, so both can change without this file moving.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

MIB = 1 << 20
# Each begins the text of a refusal for that reason.
DISK_FULL = "disk full"
BUSY = "too much is waiting"

logger = logging.getLogger("quorate.consensus")


class ReplicatedMachine(Protocol):
    """The deterministic state that every node keeps; entries reach it in log order."""

    def apply(self, entry: bytes, index: int) -> object:
        """Total: never raises. The result goes to the proposer's callback."""

    def snapshot(self) -> Iterator[bytes]:
        """Yields the encoded state in chunks of any size; runs in a forked child."""

    def restore(self, chunks: Iterator[bytes]) -> None:
        """Replaces the whole state; raises ValueError on malformed content."""

    async def before_truncate(self, index: int) -> None:
        """Awaited before log entries up to `index` are replaced by a finished snapshot."""


# Puts a loaded state in place of the old one, and returns what gets rid of that, off the loop.
Adopt = Callable[[], Callable[[], None]]


@runtime_checkable
class LoadsAside(Protocol):
    """A machine that can build a state beside the running one, so that installing stalls nobody."""

    def load(self, chunks: Iterator[bytes]) -> Adopt:
        """For any thread; ValueError on malformed content. The answer belongs to the loop."""


class Role(enum.Enum):
    """The part a node plays in the current term."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Outcome(enum.Enum):
    """How a proposal ended; every proposal ends in exactly one of them."""

    APPLIED = "applied"
    REFUSED = "refused"  # definitely not in the log: safe to try again
    UNKNOWN = "unknown"  # may or may not commit: only an idempotent retry is safe


ProposalCallback = Callable[[Outcome, object], None]
RoleCallback = Callable[[Role, int, "str | None"], None]
ReadCallback = Callable[["int | ReadError"], None]


class ConsensusError(Exception):
    """Base of everything this package raises on purpose."""


class ConsensusStartError(ConsensusError):
    """The node must not start; the message names the file or port and the fix."""


class TransferError(ConsensusError):
    """Leadership stayed where it was; the message says why."""


class ReadFailure(enum.Enum):
    """Why there is no point to read at; nothing has changed, so asking again is always safe."""

    NO_LEADER = "no leader was known in time"
    NO_QUORUM = "no majority confirmed the leader in time"
    NO_ANSWER = "the leader did not answer in time"
    BEHIND = "this node did not catch up in time"
    OVERLOADED = "too many reads are waiting"
    STOPPED = "this node is stopping"


class ReadError(ConsensusError):
    """A linearizable read was not possible; `reason` says what was missing."""

    def __init__(self, reason: ReadFailure) -> None:
        super().__init__(reason.value)
        self.reason = reason


class SnapshotError(ConsensusError):
    """A snapshot could not be taken; the log keeps growing until the next one succeeds."""


class MembershipError(ConsensusError):
    """The members stay as they were, unless `code` is "unknown"; the message says why.

    `code` is one of not_leader, is_leader, change_pending, already_member, not_a_member,
    last_voter, too_many, no_majority, refused, unknown.
    """

    def __init__(self, code: str, message: str, *, is_brief: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_brief = is_brief  # gone within moments: worth another try


class FatalError(ConsensusError):
    """An invariant or the disk broke: going on could lose acknowledged work."""


def exit_process(reason: str) -> None:
    """Default fatal hook: says why once and ends the process with code 70, without cleanup.

    A failed fsync must never be retried (the kernel may have dropped the pages), so there is
    nothing useful left to do here: https://wiki.postgresql.org/wiki/Fsync_Errors
    """
    logger.critical("fatal: %s; stopping this node", reason)
    os._exit(70)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the cluster's authority, this node's certificate and its key."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True)
class ConsensusConfig:
    """Everything one consensus node needs to know; times in ms, sizes in bytes."""

    node_id: str
    listen: str
    peers: tuple[str, ...]  # the other first members, or with `join` members that can be asked
    data_dir: Path
    cluster_secret: str | None = None
    tls: TlsFiles | None = None
    meta: dict[str, str] = field(default_factory=dict)
    join: bool = False  # an empty node that waits to be added to a running cluster
    fsync: bool = True
    heartbeat_ms: int = 50
    election_min_ms: int = 300
    election_max_ms: int = 600
    leader_fallback_ms: int = (
        800  # without a majority for so long a leader steps down (at least election_max_ms)
    )
    disk_stall_ms: int = (
        3000  # a leader whose disk reports nothing for so long makes way, if the others' disks work
    )
    disconnect_hint_ms: int = 50  # after the leader's connection closed: campaign within this
    proposal_timeout_ms: int = 10_000
    entry_bytes_max: int = 16 * MIB
    uncommitted_entries_max: int = 20_000
    uncommitted_bytes_max: int = 128 * MIB
    reads_max: int = 10_000  # linearizable reads that wait at this node
    segment_bytes: int = 16 * MIB
    snapshot_journal_bytes: int = 64 * MIB
    snapshot_chunk_bytes: int = 512 * 1024
    trailing_entries: int = 10_000
    trailing_bytes: int = 32 * MIB
    disabled_guards: frozenset[str] = frozenset()  # names from guards.GUARDS; only for tests
    on_fatal: Callable[[str], None] = exit_process


@dataclass(frozen=True)
class PeerStatus:
    """One other member as this node sees it; `match_index` is 0 unless this node leads."""

    id: str
    connected: bool
    meta: dict[str, str]
    match_index: int
    last_contact_ms: float | None
    standing: str = "voter"  # or joining, or learner
