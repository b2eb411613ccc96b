"""`python -m cluster.backup verify|restore|list`: what is done with a backup while no node runs.

Exit codes: 0 done, 1 the backup or the disk is no good, 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from cluster.settings import Settings, SettingsError

from .bundle import BackupError, open_bundle
from .logs import Target
from .manifest import Manifest
from .restore import Restored, restore, verify
from .revive import IDS_SKIPPED
from .store import fetched, fetched_log, listed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, node_flags = _split(arguments)
    args = _parser().parse_args(own)
    try:
        with tempfile.TemporaryDirectory(prefix="quorate-backup-") as folder:
            told = _done(args, node_flags, Path(folder))
    except (SettingsError, _WrongArgument) as error:
        print(f"quorate: {error}", file=sys.stderr)
        return 2
    except (BackupError, OSError) as error:
        print(f"quorate: {error}", file=sys.stderr)
        return 1
    print(json.dumps(told))
    return 0


def _done(args: argparse.Namespace, node_flags: list[str], folder: Path) -> Any:
    """What is told of it; `folder` is for what has to be fetched."""
    if args.command == "list":
        return listed(args.file)
    settings = Settings.load(node_flags, os.environ) if args.command == "restore" else None
    bounds = _bounds(args) if settings is not None else None
    with open_bundle(fetched(args.file, folder)) as bundle:
        told: dict[str, Any] = {"manifest": msgspec.to_builtins(bundle.manifest)}
        if bundle.manifest.history_lacks:
            print(f"quorate: {_lacking(bundle.manifest)}", file=sys.stderr)
        if settings is None:
            return told | _figures(verify(bundle))
        target = None
        if bounds is not None:
            target = Target(fetched_log(args.log, folder, bundle.manifest.index), *bounds)
        result = restore(bundle, settings, target, args.skip_ids)
        told |= {"node": settings.advertise, "data": str(settings.data)}
        return told | _figures(result)


def _lacking(manifest: Manifest) -> str:
    stretches = ", ".join(f"{first} to {last}" for first, last in manifest.history_lacks or ())
    return f"its history lacks finished jobs of log entries {stretches}: its node had not all"


class _WrongArgument(ValueError):
    pass


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands behind `--` are the flags that the node will be started with."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m cluster.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser("verify", help="read all of it, as a restore would")
    into = commands.add_parser(
        "restore",
        help="make a node's data folder from it",
        epilog="Behind -- stand the flags that the node will be started with (--data, --listen, "
        "--peers ...); environment and --config count as for a node.",
    )
    shown = commands.add_parser("list", help="the whole backups in a folder or at an address")
    for each in (check, into, shown):
        each.add_argument("file")
    into.add_argument("--log", help="folder or address of kept log: go on from the backup")
    into.add_argument("--to-index", type=int, default=0, help="the last log entry to replay")
    into.add_argument("--to-time", default="", help="the last moment to replay (RFC 3339)")
    into.add_argument(
        "--skip-ids",
        type=int,
        default=IDS_SKIPPED,
        help=f"numbers of jobs and workers that are not given again ({IDS_SKIPPED})",
    )
    return parser


def _bounds(args: argparse.Namespace) -> tuple[int, int] | None:
    """Up to which index and which moment (ms) the log is replayed; None for not at all."""
    if args.skip_ids < 0 or args.to_index < 0:
        raise _WrongArgument("--skip-ids and --to-index count from 0")
    if args.log is None:
        if args.to_index or args.to_time:
            raise _WrongArgument("--to-index and --to-time need --log FOLDER, the kept log")
        return None
    return args.to_index, _moment_ms(args.to_time) if args.to_time else 0


def _moment_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _WrongArgument(f"--to-time {text!r}: write e.g. 2026-11-21T15:00:00Z") from None
    if moment.tzinfo is None:
        raise _WrongArgument(f"--to-time {text!r}: add the zone, e.g. Z for UTC")
    return round(moment.timestamp() * 1000)


def _figures(result: Restored) -> dict[str, Any]:
    return {**asdict(result), "digest": f"{result.digest:08x}"}


if __name__ == "__main__":
    sys.exit(main())
