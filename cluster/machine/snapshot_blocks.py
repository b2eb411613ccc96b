"""Blocks in snapshots: written as they lie in memory, checked when read."""

from __future__ import annotations

import struct
from array import array
from operator import le

from cluster.machine import lifecycle
from cluster.machine.blocks import Block, Ends
from cluster.machine.rows import JobExtra, SpecRow
from cluster.machine.snapshot_format import BlockEntry
from cluster.machine.timers import DEADLINE, EXPIRE, Timers

IS_NATIVE = struct.pack("=I", 1) == struct.pack("<I", 1) and array("I").itemsize == 4


def block_entry(block: Block, spec: int) -> BlockEntry:
    blob, ends = block.packed_columns()
    extra = block.extra if block.extra is not None else NO_EXTRA
    return BlockEntry(
        block.id, spec, blob, _ends_entry(ends), bytes(block.gone or b""), block.state,
        block.created_ms, block.run_at_ms, extra.expires_at_ms, extra.deadline_ms,
    )  # fmt: skip


NO_EXTRA = JobExtra()


def _ends_entry(ends: Ends) -> int | bytes:
    if isinstance(ends, range):
        return ends.step
    return ends.tobytes() if IS_NATIVE else struct.pack(f"<{len(ends)}I", *ends)


def _ends_of(entry: BlockEntry) -> Ends:
    data, size = entry.ends, len(entry.payloads)
    if isinstance(data, int):
        if data <= 0:
            raise ValueError("it has a block whose payloads do not fit")
        return range(0, size + 1, data)
    if len(data) % 4:
        raise ValueError("it has a block whose payloads do not fit")
    return array("I", data if IS_NATIVE else struct.unpack(f"<{len(data) // 4}I", data))


def block_of(entry: BlockEntry, kind: SpecRow, next_id: int) -> Block:
    """Raises ValueError for what cannot be."""
    if entry.state not in (lifecycle.READY, lifecycle.SCHEDULED):
        raise ValueError(f"it has a block in state {entry.state}")
    ends = _ends_of(entry)
    count, live = len(ends) - 1, len(ends) - 1
    if entry.gone:
        live = entry.gone.count(0)
        if len(entry.gone) != count or live + entry.gone.count(1) != count:
            raise ValueError("it has a block whose jobs are neither there nor gone")
    if live <= 0 or ends[0] or ends[-1] != len(entry.payloads) or not _grows(ends):
        raise ValueError("it has a block whose payloads do not fit")
    if entry.id <= 0 or entry.id + count > next_id:
        raise ValueError("it has a block of jobs that were never created")
    gone = bytearray(entry.gone) if entry.gone else None
    return Block(
        entry.id, kind, entry.payloads, ends, entry.state, entry.created_ms, entry.run_at_ms,
        live, live, gone,
    )  # fmt: skip


def bound(block: Block, entry: BlockEntry, timers: Timers) -> None:
    """Arm the timers that end its jobs."""
    if not entry.expires_at_ms and not entry.deadline_ms:
        return
    extra = block.extra = JobExtra()
    extra.expires_at_ms, extra.deadline_ms = entry.expires_at_ms, entry.deadline_ms
    if entry.expires_at_ms:
        extra.expire_timer = timers.add_for_block(entry.expires_at_ms, EXPIRE, block)
    if entry.deadline_ms:
        extra.deadline_timer = timers.add_for_block(entry.deadline_ms, DEADLINE, block)


def _grows(ends: Ends) -> bool:
    return isinstance(ends, range) or all(map(le, ends, ends[1:]))
