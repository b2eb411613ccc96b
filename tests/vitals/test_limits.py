"""What can run out: where the limits come from, and that each crossing is said once."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

import pytest

from cluster.vitals import descriptors
from cluster.vitals.level import Level
from cluster.vitals.memory import Bound, bound_of, rss_bytes, used_bytes

GIB = 1 << 30


def groups(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A made-up /proc/self and /sys/fs/cgroup."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    (proc / "cgroup").write_text(membership)
    for name, text in files.items():
        path = cgroups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroups


def test_the_setting_comes_first(tmp_path: Path) -> None:
    proc, cgroups = groups(tmp_path, "0::/a", {"a/memory.max": f"{GIB}\n"})
    assert bound_of(100, proc, cgroups) == Bound(100 << 20, "memory_limit_mb")


def test_of_nested_groups_the_tightest_counts(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": "max\n",
        "a/memory.max": f"{GIB}\n",
        "a/memory.stat": "file 5000\nanon 700\nslab 3\n",
        "memory.max": f"{4 * GIB}\n",
    }
    bound = bound_of(0, *groups(tmp_path, "0::/a/b\n", files))
    assert (bound.limit, bound.source) == (GIB, str(tmp_path / "cgroup" / "a"))
    assert used_bytes(bound) == 700


def test_in_a_container_the_own_group_may_look_like_the_root(tmp_path: Path) -> None:
    files = {"memory.max": f"{2 * GIB}\n", "memory.stat": "anon 9\n"}
    bound = bound_of(0, *groups(tmp_path, "0::/docker/abc\n", files))
    assert (bound.limit, used_bytes(bound)) == (2 * GIB, 9)


def test_the_first_version_of_groups_is_understood(tmp_path: Path) -> None:
    membership = "5:devices:/\n4:memory:/box\n0::/\n"
    files = {
        "memory/box/memory.limit_in_bytes": f"{GIB}\n",
        "memory/box/memory.stat": "rss 1\ntotal_rss 12\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    bound = bound_of(0, *groups(tmp_path, membership, files))
    assert (bound.limit, used_bytes(bound)) == (GIB, 12)


@pytest.mark.parametrize(
    "files",
    [{}, {"memory.max": "max\n"}, {"memory/memory.limit_in_bytes": "9223372036854771712\n"}],
    ids=["no groups", "unlimited", "unlimited in the first version"],
)
def test_without_a_limit_there_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    bound = bound_of(0, *groups(tmp_path, "4:memory:/\n0::/\n", files))
    assert bound.limit == 0
    assert used_bytes(bound) == rss_bytes() > 1 << 20


def levels(caplog: pytest.LogCaptureFixture, level: Level, *used: int) -> list[str]:
    """What the log said at each step."""
    said = []
    for amount in used:
        caplog.clear()
        level.note(amount)
        said.append(" ".join(record.levelname for record in caplog.records))
    return said


def test_each_crossing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "quorate.vitals")
    level = Level("things", 1, 100, "get more")
    assert levels(caplog, level, 79, 80, 79, 81, 76, 80) == ["", "WARNING", "", "", "", ""]
    assert level.sentence() == "80 of 100 things are in use"
    assert levels(caplog, level, 90, 89, 90, 86) == ["ERROR", "", "", ""]
    assert level.is_out
    assert levels(caplog, level, 84) == [""] and not level.is_out
    assert level.is_warned
    assert levels(caplog, level, 74, 80) == ["INFO", "WARNING"]


def test_all_at_once_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    level = Level("things", 1, 100, "get more")
    assert levels(caplog, level, 95) == ["WARNING ERROR"]
    assert "95 of 100 things are in use: new work is refused" in caplog.text


def test_without_a_limit_nothing_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    level = Level("things", 1, 0, "get more")
    assert levels(caplog, level, 1 << 40) == [""]
    assert not level.is_out and not level.is_warned


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """The limits as the operating system would keep them."""
    kept = {"now": (1_024, 4_096)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: kept["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: kept.update(now=limits))
    return kept


def test_the_soft_limit_becomes_the_hard_one(few_files: dict[str, tuple[int, int]]) -> None:
    descriptors.raise_limit()
    assert few_files["now"] == (4_096, 4_096)
    assert descriptors.limit() == 4_096


def test_a_limit_that_cannot_be_raised_stays(
    few_files: dict[str, tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_limit()
    assert few_files["now"] == (1_024, 4_096)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_too_few_files_for_what_is_expected_is_said_with_the_fix(
    few_files: dict[str, tuple[int, int]],
) -> None:
    assert descriptors.shortage(800) is None
    line = descriptors.shortage(3_000)
    assert line is not None and "\n" not in line
    assert "1024 files" in line and "connections_expected" in line and "3128" in line


def test_what_is_open_is_counted(tmp_path: Path) -> None:
    before = descriptors.count()
    with (tmp_path / "x").open("w"), (tmp_path / "y").open("w"):
        assert descriptors.count() == before + 2
