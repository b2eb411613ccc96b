"""From a backup to the data folder of a new cluster's node. Nothing of it needs a running node."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from cluster.consensus import ConsensusStartError, SnapshotFileError, plant, read_copy
from cluster.history import HistoryError
from cluster.machine import snapshot
from cluster.machine.state import State
from cluster.settings import Settings

from .bundle import BackupError, Bundle
from .logs import Target, replay
from .manifest import HISTORY, STATE
from .past import read_history, restore_history
from .revive import revive

HISTORY_FILE = "history.sqlite"


@dataclass(frozen=True)
class Restored:
    """What became of a backup. `running_jobs` are retried (or dead, if that was the last try).
    `history_complete` is None if there is no history, or the backup does not say."""

    index: int
    term: int
    digest: int
    jobs: int
    dead_letters: int
    schedules: int
    running_jobs: int
    history_rows: int
    history_complete: bool | None
    replayed_entries: int


def load_state(bundle: Bundle) -> tuple[State, int, int]:
    """(state, index, term). BackupError if this release does not understand it."""
    with bundle.open(STATE) as file:
        try:
            _, index, term, chunks = read_copy(file)
            return snapshot.load(chunks), index, term
        except (SnapshotFileError, ValueError) as error:
            raise BackupError(f"{bundle.path}: {STATE} cannot be loaded: {error}") from error


def verify(bundle: Bundle) -> Restored:
    """Reads everything as a restore would and writes nothing. Raises BackupError."""
    bundle.check()
    state, index, term = load_state(bundle)
    rows = 0
    if bundle.has(HISTORY):
        with bundle.open(HISTORY) as file:
            rows = sum(len(chunk) for chunk in read_history(file))
    running = sum(len(row.running) for row in state.tables.workers.values())
    return _told(bundle, state, index, term, running, rows, 0)


def restore(
    bundle: Bundle, settings: Settings, target: Target | None, ids_skipped: int
) -> Restored:
    """Makes `settings.data` the folder of one of the first members of a new cluster.

    `target` names a later moment that is reached by replaying kept log. Raises BackupError; the
    folder is then untouched, or refuses to start."""
    bundle.check()
    state, index, term = load_state(bundle)
    entries = 0
    if target is not None:
        entries, index, term = replay(state, index, term, target)
    running = revive(state, ids_skipped)
    try:
        plant(
            settings.data,
            settings.advertise,
            settings.peers,
            settings.cluster_secret,
            index=index,
            term=term,
            origin=_origin(bundle, index),
            chunks=snapshot.dump(state),
        )
        rows = 0
        if bundle.has(HISTORY):
            with bundle.open(HISTORY) as file:
                path = settings.data / HISTORY_FILE
                rows = asyncio.run(restore_history(file, path, state, bundle.manifest))
    except (ConsensusStartError, HistoryError, OSError) as error:
        raise BackupError(str(error)) from error
    return _told(bundle, state, index, term, running, rows, entries)


def _origin(bundle: Bundle, index: int) -> bytes:
    """The same for all members that are restored from this backup to this moment."""
    part = bundle.manifest.parts[STATE]
    return hashlib.sha256(f"{part.sha256} {index}".encode()).digest()


def _told(
    bundle: Bundle, state: State, index: int, term: int, running: int, rows: int, entries: int
) -> Restored:
    tables, lacks = state.tables, bundle.manifest.history_lacks
    return Restored(
        index, term, state.digest, len(tables.jobs), len(tables.dead), len(tables.schedules),
        running, rows, None if lacks is None else not lacks, entries,
    )  # fmt: skip
