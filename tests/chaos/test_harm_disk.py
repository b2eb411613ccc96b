"""The disk is filled although others write to it at the same time."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from chaos.live.harm import disk


def test_what_others_wrote_meanwhile_is_left_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [disk.LEFT_BYTES + 9, disk.LEFT_BYTES + 5, disk.LEFT_BYTES]
    usage = shutil.disk_usage(tmp_path)
    asked: list[int] = []

    def allocate(descriptor: int, offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free.pop(0)))
    monkeypatch.setattr(os, "posix_fallocate", allocate)
    outcomes = [disk.fill(tmp_path / "filler") for _ in range(3)]
    assert (outcomes, asked) == ([False, False, True], [9, 5, 1])
