"""What the files beside a hurt node's data do to its disk and clock."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from chaos.live import hurt_node
from chaos.live.harm.rot import flip
from cluster.clock import SystemClock
from cluster.consensus.storage import Open


@pytest.fixture
def storage(tmp_path: Path) -> hurt_node.HurtStorage:
    return hurt_node.HurtStorage(tmp_path / "disk")


@contextmanager
def opened(storage: hurt_node.HurtStorage, path: Path) -> Iterator[int]:
    descriptor = storage.open(path, Open.REPLACE)
    yield descriptor
    os.close(descriptor)


def test_a_full_disk_takes_nothing_and_a_well_one_does(
    storage: hurt_node.HurtStorage, tmp_path: Path
) -> None:
    with opened(storage, tmp_path / "file") as descriptor:
        (tmp_path / "disk").write_text("full")
        with pytest.raises(OSError, match="No space left") as caught:
            storage.write_at(descriptor, [b"a"], 0)
        assert caught.value.errno == errno.ENOSPC
        assert storage.free_bytes(tmp_path) == 0
        (tmp_path / "disk").unlink()
        storage.write_at(descriptor, [b"a"], 0)
        storage.sync_data(descriptor)
    assert (tmp_path / "file").read_bytes() == b"a"


def test_a_broken_disk_does_not_sync(storage: hurt_node.HurtStorage, tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("broken")
    with opened(storage, tmp_path / "file") as descriptor, pytest.raises(OSError, match="output"):
        storage.sync_data(descriptor)


def test_a_slow_disk_takes_its_time(
    storage: hurt_node.HurtStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(hurt_node.time, "sleep", slept.append)
    (tmp_path / "disk").write_text("slow 0.25")
    storage.sync_folder(tmp_path)
    assert slept == [0.25]


def test_a_stuck_sync_ends_when_the_disk_is_well(
    storage: hurt_node.HurtStorage, tmp_path: Path
) -> None:
    (tmp_path / "disk").write_text("stuck")
    thread = threading.Thread(target=storage.sync_folder, args=(tmp_path,))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    (tmp_path / "disk").unlink()
    thread.join(20)
    assert not thread.is_alive()


def test_a_clock_is_off_by_what_its_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "now_ms", lambda self: 1_000)
    hurt_node.shift_clock(tmp_path / "clock")
    assert SystemClock().now_ms() == 1_000
    (tmp_path / "clock").write_text("-300")
    assert SystemClock().now_ms() == 700


@pytest.mark.parametrize("behind", [False, True])
def test_one_bit_flips_in_what_was_written_or_behind_it(tmp_path: Path, behind: bool) -> None:
    path, content = tmp_path / "file", bytes(range(1, 200)) + bytes(4_000)
    for seed in range(50):
        path.write_bytes(content)
        mattered = flip(Random(seed), path, behind)
        now = path.read_bytes()
        changed = [at for at, byte in enumerate(now) if byte != content[at]]
        assert len(changed) == 1
        assert (now[changed[0]] ^ content[changed[0]]).bit_count() == 1
        assert (changed[0] < 199) == mattered == (not behind)


def test_a_file_without_zeros_behind_is_hit_where_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"full")
    assert flip(Random(1), path, behind=True)
