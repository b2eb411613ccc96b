"""`quorate jobs ...`: look at jobs, cancel them, run them again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .options import Commands, UsageError, leaf, noun, option, with_client
from .output import print_done, print_item, print_rows, wants_json

if TYPE_CHECKING:
    from ..client import Client

FILTERS = {"cancel": ("queue", "name", "tag", "status"), "retry": ("queue", "name", "tag")}
COLUMNS = ("job_id", "name", "queue", "status", "reason", "attempt", "created_at", "error_message")


def add(commands: Commands) -> None:
    """Declares the verbs."""
    verbs = noun(commands, "jobs", "look at jobs, cancel them, run them again")
    listing = leaf(verbs, "list", run_list, "list jobs")
    for name in ("--status", "--queue", "--name", "--tag"):
        option(listing, name, scope="list", help="only these")
    option(listing, "--limit", scope="list", type=int, default=50, help="at most so many (50)")
    for verb, run, text in (
        ("show", run_show, "everything about one job"),
        ("cancel", run_cancel, "cancel jobs; running ones are really stopped"),
        ("retry", run_retry, "run failed jobs again"),
        ("logs", run_logs, "the kept log of each attempt"),
        ("timeline", run_timeline, "what happened to a job"),
    ):
        parser = leaf(verbs, verb, run, text)
        if verb not in ("cancel", "retry"):
            parser.add_argument("id")
            continue
        parser.add_argument("ids", nargs="*", metavar="id")
        for name in FILTERS[verb]:  # no variables: nobody shall cancel what they do not name here
            parser.add_argument(f"--{name}", help=f"in place of ids: all jobs of this {name}")


def run_list(args: argparse.Namespace) -> int:
    """quorate jobs list"""
    items = with_client(args, lambda client: _list(client, args))
    print_rows(args, items, COLUMNS)
    return 0


async def _list(client: Client, args: argparse.Namespace) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    if args.limit < 1:
        raise UsageError("--limit must be at least 1")
    while len(items) < args.limit:
        params = {
            "status": args.status,
            "queue": args.queue,
            "name": args.name,
            "tag": args.tag,
            "limit": min(args.limit - len(items), 500),
            "cursor": cursor,
        }
        page = await client.transport.json("GET", "/v1/jobs", params=params)
        items += page["items"]
        cursor = page.get("next_cursor")
        if not cursor or not page["items"]:
            break
    return items[: args.limit]


def _get(args: argparse.Namespace, path: str) -> Any:
    return with_client(args, lambda client: client.transport.json("GET", path))


def run_show(args: argparse.Namespace) -> int:
    """quorate jobs show"""
    print_item(args, _get(args, f"/v1/jobs/{quote(args.id, safe='')}"))
    return 0


def run_logs(args: argparse.Namespace) -> int:
    """quorate jobs logs"""
    items = _get(args, f"/v1/jobs/{quote(args.id, safe='')}/logs")["items"]
    if wants_json(args):
        print_rows(args, items, ())
        return 0
    for item in items:
        if len(items) > 1:
            print(f"--- attempt {item.get('attempt')}")
        print(item["text"])
    return 0


def run_timeline(args: argparse.Namespace) -> int:
    """quorate jobs timeline"""
    events = _get(args, f"/v1/jobs/{quote(args.id, safe='')}/timeline")["events"]
    print_rows(args, events, ("at", "event", "attempt", "worker_id", "detail"))
    return 0


async def _act_on_all(client: Client, verb: str, wanted: dict[str, str]) -> int:
    """How many jobs it was done to; a request takes ten thousand at most."""
    count, more = 0, True
    while more:
        body = {"filter": wanted}
        answer = await client.transport.json("POST", f"/v1/jobs/{verb}", body, answer_seconds=60.0)
        done = sum(item["ok"] for item in answer["items"])
        count, more = count + done, answer["more"] and done > 0
    return count


def run_cancel(args: argparse.Namespace) -> int:
    """quorate jobs cancel"""
    return _act(args, "cancel", "cancelled")


def run_retry(args: argparse.Namespace) -> int:
    """quorate jobs retry"""
    return _act(args, "retry", "runs again:")


def _act(args: argparse.Namespace, verb: str, past: str) -> int:
    """Acts on one job after the other, where the first failure ends it, or on all that fit."""
    wanted = {name: getattr(args, name) for name in FILTERS[verb] if getattr(args, name)}
    if bool(wanted) == bool(args.ids):
        raise UsageError(
            f"name either jobs by their ids or a filter: --{', --'.join(FILTERS[verb])}"
        )
    if wanted:
        count = with_client(args, lambda client: _act_on_all(client, verb, wanted))
        print_done(args, f"{past} {count} jobs", {"count": count})
        return 0

    async def act(client: Client) -> None:
        for job_id in args.ids:
            view = await client.transport.json(
                "POST", f"/v1/jobs/{quote(job_id, safe='')}/{verb}", replayable=False
            )
            print_done(args, f"{past} job {view.get('job_id', job_id)}", view)

    with_client(args, act)
    return 0
