"""`quorate dlq ...`: jobs that failed for good."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .options import Commands, UsageError, leaf, noun, option, with_client
from .output import print_done, print_item, print_rows

if TYPE_CHECKING:
    from ..client import Client

COLUMNS = ("job_id", "name", "queue", "attempt", "error_type", "error_message", "finished_at")


def add(commands: Commands) -> None:
    """Declares the verbs."""
    verbs = noun(commands, "dlq", "jobs that failed for good")
    listing = leaf(verbs, "list", run_list, "list dead jobs")
    option(listing, "--queue", scope="dlq", help="only these")
    option(listing, "--name", scope="dlq", help="only these")
    option(listing, "--limit", scope="dlq", type=int, default=50, help="at most so many (50)")
    show = leaf(verbs, "show", run_show, "everything about one dead job")
    show.add_argument("id")
    for verb, run, text in (
        ("replay", run_replay, "run dead jobs again"),
        ("purge", run_purge, "forget dead jobs"),
    ):
        parser = leaf(verbs, verb, run, text)
        parser.add_argument("ids", nargs="*")
        option(parser, "--all", scope="dlq", action="store_true", help="every dead job")


def run_list(args: argparse.Namespace) -> int:
    """quorate dlq list"""
    params = {"queue": args.queue, "name": args.name, "limit": args.limit}
    page = with_client(args, lambda client: client.transport.json("GET", "/v1/dlq", params=params))
    print_rows(args, page["items"], COLUMNS)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """quorate dlq show"""
    path = f"/v1/dlq/{quote(args.id, safe='')}"
    print_item(args, with_client(args, lambda client: client.transport.json("GET", path)))
    return 0


def run_replay(args: argparse.Namespace) -> int:
    """quorate dlq replay"""
    answer = _post(args, "replay")
    print_done(args, f"run again: {answer.get('count', len(args.ids))} jobs", answer)
    return 0


def run_purge(args: argparse.Namespace) -> int:
    """quorate dlq purge"""
    answer = _post(args, "purge")
    print_done(args, f"purged {answer.get('count', len(args.ids))} jobs", answer)
    return 0


def _post(args: argparse.Namespace, verb: str) -> Any:
    if args.all == bool(args.ids):
        raise UsageError("give ids or --all")
    body = {"all": True} if args.all else {"ids": args.ids}

    async def post(client: Client) -> Any:
        return await client.transport.json("POST", f"/v1/dlq/{verb}", body, replayable=False)

    return with_client(args, post)
