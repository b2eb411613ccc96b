"""A node as `node.py` starts it, of a release that knows levels up to the base one only.

What a later release wrote it cannot read: should it meet any, it says so and ends, because from
then on it would be another replica than the others. It never should.
"""

from __future__ import annotations

import os
import sys

from chaos.sim.rollout import OlderState
from cluster import main as command_line
from cluster.machine.levels import BASE_LEVEL
from cluster.node import Node

EXIT_MET = 3


class EndingState(OlderState):
    """Ends the process where the simulation would complain."""

    def met(self, what: str) -> None:
        print(f"met {what}, which this release cannot read", file=sys.stderr, flush=True)
        os._exit(EXIT_MET)


class OlderNode(Node):
    """The release before."""

    highest_level = BASE_LEVEL
    make_raft = EndingState


if __name__ == "__main__":
    command_line.Node = OlderNode  # type: ignore[attr-defined]
    sys.exit(command_line.main())
