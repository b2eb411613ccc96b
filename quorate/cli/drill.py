"""`quorate drill`: rehearsals of a failure on a running cluster, with a verdict."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import Commands, UsageError, leaf, noun, option, with_client
from .output import print_done, print_json, wants_json

if TYPE_CHECKING:
    from ..client import Client
    from ..drill.report import Report
    from ..drill.scene import Options

RETRY_SECONDS = 130.0  # a drill outlives what it rehearses
DRILLS = (
    ("failover", "hand leadership over (or kill the leader) under light load"),
    ("worker-loss", "kill one of the drill's own workers while it runs jobs"),
    ("backup", "take a backup, restore it into one local node, compare"),
    ("dr", "restore a backup into a cluster of three local nodes, run jobs there"),
)
RESTORING = ("backup", "dr")


def add(commands: Commands) -> None:
    """Declares the commands."""
    verbs = noun(commands, "drill", "rehearse a failure on the running cluster, with a verdict")
    for name, text in DRILLS:
        parser = leaf(verbs, name, run_drill, text)
        parser.set_defaults(drill=name)
        _common(parser)
        if name == "failover":
            _failover(parser)
        if name in RESTORING:
            _restoring(parser, name)
    leaf(verbs, "abort", run_abort, "end the drill that runs, and take away what one has left")


def _common(parser: argparse.ArgumentParser) -> None:
    option(parser, "--report", scope="drill", help="folder for the report (.md and .json)")
    option(
        parser, "--jobs", scope="drill", type=int, default=1_000, help="how many test jobs (1000)"
    )
    option(
        parser,
        "--sample",
        scope="drill",
        type=int,
        default=100,
        help="how many random jobs are compared field by field (100)",
    )
    option(
        parser,
        "--minutes",
        scope="drill",
        type=float,
        default=60.0,
        help="the longest time the drill may take; then it aborts itself (60)",
    )
    option(
        parser,
        "--rto-seconds",
        scope="drill",
        type=float,
        help="the goal for the recovery time (120; dr: 900)",
    )


def _failover(parser: argparse.ArgumentParser) -> None:
    option(
        parser,
        "--kill-command",
        scope="drill",
        help="kills the leader, in place of a hand-over; gets its id and HTTP address as arguments",
    )
    option(
        parser,
        "--start-command",
        scope="drill",
        help="starts that node again, with the same arguments; without it something else must",
    )


def _restoring(parser: argparse.ArgumentParser, name: str) -> None:
    option(
        parser,
        "--history",
        scope="drill",
        action="store_true",
        help="finished jobs are in the backup and compared, too",
    )
    if name == "dr":
        option(
            parser,
            "--kept-log",
            scope="drill",
            help="the cluster's folder under backup_folder: its newest backup and its log are used",
        )
        option(
            parser,
            "--rpo-seconds",
            scope="drill",
            type=float,
            help="the goal for the work that is lost (5 with --kept-log, else the backup's age)",
        )


def run_drill(args: argparse.Namespace) -> int:
    """quorate drill failover|worker-loss|backup|dr; 0 only when it passed."""
    from ..drill.report import PASS, markdown, write

    options = _options(args)
    folder = Path(args.report) if args.report else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)  # before anything is done for nothing
    report = with_client(_patient(args), lambda client: _run(client, args.drill, options))
    if folder is not None:
        page, _ = write(report, folder)
        _say(f"report: {page}")
    if wants_json(args):
        print_json(report)
    else:
        print(markdown(report))
    return 0 if report.verdict == PASS else 1


def _patient(args: argparse.Namespace) -> argparse.Namespace:
    """A client that gives up before the failure is over would end the drill."""
    if getattr(args, "retry_seconds", None) is None:
        args.retry_seconds = max(RETRY_SECONDS, (args.rto_seconds or 0.0) + 10.0)
    return args


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options(args: argparse.Namespace) -> Options:
    from ..drill.scene import Options

    for name in ("jobs", "sample", "minutes", "rto_seconds", "rpo_seconds"):
        value = getattr(args, name, None)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0")
    named = {name: getattr(args, name, None) for name in Options.__dataclass_fields__}
    if named["kept_log"] is not None:
        named["kept_log"] = _kept_log(named["kept_log"])
    if named["start_command"] and not named["kill_command"]:
        raise UsageError("--start-command needs --kill-command")
    return Options(**{name: value for name, value in named.items() if value is not None})


def _kept_log(folder: str) -> Path:
    """Looked at before the cluster is given any work."""
    from ..drill.region import newest_backup
    from ..drill.step import DrillError

    try:
        newest_backup(Path(folder))
    except (OSError, DrillError) as error:
        raise UsageError(f"--kept-log: {error}") from None
    return Path(folder)


async def _run(client: Client, name: str, options: Options) -> Report:
    import asyncio

    from ..drill.catalogue import SCRIPTS
    from ..drill.engine import run
    from ..drill.scene import Scene

    loop = asyncio.get_running_loop()

    def began(scene: Scene) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, scene.abort, f"signal {number.name}")

    return await run(SCRIPTS[name], client, options, _say, began)


def run_abort(args: argparse.Namespace) -> int:
    """quorate drill abort"""

    async def abort(client: Client) -> dict[str, Any]:
        from ..drill.announcement import end_all

        return await end_all(client)

    ended = with_client(args, abort)
    text = ", ".join(ended["queues"]) or "no drill runs"
    print_done(args, f"ended: {text}" if ended["queues"] else text, ended)
    return 0
