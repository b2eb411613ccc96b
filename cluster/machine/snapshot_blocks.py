"""Blocks in snapshots: written as they lie in memory, checked when read."""

from __future__ import annotations

import struct
from array import array
from operator import le

from cluster.machine import lifecycle
from cluster.machine.blocks import Block
from cluster.machine.rows import JobExtra, SpecRow
from cluster.machine.snapshot_format import BlockEntry
from cluster.machine.timers import DEADLINE, EXPIRE, Timers

IS_NATIVE = struct.pack("=I", 1) == struct.pack("<I", 1) and array("I").itemsize == 4


def block_entry(block: Block, spec: int) -> BlockEntry:
    blob, ends = block.packed_columns()
    extra = block.extra if block.extra is not None else NO_EXTRA
    return BlockEntry(
        block.id, spec, blob, _to_bytes(ends), bytes(block.gone or b""), block.state,
        block.created_ms, block.run_at_ms, extra.expires_at_ms, extra.deadline_ms,
    )  # fmt: skip


NO_EXTRA = JobExtra()


def _to_bytes(ends: array[int]) -> bytes:
    return ends.tobytes() if IS_NATIVE else struct.pack(f"<{len(ends)}I", *ends)


def _from_bytes(data: bytes) -> array[int]:
    return array("I", data if IS_NATIVE else struct.unpack(f"<{len(data) // 4}I", data))


def block_of(entry: BlockEntry, kind: SpecRow, next_id: int) -> Block:
    """Raises ValueError for what cannot be."""
    if len(entry.ends) % 4 or entry.state not in (lifecycle.READY, lifecycle.SCHEDULED):
        raise ValueError("it has a block that is none")
    ends = _from_bytes(entry.ends)
    count, live = len(ends) - 1, len(ends) - 1
    if entry.gone:
        live = entry.gone.count(0)
        if len(entry.gone) != count or live + entry.gone.count(1) != count:
            raise ValueError("it has a block whose jobs are neither there nor gone")
    if live <= 0 or ends[0] or ends[-1] != len(entry.payloads) or not all(map(le, ends, ends[1:])):
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
