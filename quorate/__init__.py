"""Quorate: submit jobs to a cluster and run them, from Python.

>>> app = Scheduler("http://127.0.0.1:8001")
>>> @app.task(queue="mail", timeout=30)
... async def send(message: str, ctx: Context) -> int: ...

Names are loaded at first use, so that a small script does not pay for what it does not touch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import Scheduler
    from .client import Client
    from .context import Context, current
    from .errors import (
        BatchRefused,
        Conflict,
        JobCancelled,
        JobFailed,
        JobSkipped,
        NonRetryable,
        NotCaughtUp,
        NotFound,
        OutcomeUnknown,
        PayloadInvalid,
        PayloadTooLarge,
        QueueFull,
        QuorateError,
        ResultTimeout,
        StaleAttempt,
        TaskDefinitionError,
        Unavailable,
        ValidationError,
        WorkerRefused,
    )
    from .handle import Handle
    from .requests import JobRequest, Retry
    from .schedule_views import ScheduleView
    from .sync import SyncClient, SyncHandle
    from .tasks import Task
    from .views import ClockView, JobView, MemberView, Page, WorkerView
    from .worker import Worker

__version__ = "0.1.0"

_HOME = {
    "Scheduler": "app",
    "Client": "client",
    "Context": "context",
    "current": "context",
    "Handle": "handle",
    "JobRequest": "requests",
    "Retry": "requests",
    "SyncClient": "sync",
    "SyncHandle": "sync",
    "Task": "tasks",
    "ClockView": "views",
    "JobView": "views",
    "MemberView": "views",
    "Page": "views",
    "ScheduleView": "schedule_views",
    "WorkerView": "views",
    "Worker": "worker",
}
_ERRORS = (
    "BatchRefused",
    "Conflict",
    "JobCancelled",
    "JobFailed",
    "JobSkipped",
    "NonRetryable",
    "NotCaughtUp",
    "NotFound",
    "OutcomeUnknown",
    "PayloadInvalid",
    "PayloadTooLarge",
    "QueueFull",
    "QuorateError",
    "ResultTimeout",
    "StaleAttempt",
    "TaskDefinitionError",
    "Unavailable",
    "ValidationError",
    "WorkerRefused",
)
_HOME.update(dict.fromkeys(_ERRORS, "errors"))


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'quorate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


__all__ = [
    "BatchRefused",
    "Client",
    "ClockView",
    "Conflict",
    "Context",
    "Handle",
    "JobCancelled",
    "JobFailed",
    "JobRequest",
    "JobSkipped",
    "JobView",
    "MemberView",
    "NonRetryable",
    "NotCaughtUp",
    "NotFound",
    "OutcomeUnknown",
    "Page",
    "PayloadInvalid",
    "PayloadTooLarge",
    "QueueFull",
    "QuorateError",
    "ResultTimeout",
    "Retry",
    "ScheduleView",
    "Scheduler",
    "StaleAttempt",
    "SyncClient",
    "SyncHandle",
    "Task",
    "TaskDefinitionError",
    "Unavailable",
    "ValidationError",
    "Worker",
    "WorkerRefused",
    "WorkerView",
    "__version__",
    "current",
]
