"""How a node deals with what it was given: disk, memory, lines and time, checked from outside.

Most guards of this kind stand behind another one, so no global invariant breaks at once when one of
them is missing. Each still keeps a promise that somebody who watches disks, messages and clocks can
hold it to. None of this asks the guard: it looks at what came of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.consensus import Role
from cluster.consensus.probe import Mark, Probe
from cluster.consensus.snapfile import NAME, SnapshotFileError, validate
from cluster.consensus.wire import Append, Message, SnapshotChunk

if TYPE_CHECKING:
    from chaos.sim.raft.node import Life
    from chaos.sim.raft.world import World

UNANSWERED_MAX = 128  # messages with entries on their way to one follower
TURN_MAX_S = 0.04  # a slice of applies and the one entry that went beyond it
FULL_GRACE_S = 0.5  # what was taken in before may still enter the log


@dataclass
class Stream:
    """What one leader sends to one follower over one connection."""

    connection: int = 0
    term: int = 0
    snapshot: int = 0
    entries_end: int = 0
    unanswered: deque[int] = field(default_factory=deque)  # last index of each message


class Watched:
    """What was last seen of one life."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.first = 0
        self.full_since_s: float | None = None
        self.streams: dict[str, Stream] = {}


class Housekeeping:
    def __init__(self, world: World) -> None:
        self._world = world
        self._watched: dict[Life, Watched] = {}

    def _of(self, life: Life) -> Watched:
        known = self._watched.get(life)
        if known is None:
            self._watched = {one: it for one, it in self._watched.items() if not one.is_over}
            known = self._watched[life] = Watched()
        return known

    # What leaves a leader ------------------------------------------------------------------

    def on_sent(self, life: Life, peer: str, message: Message) -> None:
        if not isinstance(message, Append | SnapshotChunk) or life.probe is None:
            return
        assert life.host.end is not None
        streams = self._of(life).streams
        stream = streams.get(peer)
        connection = life.host.end.epoch(peer)
        if stream is None or (stream.connection, stream.term) != (connection, message.term):
            stream = streams[peer] = Stream(connection, message.term)
        acked = life.probe.acked(peer)
        if isinstance(message, SnapshotChunk):
            self._check_transfer(life, peer, stream, message.index, acked)
        elif message.count:
            self._check_window(life, peer, stream, message, acked)

    def _check_transfer(
        self, life: Life, peer: str, stream: Stream, index: int, acked: int
    ) -> None:
        """C5: what has begun goes on with its file, whatever is taken meanwhile."""
        before, stream.snapshot = stream.snapshot, index
        if before and index != before and acked < before and not self._world.has_damage:
            self._world.fail(
                f"{life.id} sends snapshot {index} to {peer}, which was still getting {before}"
            )

    def _check_window(
        self, life: Life, peer: str, stream: Stream, message: Append, acked: int
    ) -> None:
        """Nobody is flooded faster than it answers."""
        if message.prev_index != stream.entries_end:
            stream.unanswered.clear()  # it goes back, or on behind a snapshot
        stream.entries_end = message.prev_index + message.count
        stream.unanswered.append(stream.entries_end)
        while stream.unanswered and stream.unanswered[0] <= acked:
            stream.unanswered.popleft()
        if len(stream.unanswered) > UNANSWERED_MAX:
            self._world.fail(f"{life.id} has {len(stream.unanswered)} messages in flight to {peer}")

    # What happens inside -------------------------------------------------------------------

    def named(self, life: Life, path: Path) -> None:
        """A5: a snapshot by its name is whole, and on the disk."""
        match = NAME.fullmatch(path.name)
        if match is None or life.host.end is None:
            return
        storage = life.node.storage
        if storage.unsynced_bytes(path):
            self._world.fail(f"{life.id} names {path.name} before it is on the disk")
        try:
            validate(storage, path, life.host.end.cluster_id, int(match[1]), int(match[2]))
        except SnapshotFileError as error:
            self._world.fail(f"{life.id} names {path.name}, which is damaged: {error}")

    def turn_took(self, life: Life, seconds: float) -> None:
        """Heartbeats and answers wait for a slice of applies, never for a whole backlog."""
        if seconds > TURN_MAX_S:
            self._world.fail(f"{life.id} did nothing but apply for {seconds:.3f} s")

    # A look at a node ----------------------------------------------------------------------

    def look(self, life: Life) -> None:
        probe = life.probe
        if probe is None:
            return
        seen = self._of(life)
        before, seen.mark = seen.mark, probe.mark()
        if seen.mark == before:
            return
        self._check_disk(life, probe, seen.mark)
        self._check_space(life, probe, seen, before)
        if probe.first_index != seen.first:
            if before is not None and probe.term_at(seen.first) is None:
                self._check_tail(life, probe, before)
            seen.first = probe.first_index

    def _check_disk(self, life: Life, probe: Probe, mark: Mark) -> None:
        """B1, ABA: what a node calls durable, its disk holds."""
        platter = life.host.platter
        if platter is None or (platter.damage and life.node.rot):
            return  # of a damaged file others must tell what it led to
        if platter.damage:
            self._world.fail(f"{life.id} started on what is not durable: {platter.damage}")
        durable = probe.durable_index
        if durable > probe.first_index and platter.term_at(durable) != probe.term_at(durable):
            self._world.fail(
                f"{life.id} calls entry {durable} of term {probe.term_at(durable)} durable, its "
                f"disk ends at {platter.last} with term {platter.terms[-1]}"
            )
        if probe.vote_generation <= probe.durable_generation:
            claimed = (mark[0], mark[1] or "")
            if claimed != (platter.term, platter.vote):
                self._world.fail(
                    f"{life.id} calls term and vote {claimed} durable, its disk holds "
                    f"{(platter.term, platter.vote)}"
                )

    def _check_space(self, life: Life, probe: Probe, seen: Watched, before: Mark | None) -> None:
        """B8: a node whose disk is full takes nothing more in."""
        disk = life.host.disk
        if disk is None or not disk.is_full:
            seen.full_since_s = None
            return
        now_s = self._world.loop.time()
        since_s = seen.full_since_s = now_s if seen.full_since_s is None else seen.full_since_s
        if before is None or seen.mark is None:
            return
        grown = seen.mark[5] > before[5]
        if seen.mark[2] is Role.LEADER is not before[2]:
            return  # it asked for votes before its disk was full; it hands over next
        if grown and now_s - since_s > FULL_GRACE_S and len(probe.voters) > 1:
            self._world.fail(
                f"{life.id} takes entry {probe.last_index}, its disk is full since {since_s:.3f} s"
            )

    def _check_tail(self, life: Life, probe: Probe, before: Mark) -> None:
        """C5: compaction leaves a tail behind the snapshot, for followers that lag a little."""
        config = life.node.config
        newest = life.consensus.status().get("snapshot_index", 0)
        first = probe.first_index
        if not isinstance(newest, int) or newest > before[4]:
            return  # one that was received took the place of the log
        kept = range(first + 1, newest + 1)
        if len(kept) >= config.trailing_entries:
            return
        if sum(len(probe.entry_at(index)[0]) for index in kept) < config.trailing_bytes:
            self._world.fail(f"{life.id} keeps {len(kept)} entries behind snapshot {newest}")
