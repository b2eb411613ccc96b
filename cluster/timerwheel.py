"""A hierarchical timing wheel: every timer of the machine, because time must be part of the state.

Pure. It never reads a clock and never sleeps: the caller says what time it is, and gets back what
is due. It refuses to know what a timer means, and it promises no order beyond "due time, then
insertion". A node restored from a snapshot inserts its timers in another order than the node that
lived through them: whoever must be equal on every replica sorts timers of the same millisecond by
its own key.

Theory. Time is a number of milliseconds cut into groups of eight bits; level n of the wheel looks
at group n and has one slot for each of its 256 values. A timer lives on the level of the highest
group in which its due time differs from now (one XOR and one bit_length). From this follows:

* all slots of a level lie ahead of now, and all of level n is earlier than anything on level n + 1,
  so the next thing to happen is the lowest bit of the lowest level that is not empty: a jump over a
  quiet year costs as much as one over a quiet millisecond;
* two timers of the same due time are in the same slot at any moment, so insertion order survives
  every cascade for free and needs no sequence number;
* a timer's slot follows from its due time and now, so a handle needs no position: cancelling
  computes it again.

A slot is a dict used as an ordered set, as only that takes both an append and the removal of any
member in constant time. Handles are not tracked by the cyclic collector, and a dict of untracked
keys is not tracked either, so a million timers cost it nothing. The price: a payload that leads
back to its own handle is never freed, unless its owner drops the handle when the timer fires or is
cancelled.

After the hashed and hierarchical wheels of Varghese and Lauck (1987); the XOR is that of tokio's
time driver.
"""

from operator import attrgetter

import msgspec

GROUP_BITS = 8
SLOTS_PER_LEVEL = 1 << GROUP_BITS
LEVELS = 8  # 64 bits of milliseconds: no time that fits into an int64 is out of range
DUE_MS_MAX = (1 << 63) - 1
INDEX_MASK = SLOTS_PER_LEVEL - 1
SHIFT_TO_SLOT = 5  # shift is eight times the level, a level is 256 slots
SHIFT_MASK = 56  # rounds a bit's number down to where its group starts: level * GROUP_BITS
EXACT_SCAN_TIMERS_MAX = 64  # above this a slot is not searched for its earliest timer

_by_due_ms = attrgetter("due_ms")


