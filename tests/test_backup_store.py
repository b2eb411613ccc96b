"""Copies of backups in an object store: what goes there, what leaves, what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import pytest

from cluster.backup import BackupError
from cluster.backup.__main__ import main
from cluster.backup.logs import KeptLog, read_entries
from cluster.backup.shelf import Shelf
from cluster.backup.store import Copies, Store, fetched, fetched_log

ADDRESS = "memory://bucket/c1"


@pytest.fixture
def store() -> Iterator[Store]:
    yield Store(ADDRESS)
    fsspec.filesystem("memory").store.clear()


def full(shelf: Shelf, index: int) -> None:
    shelf.folder.mkdir(parents=True, exist_ok=True)
    shelf.path_for(index, index * 1000).write_bytes(b"whole %d" % index)


def keep(log: KeptLog, *indexes: int) -> None:
    log.append([(index, 7, b"entry") for index in indexes])


def firsts(names: Iterable[str]) -> list[str]:
    """The numbers in the names of objects, without their zeros."""
    numbers = ([part.lstrip("0") for part in name.split("-")[1:3]] for name in names)
    return sorted("-".join(each) for each in numbers)


def test_what_is_new_is_sent_once(store: Store, tmp_path: Path) -> None:
    shelf, log, copies = Shelf(tmp_path, "c1"), KeptLog(tmp_path / "c1"), Copies(store)
    full(shelf, 5)
    keep(log, 6, 7)
    (shelf.folder / "notes.txt").write_text("mine")
    copies.send(shelf.folder)
    copies.send(shelf.folder)
    assert copies.sent_total == 2
    assert copies.newest == (5, 5000)
    assert firsts(store.sizes()) == ["5-5000.tar", "6-7"]


def test_a_file_that_has_grown_and_an_object_that_was_cut_off_are_sent_again(
    store: Store, tmp_path: Path
) -> None:
    shelf, log, copies = Shelf(tmp_path, "c1"), KeptLog(tmp_path / "c1"), Copies(store)
    full(shelf, 5)
    keep(log, 6)
    copies.send(shelf.folder)
    (name,) = [name for name in store.sizes() if name.startswith("full")]
    fsspec.filesystem("memory").pipe_file(f"/bucket/c1/{name}", b"who")
    keep(log, 7)
    copies.send(shelf.folder)
    assert store.sizes()[name] == len(b"whole 5")
    assert firsts(store.sizes()) == ["5-5000.tar", "6-6", "6-7"]


def test_a_life_after_another_sends_what_was_left_behind(store: Store, tmp_path: Path) -> None:
    keep(KeptLog(tmp_path), 1, 2)
    keep(KeptLog(tmp_path), 2, 3)
    Copies(store).send(tmp_path)
    assert firsts(store.sizes()) == ["1-2", "2-3"]


def test_old_ones_leave_the_store_and_the_folder_with_the_log_that_only_they_need(
    store: Store, tmp_path: Path
) -> None:
    shelf, copies = Shelf(tmp_path, "c1"), Copies(store)
    for index in (10, 20, 30):
        full(shelf, index)
        log = KeptLog(shelf.folder)
        keep(log, index - 1, index)
        keep(log, index + 1)
        log.close()
    copies.send(shelf.folder)
    copies.prune(shelf.folder, 2, leads=False)
    assert len(store.sizes()) == 6
    assert [one.index for one in shelf.fulls()] == [20, 30]
    copies.prune(shelf.folder, 2, leads=True)
    assert firsts(store.sizes()) == ["19-21", "20-20000.tar", "29-31", "30-30000.tar"]
    copies.send(shelf.folder)
    assert len(store.sizes()) == 4


def test_too_few_backups_leave_everything(store: Store, tmp_path: Path) -> None:
    shelf, copies = Shelf(tmp_path, "c1"), Copies(store)
    keep(KeptLog(shelf.folder), 1)
    full(shelf, 10)
    copies.send(shelf.folder)
    copies.prune(shelf.folder, 2, leads=True)
    assert len(store.sizes()) == 2


def test_what_is_fetched_is_what_was_sent(store: Store, tmp_path: Path) -> None:
    shelf, log = Shelf(tmp_path, "c1"), KeptLog(tmp_path / "c1")
    full(shelf, 5)
    keep(log, 4, 5)
    log.close()
    keep(log, 6, 7)
    Copies(store).send(shelf.folder)
    (name,) = [name for name in store.sizes() if name.startswith("full")]
    there = tmp_path / "there"
    there.mkdir()
    assert fetched(f"{ADDRESS}/{name}", there).read_bytes() == b"whole 5"
    (path,) = fetched_log(ADDRESS, there, 5).glob("*.kept")
    assert [index for index, _, _ in read_entries(path)] == [6, 7]


def test_what_cannot_be_reached_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BackupError, match="nosuch"):
        Store("nosuch://bucket")
    with pytest.raises(BackupError, match="cannot be read"):
        fetched(f"{ADDRESS}/full-1.tar", tmp_path)
    assert main(["verify", "nosuch://bucket/full.tar"]) == 1
    assert main(["list", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_a_folder_is_listed_oldest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (20, 10):
        full(Shelf(tmp_path, "c1"), index)
    assert main(["list", str(tmp_path / "c1")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["index"] for one in told] == [10, 20]
    assert told[0]["at"].startswith(str(tmp_path / "c1" / "full-"))
