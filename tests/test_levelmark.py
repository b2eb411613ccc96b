"""The note in the data folder: an older release is turned away before it has read anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.levelmark import FILE, LevelError, LevelMark
from cluster.machine.levels import Support


def test_a_folder_remembers_its_level(tmp_path: Path) -> None:
    mark = LevelMark(tmp_path, 4)
    mark.read(joins=False)
    mark.reached(3)
    mark.reached(2)
    again = LevelMark(tmp_path, 5)
    again.read(joins=False)
    assert again.support(0) == Support(5, born=4)
    with pytest.raises(LevelError, match=r"cannot start on .*: the data is at feature level 3, "):
        LevelMark(tmp_path, 2).read(joins=False)


@pytest.mark.parametrize("was", ["used by a release without levels", "joining"])
def test_only_a_new_folder_of_a_new_cluster_is_born(tmp_path: Path, was: str) -> None:
    if was != "joining":
        (tmp_path / "journal").mkdir()
    mark = LevelMark(tmp_path, 4)
    mark.read(joins=was == "joining")
    assert mark.support(3) == Support(4, held=3, born=0)
    mark.write()
    again = LevelMark(tmp_path, 4)
    again.read(joins=False)
    assert again.support(0).born == 0


def test_a_note_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(LevelError, match="move it away"):
        LevelMark(tmp_path, 4).read(joins=False)


def test_a_note_that_cannot_be_written_does_not_stop_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = LevelMark(tmp_path / "nowhere", 4)
    mark.reached(3)
    assert "cannot be written" in caplog.text
