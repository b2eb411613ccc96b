"""A node as `node.py` starts it, whose clock and disk obey two files in its data folder.

`clock`: by how many milliseconds its wall clock is off. `disk`: what becomes of consensus' files:
`slow S` lets each sync take S seconds longer, `stuck` holds syncs until the file is gone, `full`
leaves no space, `broken` fails each sync. Without the files nothing is changed.

A variable of the environment names a mutant: a promise that this build does not keep, so that it
can be shown that the scenarios notice (see mutants.py).
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from chaos.live.mutants import MUTANT_VARIABLE, MUTANTS
from cluster.clock import SystemClock
from cluster.consensus.host import RealHost
from cluster.consensus.storage import FileStorage
from cluster.main import main
from cluster.settings import Settings

LOOK_S = 0.01  # how often a stuck sync looks whether it may go on


def _told(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except FileNotFoundError:
        return []


def shift_clock(file: Path) -> None:
    """Every clock of this process is off by what the file says."""
    right = SystemClock.now_ms

    def now_ms(self: SystemClock) -> int:
        return right(self) + int((_told(file) or ["0"])[0])

    SystemClock.now_ms = now_ms  # type: ignore[method-assign]


class HurtStorage(FileStorage):
    """The operating system's files, as far as the file permits."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write_at(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        self._need_space()
        super().write_at(descriptor, parts, offset)

    def allocate(self, descriptor: int, size: int) -> bool:
        self._need_space()
        return super().allocate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        self._wait()
        super().sync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        self._wait()
        super().sync_data(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self._wait()
        super().sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        return 0 if _told(self._file)[:1] == ["full"] else super().free_bytes(folder)

    def _need_space(self) -> None:
        if _told(self._file)[:1] == ["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _wait(self) -> None:
        match _told(self._file):
            case ["slow", seconds]:
                time.sleep(float(seconds))
            case ["broken"]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            case ["stuck"]:
                while _told(self._file) == ["stuck"]:
                    time.sleep(LOOK_S)


if __name__ == "__main__":
    data = Settings.load(sys.argv[1:], os.environ).data
    shift_clock(data / "clock")
    RealHost.storage = HurtStorage(data / "disk")
    if mutant := os.environ.get(MUTANT_VARIABLE):
        MUTANTS[mutant]()
    sys.exit(main())