class Timer(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A handle: compared and hashed by identity, valid until the timer is returned or cancelled."""

    due_ms: int
    payload: object


class TimerWheel:
    """Timers with a resolution of one millisecond and a range of 292 million years."""

    __slots__ = ("_count", "_now_ms", "_occupied", "_overdue", "_slots")

    def __init__(self, now_ms: int = 0) -> None:
        if now_ms < 0:
            raise ValueError(f"now_ms {now_ms} is negative: the wheel counts from zero")
        self._now_ms = now_ms
        self._count = 0
        self._overdue: dict[Timer, None] = {}  # inserted too late: the next advance returns them
        self._slots: list[dict[Timer, None]] = [{} for _ in range(LEVELS * SLOTS_PER_LEVEL)]
        self._occupied = [0] * LEVELS  # one bit per slot that is not empty

    @property
    def now_ms(self) -> int:
        """The latest time told to `advance`."""
        return self._now_ms

    def __len__(self) -> int:
        return self._count

    def insert(self, due_ms: int, payload: object) -> Timer:
        """Arms a timer; one that is due now or earlier is returned by the next `advance`.

        Raises OverflowError above DUE_MS_MAX.
        """
        if due_ms > DUE_MS_MAX:
            raise OverflowError(f"due_ms {due_ms} is beyond the wheel's range, {DUE_MS_MAX}")
        timer = Timer(due_ms, payload)
        self._count += 1
        now_ms = self._now_ms
        if due_ms <= now_ms:
            self._overdue[timer] = None
            return timer
        # `_place` once more: this runs for every job on every node, and a call costs a fifth.
        shift = ((due_ms ^ now_ms).bit_length() - 1) & SHIFT_MASK
        index = (due_ms >> shift) & INDEX_MASK
        slot = self._slots[shift << SHIFT_TO_SLOT | index]
        if not slot:
            self._occupied[shift >> 3] |= 1 << index
        slot[timer] = None
        return timer

    def cancel(self, timer: Timer) -> bool:
        """Disarms a timer; False if it was returned or cancelled before."""
        due_ms = timer.due_ms
        now_ms = self._now_ms
        try:
            if due_ms <= now_ms:
                del self._overdue[timer]
            else:
                shift = ((due_ms ^ now_ms).bit_length() - 1) & SHIFT_MASK
                index = (due_ms >> shift) & INDEX_MASK
                slot = self._slots[shift << SHIFT_TO_SLOT | index]
                del slot[timer]
                if not slot:
                    self._occupied[shift >> 3] ^= 1 << index
        except KeyError:
            return False
        self._count -= 1
        return True

    def advance(self, now_ms: int) -> list[Timer]:
        """Moves time on and returns what is due, by due time, then by insertion.

        Time never goes back: with a time before the latest one, only late insertions are returned.
        """
        due: list[Timer] = []
        if self._overdue:
            due.extend(sorted(self._overdue, key=_by_due_ms))
            self._overdue.clear()
        if now_ms > self._now_ms:
            cascading = self._take_due_slots(now_ms, due)
            self._now_ms = now_ms
            late = []
            for timer in cascading:
                if timer.due_ms <= now_ms:
                    late.append(timer)
                else:
                    self._place(timer)
            late.sort(key=_by_due_ms)
            due.extend(late)
        self._count -= len(due)
        return due

    def next_due_ms(self) -> int | None:
        """The earliest due time; None without timers.

        Exact, unless the slot that holds the earliest timer holds more than EXACT_SCAN_TIMERS_MAX:
        then it is the start of that slot, a time after now and not after the earliest timer.
        An `advance` to it refines the answer, so that a sleeper never oversleeps and never spins.
        """
        if self._overdue:
            return min(timer.due_ms for timer in self._overdue)
        for level, occupied in enumerate(self._occupied):
            if occupied:
                index = (occupied & -occupied).bit_length() - 1
                slot = self._slots[level << GROUP_BITS | index]
                if level and len(slot) <= EXACT_SCAN_TIMERS_MAX:
                    return min(timer.due_ms for timer in slot)
                return self._slot_start_ms(level, index)
        return None

    def _place(self, timer: Timer) -> None:
        """Puts a timer that is due after now into its slot."""
        due_ms = timer.due_ms
        shift = ((due_ms ^ self._now_ms).bit_length() - 1) & SHIFT_MASK
        index = (due_ms >> shift) & INDEX_MASK
        slot = self._slots[shift << SHIFT_TO_SLOT | index]
        if not slot:
            self._occupied[shift >> 3] |= 1 << index
        slot[timer] = None

    def _slot_start_ms(self, level: int, index: int) -> int:
        shift = level * GROUP_BITS
        above = self._now_ms >> (shift + GROUP_BITS) << (shift + GROUP_BITS)
        return above | index << shift

    def _take_due_slots(self, now_ms: int, due: list[Timer]) -> dict[Timer, None]:
        """Moves every slot that ends by now_ms to `due`; returns the one that now_ms falls into."""
        for level in range(LEVELS):
            while occupied := self._occupied[level]:
                index = (occupied & -occupied).bit_length() - 1
                start_ms = self._slot_start_ms(level, index)
                if start_ms > now_ms:
                    return {}
                position = level << GROUP_BITS | index
                slot = self._slots[position]
                self._slots[position] = {}
                self._occupied[level] = occupied & (occupied - 1)
                if start_ms + (1 << level * GROUP_BITS) - 1 > now_ms:
                    return slot  # everything after this slot lies after now_ms
                due.extend(sorted(slot, key=_by_due_ms) if level else slot)
        return {}
