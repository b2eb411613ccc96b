"""Power is lost at every storage operation of everything a node does to its disk.

Whatever the disk kept of what was not synced, the node comes back with everything it has promised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from crash_rig import ROOT, Rig, revive, run_until_cut

from chaos.sim.disk import Everything, Fate, MemoryStorage, Nothing, Whims
from cluster.consensus import ConsensusStartError, records
from cluster.consensus.storage import make_folders

Script = Callable[[Rig], None]
WHIMS = 6


def first_start(rig: Rig) -> None:
    rig.start()
    rig.vote(1, "b:1")
    rig.flush()


def some_history(rig: Rig) -> None:
    rig.vote(1, "a:1")
    rig.append(4)
    rig.flush()
    rig.append(3)
    rig.flush()


def append_and_roll(rig: Rig) -> None:
    for round_ in range(6):
        rig.append(2 + round_ % 3, size=60)
        if round_ % 2:
            rig.vote(2 + round_, "b:1" if round_ > 2 else None)
        rig.append(1)
        rig.flush()


def large_frames(rig: Rig) -> None:
    rig.append(20, size=200)
    rig.flush()
    rig.append(1, size=2000)
    rig.flush()


def truncate_and_replace(rig: Rig) -> None:
    rig.cut_from(5)
    rig.vote(2, None)
    rig.flush()
    rig.append(2, size=70)
    rig.flush()
    rig.cut_from(4)
    rig.vote(3, "c:1")
    rig.append(8, size=70)
    rig.flush()
    rig.append(1)
    rig.flush()


def snapshot_and_compact(rig: Rig) -> None:
    rig.append(10, size=80)
    rig.flush()
    rig.take_snapshot(6)
    rig.append(10, size=80)
    rig.flush()
    rig.take_snapshot(15)
    rig.append(5, size=80)
    rig.flush()
    rig.take_snapshot(25)
    rig.append(2)
    rig.flush()


def install_over_a_short_log(rig: Rig) -> None:
    rig.receive_snapshot(100, 4)
    rig.vote(4, None)
    rig.flush()
    rig.append(3)
    rig.flush()
    rig.receive_snapshot(200, 4)
    rig.flush()


def install_into_nothing(rig: Rig) -> None:
    rig.start()
    rig.receive_snapshot(100, 4)
    rig.vote(4, None)
    rig.flush()


def restart_twice(rig: Rig) -> None:
    for _ in range(2):
        rig.storage.kill()
        rig.start()
        rig.append(3)
        rig.flush()


SCRIPTS: dict[str, tuple[Script | None, Script]] = {
    "first start": (None, first_start),
    "append and roll": (some_history, append_and_roll),
    "large frames": (some_history, large_frames),
    "truncate": (some_history, truncate_and_replace),
    "snapshot and compact": (some_history, snapshot_and_compact),
    "install": (some_history, install_over_a_short_log),
    "install first": (None, install_into_nothing),
    "restart": (some_history, restart_twice),
}


def fates(seed: int) -> list[Fate | None]:
    whims = [Whims(Random(seed * WHIMS + number)) for number in range(WHIMS)]
    return [None, Nothing(), Everything(), *whims]


@pytest.mark.parametrize("name", SCRIPTS)
def test_power_loss_at_every_operation_breaks_no_promise(name: str) -> None:
    earlier, script = SCRIPTS[name]
    cut_at, was_cut = 0, True
    while was_cut:
        for fate in fates(cut_at):
            rig, was_cut = run_until_cut(script, cut_at, earlier)
            again = revive(rig, fate)
            # The node must be able to go on, and its next promise must hold as well.
            again.vote(again.journal.getCurrentTerm() + 1, "c:1")
            again.append(2, size=100)
            again.flush()
            revive(again, Nothing())
        cut_at += 1
    assert cut_at > 10


# Damage at rest ------------------------------------------------------------------------------


def a_full_folder() -> Rig:
    """A node that has done everything, then stopped in an idle moment."""
    rig, _ = run_until_cut(everything, 1 << 30, some_history)
    return rig


def everything(rig: Rig) -> None:
    append_and_roll(rig)
    snapshot_and_compact(rig)
    truncate_at_the_end(rig)


def truncate_at_the_end(rig: Rig) -> None:
    rig.cut_from(rig.journal.last_index - 1)
    rig.vote(rig.journal.getCurrentTerm() + 1, "b:1")
    rig.append(3)
    rig.flush()


def boundaries(rig: Rig, path: Path) -> list[int]:
    """Where headers, batches and records begin in a journal file; steps of 13 in any other."""
    data = rig.storage.read(path)
    if path.suffix != ".seg":
        return list(range(0, len(data), 13))
    header = records.SegmentHeader.decode(data)
    assert header is not None
    found = [0, 8, records.SEGMENT_HEADER.size - 1]
    offset = records.SEGMENT_HEADER.size
    while (batch := records.batch_at(memoryview(data), offset, header.nonce)) is not None:
        found += [offset, offset + 12]
        position = offset + records.BATCH_HEADER.size
        for _, _, _, payload in records.records_in(batch[1]):
            found.append(position)
            position += records.RECORD.size + len(payload)
        offset = position
    return found


Damage = Callable[[bytes, int], bytes]
DAMAGES: dict[str, Damage] = {
    "bit flip": lambda data, at: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :],
    "zeroed": lambda data, at: data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :],
    "torn": lambda data, at: data[:at] + bytes(len(data) - at),
    "cut off": lambda data, at: data[:at],
    "repeated": lambda data, at: data[:at] + data[max(0, at - 64) : at] + data[at:],
    "swapped": lambda data, at: (
        data[:at] + data[at + 40 : at + 80] + data[at : at + 40] + data[at + 80 :]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_at_every_record_boundary_is_refused_or_harmless(damage: str) -> None:
    harmless = refused = 0
    rig = a_full_folder()
    rig.storage.kill()
    whole = {path: rig.storage.read(path) for path in rig.storage.files()}
    for path, data in whole.items():
        for position in boundaries(rig, path):
            damaged = DAMAGES[damage](data, position)
            if damaged == data:
                continue
            storage = MemoryStorage()
            make_folders(storage, ROOT / "journal")
            make_folders(storage, ROOT / "snapshots")
            for other, content in whole.items():
                storage.overwrite(other, damaged if other == path else content)
            after = Rig(storage)
            try:
                after.start()
            except ConsensusStartError as error:
                assert str(ROOT) in str(error)
                refused += 1
            else:
                assert path.suffix != ".seg" or is_behind_the_end(rig, path, position), path
                after.recovered_from(rig)
                harmless += 1
    assert refused > 100
    assert harmless > 10  # a damaged snapshot is passed over for the older one


def is_behind_the_end(rig: Rig, path: Path, position: int) -> bool:
    """In reserved space."""
    segment = next(s for s in rig.files._segments if s.path == path)
    return position >= segment.size


@pytest.mark.parametrize("suffix", [".seg", ".snap", ".json", ".mark"])
def test_a_missing_file_is_refused_or_harmless(suffix: str) -> None:
    rig = a_full_folder()
    rig.storage.kill()
    whole = {path: rig.storage.read(path) for path in rig.storage.files()}
    for path in whole:
        if path.suffix != suffix:
            continue
        storage = MemoryStorage()
        make_folders(storage, ROOT / "journal")
        make_folders(storage, ROOT / "snapshots")
        for other, content in whole.items():
            if other != path:
                storage.overwrite(other, content)
        after = Rig(storage)
        try:
            after.start()
        except ConsensusStartError as error:
            assert str(ROOT) in str(error)
        else:
            # The oldest segment only matters if the newest snapshot is damaged.
            assert suffix in (".snap", ".mark") or path == min(
                p for p in whole if p.suffix == ".seg"
            )
            after.recovered_from(rig)
