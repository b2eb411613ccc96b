"""Where accepted connections wait until they have proved that they are members.

Bounded, and fair by source: when it is full, the oldest of the most crowded source has to leave.
Whoever floods the port from a few addresses pushes out only itself, so a member still gets in.
"""

from __future__ import annotations

import ipaddress
from typing import Generic, TypeVar

STRANGERS_MAX = 64

T = TypeVar("T")


def source_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or the network of an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)


class WaitingRoom(Generic[T]):
    def __init__(self, places: int = STRANGERS_MAX) -> None:
        self._places = places
        self._sources: dict[str, dict[T, None]] = {}
        self._where: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._where)

    def inside(self) -> list[T]:
        return list(self._where)

    def enter(self, stranger: T, source: str) -> T | None:
        """Lets it in, and returns the one that has to leave for it."""
        self._where[stranger] = source
        self._sources.setdefault(source, {})[stranger] = None
        if len(self._where) <= self._places:
            return None
        crowd = max(self._sources.values(), key=len)
        oldest = next(iter(crowd))
        self.leave(oldest)
        return oldest

    def leave(self, stranger: T) -> None:
        """Whoever is not inside does nothing."""
        source = self._where.pop(stranger, None)
        if source is None:
            return
        crowd = self._sources[source]
        del crowd[stranger]
        if not crowd:
            del self._sources[source]
