"""`quorate schedules next | preview | diff | backfill`: what will run, and what shall have run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import schedule_flags
from .options import Commands, UsageError, leaf, option, with_client
from .output import print_done, print_item, print_json, print_rows, print_table, wants_json
from .schedule_define import changes_of, require_one_trigger

if TYPE_CHECKING:
    from ..client import Client

SHOWN_MAX = 20
BACKFILL_COLUMNS = (
    "backfill_id", "status", "launched", "waiting", "skipped", "total", "overlap", "note",
)  # fmt: skip


def add(verbs: Commands) -> None:
    """Declares the verbs."""
    following = leaf(verbs, "next", run_next, "the next runs, odd ones with their reason")
    following.add_argument("id")
    preview = leaf(verbs, "preview", run_preview, "the runs of a schedule that need not exist")
    option(preview, "--id", scope="schedule", help="seeds --jitter and H")
    schedule_flags.add_timing(preview)
    for parser in (following, preview):
        option(
            parser, "--omitted", scope="preview", action="store_true", help="also what is left out"
        )
    diff = leaf(verbs, "diff", run_diff, "what `change` would do to the next runs")
    diff.add_argument("id")
    schedule_flags.add_timing(diff)
    option(diff, "--unset", scope="schedule", action="append", help="field to take back")
    for parser in (following, preview, diff):
        option(parser, "--count", scope="preview", type=int, default=10, help="so many (10)")
        option(parser, "--after", scope="preview", help="RFC 3339 time to start at (now)")
    _add_backfill(verbs)


def _add_backfill(verbs: Commands) -> None:
    backfill = leaf(verbs, "backfill", run_backfill, "run the occurrences of a time range")
    backfill.add_argument("id")
    backfill.add_argument("start", metavar="FROM", help="RFC 3339, included")
    backfill.add_argument("end", metavar="TO", help="RFC 3339, excluded")
    option(
        backfill, "--overlap", scope="backfill", choices=schedule_flags.OVERLAPS,
        help="while a run is alive (buffer_all: one after the other)",
    )  # fmt: skip
    option(backfill, "--per-minute", scope="backfill", type=int, help="starts a minute at most")
    option(backfill, "--note", scope="backfill", help="why")
    option(backfill, "--dry-run", scope="backfill", action="store_true", help="only show them")
    listing = leaf(verbs, "backfills", run_backfills, "how far backfills have come")
    listing.add_argument("id")
    stop = leaf(verbs, "stop-backfill", run_stop_backfill, "start nothing more of a backfill")
    stop.add_argument("id")
    stop.add_argument("number", type=int)


def _path(args: argparse.Namespace, verb: str) -> str:
    return f"/v1/schedules/{quote(args.id, safe='')}/{verb}"


def _get(args: argparse.Namespace, path: str, params: Mapping[str, Any]) -> Any:
    return with_client(args, lambda client: client.transport.json("GET", path, params=params))


def run_next(args: argparse.Namespace) -> int:
    """quorate schedules next"""
    params = {"count": args.count, "after": args.after, "omitted": args.omitted and "true"}
    params["omitted"] = params["omitted"] or None
    _print_forecast(args, _get(args, _path(args, "next"), params))
    return 0


def run_preview(args: argparse.Namespace) -> int:
    """quorate schedules preview"""
    body = schedule_flags.fields(args)
    require_one_trigger(body)
    more = {"id": args.id, "count": args.count, "after": args.after, "omitted": args.omitted}
    body |= {name: value for name, value in more.items() if value}
    path = "/v1/schedules/preview"
    _print_forecast(
        args, with_client(args, lambda client: client.transport.json("POST", path, body))
    )
    return 0


def _print_forecast(args: argparse.Namespace, answer: dict[str, Any]) -> None:
    if wants_json(args):
        print_json(answer)
        return
    print(answer["explanation"])
    _print_occurrences(answer["next"])
    if not answer["next"]:
        print("nothing more runs")
    if not answer.get("complete", True) and len(answer["next"]) < args.count:
        print("the search was cut short: ask again with --after")


def _print_occurrences(found: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [each["utc"], each["local"], "" if each["runs"] else "no", each.get("note") or ""]
        for each in found
    ]
    if rows:
        print_table(("utc", "local", "runs", "note"), rows)


def run_diff(args: argparse.Namespace) -> int:
    """quorate schedules diff"""
    body = changes_of(args)
    params = {"count": args.count, "after": args.after}
    answer = with_client(
        args,
        lambda client: client.transport.json("POST", _path(args, "diff"), body, params=params),
    )
    if wants_json(args):
        print_json(answer)
        return 0
    print(f"now:   {answer['explanation_before']}")
    print(f"then:  {answer['explanation_after']}")
    marked = [("+", each) for each in answer["added"]] + [("-", each) for each in answer["removed"]]
    for mark, each in sorted(marked, key=lambda pair: pair[1]["nominal_at"]):
        note = f"  {each['note']}" if each.get("note") else ""
        print(f"{mark} {each['utc']}  {each['local']}{note}")
    if not marked:
        print("the next runs stay the same")
    return 0


def run_backfill(args: argparse.Namespace) -> int:
    """quorate schedules backfill"""
    body: dict[str, Any] = {"from": args.start, "to": args.end}
    more = {
        "overlap": args.overlap, "per_minute": args.per_minute, "note": args.note,
        "dry_run": args.dry_run or None,
    }  # fmt: skip
    body |= {name: value for name, value in more.items() if value is not None}

    async def work(client: Client) -> Any:
        return await client.transport.json(
            "POST", _path(args, "backfill"), body, replayable=args.dry_run
        )

    answer = with_client(args, work)
    if not args.dry_run:
        told = f"backfill {answer['backfill_id']} of schedule {args.id}: {answer['count']} runs"
        print_done(args, told, answer)
    elif wants_json(args):
        print_item(args, answer)
    elif not answer["count"]:
        print("the schedule has no occurrence in this range")
    else:
        print(f"{answer['count']} runs from {answer['first']} to {answer['last']}")
        for moment in answer["occurrences"][:SHOWN_MAX]:
            print(moment)
        if answer["count"] > SHOWN_MAX:
            print(f"and {answer['count'] - SHOWN_MAX} more")
    return 0


def run_backfills(args: argparse.Namespace) -> int:
    """quorate schedules backfills"""
    print_rows(args, _get(args, _path(args, "backfills"), {})["items"], BACKFILL_COLUMNS)
    return 0


def run_stop_backfill(args: argparse.Namespace) -> int:
    """quorate schedules stop-backfill"""
    if args.number < 1:
        raise UsageError("a backfill has a number from 1 on")
    with_client(args, lambda client: client.schedules.stop_backfill(args.id, args.number))
    print_done(args, f"stopped backfill {args.number}", {"backfill_id": args.number})
    return 0
