"""`quorate backup`: taking, checking and restoring backups."""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from .options import Commands, leaf, noun, option, with_client
from .output import print_done

if TYPE_CHECKING:
    from ..client import Client


def add(commands: Commands) -> None:
    """Declares the commands."""
    verbs = noun(commands, "backup", "copies of the whole state, and new clusters made of them")
    taking(leaf(verbs, "take", run_take, "take a backup of the running cluster"))
    check = leaf(verbs, "verify", run_verify, "read a backup as a restore would")
    check.add_argument("file", help="or an address, as all of these")
    shown = leaf(verbs, "list", run_list, "the whole backups in a folder or object store")
    shown.add_argument("place", help="a folder, or an address such as s3://bucket/quorate/<id>")
    into = leaf(verbs, "restore", run_restore, "make the data folder of a new cluster's node")
    into.add_argument("file")
    for flag, text in (
        ("--log", "folder or address of kept log: go on from the backup"),
        ("--to-index", "the last log entry to replay"),
        ("--to-time", "the last moment to replay, e.g. 2026-11-21T15:00:00Z"),
        ("--skip-ids", "numbers of jobs and workers that are not given again"),
    ):
        option(into, flag, scope="restore", help=text)
    into.epilog = (
        "After -- stand the flags that the node will be started with: --data, --listen, --peers "
        "and so on. Its environment and --config count as well."
    )


def taking(parser: argparse.ArgumentParser) -> None:
    """The arguments of a backup, for whatever command takes one."""
    parser.add_argument("to", help="a file, or an http(s) address that takes a PUT")
    option(parser, "--history", scope="backup", action="store_true", help="finished jobs, too")


def run_take(args: argparse.Namespace) -> int:
    """quorate backup take, quorate cluster backup"""
    level = getattr(args, "consistency", None)

    async def take(client: Client) -> dict[str, Any]:
        if args.to.startswith(("http://", "https://")):
            return await client.backups.put(args.to, history=args.history, consistency=level)
        return await client.backups.save(args.to, history=args.history, consistency=level)

    manifest = with_client(args, take)
    live = f", {manifest['jobs']} live jobs" if "jobs" in manifest else ""
    at = f" at log index {manifest['index']}{live}{_lacking(manifest)}"
    print_done(args, f"{args.to}: backup{at}", {"to": args.to, **manifest})
    return 0


def _lacking(manifest: dict[str, Any]) -> str:
    if stretches := manifest.get("history_lacks"):
        entries = ", ".join(f"{first} to {last}" for first, last in stretches)
        return f"; its history lacks finished jobs of log entries {entries}"
    if manifest.get("history_complete") is False:
        return "; its history is incomplete"
    return ""


def run_verify(args: argparse.Namespace) -> int:
    """quorate backup verify"""
    return _offline("verify", args.file)


def run_list(args: argparse.Namespace) -> int:
    """quorate backup list"""
    return _offline("list", args.place)


def run_restore(args: argparse.Namespace) -> int:
    """quorate backup restore"""
    own = [args.file]
    for name in ("log", "to_index", "to_time", "skip_ids"):
        value = getattr(args, name)
        if value is not None:
            own += ["--" + name.replace("_", "-"), value]
    return _offline("restore", *own, "--", *args.rest)


def _offline(*arguments: str) -> int:
    """Needs the node's own code, and no node: a process of its own."""
    command = [sys.executable, "-m", "cluster.backup", *arguments]
    return subprocess.run(command, check=False).returncode
