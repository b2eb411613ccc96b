"""How much memory this process may take and takes, as the kernel counts it.

In a container the kernel ends a process when the whole container has used up its limit, with forked
snapshot writers and ingest processes; so there the container's own figure counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc/self")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NO_LIMIT_BYTES = 1 << 60  # the first version's way to say that there is none


@dataclass(frozen=True)
class Bound:
    """A limit in bytes, 0 for none, and where it comes from. `usage` names the file and the line
    that tells what counts against it; without one it is this process's resident memory."""

    limit: int = 0
    source: str = "none"
    usage: tuple[Path, str] | None = None


def bound_of(setting_mb: int, proc: Path = PROC, cgroups: Path = CGROUPS) -> Bound:
    """What the setting says, or the tightest limit of the control groups around this process."""
    if setting_mb:
        return Bound(setting_mb << 20, "memory_limit_mb")
    found = [bound for bound in _of_groups(proc, cgroups) if 0 < bound.limit < NO_LIMIT_BYTES]
    return min(found, key=lambda bound: bound.limit, default=Bound())


def _of_groups(proc: Path, cgroups: Path) -> Iterator[Bound]:
    for line in _text(proc / "cgroup").splitlines():
        number, names, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not names:
            for folder in _upwards(cgroups, path):
                yield Bound(_number(folder / "memory.max"), str(folder), _anon(folder, "anon"))
        elif "memory" in names.split(","):
            for folder in _upwards(cgroups / "memory", path):
                limit = _number(folder / "memory.limit_in_bytes")
                yield Bound(limit, str(folder), _anon(folder, "total_rss"))


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group and those above it; in a container the own one may be mounted as the root."""
    folder = root / path.strip("/")
    while folder != root and root in folder.parents:
        yield folder
        folder = folder.parent
    yield root


def _anon(folder: Path, name: str) -> tuple[Path, str]:
    """The page cache does not count: it is given back before anybody is ended."""
    return folder / "memory.stat", name


def used_bytes(bound: Bound) -> int:
    """What counts against the bound now."""
    if bound.usage is not None:
        path, name = bound.usage
        for line in _text(path).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return rss_bytes()


def rss_bytes(proc: Path = PROC) -> int:
    """Resident memory of this process; 0 where nobody tells."""
    fields = _text(proc / "statm").split()
    return int(fields[1]) * PAGE_BYTES if len(fields) > 1 else 0


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
