"""What the journal holds after crashes at every point, and what it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.consensus import ConsensusStartError, FatalError
from cluster.consensus.disk import Batch, SegmentFiles
from cluster.consensus.install import align
from cluster.consensus.journal import Journal
from cluster.consensus.mark import read_mark
from cluster.consensus.recovery import Recovered, read_journal, settle
from cluster.consensus.snapfile import SnapshotFile
from cluster.consensus.storage import FILES

CLUSTER = b"c" * 16
State = tuple[list[tuple[bytes, int, int]], int, str | None]


class InlineDisk:
    """Durable at once, or when `finish()` is called if `held`."""

    def __init__(self, files: SegmentFiles, journal: Journal) -> None:
        self.files = files
        self.journal = journal
        self.held = False
        self.waiting: list[Batch] = []

    def write(self, batch: Batch) -> None:
        self.files.append(batch)
        self.files.sync()
        self.waiting.append(batch)
        if not self.held:
            self.finish()

    def finish(self) -> None:
        while self.waiting:
            self.journal.on_durable(self.waiting.pop(0))

    def delete_before(self, index: int) -> None:
        self.files.delete_before(index)

    @property
    def is_full(self) -> bool:
        return False

    def size_bytes(self) -> int:
        return self.files.size_bytes()

    def close(self) -> None:
        self.files.close()


def open_journal(
    folder: Path, segment_bytes: int = 1 << 20, *, fsync: bool = False
) -> tuple[Journal, InlineDisk]:
    folder.mkdir(exist_ok=True)
    found = read_journal(FILES, folder, CLUSTER)
    settle(FILES, folder, found)
    journal = Journal(found, 1)
    files = SegmentFiles(FILES, folder, CLUSTER, found, segment_bytes, fsync=fsync)
    disk = InlineDisk(files, journal)
    journal.attach(disk)
    return journal, disk


def append(journal: Journal, count: int, term: int, size: int = 5) -> None:
    for _ in range(count):
        index = journal.last_index + 1
        journal.add(bytes([index % 256]) * size, index, term)
        journal.kick()


def state_of(found: Recovered) -> State:
    return found.entries, found.term, found.vote


def test_entries_term_and_vote_survive_a_restart(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path)
    journal.setCurrentTerm(3, "b:1")
    append(journal, 3, term=3)
    disk.close()
    again, _ = open_journal(tmp_path)
    assert again.getCurrentTerm() == 3
    assert again.getVotedForNodeId() == "b:1"
    assert again[1:] == [(b"\x02" * 5, 2, 3), (b"\x03" * 5, 3, 3), (b"\x04" * 5, 4, 3)]
    assert again.durable_index == 4


def test_a_torn_tail_is_cut_at_every_byte_of_the_last_batch(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path / "j")
    journal.setCurrentTerm(1, None)
    append(journal, 4, term=1)
    path = next((tmp_path / "j").glob("*.seg"))
    before = disk.size_bytes()
    append(journal, 1, term=1)
    data = path.read_bytes()
    for length in range(before, disk.size_bytes()):
        for rest in (b"", bytes(len(data) - length)):  # cut off, or never overwritten zeros
            folder = tmp_path / f"cut{length}-{len(rest)}"
            folder.mkdir()
            (folder / path.name).write_bytes(data[:length] + rest)
            found = read_journal(FILES, folder, CLUSTER)
            assert found.last_index == 5, length
            reopened, other = open_journal(folder)
            append(reopened, 1, term=1)  # the cut must not leave what could be read again
            other.close()
            again = read_journal(FILES, folder, CLUSTER)
            assert [e[1:] for e in again.entries][-1] == (6, 1)


def test_a_torn_tail_of_zeros_or_old_bytes_is_cut(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path)
    append(journal, 3, term=0)
    path = next(tmp_path.glob("*.seg"))
    end = disk.size_bytes()
    disk.close()
    data = path.read_bytes()
    path.write_bytes(data[:end] + b"old bytes" + data[end:])
    assert read_journal(FILES, tmp_path, CLUSTER).last_index == 4


def test_every_bit_flip_before_the_last_batch_refuses_to_start(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path / "j", segment_bytes=1000)
    append(journal, 3, term=0)
    path = next((tmp_path / "j").glob("*.seg"))
    last_batch = disk.size_bytes()
    append(journal, 1, term=0)
    refuses_every_flip(path, tmp_path / "bad", last_batch)


def test_every_bit_flip_refuses_to_start_once_the_journal_was_idle(tmp_path: Path) -> None:
    """Without the mark beside it, damage to the very last batch would pass for a torn write."""
    journal, disk = open_journal(tmp_path / "j", segment_bytes=1000, fsync=True)
    journal.setCurrentTerm(3, "b:1")
    append(journal, 3, term=3)
    disk.files.note_durable()
    refuses_every_flip(next((tmp_path / "j").glob("*.seg")), tmp_path / "bad", disk.size_bytes())


def refuses_every_flip(path: Path, folder: Path, end: int) -> None:
    data = path.read_bytes()
    folder.mkdir()
    mark = path.with_name("durable.mark")
    if mark.exists():
        (folder / mark.name).write_bytes(mark.read_bytes())
    for position in range(end):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        (folder / path.name).write_bytes(damaged)
        with pytest.raises(ConsensusStartError, match=path.name):
            read_journal(FILES, folder, CLUSTER)


def test_a_missing_segment_refuses_to_start(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=200)
    append(journal, 30, term=0, size=40)
    disk.close()
    paths = sorted(tmp_path.glob("*.seg"))
    assert len(paths) > 3
    paths[1].unlink()
    with pytest.raises(ConsensusStartError, match="missing"):
        read_journal(FILES, tmp_path, CLUSTER)


def test_a_missing_or_shortened_last_segment_refuses_to_start(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=200, fsync=True)
    append(journal, 30, term=0, size=40)
    disk.files.note_durable()
    disk.close()
    last = max(tmp_path.glob("*.seg"))
    last.write_bytes(last.read_bytes()[: disk.files._size - 3])
    with pytest.raises(ConsensusStartError, match="once durable, is missing"):
        read_journal(FILES, tmp_path, CLUSTER)
    last.unlink()
    with pytest.raises(ConsensusStartError, match="once durable, is missing"):
        read_journal(FILES, tmp_path, CLUSTER)


def test_a_damaged_mark_is_only_a_weaker_one(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, fsync=True)
    for _ in range(3):
        append(journal, 1, term=0)
        disk.files.note_durable()
    disk.close()
    path = tmp_path / "durable.mark"
    data = path.read_bytes()
    assert read_mark(FILES, tmp_path) == 4
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert read_mark(FILES, tmp_path) in (3, 4)
    path.write_bytes(b"")
    assert read_mark(FILES, tmp_path) == 0


def test_foreign_files_are_ignored_and_renamed_ones_refused(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=200)
    append(journal, 10, term=0, size=40)
    disk.close()
    whole = state_of(read_journal(FILES, tmp_path, CLUSTER))
    last = max(tmp_path.glob("*.seg"))
    for name in ("notes.txt", last.name + "~", "copy of " + last.name, "1.seg"):
        (tmp_path / name).write_bytes(last.read_bytes())
    assert state_of(read_journal(FILES, tmp_path, CLUSTER)) == whole
    (tmp_path / f"{int(last.stem) + 1:016d}.seg").write_bytes(last.read_bytes())
    with pytest.raises(ConsensusStartError, match="under another name"):
        read_journal(FILES, tmp_path, CLUSTER)


def test_an_emptied_segment_refuses_to_start(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=200)
    append(journal, 10, term=0, size=40)
    disk.close()
    for path in sorted(tmp_path.glob("*.seg")):
        data = path.read_bytes()
        for nothing in (b"", bytes(len(data))):
            path.write_bytes(nothing)
            with pytest.raises(ConsensusStartError, match=path.name):
                read_journal(FILES, tmp_path, CLUSTER)
        path.write_bytes(data)


def test_damage_in_a_finished_segment_refuses_to_start(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=200)
    append(journal, 30, term=0, size=40)
    disk.close()
    first = min(tmp_path.glob("*.seg"))
    first.write_bytes(first.read_bytes()[:-3])
    with pytest.raises(ConsensusStartError, match="is missing"):
        read_journal(FILES, tmp_path, CLUSTER)


def test_truncate_then_append_recovers_the_new_entries(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path)
    append(journal, 6, term=1 - 1)
    journal.deleteEntriesFrom(4)  # positions are list offsets: entry 5 and later
    journal.setCurrentTerm(2, None)
    append(journal, 1, term=2, size=9)
    disk.close()
    found = read_journal(FILES, tmp_path, CLUSTER)
    assert [entry[1:] for entry in found.entries] == [(2, 0), (3, 0), (4, 0), (5, 2)]
    assert found.entries[-1][0] == b"\x05" * 9


def test_segments_roll_and_whole_files_are_deleted(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=500)
    append(journal, 100, term=0, size=40)
    total = len(list(tmp_path.glob("*.seg")))
    disk.delete_before(60)
    left = read_journal(FILES, tmp_path, CLUSTER)
    assert total > 10
    assert len(left.segments) < total
    assert left.base_index <= 60
    assert left.last_index == 101
    assert [entry[1] for entry in left.entries] == list(range(left.base_index + 1, 102))


def test_a_truncation_below_the_base_of_its_segment_is_understood(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path, segment_bytes=300)
    append(journal, 10, term=0, size=60)
    base = read_journal(FILES, tmp_path, CLUSTER).segments[-1].base_index
    journal.deleteEntriesFrom(base - 2 - journal.first_index)
    journal.setCurrentTerm(1, None)
    append(journal, 6, term=1, size=10)
    last = journal.last_index
    disk.delete_before(last)
    found = read_journal(FILES, tmp_path, CLUSTER)
    assert found.last_index == last
    assert found.last_term == 1


def test_an_early_write_does_not_make_its_successor_durable(tmp_path: Path) -> None:
    """ABA: 5..7 of term 1 are being written when they are replaced by 5..6 of term 2."""
    journal, disk = open_journal(tmp_path)
    append(journal, 3, term=0)
    disk.held = True
    append(journal, 3, term=0)  # 5, 6, 7
    journal.deleteEntriesFrom(4)
    append(journal, 2, term=0)  # 5, 6 anew
    first_three, rest = disk.waiting[:3], disk.waiting[3:]
    for batch in first_three:
        journal.on_durable(batch)
    assert journal.durable_index == 4
    for batch in rest:
        journal.on_durable(batch)
    assert journal.durable_index == 6


def test_the_engine_can_neither_clear_nor_compact_nor_skip(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    append(journal, 2, term=0)
    with pytest.raises(FatalError):
        journal.clear()
    with pytest.raises(FatalError):
        journal.deleteEntriesTo(1)
    with pytest.raises(FatalError):
        journal.add(b"x", 9, 0)


def test_the_restored_commit_index_is_never_a_hint(tmp_path: Path) -> None:
    """A8: the library would take a commit index from its meta file, even beyond the log."""
    journal, disk = open_journal(tmp_path)
    append(journal, 3, term=0)
    journal.setRaftCommitIndex(50)
    disk.close()
    again, _ = open_journal(tmp_path)
    assert again.getRaftCommitIndex() == 1


def test_another_clusters_segment_is_refused(tmp_path: Path) -> None:
    journal, disk = open_journal(tmp_path)
    append(journal, 1, term=0)
    disk.close()
    with pytest.raises(ConsensusStartError, match="another cluster"):
        read_journal(FILES, tmp_path, b"d" * 16)


def test_a_snapshot_that_outran_the_journal_brings_its_term_along(tmp_path: Path) -> None:
    """A crash while the disk of the journal hung: the received file is durable, its term is not."""
    journal, disk = open_journal(tmp_path / "j")
    journal.setCurrentTerm(4, "b:1")
    append(journal, 3, term=4)
    disk.close()
    snapshot = SnapshotFile(tmp_path / "snap", 100, 5)
    again, disk = open_journal(tmp_path / "j")
    align(again, snapshot)
    again.kick()
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (5, None)
    disk.close()
    found = read_journal(FILES, tmp_path / "j", CLUSTER)
    assert (found.term, found.base_index, found.last_term) == (5, 100, 5)


def test_indexes_and_terms_beyond_32_bits_survive_a_restart(tmp_path: Path) -> None:
    """B9: nothing on disk is as narrow as the library's offsets."""
    far, late = 1 << 40, 1 << 35
    _, disk = open_journal(tmp_path / "j")
    disk.close()
    journal, disk = open_journal(tmp_path / "j")
    align(journal, SnapshotFile(tmp_path / "snap", far, late))
    append(journal, 2, term=late)
    disk.close()
    again, _ = open_journal(tmp_path / "j")
    assert again.getCurrentTerm() == late
    assert again[1:] == [(b"\x01" * 5, far + 1, late), (b"\x02" * 5, far + 2, late)]
    assert again.durable_index == far + 2
