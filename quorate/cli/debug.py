"""`quorate debug`: what to look at, or to send to somebody, when a cluster misbehaves."""

from __future__ import annotations

import argparse
import time

from .options import Commands, leaf, noun, with_client
from .output import print_done


def add(commands: Commands) -> None:
    """Declares the commands."""
    verbs = noun(commands, "debug", "what to look at when a cluster misbehaves")
    bundle = leaf(verbs, "bundle", run_bundle, "collect what every node knows of itself in a file")
    bundle.add_argument("file", nargs="?", help="quorate-debug-<time>.tar.gz if not given")


def run_bundle(args: argparse.Namespace) -> int:
    """quorate debug bundle. It failed if no node at all gave an answer."""
    path = args.file or time.strftime("quorate-debug-%Y%m%d-%H%M%S.tar.gz", time.gmtime())
    manifest = with_client(args, lambda client: client.debug.save(path))
    nodes = manifest["nodes"]
    silent = [node["url"] for node in nodes if not node["answered"]]
    text = f"{path}: {len(nodes) - len(silent)} of {len(nodes)} nodes"
    if silent:
        text += f"; no answer from {', '.join(silent)}"
    print_done(args, text, {"to": path, **manifest})
    return 1 if len(silent) == len(nodes) else 0
