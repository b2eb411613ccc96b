"""The last lines of the node's log, kept in memory for whoever asks when something went wrong."""

from __future__ import annotations

import logging
from collections import deque

LINES_MAX = 1_000
LINE_CHARACTERS_MAX = 2_000  # a traceback may be longer; its end says what it was


class RecentLines(logging.Handler):
    """A bounded ring of formatted lines: what the log's level lets through, and no more."""

    def __init__(self, lines_max: int = LINES_MAX) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        self._lines: deque[str] = deque(maxlen=lines_max)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # as handlers of `logging` do: a bad log line must hurt nobody
            self.handleError(record)
            return
        if len(line) > LINE_CHARACTERS_MAX:
            half = LINE_CHARACTERS_MAX // 2
            line = f"{line[:half]} ... {line[-half:]}"
        self._lines.append(line)

    def lines(self) -> list[str]:
        """Oldest first."""
        return list(self._lines)
