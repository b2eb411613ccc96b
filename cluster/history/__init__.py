"""The node's own history: finished jobs leave memory and stay readable.

Every node writes its own copy from the replicated log; nothing here is replicated, elected or asked
of another node. From the machine to the disk: `History` and its `buffer`, `ended` (the machine's
rows as columns), `columns` and `chunk` (columns as bytes), `store` (SQLite). `record` is what
readers get.
"""

from cluster.history.archive import History
from cluster.history.record import FinishedJob, HistoryError, PastAttempt, PastEvent

__all__ = ["FinishedJob", "History", "HistoryError", "PastAttempt", "PastEvent"]
