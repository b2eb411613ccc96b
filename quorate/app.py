"""The application object: collects tasks and schedules, and submits jobs.

Holds no connection until the first call that needs one, so importing a module with tasks costs
nothing and reaches nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar, Unpack, overload

from .client import Client
from .durations import Duration, to_seconds
from .errors import TaskDefinitionError
from .handle import Handle
from .requests import JobRequest, Priority, Retry, SubmitOptions, job_request
from .schedule_options import ScheduleOptions, schedule_fields
from .schedule_views import ScheduleView
from .schedules import ScheduleSpec
from .sync import LoopThread
from .tasks import Kind, Task
from .transport import node_list

R = TypeVar("R")

AnyJob = JobRequest | tuple[str, Any] | Mapping[str, Any]


class _TaskDecorator:
    """What `app.task(...)` returns; a class because the two kinds of functions need overloads."""

    def __init__(self, make: Callable[[Callable[..., Any]], Task[Any]]) -> None:
        self._make = make

    @overload
    def __call__(self, function: Callable[..., Coroutine[Any, Any, R]]) -> Task[R]: ...
    @overload
    def __call__(self, function: Callable[..., R]) -> Task[R]: ...
    def __call__(self, function: Callable[..., Any]) -> Task[Any]:
        return self._make(function)


class Scheduler:
    """An application: its tasks, its schedules and the cluster they go to.

    `nodes`: base URLs as a list or comma string; default QUORATE_NODES, then the local ports.
    """

    def __init__(
        self, nodes: str | Sequence[str] | None = None, *, retry_seconds: float = 30.0
    ) -> None:
        self.nodes = node_list(nodes)
        self.client = Client(self.nodes, retry_seconds=retry_seconds)
        self.tasks: dict[str, Task[Any]] = {}
        self.schedules: list[ScheduleSpec] = []
        self._retry_seconds = retry_seconds
        self._thread: LoopThread | None = None
        self._sync_client: Client | None = None

    def use_nodes(self, nodes: str | Sequence[str]) -> None:
        """Points the application at another cluster; for whoever loads it, before its first call.

        `quorate worker --nodes` does this, so that jobs which submit jobs reach the same cluster.
        """
        self.nodes = node_list(nodes)
        self.client = Client(self.nodes, retry_seconds=self._retry_seconds)

    def task(
        self,
        name: str | None = None,
        *,
        queue: str | None = None,
        priority: Priority | None = None,
        max_retries: int | None = None,
        retry: Retry | str | Mapping[str, Any] | None = None,
        timeout: Duration | None = None,
        total_timeout: Duration | None = None,
        queue_timeout: Duration | None = None,
        kind: Kind | None = None,
        tags: Sequence[str] | None = None,
        non_retryable: type[BaseException] | Iterable[type[BaseException]] = (),
    ) -> _TaskDecorator:
        """Declares a task; the options are the defaults of its jobs.

        `kind` is "async" for an `async def`, else "thread". Exceptions of a class in
        `non_retryable` end the job at once. `name` defaults to the name of the function.
        """
        if callable(name):
            raise TaskDefinitionError("write @app.task() with parentheses")
        given = {
            "queue": queue,
            "priority": priority,
            "max_retries": max_retries,
            "retry": retry,
            "timeout": timeout,
            "total_timeout": total_timeout,
            "queue_timeout": queue_timeout,
            "tags": tags,
        }
        options = {option: value for option, value in given.items() if value is not None}
        final = (non_retryable,) if isinstance(non_retryable, type) else tuple(non_retryable)

        def make(function: Callable[..., Any]) -> Task[Any]:
            task: Task[Any] = Task(
                self,
                function,
                name or function.__name__,
                kind=_kind(function, kind),
                options=options,
                non_retryable=final,
            )
            if task.name in self.tasks:
                raise TaskDefinitionError(f"two tasks are named {task.name!r}")
            self.tasks[task.name] = task
            return task

        return _TaskDecorator(make)

    def cron(
        self,
        expression: str,
        *,
        id: str | None = None,
        payload: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Callable[[Task[R]], Task[R]]:
        """Declares that a task runs at a cron expression, in UTC unless a `timezone` is named.

        Goes above `@app.task`, or is called with a task. The id defaults to the task's name. The
        options are those of `client.schedules.put`; what concerns jobs wins over the task's own.
        """
        return self._declaring(id, payload, {**options, "schedule": expression})

    def every(
        self,
        interval: Duration,
        *,
        id: str | None = None,
        payload: Any = None,
        **options: Unpack[ScheduleOptions],
    ) -> Callable[[Task[R]], Task[R]]:
        """Declares that a task runs every `interval`. Used like `cron`."""
        return self._declaring(id, payload, {**options, "every": to_seconds(interval)})

    def _declaring(
        self, id: str | None, payload: Any, options: Mapping[str, Any]
    ) -> Callable[[Task[R]], Task[R]]:
        try:
            schedule_fields(options)
        except (TypeError, ValueError) as error:
            raise TaskDefinitionError(str(error)) from error

        def declare(task: Task[R]) -> Task[R]:
            self._declare(task, id, payload, options)
            return task

        return declare

    def _declare(
        self, task: Task[Any], id: str | None, payload: Any, options: Mapping[str, Any]
    ) -> None:
        if not isinstance(task, Task):
            raise TaskDefinitionError("put @app.cron / @app.every above @app.task")
        schedule_id = id or task.name
        if any(spec.id == schedule_id for spec in self.schedules):
            raise TaskDefinitionError(f"two schedules have the id {schedule_id!r}; give another")
        self.schedules.append(
            ScheduleSpec(
                id=schedule_id,
                name=task.name,
                payload=payload,
                options={**task.options, **options},
            )
        )

    async def sync_schedules(self, client: Client | None = None) -> list[ScheduleView]:
        """Brings the declared schedules to the cluster; safe to call any number of times."""
        schedules = (client or self.client).schedules
        return [await schedules.ensure(spec) for spec in self.schedules]

    async def submit(
        self, name: str, payload: Any = None, **options: Unpack[SubmitOptions]
    ) -> Handle[Any]:
        """Submits by name; the defaults of a task known here apply."""
        task = self.tasks.get(name)
        if task is not None:
            return await task.submit(payload, **options)
        return await self.client.submit(name, payload, **options)

    async def submit_many(self, jobs: Iterable[AnyJob]) -> list[Handle[Any]]:
        """Submits in one round trip: `task.job(...)`, `(name, payload)` or
        `{"name": ..., "payload": ..., **options}`. BatchRefused if some were refused."""
        return await self.client.submit_many([self._request(job) for job in jobs])

    def _request(self, job: AnyJob) -> JobRequest:
        if isinstance(job, JobRequest):
            return job
        if isinstance(job, Mapping):
            options = dict(job)
            name, payload = options.pop("name"), options.pop("payload", None)
        else:
            (name, payload), options = job, {}
        task = self.tasks.get(name)
        return job_request(name, payload, {**(task.options if task else {}), **options})

    def handle(self, job_id: str) -> Handle[Any]:
        """A handle for a job known by its id."""
        return self.client.handle(job_id)

    def sync_parts(self) -> tuple[Client, LoopThread]:
        """A client of its own on a private loop thread, for code without an event loop."""
        if self._thread is None or self._sync_client is None:
            self._thread = LoopThread()
            self._sync_client = Client(self.nodes, retry_seconds=self._retry_seconds)
        return self._sync_client, self._thread

    async def close(self) -> None:
        """Closes the connections, also those of `submit_sync`."""
        await self.client.close()
        if self._thread is not None and self._sync_client is not None:
            self._thread.run(self._sync_client.close())
            self._thread.stop()
            self._thread = None


def _kind(function: Callable[..., Any], asked: Kind | None) -> Kind:
    is_async = inspect.iscoroutinefunction(function)
    if asked == "async" and not is_async:
        raise TaskDefinitionError(f"{function.__name__} is not `async def`, so it runs in a thread")
    if asked == "thread" and is_async:
        raise TaskDefinitionError(f"{function.__name__} is `async def`, so it cannot be a thread")
    if asked not in (None, "async", "thread"):
        raise TaskDefinitionError(f"unknown kind {asked!r}: async or thread")
    return "async" if is_async else "thread"
