"""Is there an order in which a sequential object could have given the answers that clients saw?

The search of Wing and Gong with Lowe's memory: an operation may take effect between its call and
its return; one without an answer may take effect at any time after its call, or never. Knows
nothing of what it checks: a model says what an operation does to a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

STATES_MAX = 2_000_000


class TooHardError(Exception):
    """More states than `states_max`: the history has too many operations without an answer."""


class Impossible:
    """What a model returns when the operation cannot have had its answer in this state."""


IMPOSSIBLE = Impossible()


@dataclass(frozen=True)
class Operation:
    """`called` and `returned` are times of one clock, or positions in one record of events.

    `answer` None: the client never learned what became of it, and `returned` is infinite."""

    called: float
    returned: float
    what: Hashable
    answer: Hashable | None
    who: str = ""

    @property
    def is_open(self) -> bool:
        return self.answer is None


def unanswered(called: float, what: Hashable, who: str = "") -> Operation:
    return Operation(called, math.inf, what, None, who)


# (state, operation) -> the state behind it, or IMPOSSIBLE.
Model = Callable[[Hashable, Operation], Hashable]


@dataclass(frozen=True)
class Verdict:
    """Without an order, `longest` is the longest beginning of one and `state` where it ends."""

    holds: bool
    longest: tuple[Operation, ...]
    state: Hashable
    stuck: tuple[Operation, ...] = ()  # what would have to come next, and cannot

    def __str__(self) -> str:
        if self.holds:
            return "linearizable"
        tail = "\n".join(f"    {_line(one)}" for one in self.longest[-8:])
        stuck = "\n".join(f"    {_line(one)}" for one in self.stuck)
        return (
            f"no order exists; after\n{tail}\n  comes {self.state!r}, which fits none of\n{stuck}"
        )


def _line(one: Operation) -> str:
    answer = "?" if one.is_open else one.answer
    return f"[{one.called} .. {one.returned}] {one.who} {one.what} -> {answer}"


def check(
    history: Iterable[Operation], start: Hashable, step: Model, states_max: int = STATES_MAX
) -> Verdict:
    """Whether the history is linearizable. Raises TooHardError."""
    return _Search(sorted(history, key=lambda one: one.called), step, states_max).run(start)


class _Search:
    """Depth first. A node is the set of operations that took effect and the state they led to."""

    def __init__(self, operations: Sequence[Operation], step: Model, states_max: int) -> None:
        self._operations = operations
        self._step = step
        self._states_max = states_max
        self._longest: tuple[int, ...] = ()
        self._state: Hashable = None

    def run(self, start: Hashable) -> Verdict:
        answered = sum(not one.is_open for one in self._operations)
        self._state = start
        seen: set[tuple[int, Hashable]] = set()
        path: list[int] = []
        # (depth, position chosen, taken, first position not taken, state, answered ones left)
        todo: list[tuple[int, int, int, int, Hashable, int]] = [(0, -1, 0, 0, start, answered)]
        while todo:
            depth, chosen, taken, first, state, left = todo.pop()
            del path[max(depth - 1, 0) :]
            if chosen >= 0:
                path.append(chosen)
            if len(path) > len(self._longest):
                self._longest, self._state = tuple(path), state
            if left == 0:
                return self._verdict(True, path, state)
            for position in reversed(self._candidates(taken, first)):
                one = self._operations[position]
                after = self._step(state, one)
                if after is IMPOSSIBLE or (one.is_open and after == state):
                    continue  # what changes nothing and told nobody may as well not have happened
                now_taken = taken | 1 << position
                if (now_taken, after) in seen:
                    continue
                seen.add((now_taken, after))
                if len(seen) > self._states_max:
                    raise TooHardError(f"more than {self._states_max} states")
                now_first = first
                while now_taken >> now_first & 1:
                    now_first += 1
                todo.append(
                    (depth + 1, position, now_taken, now_first, after, left - (not one.is_open))
                )
        return self._verdict(False, self._longest, self._state)

    def _candidates(self, taken: int, first: int) -> list[int]:
        """What may take effect next: called before the first return of what has not yet."""
        found, horizon = [], math.inf
        for position in range(first, len(self._operations)):
            if taken >> position & 1:
                continue
            one = self._operations[position]
            if one.called > horizon:
                break
            found.append(position)
            horizon = min(horizon, one.returned)
        return found

    def _verdict(self, holds: bool, path: Sequence[int], state: Hashable) -> Verdict:
        longest = tuple(self._operations[position] for position in path)
        if holds:
            return Verdict(True, longest, state)
        taken = sum(1 << position for position in path)
        stuck = tuple(self._operations[position] for position in self._candidates(taken, 0))
        return Verdict(False, longest, state, stuck)
