"""What the sides of one node share; passed as one thing because every side needs all of it."""

from __future__ import annotations

from dataclasses import dataclass

from .counters import Counters
from .engine import Engine
from .guards import Guards
from .interface import ConsensusConfig
from .journal import Journal
from .mesh import Network
from .outbox import Outbox
from .roster import Roster


@dataclass(frozen=True)
class Parts:
    config: ConsensusConfig
    engine: Engine
    journal: Journal
    network: Network
    outbox: Outbox
    guards: Guards
    counters: Counters
    roster: Roster
