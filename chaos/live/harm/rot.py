"""A bit flips in a file of a node that is down.

It must go on as if nothing was, or refuse in a line that names the file; then an empty one takes
its place, as docs/membership.md has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

from chaos.live.harm.field import Field
from chaos.live.processes import NodeChild
from chaos.live.repair import replaced, started

REFUSED_EXIT = 1
BEHIND_BYTES = 512  # behind what was written, where a bit may flip without anybody minding
BEHIND_SHARE = 1 / 8


async def journal(field: Field, seconds: float) -> None:
    await _rot(field, seconds, _a_segment)


async def snapshot(field: Field, seconds: float) -> None:
    """Nothing happens to a node that has none yet."""
    await _rot(field, seconds, _newest_snapshot)


async def _rot(
    field: Field, seconds: float, choose: Callable[[Random, NodeChild], Path | None]
) -> None:
    # The last node is spared: a new folder lacks the jobs that ended before it.
    node = field.rng.choice(field.cluster.nodes[:-1])
    behind = field.rng.random() < BEHIND_SHARE  # drawn here: the seed says it, not a file's length
    await node.stop()  # in good order, so that whatever flips was durable and known to be
    path = choose(field.rng, node)
    matters = path is not None and flip(field.rng, path, behind)
    await asyncio.sleep(seconds)
    told = len(node.log_text())
    if await started(field.cluster, node):
        if matters and path is not None and path.suffix == ".seg":
            raise RuntimeError(f"{node.name} did not notice a damaged {path}")
        return
    assert path is not None
    words = node.log_text()[told:]
    if await node.wait() != REFUSED_EXIT or str(path) not in words or "Traceback" in words:
        raise RuntimeError(f"{node.name} did not refuse a damaged {path}: {words[-500:]}")
    await replaced(field.cluster, node)
    field.replaced.add(node.name)


def _a_segment(rng: Random, node: NodeChild) -> Path | None:
    return rng.choice(sorted(node.data.glob("journal/*.seg")))


def _newest_snapshot(rng: Random, node: NodeChild) -> Path | None:
    return max(node.data.glob("snapshots/*.snap"), default=None)


def flip(rng: Random, path: Path, behind: bool) -> bool:
    """Whether the bit is in what was written, not in the zeros behind it (if it has any)."""
    content = bytearray(path.read_bytes())
    written = len(content.rstrip(b"\0"))
    zeros = range(written, min(len(content), written + BEHIND_BYTES))
    at = rng.choice(zeros if behind and zeros else range(written))
    content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return at < written
