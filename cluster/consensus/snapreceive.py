"""Takes in a streamed snapshot: chunk by chunk into a temporary file, verified before its use.

A chunk that does not continue what is there is answered with the place to go on from, so loss,
repetition and reordering all end in the same bytes. Verification and fsync run outside of the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .guards import ALL_ON, Guards
from .interface import Adopt
from .segments import DiskFullError, as_full
from .snapfile import SnapshotFile, SnapshotFileError
from .snapstore import SnapshotStore
from .storage import Open
from .wire import SnapshotChunk

INCOMING = "incoming.tmp"
RESERVE_BYTES = 1 << 20  # nothing but the journal may take the last of a disk


@dataclass(frozen=True)
class Arrived:
    """The result of verifying a complete file."""

    snapshot: SnapshotFile | None
    why: str = ""
    adopt: Adopt | None = None  # its content, loaded aside


class SnapshotReceiver:
    """`verify(job, done)` runs `job()` elsewhere and calls `done(result)` on the loop."""

    def __init__(
        self,
        store: SnapshotStore,
        verify: Callable[[Callable[[], Arrived], Callable[[Arrived], None]], None],
        on_arrived: Callable[[str, Arrived], None],
        guards: Guards = ALL_ON,
    ) -> None:
        self._verifies_first = guards.on("a5_verify_first")
        self._checks_place = guards.on("b13_chunk_place")
        self._store = store
        self._storage = store.storage
        self._path = store.folder / INCOMING
        self._verify = verify
        self._on_arrived = on_arrived
        self.load: Callable[[SnapshotFile], Adopt] | None = None
        self._descriptor = -1
        self._key = (0, 0, 0)  # index, term, size
        self._have = 0
        self._is_verifying = False

    @property
    def is_receiving(self) -> bool:
        """A snapshot is on its way, or being verified and loaded."""
        return self._is_verifying or self._descriptor >= 0

    def on_chunk(self, peer: str, chunk: SnapshotChunk, data: bytes) -> int:
        """How many bytes of this snapshot are here now."""
        key = (chunk.index, chunk.index_term, chunk.size)
        if self._is_verifying:
            return self._have if key == self._key else 0
        if key != self._key or self._descriptor < 0:
            self._begin(key)
        fits = chunk.offset == self._have or not self._checks_place
        if data and fits and self._have + len(data) <= chunk.size:
            self._write(data)
        if self._have == chunk.size:
            self._finish(peer)
        return self._have

    def abandon(self) -> None:
        """Drops an unfinished transfer, for example because the log caught up by itself."""
        if not self._is_verifying:
            self._close()
            self._storage.remove(self._path)

    def _begin(self, key: tuple[int, int, int]) -> None:
        self._close()
        free = self._storage.free_bytes(self._store.folder)
        if free < key[2] + RESERVE_BYTES:
            raise DiskFullError(f"it has {key[2]} bytes, {free} are free")
        self._descriptor = self._storage.open(self._path, Open.REPLACE)
        self._key = key

    def _write(self, data: bytes) -> None:
        try:
            self._storage.write_at(self._descriptor, [data], self._have)
        except OSError as error:
            raise as_full(error) from error
        self._have += len(data)

    def _finish(self, peer: str) -> None:
        index, term, _ = self._key
        self._is_verifying = True
        store, path, verifies_first = self._store, self._path, self._verifies_first

        def job() -> Arrived:
            try:
                store.sync(path)
                if verifies_first:
                    store.validate_as(path, index, term)
                return self._loaded(store.publish(path, index, term))
            except (SnapshotFileError, OSError) as error:
                return Arrived(None, f"snapshot {index} from {peer}: {error}")

        def done(arrived: Arrived) -> None:
            self._is_verifying = False
            self._close()
            self._on_arrived(peer, arrived)

        self._verify(job, done)

    def _loaded(self, snapshot: SnapshotFile) -> Arrived:
        if self.load is None:
            return Arrived(snapshot)
        try:
            return Arrived(snapshot, adopt=self.load(snapshot))
        except (ValueError, OSError):
            return Arrived(snapshot)  # loading it on the loop will say what is wrong

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._storage.close(self._descriptor)
        self._descriptor = -1
        self._key = (0, 0, 0)
        self._have = 0
