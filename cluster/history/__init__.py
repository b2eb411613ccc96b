"""The node's own history: finished jobs leave memory and stay readable.

Every node writes its own copy from the replicated log; nothing here is replicated or elected. From
the machine to the disk: `History` and its `buffer`, `ended` (the machine's rows as columns),
`columns` and `chunk` (columns as bytes), `inserts`, `store` and `schema` (SQLite). `record` is what
readers get. What a node never saw end comes from another one's file: `gaps` and `lacks` say which,
`cutting` and `exchange` hand it over in a `parcel`.
"""

from cluster.history.archive import History
from cluster.history.record import FinishedJob, HistoryError, PastAttempt, PastEvent

__all__ = ["FinishedJob", "History", "HistoryError", "PastAttempt", "PastEvent"]
