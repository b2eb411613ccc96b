"""The `quorate` command: one file per noun, loaded lazily enough to start fast.

Exit codes: 0 done, 1 it failed, 2 wrong usage. Errors are one line on stderr, never a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import backup, calendars, cluster, debug, dev, dlq, drill, jobs, schedules, submit, tls, work
from .options import UsageError, common_options

NOUNS = (dev, work, submit, jobs, schedules, calendars, dlq, cluster, backup, debug, drill, tls)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="quorate",
        description="Submit jobs to a Quorate cluster, run them, look after them.",
        epilog="Every option can also be set by a variable QUORATE_<OPTION>, e.g. QUORATE_NODES.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    common_options(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for noun in NOUNS:
        noun.add(commands)
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands after `--` is somebody else's, where a command passes flags on."""
    if "--" not in arguments or arguments[:2] != ["backup", "restore"]:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code."""
    parser = build_parser()
    own, rest = _split(list(sys.argv[1:] if argv is None else argv))
    try:
        args = parser.parse_args(own)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    args.rest = rest
    if args.version:
        from quorate import __version__

        print(f"quorate {__version__}")
        return 0
    run = getattr(args, "run", None)
    if run is None:
        (getattr(args, "parser", None) or parser).print_help(sys.stderr)
        return 2
    try:
        return int(run(args) or 0)
    except UsageError as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `quorate jobs list | head` is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from ..errors import QuorateError

        if isinstance(error, (QuorateError, OSError, ValueError)):
            return _complain(error, 1)
        raise


def _complain(error: Exception, code: int) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"quorate: {text}", file=sys.stderr)
    return code
