"""Whether the backups in a place are this cluster's own: see `cluster.backup.life`.

What is found there is compared with what this node has applied, and a node may be behind. So before
a place is refused the node learns, as for a linearizable read, all that was committed when it
looked; a shelf that then still knows more is another cluster's.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from cluster.backup.life import Life, Place, decode_life, encode_life, refusal
from cluster.consensus import ReadError
from cluster.raft_state import RaftState

CATCH_UP_MS = 2_000


class _Found(NamedTuple):
    mark: Life | None
    reach: int


class Claim:
    """One place. Nothing may be written or removed there unless `look` has just said yes.

    `refusal` says why it is another cluster's, "" if it is not, or nobody knows so far. A place
    stays refused until it is empty or has another mark: to outgrow what lies there does not help.
    """

    def __init__(self, raft: RaftState) -> None:
        self._raft = raft
        self._is_ours = False
        self._refused: _Found | None = None
        self.refusal = ""

    async def look(self, place: Place) -> bool:
        """Marks a place that has no mark, or an old one. Raises what the place raises."""
        found = await asyncio.to_thread(self._find, place)
        if not await self._decide(found):
            self._is_ours = False
            return False
        self._is_ours, self._refused, self.refusal = True, None, ""
        own = self._own()
        if own.has_news_for(found.mark):
            await asyncio.to_thread(place.put_mark, encode_life(own))
        return True

    def _find(self, place: Place) -> _Found:
        data = place.mark()
        mark = decode_life(data, place.where) if data is not None else None
        if self._is_ours and mark is not None:
            return _Found(mark, 0)
        return _Found(mark, place.reach(exact=mark is None))

    async def _decide(self, found: _Found) -> bool:
        if not self._own().folders:
            return False  # a cluster that has just begun does not know its members' folders yet
        if self._refused is not None and found.reach and found.mark == self._refused.mark:
            return False
        if not self._why_not(found):
            return True
        try:
            await self._raft.read_index(CATCH_UP_MS)
        except ReadError:
            return False  # nothing is known so far
        why_not = self._why_not(found)
        if why_not:
            self._refused, self.refusal = found, why_not
        return not why_not

    def _why_not(self, found: _Found) -> str:
        return refusal(found.mark, found.reach, self._own(), self._raft.applied_index)

    def _own(self) -> Life:
        epoch, folders = self._raft.folders()
        return Life(epoch, tuple(sorted(folders)))
