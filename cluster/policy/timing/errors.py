"""The one refusal of this package: which field of a request is wrong, and what to write instead."""

from __future__ import annotations


class TimingError(ValueError):
    """One sentence that names the fix; `field` is where, as a JSON pointer into the request."""

    def __init__(self, text: str, field: str = "/schedule") -> None:
        super().__init__(text)
        self.field = field


class GaveUp(TimingError):
    """Nothing runs among very many instants in a row. There may be a run later: nobody looked."""
