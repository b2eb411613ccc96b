"""Pins pysyncobj to the four source files whose private layout the adapter overrides.

Any other content of these files could silently drop a guard, so importing consensus fails instead.
Also installs the three module-level hooks the library offers no argument for: its journal factory,
its poller (we own no sockets there) and its clock.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path
from typing import Any, Protocol

import pysyncobj
from pysyncobj import journal as library_journal
from pysyncobj import syncobj as library

SHA256 = {
    "syncobj.py": "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4",
    "journal.py": "9cf1eaf6acc704581a4cf7d3de330a404403913107adc91c929778b7e3f35edf",
    "serializer.py": "4d39fde2f15000ad8f507ec229ebd4f6a86371b6f84d4dc1439a9cccd52857ee",
    "transport.py": "0c9d89f9c4781ec9772df8011d7975a1a4a1a5f541357e12eae85a813e92b50b",
}


def check_sources(folder: Path, expected: dict[str, str]) -> None:
    """Raises ImportError naming the first file whose content is not the expected one."""
    for name, digest in expected.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != digest:
            raise ImportError(
                f"{folder / name} is not the file of pysyncobj 0.3.17 that cluster.consensus was "
                f"verified against (sha256 {found}); install exactly pysyncobj==0.3.17"
            )


class NullPoller:
    """The engine polls after every tick; our sockets live in asyncio, so there is nothing to do."""

    def subscribe(self, descr: int, callback: object, mask: int) -> None:
        raise AssertionError("the engine must not own sockets")

    def unsubscribe(self, descr: int) -> None:
        raise AssertionError("the engine must not own sockets")

    def poll(self, timeout: float) -> None:
        return None


class Surroundings(Protocol):
    """Clock and chance of whatever runs right now; the node, or a simulation of many."""

    def monotonic(self) -> float: ...
    def random(self) -> float: ...
    def token(self, count: int) -> bytes: ...


class RealSurroundings:
    """The slewed clock of this machine, and chance nobody can guess."""

    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    token = staticmethod(os.urandom)


_surroundings: Surroundings = RealSurroundings()


def surround(surroundings: Surroundings) -> Surroundings:
    """Replaces clock and chance of the whole process, and returns what was there before."""
    global _surroundings
    before, _surroundings = _surroundings, surroundings
    library.monotonicTime = surroundings.monotonic
    library.random = surroundings
    return before


def install_hooks() -> None:
    """Makes the engine accept a journal object, own no poller and read our clock."""

    def create_journal(given: Any) -> Any:
        if not isinstance(given, library_journal.Journal):
            raise AssertionError("consensus never runs on a journal of the library")
        return given

    library.createJournal = create_journal
    library.createPoller = lambda kind: NullPoller()
    surround(_surroundings)


check_sources(Path(pysyncobj.__file__).parent, SHA256)
install_hooks()


def now() -> float:
    """Seconds on the engine's clock; looked up at call time, as tests and simulation replace it."""
    return float(library.monotonicTime())


def uniform(low: float, high: float) -> float:
    """A random number from the engine's generator, replaceable for the same reason."""
    return low + (high - low) * float(library.random.random())


def token(count: int) -> bytes:
    """Bytes that nobody else draws: they tell two boots or two files apart, and keep no secret."""
    return _surroundings.token(count)
