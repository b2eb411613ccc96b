"""A network segment of its own for a cluster: one namespace per node, joined by a bridge.

Packets vanish without anybody being told, as with a broken switch: a cut node's own interface stays
up and its connections do not close. Needs root, `ip` and a kernel with bridges; nothing outside of
the names made here is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from chaos.live.processes import Place

RAFT_PORT, HTTP_PORT = 7001, 8001
HOST_NUMBER = 254


def is_possible() -> bool:
    """Whether this process may make namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with Segment(1):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Segment:
    """Use as a context manager; `places` are what a LocalCluster takes.

    Each node reaches the others and this process; this process reaches all."""

    def __init__(self, nodes: int) -> None:
        mark = secrets.token_hex(2)
        self._net = f"10.{200 + secrets.randbelow(40)}.{secrets.randbelow(250)}"
        self._bridge = f"qbr{mark}"
        self._spaces = [f"qns{mark}n{n + 1}" for n in range(nodes)]
        self._ports = [f"qpt{mark}n{n + 1}" for n in range(nodes)]
        self._inner = [f"qif{mark}n{n + 1}" for n in range(nodes)]
        self._narrowed: set[int] = set()

    @property
    def places(self) -> list[Place]:
        return [
            Place(
                f"{self._net}.{n + 1}:{RAFT_PORT}",
                f"{self._net}.{n + 1}:{HTTP_PORT}",
                ("ip", "netns", "exec", space),
            )
            for n, space in enumerate(self._spaces)
        ]

    def __enter__(self) -> Self:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self._net}.{HOST_NUMBER}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for n in range(len(self._spaces)):
                self._join(n)
        except BaseException:
            self._remove()
            raise
        return self

    def _join(self, n: int) -> None:
        space, port, inner = self._spaces[n], self._ports[n], self._inner[n]
        _ip("netns", "add", space)
        _ip("link", "add", port, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", space)
        _ip("link", "set", port, "master", self._bridge)
        _ip("link", "set", port, "up")
        _ip("-n", space, "addr", "add", f"{self._net}.{n + 1}/24", "dev", inner)
        _ip("-n", space, "link", "set", inner, "up")
        _ip("-n", space, "link", "set", "lo", "up")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        names = [("netns", "del", space) for space in self._spaces]
        names += [("link", "del", port) for port in [*self._ports, self._bridge]]
        for words in names:
            subprocess.run(["ip", *words], check=False, capture_output=True)

    # -- faults ----------------------------------------------------------------------------------

    def cut_off(self, node: int) -> None:
        """Nothing reaches or leaves the node (by its position in `places`)."""
        _ip("link", "set", self._ports[node], "down")

    def cut_between(self, nodes: Sequence[int]) -> None:
        """The named nodes do not reach one another; all others reach all."""
        for node in nodes:
            _ip("link", "set", self._ports[node], "type", "bridge_slave", "isolated", "on")

    def narrow(self, node: int, kbit_per_s: int) -> None:
        """What the node sends passes at this rate."""
        port, rate = self._inner[node], f"{kbit_per_s}kbit"
        tc = ("ip", "netns", "exec", self._spaces[node], "tc")
        words = ["qdisc", "add", "dev", port, "root", "handle", "1:", "htb", "default", "1"]
        subprocess.run([*tc, *words], check=True, capture_output=True)
        words = ["class", "add", "dev", port, "parent", "1:", "classid", "1:1", "htb"]
        subprocess.run([*tc, *words, "rate", rate], check=True, capture_output=True)
        self._narrowed.add(node)

    def heal(self) -> None:
        for node in self._narrowed:
            tc = ("ip", "netns", "exec", self._spaces[node], "tc")
            words = ["qdisc", "del", "dev", self._inner[node], "root"]
            subprocess.run([*tc, *words], check=True, capture_output=True)
        self._narrowed.clear()
        for port in self._ports:
            _ip("link", "set", port, "up")
            _ip("link", "set", port, "type", "bridge_slave", "isolated", "off")
