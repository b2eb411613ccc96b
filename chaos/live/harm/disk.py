"""Disks that are full, slow, stuck or broken.

`full` fills the file system under all nodes. The others are told to one node's consensus by a file
in its data folder (see chaos/live/hurt_node.py); its history stays well.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.live.harm.field import Field
from chaos.live.processes import NodeChild

LEFT_BYTES = 1 << 20  # for the logs of the processes
SLOW_S = (0.02, 0.4)  # how much longer each sync takes
NOTICED_S = 20.0  # a node with a load syncs all the time
BROKEN_EXIT = 70


async def full(field: Field, seconds: float) -> None:
    assert field.disk is not None, "this scenario's cluster needs `disk_mb`"
    filler = field.disk / "filler"
    try:
        while not fill(filler):
            pass
        await asyncio.sleep(seconds)
    finally:
        filler.unlink()


def fill(filler: Path) -> bool:
    """False when somebody else wrote at that moment: there is less space than there was."""
    with filler.open("wb") as file:
        free = shutil.disk_usage(filler.parent).free
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, free - LEFT_BYTES))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return free <= LEFT_BYTES  # then it is full as it is
    return True


@contextmanager
def ill(node: NodeChild, how: str) -> Iterator[None]:
    """The node's disk is slow, stuck, full or broken."""
    file, fresh = node.data / "disk", node.data / "disk.new"
    fresh.write_text(how)
    fresh.replace(file)
    try:
        yield
    finally:
        file.unlink()


async def full_leader(field: Field, seconds: float) -> None:
    """Only where the leader's journal is: others have space, and take over."""
    with ill(await field.leader(), "full"):
        await asyncio.sleep(seconds)


async def _slow(field: Field, seconds: float, node: NodeChild) -> None:
    with ill(node, f"slow {field.rng.uniform(*SLOW_S):.3f}"):
        await asyncio.sleep(seconds)


async def slow_one(field: Field, seconds: float) -> None:
    await _slow(field, seconds, field.node)


async def slow_leader(field: Field, seconds: float) -> None:
    await _slow(field, seconds, await field.leader())


async def slow_everywhere(field: Field, seconds: float) -> None:
    await asyncio.gather(*(_slow(field, seconds, node) for node in field.cluster.nodes))


async def stuck_leader(field: Field, seconds: float) -> None:
    """A sync that was begun ends when the fault does."""
    with ill(await field.leader(), "stuck"):
        await asyncio.sleep(seconds)


async def broken_leader(field: Field, seconds: float) -> None:
    """A sync fails: the node ends by itself, and its disk is replaced by one that works."""
    node = await field.leader()
    with ill(node, "broken"):
        code = await asyncio.wait_for(node.wait(), NOTICED_S)
    if code != BROKEN_EXIT:
        raise RuntimeError(f"{node.name} ended with {code} when its disk failed")
    await asyncio.sleep(seconds)
    await node.start()
