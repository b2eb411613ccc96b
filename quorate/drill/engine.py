"""Runs a drill's steps in order, ends it early when it is told to, and takes away what it made.

Whatever happens, the failback steps and the cleaning are done; a step that fails skips the others.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ..client import Client
from ..errors import QuorateError
from .announcement import announce, until_withdrawn
from .cleaning import clean
from .criteria import holds
from .report import Report, StepRecord, verdict
from .scene import Options, Scene
from .script import Script
from .step import Step

Say = Callable[[str], None]
PROBLEMS = (QuorateError, OSError, TimeoutError)


async def run(
    kind: type[Script], client: Client, options: Options, say: Say,
    began: Callable[[Scene], None] = lambda scene: None,
) -> Report:  # fmt: skip
    """The drill's report. `began` gets the scene, to abort it. Raises QuorateError when it could
    not even begin: then nothing was done."""
    queue = f"drill-{secrets.token_hex(4)}"
    report = Report(drill=kind.name, id=queue, summary=kind.summary, began=_now())
    with tempfile.TemporaryDirectory(prefix=f"quorate-{queue}-") as folder:
        scene = Scene(client, options, queue, Path(folder), report, say)
        began(scene)
        await scene.find_nodes()
        scene.announcement = await announce(client, kind.name, queue, options.minutes)
        say(f"drill {kind.name}: queue {queue}; to end it early: Ctrl-C or quorate drill abort")
        watch = asyncio.create_task(until_withdrawn(client, scene.announcement))
        watch.add_done_callback(partial(_withdrawn, scene))
        script = kind(scene)
        try:
            await _play(scene, script.steps())
        finally:
            watch.cancel()
            await script.leave()
            await _clean(scene)
    report.ended = _now()
    report.verdict = verdict(report.criteria, report.steps)
    return report


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _withdrawn(scene: Scene, watch: asyncio.Task[str]) -> None:
    if watch.cancelled():
        return
    error = watch.exception()
    scene.abort(watch.result() if error is None else f"the cluster cannot be watched: {error}")


async def _play(scene: Scene, steps: Sequence[Step]) -> None:
    stopped = False
    for step in steps:
        if stopped and step.phase != "failback":
            scene.report.steps.append(StepRecord(step.phase, step.text, "skipped", 0.0))
            continue
        scene.say(f"{step.phase}: {step.text}")
        record = await _step(scene, step)
        scene.report.steps.append(record)
        if record.outcome != "done":
            scene.say(f"  {record.outcome}: {record.detail}")
            stopped = True
        elif record.detail:
            scene.say(f"  {record.detail}")


async def _step(scene: Scene, step: Step) -> StepRecord:
    """Failback goes on while the drill is being aborted: it puts things back."""
    began = time.monotonic()
    work = asyncio.ensure_future(step.run())
    waiting: list[asyncio.Future[str | None]] = [work]
    if step.phase != "failback":
        waiting.append(scene.abort_reason)  # type: ignore[arg-type]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    took = time.monotonic() - began
    if work.cancelled():
        return StepRecord(step.phase, step.text, "aborted", took, scene.abort_reason.result())
    error = work.exception()
    if error is None:
        return StepRecord(step.phase, step.text, "done", took, work.result() or "")
    if not isinstance(error, PROBLEMS):
        raise error
    detail = str(error) or type(error).__name__
    if isinstance(error, TimeoutError) and not str(error):
        detail = "it took too long"
    return StepRecord(step.phase, step.text, "failed", took, detail)


async def _clean(scene: Scene) -> None:
    """The end of every drill, also of one that failed."""
    await scene.crew.stop()
    try:
        left = await clean(scene.client, scene.queue)
    except PROBLEMS as error:
        left = [f"queue {scene.queue} could not be cleaned ({error}): run quorate drill abort"]
    scene.judge(holds("nothing of the drill is left", "nothing", "; ".join(left) or "nothing"))
