"""GET /v1/debug: what somebody wants to know of a node that misbehaves, in one bounded answer.

Answered by the node itself, with or without a leader, also while it starts, drains or is out of
memory. No payloads and no secrets: text that nobody wrote for this purpose is searched for them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster.actors.services import Services
from cluster.api.answers import DebugAnswer, DebugFile
from cluster.api.health import warnings_of
from cluster.api.readiness import checks_of
from cluster.api.render import time_text
from cluster.api.routing import Call, Query, Routes
from cluster.settings import Settings
from cluster.vitals.stacks import task_stacks, thread_stacks

routes = Routes("health")

FILES_MAX = 500
LINES_MAX = 500
PACKAGES = ("aiohttp", "croniter", "msgspec", "prometheus-client", "pysyncobj", "tzdata", "uvloop")


@routes.add(
    "GET",
    "/v1/debug",
    "Show what the asked node knows of itself: state, tasks, threads, files, the last log lines",
    answer=DebugAnswer,
    local=True,
)
async def get_debug(call: Call[None, Query]) -> DebugAnswer:
    services = call.services
    files = await asyncio.to_thread(files_in, services.settings.data)
    tasks, task_lines = task_stacks()
    answer = DebugAnswer(
        node_id=services.raft.node_id,
        at=time_text(services.clock.now_ms()),
        versions=_versions(services),
        settings=services.settings.public(),
        readiness=checks_of(services),
        warnings=warnings_of(services),
        status=services.raft.status(),
        queues=services.vitals.queues(),
        process=_process(services),
        files=files[:FILES_MAX],
        files_left_out=max(len(files) - FILES_MAX, 0),
        tasks_total=tasks,
        tasks=task_lines[:LINES_MAX],
        threads=thread_stacks()[:LINES_MAX],
        log=services.vitals.recent.lines(),
    )
    return _without_secrets(answer, services.settings)


def files_in(folder: Path) -> list[DebugFile]:
    """Every file of the data folder; newest last, as far as they stay there."""
    found = []
    for path in folder.rglob("*"):
        try:
            facts = path.stat()
        except OSError:
            continue  # removed meanwhile
        if path.is_file():
            modified = time_text(int(facts.st_mtime * 1000))
            found.append(DebugFile(str(path.relative_to(folder)), facts.st_size, modified))
    return sorted(found, key=lambda file: (file.modified or "", file.name))


def _versions(services: Services) -> dict[str, str]:
    found = {
        "quorate": services.clocks.version,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "releases": services.clocks.releases,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _process(services: Services) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "event_loop": type(asyncio.get_running_loop()).__module__,
        "load_average": os.getloadavg(),
        "gc_thresholds": gc.get_threshold(),
        "gc_counts": gc.get_count(),
        "gc_collections": [each["collections"] for each in gc.get_stats()],
        "gc_frozen": gc.get_freeze_count(),
        **services.vitals.facts(),
    }


def _without_secrets(answer: DebugAnswer, settings: Settings) -> DebugAnswer:
    """Whatever is text: nobody knows what a library or a task's name put into a line."""

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            return settings.without_secrets(value)
        if isinstance(value, dict):
            return {masked(key): masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [masked(item) for item in value]
        if isinstance(value, DebugFile):
            return DebugFile(masked(value.name), value.bytes, value.modified)
        return value

    names = DebugAnswer.__struct_fields__
    return DebugAnswer(**{name: masked(getattr(answer, name)) for name in names})
