"""The node's own history: finished jobs leave memory and stay readable.

Every node writes its own copy from the replicated log; nothing here is replicated, elected or asked
of another node. `History` is the buffer and the threads, `store` is SQLite, `record` the row.
"""

from cluster.history.archive import History
from cluster.history.record import FinishedJob, HistoryError, PastAttempt, PastEvent

__all__ = ["FinishedJob", "History", "HistoryError", "PastAttempt", "PastEvent"]
