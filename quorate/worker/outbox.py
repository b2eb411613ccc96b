"""Everything the worker still has to say, and every result that is not yet acknowledged.

A result leaves this place only when the cluster has committed (or refused) it; after a lost link
all of them are said again, fenced by their attempt. Runs on the event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

from .frames import Key, encode

FRAME_BYTES_MAX = 512 * 1024
ITEM_OVERHEAD_BYTES = 32
LIVE_LOG_CHARS_MAX = 1024 * 1024  # per report interval
REPORT_INTERVAL_SECONDS = 0.1  # progress and live log lines may wait this long

Item = tuple[Any, ...]  # starts with job_id, attempt
_key_of = itemgetter(0, 1)


class Result(NamedTuple):
    """One outcome: `kind` is done, failed or released."""

    kind: str
    item: Item

    @property
    def key(self) -> Key:
        return self.item[0], self.item[1]


def _text_bytes(item: Item) -> int:
    """What makes an item large: output, message, log."""
    return sum(len(value) for value in item[2:] if isinstance(value, (str, bytes)))


def _completed(seq: int, items: list[Item], credit: int) -> bytes:
    """Successes in columns; one that is empty for all of them is left out."""
    job_ids, attempts, outputs, logs = zip(*items, strict=True)
    filled = (outputs if any(outputs) else None, logs if any(logs) else None)
    return encode(("completed", seq, job_ids, attempts, *filled, credit))


class Outbox:
    """Results, credits and reports on their way out."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.columns = False  # whether the node reads successes in columns
        self.held: set[Key] = set()  # results not yet acknowledged
        self._queued: dict[str, list[Item]] = {"done": [], "failed": [], "released": []}
        self._text_bytes = 0
        self._credit = 0
        self._seq = 0
        self._unacked: dict[int, tuple[str, list[Item]]] = {}
        self._progress: dict[Key, tuple[float | None, str | None]] = {}
        self._log: list[tuple[int, int, str]] = []
        self._log_chars = 0
        self._report_timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    @property
    def is_owed(self) -> bool:
        """Results were sent and are not acknowledged."""
        return bool(self._unacked)

    # -- filling -------------------------------------------------------------------------------

    def done(self, key: Key, output: bytes | None, log: str | None) -> None:
        """A job completed. Most give nothing back, so this looks no further than it must."""
        queued = self._queued["done"]
        if not queued:
            self.wake.set()
        queued.append((*key, output, log))
        self.held.add(key)
        if output is not None:
            self._text_bytes += len(output)
        if log is not None:
            self._text_bytes += len(log)

    def failed(
        self, key: Key, error_type: str, message: str, retryable: bool, log: str | None
    ) -> None:
        """An attempt failed."""
        self._add("failed", (*key, error_type, message, retryable, log), key)

    def released(self, key: Key) -> None:
        """An attempt is handed back unfinished."""
        self._add("released", key, key)

    def _add(self, kind: str, item: Item, key: Key) -> None:
        self._queued[kind].append(item)
        self._text_bytes += _text_bytes(item)
        self.held.add(key)
        self.wake.set()

    def credit(self, count: int) -> None:
        """`count` slots became free."""
        if not self._credit:
            self.wake.set()
        self._credit += count

    def progress(self, key: Key, fraction: float | None, message: str | None) -> None:
        """The latest report of a job replaces the one before."""
        self._progress[key] = (fraction, message)
        self._arm_reports()

    def log(self, key: Key, text: str) -> None:
        """A live log line. A flood is cut here; the durable log keeps its end anyway."""
        self._log_chars += len(text) + ITEM_OVERHEAD_BYTES
        if self._log_chars > LIVE_LOG_CHARS_MAX:
            return
        self._log.append((key[0], key[1], text))
        self._arm_reports()

    def _arm_reports(self) -> None:
        if self._report_timer is None:
            loop = asyncio.get_running_loop()
            self._report_timer = loop.call_later(REPORT_INTERVAL_SECONDS, self.wake.set)

    # -- emptying: the stream ------------------------------------------------------------------

    def frames(self) -> list[bytes]:
        """Everything queued as encoded frames; results stay held until `ack`."""
        self.wake.clear()
        frames: list[bytes] = []
        credit, self._credit = self._credit, 0
        for kind, queued in self._queued.items():
            if not queued:
                continue
            for items in self._chunks(queued):
                self._seq += 1
                self._unacked[self._seq] = (kind, items)
                if kind == "done" and self.columns:
                    frames.append(_completed(self._seq, items, credit))
                else:
                    frames.append(encode((kind, self._seq, items, credit)))
                credit = 0
            self._queued[kind] = []
        self._text_bytes = 0
        if credit:
            frames.append(encode(("credit", credit)))
        if self._report_timer is not None:
            frames += self._report_frames()
        return frames

    def _chunks(self, items: list[Item]) -> Iterator[list[Item]]:
        if self._text_bytes + len(items) * ITEM_OVERHEAD_BYTES <= FRAME_BYTES_MAX:
            yield items
            return
        chunk: list[Item] = []
        size = 0
        for item in items:
            item_bytes = _text_bytes(item) + ITEM_OVERHEAD_BYTES
            if chunk and size + item_bytes > FRAME_BYTES_MAX:
                yield chunk
                chunk, size = [], 0
            chunk.append(item)
            size += item_bytes
        yield chunk

    def _report_frames(self) -> list[bytes]:
        """Progress and log, if their interval is over or something else is sent anyway."""
        frames = []
        if self._progress:
            reports = [(*key, *report) for key, report in self._progress.items()]
            frames.append(encode(("progress", reports)))
            self._progress = {}
        while self._log:
            size, end = 0, 0
            while end < len(self._log) and (end == 0 or size < FRAME_BYTES_MAX):
                size += len(self._log[end][2]) + ITEM_OVERHEAD_BYTES
                end += 1
            frames.append(encode(("log", self._log[:end])))
            self._log = self._log[end:]
        self._log_chars = 0
        assert self._report_timer is not None
        self._report_timer.cancel()
        self._report_timer = None
        return frames

    def ack(self, seq: int) -> None:
        """The results of frame `seq` are the cluster's now."""
        frame = self._unacked.pop(seq, None)
        if frame is not None:
            self.held.difference_update(map(_key_of, frame[1]))
            self._check_empty()

    def restart(self, stale: Iterable[Key], credit: int) -> None:
        """A new link: queue every unacknowledged result again, except those that are stale.

        `credit` replaces what was granted before: a new node counts from nothing.
        """
        queued: dict[str, list[Item]] = {"done": [], "failed": [], "released": []}
        for kind, items in self._unacked.values():
            queued[kind] += items
        for kind, items in self._queued.items():
            queued[kind] += items
        self._unacked = {}
        gone = {(job_id, attempt) for job_id, attempt in stale}
        self._queued = {
            kind: [item for item in items if (item[0], item[1]) not in gone]
            for kind, items in queued.items()
        }
        self._text_bytes = sum(_text_bytes(i) for items in self._queued.values() for i in items)
        self.held = {(item[0], item[1]) for items in self._queued.values() for item in items}
        self._credit = credit
        self.wake.set()
        self._check_empty()

    # -- emptying: the long-poll twin ----------------------------------------------------------

    def take(self) -> tuple[list[Result], dict[Key, tuple[float | None, str | None]]]:
        """Queued results and progress, one by one; each result stays held until `settle`."""
        self.wake.clear()
        taken = [Result(kind, item) for kind, items in self._queued.items() for item in items]
        self._queued = {kind: [] for kind in self._queued}
        self._text_bytes = self._credit = 0
        progress, self._progress = self._progress, {}
        self._log, self._log_chars = [], 0  # the twin has no live log
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        return taken, progress

    def settle(self, key: Key) -> None:
        """The cluster has answered for this result."""
        self.held.discard(key)
        self._check_empty()

    # -- leaving -------------------------------------------------------------------------------

    def _check_empty(self) -> None:
        if self._emptied is not None and not self.held:
            self._emptied.set()

    async def wait_empty(self) -> None:
        """Returns once every result is acknowledged."""
        if self.held:
            self._emptied = asyncio.Event()
            await self._emptied.wait()
