"""Writes the golden log `v1.bin` (entries with a length before each), what it leads to (`v1.json`)
and a snapshot of its last state.

Run once per release that appends commands, under the next number: a golden log is never made anew,
because old journals are not either.

    PYTHONPATH=.:tests/machine python tests/machine/golden/make.py v1 0
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

from machine_moves import KINDS, pass_time
from machine_replicas import Script, dump, live
from machine_values import NUMBER_MAX, Move

HERE = Path(__file__).parent
LIVES = 13
BATCHES = 40
RAISE = Move(KINDS.index(pass_time), NUMBER_MAX, 0, 0, 0)  # to the highest level


def script(seed: int) -> Script:
    rng = random.Random(seed)

    def move() -> Move:
        return Move(rng.randrange(len(KINDS)), *(rng.randint(0, NUMBER_MAX) for _ in range(4)))

    batches = [
        (rng.randint(0, NUMBER_MAX), [move() for _ in range(rng.randint(0, 5))])
        for _ in range(BATCHES)
    ]
    batches[0][1].insert(0, RAISE)
    return batches


def main(name: str, first_seed: int) -> None:
    """Several lives, so that each starts from nothing and none is ruled by one long jump."""
    log, ends = bytearray(), []
    for seed in range(first_seed, first_seed + LIVES):
        state, entries = live(script(seed))
        for entry in entries:
            log += struct.pack("<I", len(entry)) + entry
        ends.append(
            {
                "entries": len(entries),
                "digest": f"{state.digest:08x}",
                "jobs": len(state.tables.jobs),
                "dead": len(state.tables.dead),
            }
        )
    (HERE / f"{name}.bin").write_bytes(log)
    (HERE / f"{name}.snapshot").write_bytes(dump(state))  # of the last life
    (HERE / f"{name}.json").write_text(json.dumps(ends, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
