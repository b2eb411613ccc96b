"""When to look whether a worker still lives, so that nobody looks at all of them all the time.

A session stands in the slot of the moment at which it would count as lost if nothing more were
heard of it. A sign of life moves nothing: whoever gave one is found alive at that moment and goes
to a later slot. So a session costs one look per time that it may be silent, and no more than that
however often it speaks.
"""

from __future__ import annotations

from cluster.actors.session import Session

SLOT_MS = 10


class Watch:
    """Sessions by the moment of their next look. Times are monotonic ms."""

    def __init__(self, now_ms: int) -> None:
        self._next = now_ms // SLOT_MS
        self._slots: dict[int, list[Session]] = {}

    def look_at(self, session: Session, due_ms: int) -> None:
        """At `due_ms` or a little later; one that is looked at before that stays where it is."""
        slot = max(-(-due_ms // SLOT_MS), self._next)
        if session.look_slot is not None and self._next <= session.look_slot <= slot:
            return
        session.look_slot = slot
        self._slots.setdefault(slot, []).append(session)

    def due(self, now_ms: int) -> list[Session]:
        """Those to look at now. They are not watched any more."""
        found = []
        last = now_ms // SLOT_MS
        while self._next <= last:
            for session in self._slots.pop(self._next, ()):
                if session.look_slot == self._next:  # else it has moved to an earlier one since
                    session.look_slot = None
                    found.append(session)
            self._next += 1
        return found
