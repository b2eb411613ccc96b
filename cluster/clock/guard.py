"""Decides which time a node runs at when its wall clock jumps or differs from the others'.

Pure: readings come as arguments. Clocks are compared by their *base*, wall time minus elapsed time:
it stays the same while a clock runs, moves a little when it is slewed and much when it is stepped.
The rules, in the order in which they win:

1. What an operator accepted holds until this clock agrees with a majority again.
2. A majority of the voters' clocks that agree with each other is right: a wall clock among them
   is adopted, however far it jumped, if they were read after the jump (one that was wrong by as
   much a while ago does not vouch for it); another is refused, and the majority's time is taken.
3. Else the wall clock is adopted while it moves by no more than the bound between two looks. When
   it moves further it is refused: time runs on with elapsed time until the wall clock is back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

CHANGES_KEPT = 64

Kind = Literal["refused", "outvoted", "returned", "majority", "operator"]


@dataclass(frozen=True)
class Change:
    """`refused` and `outvoted` begin a refusal, the others end it and name the reason. `moved_ms`
    is by how much the node's time moved; `off_ms` how far the wall clock was from it before."""

    kind: Kind
    off_ms: int
    moved_ms: int


@dataclass(frozen=True)
class Votes:
    """What is known of the clocks of the members that vote: the bases of the others' that were read
    lately, how many vote in all, and whether this node is one of them. All of them were asked at
    `since_ms` of elapsed time or later."""

    others_ms: tuple[int, ...] = ()
    voters: int = 1
    own_votes: bool = True
    since_ms: int = 0


def agreement(own_ms: int, votes: Votes, bound_ms: int) -> int | None:
    """The base that more than half of the voters share, or None.

    A clock alone proves nothing, so one of the others' is always among them."""
    bases = sorted([*votes.others_ms, own_ms] if votes.own_votes else votes.others_ms)
    best: list[int] = []
    for first, base in enumerate(bases):
        group = [other for other in bases[first:] if other - base <= bound_ms]
        if len(group) > len(best) or (len(group) == len(best) and own_ms in group):
            best = group
    if not votes.others_ms or 2 * len(best) <= votes.voters:
        return None
    return best[(len(best) - 1) // 2]


class Guard:
    """The time of one node. `read` at every look, `consult` when other clocks are known."""

    def __init__(self, bound_ms: int) -> None:
        self.bound_ms = bound_ms
        self.is_refusing = False
        self.refused_at_ms = 0  # by elapsed time: since then, if it is refusing
        self.is_vouched = False  # a majority was seen to agree, at least once
        self.is_accepted = False  # by an operator, against the majority
        self.changes: deque[Change] = deque(maxlen=CHANGES_KEPT)
        self._base_ms: int | None = None

    def read(self, wall_ms: int, elapsed_ms: int) -> int:
        """The time to run at."""
        own_ms = wall_ms - elapsed_ms
        base_ms = own_ms if self._base_ms is None else self._base_ms
        off_ms = own_ms - base_ms
        if abs(off_ms) <= self.bound_ms:
            self._base_ms = own_ms
            if self.is_refusing:
                self._ends("returned", off_ms, off_ms)
            return wall_ms
        if not self.is_refusing:
            self.is_refusing, self.refused_at_ms = True, elapsed_ms
            self.changes.append(Change("refused", off_ms, 0))
        return base_ms + elapsed_ms

    def consult(self, wall_ms: int, elapsed_ms: int, votes: Votes) -> None:
        """Compare with the other clocks."""
        now_ms = self.read(wall_ms, elapsed_ms)
        shared_ms = agreement(wall_ms - elapsed_ms, votes, self.bound_ms)
        if shared_ms is None:
            return
        self.is_vouched = True
        shared_now_ms = shared_ms + elapsed_ms
        if abs(wall_ms - shared_now_ms) <= self.bound_ms:
            self.is_accepted = False
            if self.is_refusing and votes.since_ms >= self.refused_at_ms:
                self._base_ms = wall_ms - elapsed_ms
                self._ends("majority", wall_ms - now_ms, wall_ms - now_ms)
        elif not self.is_accepted and abs(now_ms - shared_now_ms) > self.bound_ms:
            self._base_ms = shared_ms
            self.is_refusing, self.refused_at_ms = True, elapsed_ms
            moved_ms = shared_now_ms - now_ms
            self.changes.append(Change("outvoted", wall_ms - shared_now_ms, moved_ms))

    def accept(self, wall_ms: int, elapsed_ms: int) -> bool:
        """The operator says that the wall clock is right; False when it was not refused."""
        now_ms = self.read(wall_ms, elapsed_ms)
        if not self.is_refusing:
            return False
        self._base_ms = wall_ms - elapsed_ms
        self.is_accepted = True
        self._ends("operator", wall_ms - now_ms, wall_ms - now_ms)
        return True

    def _ends(self, kind: Kind, off_ms: int, moved_ms: int) -> None:
        self.is_refusing = False
        self.changes.append(Change(kind, off_ms, moved_ms))
