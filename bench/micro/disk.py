"""The journal's files and the history's, on the disk of the temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench.micro import replay
from bench.micro.timing import Step, Work
from cluster.consensus.records import BASE, ENTRY, record
from cluster.consensus.recovery import Recovered
from cluster.consensus.segments import Batch, SegmentFiles
from cluster.consensus.storage import FILES
from cluster.history.ended import Ended
from cluster.history.store import Store
from cluster.machine.commands import encode_batch

ENTRIES = 100
SEGMENT_BYTES = 64 << 20
_numbers = count()


def steps(jobs: int, folder: Path) -> list[Step]:
    small, large = b"x" * 200, encode_batch(replay.submissions(replay.BATCH)[0])
    wide = f"{len(large) // 1000} kB"
    return [
        Step("journal, entry of 200 B, one write for 100", ENTRIES,
             _appending(folder, small, group=ENTRIES), per="entry"),
        Step("journal, entry of 200 B, each written", ENTRIES,
             _appending(folder, small, group=1), per="entry"),
        Step(f"journal, entry of {wide}, each written", ENTRIES,
             _appending(folder, large, group=1), per="entry"),
        Step("journal, entry of 200 B, each written and synced", ENTRIES,
             _appending(folder, small, group=1, fsync=True), per="entry", waits=True),
        Step(f"journal, entry of {wide}, each written and synced", ENTRIES,
             _appending(folder, large, group=1, fsync=True), per="entry", waits=True),
        Step("history, 1,000 finished jobs at a time", jobs, lambda: _writing(folder, jobs)),
    ]  # fmt: skip


def _appending(
    folder: Path, payload: bytes, *, group: int, fsync: bool = False
) -> Callable[[], Work]:
    def prepare() -> Work:
        home = folder / f"journal{next(_numbers)}"
        home.mkdir()
        files = SegmentFiles(FILES, home, b"m" * 16, Recovered(), SEGMENT_BYTES, fsync=fsync)
        files.begin([*record(BASE, 1, 1)])

        def append() -> None:
            for index in range(2, ENTRIES + 2):
                files.append(Batch(index, index, record(ENTRY, index, 1, payload)))
                if index % group == 1 or group == 1:
                    files.sync()
            files.sync()

        return append

    return prepare


def _writing(folder: Path, jobs: int) -> Work:
    """From finished jobs, as the machine leaves them, to rows in the file."""
    store = Store(folder / f"history{next(_numbers)}.sqlite")
    state = replay.state_after(replay.submissions(jobs), replay.assignments(jobs))
    completed = replay.book(state, replay.completions(jobs))

    def write() -> None:
        for index, effects in enumerate(completed, 1):
            ended = Ended.of([(index, effects.jobs_finished)])
            store.write(ended, index, durable=False)

    return write
