"""A node whose wall clock is off by what a file says, in milliseconds: embedding with a clock.

The file is `clock` beside the data folder's content; without it the clock is right.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from cluster import Node, Settings
from cluster.clock import SystemClock


class ShiftedClock(SystemClock):
    """The machine's clock, and what the file adds."""

    __slots__ = ("_file",)

    def __init__(self, file: Path) -> None:
        self._file = file

    def now_ms(self) -> int:
        try:
            return super().now_ms() + int(self._file.read_text())
        except (FileNotFoundError, ValueError):  # it is being written
            return super().now_ms()


async def run(settings: Settings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Node(settings, ShiftedClock(settings.data / "clock")):
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level="INFO")
    asyncio.run(run(Settings.load(sys.argv[1:], os.environ)))
