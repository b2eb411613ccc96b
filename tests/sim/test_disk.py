"""The simulated disk: what a power loss may leave, must leave and must not leave."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest

from chaos.sim.disk import Everything, MemoryStorage, Nothing, PowerCut, Whims
from cluster.consensus.storage import Open, is_full, make_folders, sync_path, write_file

FOLDER = Path("/node/data")
FILE = FOLDER / "f"


def disk(**settings: int) -> MemoryStorage:
    storage = MemoryStorage(**settings)
    make_folders(storage, FOLDER)
    sync_path(storage, FOLDER)
    return storage


def written(storage: MemoryStorage, data: bytes, *, name: bool = True, sync: bool = True) -> int:
    descriptor = storage.open(FILE, Open.CREATE)
    storage.write_at(descriptor, [data], 0)
    if sync:
        storage.sync_data(descriptor)
    if name:
        storage.sync_folder(FOLDER)
    return descriptor


def test_what_was_synced_survives_the_worst() -> None:
    storage = disk()
    written(storage, b"kept")
    storage.power_loss(Nothing())
    assert storage.read(FILE) == b"kept"


def test_a_file_without_a_synced_name_is_gone() -> None:
    storage = disk()
    written(storage, b"nameless", name=False)
    storage.power_loss(Nothing())
    assert storage.list_names(FOLDER) == []


def test_a_named_file_without_synced_content_is_empty() -> None:
    storage = disk()
    written(storage, b"empty", sync=False)
    storage.power_loss(Nothing())
    assert storage.read(FILE) == b""


def test_a_killed_process_leaves_everything_it_wrote() -> None:
    storage = disk()
    descriptor = written(storage, b"in the cache", name=False, sync=False)
    storage.kill()
    assert storage.read(FILE) == b"in the cache"
    with pytest.raises(OSError, match="descriptor"):
        storage.write_at(descriptor, [b"x"], 0)
    storage.power_loss(Everything())
    assert storage.read(FILE) == b"in the cache"


def test_an_unsynced_folder_takes_what_is_in_it_along() -> None:
    storage = disk()
    inner = FOLDER / "inner"
    storage.make_folder(inner)
    write_file(storage, inner / "f", b"durable in a folder that is not")
    storage.power_loss(Nothing())
    assert storage.list_names(FOLDER) == []


def test_any_subset_of_unsynced_writes_may_survive_and_nothing_else() -> None:
    seen = set()
    for seed in range(300):
        storage = disk()
        descriptor = written(storage, b"....")
        for position in range(3):
            storage.write_at(descriptor, [b"%d" % position], position)
        storage.power_loss(Whims(Random(seed)))
        seen.add(storage.read(FILE))
    assert seen == {bytes(b"%c%c%c." % (a, b, c)) for a in b"0." for b in b"1." for c in b"2."}


def test_a_write_may_be_torn_at_any_byte_and_any_sector() -> None:
    lengths, holes = set(), 0
    for seed in range(3000):
        storage = disk()
        descriptor = written(storage, b"")
        storage.write_at(descriptor, [b"x" * 1500], 0)
        storage.power_loss(Whims(Random(seed)))
        data = storage.read(FILE)
        lengths.add(len(data))
        holes += b"\0x" in data
        assert not data.strip(b"\0x")
    assert {0, 1500, 512, 1024} <= lengths
    assert len(lengths) > 100
    assert holes > 50


def test_names_and_contents_have_separate_fates() -> None:
    """A renamed file may be there under either name, or with nothing in it."""
    seen = set()
    for seed in range(200):
        storage = disk()
        written(storage, b"new", name=False, sync=False)
        storage.rename(FILE, FOLDER / "g")
        storage.power_loss(Whims(Random(seed)))
        for name in storage.list_names(FOLDER):
            seen.add((name, len(storage.read(FOLDER / name))))
    assert seen >= {("f", 0), ("f", 3), ("g", 0), ("g", 3)}


def test_a_small_file_is_replaced_whole_or_not_at_all() -> None:
    for cut_at in range(12):
        for seed in range(20):
            storage = disk()
            write_file(storage, FILE, b"old content")
            start = storage.operations
            pull_the_plug(storage, start + cut_at)
            try:
                write_file(storage, FILE, b"new")
                is_done = True
            except PowerCut:
                is_done = False
            storage.power_loss(Whims(Random(seed)))
            storage.before = lambda operation, path: None
            assert storage.read(FILE) in ((b"new",) if is_done else (b"new", b"old content"))


def pull_the_plug(storage: MemoryStorage, at_operation: int) -> None:
    def before(operation: str, path: Path) -> None:
        if storage.operations == at_operation:
            raise PowerCut

    storage.before = before


def test_after_the_plug_is_pulled_nothing_works() -> None:
    storage = disk()
    written(storage, b"x")
    pull_the_plug(storage, storage.operations)
    with pytest.raises(PowerCut):
        storage.remove(FILE)
    storage.before = lambda operation, path: None
    with pytest.raises(PowerCut):
        storage.read(FILE)
    storage.power_loss(Nothing())
    assert storage.read(FILE) == b"x"


def test_a_failed_sync_loses_the_data_although_the_next_one_succeeds() -> None:
    storage = disk()
    descriptor = written(storage, b"first")
    storage.write_at(descriptor, [b"lost!"], 0)

    def fail(operation: str, path: Path) -> None:
        if operation == "sync_data":
            raise OSError(errno.EIO, "injected")

    storage.before = fail
    with pytest.raises(OSError, match="injected"):
        storage.sync_data(descriptor)
    storage.before = lambda operation, path: None
    storage.sync_data(descriptor)
    assert storage.read(FILE) == b"lost!"
    storage.power_loss(Everything())
    assert storage.read(FILE) == b"first"


def test_a_full_disk_takes_what_fits_and_says_so() -> None:
    storage = disk(capacity_bytes=10)
    descriptor = written(storage, b"123456")
    with pytest.raises(OSError, match="space") as caught:
        storage.write_at(descriptor, [b"78", b"90!"], 6)
    assert is_full(caught.value)
    assert storage.read(FILE) == b"1234567890"
    assert storage.free_bytes(FOLDER) == 0
    storage.write_at(descriptor, [b"654321"], 0)  # no growth, no need for space
    with pytest.raises(OSError, match="space"):
        storage.allocate(descriptor, 11)
    storage.remove(FILE)
    assert storage.free_bytes(FOLDER) == 0, "an open file keeps its space"
    storage.close(descriptor)
    assert storage.free_bytes(FOLDER) == 10


def test_a_flipped_bit_stays() -> None:
    storage = disk()
    written(storage, b"\x00\x00")
    storage.flip_bit(FILE, 1, 3)
    storage.power_loss(Nothing())
    assert storage.read(FILE) == b"\x00\x08"


def test_rot_can_be_repaired_but_what_was_written_over_it_stays() -> None:
    storage = disk()
    descriptor = written(storage, b"ab")
    repair_first, repair_second = storage.rot(FILE, 0, 0), storage.rot(FILE, 1, 0)
    assert storage.read(FILE) == b"`c"
    storage.write_at(descriptor, [b"x"], 0)
    storage.sync_data(descriptor)
    repair_first()
    repair_second()
    assert storage.read(FILE) == b"xb"
    storage.power_loss(Nothing())
    assert storage.read(FILE) == b"xb"


def test_a_durable_copy_is_what_the_worst_power_loss_leaves() -> None:
    storage = disk()
    descriptor = written(storage, b"old")
    storage.write_at(descriptor, [b"new"], 0)
    storage.rename(FILE, FOLDER / "g")
    copy = storage.durable_copy()
    assert copy.files() == [FILE] and copy.read(FILE) == b"old"
    assert storage.read(FOLDER / "g") == b"new", "the disk itself goes on"
    storage.sync_data(descriptor)
    storage.sync_folder(FOLDER)
    assert storage.durable_copy().read(FOLDER / "g") == b"new" and copy.read(FILE) == b"old"


def test_a_lock_is_held_once_and_ends_with_its_process() -> None:
    storage = disk()
    storage.lock(FOLDER / "lock")
    with pytest.raises(BlockingIOError):
        storage.lock(FOLDER / "lock")
    storage.kill()
    storage.lock(FOLDER / "lock")
