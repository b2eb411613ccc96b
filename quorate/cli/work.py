"""`quorate worker [module:app]`: runs one worker process until a signal or a drain ends it."""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import Commands, UsageError, leaf, option

if TYPE_CHECKING:
    from ..app import Scheduler

EXIT_ABORTED = 130


def add(commands: Commands) -> None:
    """Declares the command."""
    parser = leaf(commands, "worker", run, "run jobs until a signal or a drain ends it")
    parser.add_argument(
        "app", nargs="?", help="module:name of a Scheduler; without it only the built-in tasks"
    )
    option(parser, "--slots", type=int, default=16, help="jobs at the same time (16)")
    option(parser, "--queues", help="queues to serve, separated by commas")
    option(parser, "--name", scope="worker", help="how the worker is shown (host-pid)")
    option(
        parser,
        "--protocol",
        choices=("stream", "poll"),
        default="stream",
        help="WebSocket stream or HTTP long-poll (stream)",
    )
    option(
        parser,
        "--grace-seconds",
        type=float,
        default=30.0,
        help="how long running jobs may go on after a signal (30)",
    )
    option(
        parser,
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="of the worker's own log on stderr (info)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the worker; 0 after a clean leave."""
    from ..worker import Worker, WorkerAborted

    logging.basicConfig(
        level=args.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    app = load_app(args.app) if args.app else None
    nodes = getattr(args, "nodes", None) or os.environ.get("QUORATE_NODES")
    if app is not None and nodes:
        app.use_nodes(nodes)

    async def main() -> None:
        try:
            worker = Worker(
                app,
                nodes=nodes,
                slots=args.slots,
                queues=[part.strip() for part in args.queues.split(",")] if args.queues else None,
                name=args.name,
                protocol=args.protocol,
                grace=args.grace_seconds,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error
        try:
            await worker.run(handle_signals=True)
        finally:
            if app is not None:
                await app.client.close()

    gc.collect()
    gc.freeze()  # what was imported stays: looking through it again and again costs every job
    try:
        _run_fast(main())
    except WorkerAborted as error:
        print(f"quorate: {error}", file=sys.stderr, flush=True)
        _exit_now(EXIT_ABORTED)
    _exit_if_threads_remain()
    return 0


def _run_fast(work: Any) -> None:
    """On uvloop where it is installed."""
    import asyncio

    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def _exit_if_threads_remain() -> None:
    """A job's thread that ignores its stop flag would keep the interpreter alive for ever."""
    import threading

    if any(thread.name.startswith("quorate-job") for thread in threading.enumerate()):
        _exit_now(0)


def _exit_now(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _where(error: BaseException) -> str:
    """The innermost place in a file; a syntax error says its own."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return ""
    return f" ({frames[-1].filename}, line {frames[-1].lineno})"


def load_app(spec: str) -> Scheduler:
    """The Scheduler at `module:name` (name defaults to "app"). UsageError says what is wrong."""
    from ..app import Scheduler

    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UsageError(f"cannot import {module_name!r}: {error}") from error
    except Exception as error:  # whatever the user's module does when it is loaded
        raise UsageError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}{_where(error)}"
        ) from error
    app = getattr(module, name or "app", None)
    if not isinstance(app, Scheduler):
        raise UsageError(f"{module_name} has no Scheduler named {name or 'app'!r}")
    return app
