"""`quorate dev`: a cluster of processes on this machine, for trying things out.

Checks the ports first, so that nothing is half started. No process manager: a child that is killed
is reported, not restarted; one that fails by itself ends the cluster.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import tempfile
from pathlib import Path

from .options import Commands, UsageError, option

HOST = "127.0.0.1"


def add(commands: Commands) -> None:
    """Declares the command. `--nodes` is a count here, so it has a variable of its own."""
    text = "a local cluster with workers, for trying things out"
    parser = commands.add_parser("dev", help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("app", nargs="?", help="module:name of a Scheduler for the workers")
    parser.add_argument(
        "--nodes",
        type=int,
        dest="node_count",
        default=os.environ.get("QUORATE_DEV_NODES", "3"),
        help="how many nodes (3) [QUORATE_DEV_NODES]",
    )
    option(parser, "--workers", type=int, default=2, help="how many workers (2)")
    option(parser, "--slots", type=int, default=16, help="slots of each worker (16)")
    option(parser, "--queues", help="queues of the workers, separated by commas")
    option(parser, "--data", help="folder for the nodes' data; without it a temporary one")
    option(parser, "--http-base", type=int, default=8001, help="first HTTP port (8001)")
    option(parser, "--raft-base", type=int, default=7001, help="first Raft port (7001)")


def run(args: argparse.Namespace) -> int:
    """Runs until Ctrl-C or SIGTERM; 1 when a child ended by itself."""
    if args.node_count < 1 or args.workers < 0:
        raise UsageError("--nodes must be at least 1 and --workers at least 0")
    raft = [args.raft_base + index for index in range(args.node_count)]
    http = [args.http_base + index for index in range(args.node_count)]
    for port, flag in [(p, "--raft-base") for p in raft] + [(p, "--http-base") for p in http]:
        _require_free(port, flag)
    import asyncio

    from .dev_cluster import DevCluster

    with contextlib.ExitStack() as stack:
        folder = args.data or stack.enter_context(tempfile.TemporaryDirectory(prefix="quorate-"))
        return asyncio.run(DevCluster(args, Path(folder), raft, http).run())


def _require_free(port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OverflowError as error:
            raise UsageError(f"{flag}: {port} is no port; the last one is 65535") from error
        except OSError as error:
            raise UsageError(
                f"port {port} is not free ({error.strerror}); stop what listens there or "
                f"choose another range with {flag}"
            ) from error
