"""One thing that can run out: said once when little is left, refused before nothing is."""

from __future__ import annotations

import logging

log = logging.getLogger("quorate.vitals")

WARN_SHARE = 0.8
REFUSE_SHARE = 0.9
BACK_SHARE = 0.05  # so far below it counts as over: no line per swing around the mark


class Level:
    """`limit` 0: there is none. Amounts are shown divided by `divisor`."""

    def __init__(self, what: str, divisor: int, limit: int, advice: str) -> None:
        self.limit = limit
        self.used = 0
        self.is_warned = False
        self.is_out = False
        self._what = what
        self._divisor = divisor
        self._advice = advice

    def note(self, used: int) -> None:
        """What is used by now."""
        self.used = used
        if not self.limit:
            return
        share = self.share
        if share >= WARN_SHARE and not self.is_warned:
            self.is_warned = True
            log.warning("%s: %s", self.sentence(), self._advice)
        elif share < WARN_SHARE - BACK_SHARE and self.is_warned:
            self.is_warned = False
            log.info("enough again: %s", self.sentence())
        if share >= REFUSE_SHARE and not self.is_out:
            self.is_out = True
            log.error("%s: new work is refused", self.sentence())
        elif share < REFUSE_SHARE - BACK_SHARE:
            self.is_out = False

    @property
    def share(self) -> float:
        """0.0 without a limit."""
        return self.used / self.limit if self.limit else 0.0

    def sentence(self) -> str:
        """How much is used of what."""
        used, limit = self.used // self._divisor, self.limit // self._divisor
        return f"{used:,} of {limit:,} {self._what} are in use"
