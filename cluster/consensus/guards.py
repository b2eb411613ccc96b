"""The rules that make the pinned engine safe, as small functions that decide and never act.

Each closes one verified defect of pysyncobj 0.3.17 (the letters are those of docs/consensus.md)
and has a name by which tests can switch it off, to prove that the tests would notice. No setting
reaches these names: only a test or a simulation that builds its own ConsensusConfig does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .members import config_of

if TYPE_CHECKING:
    from .recovery import Entry
    from .wire import Append

GUARDS = {
    "a1_chunk_commit": "a snapshot chunk never moves the commit index",
    "a2_keep_matching": "an append cuts the log only at a conflict, never below the commit index",
    "a3_no_rewind": "an ack never moves nextIndex back; a stale reset is ignored",
    "a4_ack_term": "an ack of another term is dropped",
    "a5_snapshot_age": "a snapshot at or below the commit index is never installed",
    "a5_verify_first": "a received snapshot is read back before it gets its name",
    "a5_keep_suffix": "an install keeps a log that already holds the snapshot's last entry",
    "a5_ack_index": "an install acknowledges the snapshot's index, not the log's end",
    "a6_vote_once": "a voter counts once per term",
    "a6_members_only": "only the votes of voting members count",
    "a7_one_change": "no change of members before the last one is committed",
    "a7_own_term": "no change of members before an entry of the leader's term is committed",
    "a7_catch_up": "a new member votes only when it has caught up",
    "a7_folder": "a member that comes back with another data folder is refused",
    "a9_own_disk": "the leader counts only with what its own disk holds, as all others do",
    "a10_read_index": "a linearizable read waits until a majority has confirmed the leader",
    "a11_callbacks_outside": "callbacks of proposals are called between two steps of the engine",
    "aba_durable": "a write of a removed entry does not make its successor durable",
    "b1_fsync": "what is called durable was synced",
    "b1_settle": "what a restart finds in the journal is synced before it counts",
    "b3_align": "a log that its snapshot outran is aligned when the node starts",
    "b5_refuse_damage": "a node whose snapshots are damaged or missing does not start",
    "b6_hard_state": "term and vote are journaled, in one stream with the entries",
    "b7_checksums": "a batch is read only if its checksum fits",
    "b8_full_disk": "a node whose disk is full takes no entries and does not lead",
    "b13_chunk_place": "a chunk of a snapshot is taken only where the file ends",
    "persist_then_speak": "votes and acks leave only when what they promise is on disk",
    "outbox_epoch": "a held answer leaves only on the connection it was said on",
    "old_connection": "what an earlier connection brought is dropped once a newer one is up",
    "ready_after_noop": "a leader is ready once an entry of its own term is applied",
    "c1_total_apply": "an entry that makes the machine raise does not stop the log",
    "c2_prevote": "no campaign before a majority would grant it",
    "c2_stickiness": "no vote against a leader that was heard lately",
    "c2_check_quorum": "a leader that hears no majority steps down",
    "c2_rearm": "a deposed leader waits a full timeout before it campaigns",
    "c3_higher_term": "a sender of an old term is told so",
    "c3_adopt_term": "a higher term in the answer to a pre-vote is adopted",
    "c4_install_alive": "a follower that installs a snapshot counts as alive",
    "c5_keep_transfer": "a transfer goes on with its file when a newer snapshot is taken",
    "c5_trailing_log": "entries behind a snapshot are kept for followers that lag a little",
    "c6_deadline": "a proposal that waits too long ends, as refused or as unknown",
    "c7_whole_term": "a conflict is resolved term by term, not entry by entry",
    "c8_bounds": "the uncommitted log of a leader is bounded",
    "c11_transfer_waits": "a transfer stops the intake and waits for the target's log",
    "apply_slice": "a long backlog is applied in slices, with heartbeats between them",
    "flow_window": "what is in flight to one follower is bounded",
    "disk_stall": "a leader whose disk hangs makes way for a majority whose disks work",
    "disconnect_hint": "a closed connection to the leader starts an election early",
}


class Guards:
    """Which guards hold; all of them outside of tests."""

    def __init__(self, disabled: Collection[str] = ()) -> None:
        unknown = set(disabled) - set(GUARDS)
        if unknown:
            raise ValueError(f"unknown guards: {sorted(unknown)}")
        self._disabled = frozenset(disabled)

    def on(self, name: str) -> bool:
        return name not in self._disabled


ALL_ON = Guards()


class LogView(Protocol):
    """What the append rule needs to know of a log."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def last_term(self) -> int: ...
    def term_at(self, index: int) -> int | None: ...


@dataclass(frozen=True)
class AppendPlan:
    """What to hand to the engine and what to answer.

    `matched` is the highest index known to equal the leader's; `reset_to` asks it to go back.
    """

    prev_index: int
    prev_term: int
    entries: list[Entry]
    matched: int = 0
    reset_to: int | None = None
    fatal: str | None = None


def plan_append(
    log: LogView,
    commit: int,
    message: Append,
    entries: list[Entry],
    *,
    agreed: int = 0,
    whole_terms: bool = True,
) -> AppendPlan:
    """A2, C7: skips the matching prefix, cuts only at a conflict, answers with a whole-term hint.

    The hint stays above what is `agreed` with this leader: below it nothing can differ, and going
    there would look as if an acknowledgement were taken back.

    Follows etcd's `findConflict` and `maybeAppend`: a conflict at or below the commit index means
    that committed entries differ, which nothing may repair silently.
    """
    end = (log.last_index, log.last_term)
    prev = message.prev_index
    if prev > log.last_index:
        return AppendPlan(*end, [], reset_to=log.last_index + 1)
    own = log.term_at(prev)
    if own is not None and own != message.prev_term:
        if prev <= commit:
            return AppendPlan(*end, [], fatal=f"the leader differs at committed entry {prev}")
        reset_to = first_of_term(log, prev, max(commit, agreed)) if whole_terms else prev
        return AppendPlan(*end, [], reset_to=reset_to)
    matched = max(prev + len(entries), log.first_index)
    for position, (_, index, term) in enumerate(entries):
        own = log.term_at(index)
        if own == term or index < log.first_index:
            continue
        if own is not None and index <= commit:
            return AppendPlan(*end, [], fatal=f"the leader differs at committed entry {index}")
        before = log.term_at(index - 1)
        return AppendPlan(index - 1, before or 0, entries[position:], matched)
    return AppendPlan(*end, [], matched)


def first_of_term(log: LogView, index: int, commit: int) -> int:
    """Where the conflicting term begins: one round trip per term, not per entry (Raft 5.3)."""
    term = log.term_at(index)
    while index - 1 > commit and log.term_at(index - 1) == term:
        index -= 1
    return index


def entries_are_sound(message: Append, entries: list[Entry]) -> bool:
    """Terms never decrease and never exceed the sender's; configurations can be read."""
    last = message.prev_term
    for command, _, term in entries:
        if term < last or term > message.term:
            return False
        last = term
        try:
            config_of(command)
        except ValueError:
            return False
    return True


def log_is_current(last_term: int, last_index: int, own_term: int, own_index: int) -> bool:
    """Raft 5.4.1: the candidate's log is at least as complete as the voter's."""
    return (last_term, last_index) >= (own_term, own_index)


def majority(members: int) -> int:
    return members // 2 + 1
