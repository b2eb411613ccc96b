"""Which process is at the other end of a loopback connection, as the kernel tells (Linux)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TABLE = Path("/proc/net/tcp")


def inode_of(port: int, table: Path = TABLE) -> str:
    """The socket whose own end has this port on loopback; "" when there is none."""
    with suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == f"0100007F:{port:04X}":
                return fields[9]
    return ""


def holds(pid: int, inode: str) -> bool:
    """Whether the process has that socket open."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry) == f"socket:[{inode}]":  # noqa: PTH115 (not a path)
                    return True
    return False
