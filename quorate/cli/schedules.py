"""`quorate schedules ...`: recurring jobs. Here is what works on schedules that exist; how they are
described is in `schedule_define`, what they will do in `schedule_forecast`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import schedule_define, schedule_flags, schedule_forecast
from .options import Commands, leaf, noun, option, with_client
from .output import print_done, print_item, print_rows, wants_json

if TYPE_CHECKING:
    from ..client import Client

COLUMNS = ("schedule_id", "name", "when", "status", "next_run", "running", "recent")
SHOWN_FIRST = (
    *("schedule_id", "name", "status", "ended_reason", "note", "explanation", "next_run"),
    *("last_run", "running", "run_count", "skipped_count"),
)
RUN_COLUMNS = ("job_id", "nominal_at", "status", "attempt", "started_at", "finished_at")
EVENT_COLUMNS = ("at", "kind", "count", "text")
PAGE = 200
MARKS = {"completed": ".", "failed": "F", "cancelled": "c", "skipped": "s"}
LEGEND = "recent: . completed  F failed  c cancelled  s skipped  > running"


def add(commands: Commands) -> None:
    """Declares the verbs."""
    verbs = noun(commands, "schedules", "recurring jobs")
    leaf(verbs, "list", run_list, "list schedules, with a mark for each of the last runs")
    for verb, run, text in (
        ("show", run_show, "everything about one schedule"),
        ("pause", run_pause, "no more runs until resumed"),
        ("resume", run_resume, "go on with the next run after now"),
        ("trigger", run_trigger, "run it now, once"),
        ("runs", run_runs, "its jobs, newest first"),
        ("timeline", run_timeline, "what happened to it, and what was left out and why"),
        ("delete", run_delete, "delete it; jobs it made stay"),
    ):
        parser = leaf(verbs, verb, run, text)
        parser.add_argument("id")
        if verb == "pause":
            option(parser, "--note", scope="schedule", help="why, shown with the schedule")
        if verb == "trigger":
            _add_overrides(parser)
        if verb == "runs":
            option(parser, "--nominal", scope="runs", help="RFC 3339: of this occurrence only")
        if verb in ("runs", "timeline"):
            option(parser, "--limit", scope="list", type=int, default=50, help="at most so many")
    schedule_define.add(verbs)
    schedule_forecast.add(verbs)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    for flag, more in schedule_flags.OVERRIDES:
        option(parser, flag, scope="trigger", **more)


def run_list(args: argparse.Namespace) -> int:
    """quorate schedules list"""

    async def pages(client: Client) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            answer = await client.transport.json(
                "GET", "/v1/schedules", params={"limit": PAGE, "cursor": cursor}
            )
            items += answer["items"]
            cursor = answer.get("next_cursor")
            if cursor is None:
                return items

    items = with_client(args, pages)
    if not wants_json(args):
        items = [{**item, "when": when(item), "recent": strip(item)} for item in items]
    print_rows(args, items, COLUMNS)
    return 0


def when(item: Mapping[str, Any]) -> str:
    """The trigger in a cell."""
    zone = item.get("timezone") or "UTC"
    if item.get("schedule") is not None:
        return str(item["schedule"]) + ("" if zone == "UTC" else f" {zone}")
    if item.get("every_seconds") is not None:
        return f"every {item['every_seconds']:g} s"
    times = item.get("at")
    if times:
        return str(times[0]) + (f" +{len(times) - 1}" if len(times) > 1 else "")
    return str(item.get("explanation") or "-")


def strip(item: Mapping[str, Any]) -> str | None:
    """A mark for each of the last runs, the newest at the right."""
    marks = [MARKS.get(each["outcome"], "?") for each in item.get("recent") or ()]
    return "".join(marks) + ">" * min(item.get("running") or 0, 3) or None


def run_show(args: argparse.Namespace) -> int:
    """quorate schedules show"""
    item = with_client(args, lambda client: client.transport.json("GET", path(args)))
    if wants_json(args):
        print_item(args, item)
        return 0
    shown = {name: item.get(name) for name in SHOWN_FIRST} | {"recent": strip(item)}
    hidden = ("id", "job_id", "paused", *shown)
    print_item(args, {**shown, **{k: v for k, v in item.items() if k not in hidden}})
    if shown["recent"]:
        print(LEGEND)
    return 0


def path(args: argparse.Namespace, verb: str = "") -> str:
    """Of the schedule that the command line names."""
    return f"/v1/schedules/{quote(args.id, safe='')}" + (f"/{verb}" if verb else "")


def post(args: argparse.Namespace, verb: str, body: Any, *, replayable: bool = True) -> Any:
    """One verb of one schedule."""

    async def work(client: Client) -> Any:
        return await client.transport.json("POST", path(args, verb), body, replayable=replayable)

    return with_client(args, work)


def run_pause(args: argparse.Namespace) -> int:
    """quorate schedules pause"""
    view = post(args, "pause", {"note": args.note} if args.note else {})
    print_done(args, f"paused schedule {args.id}", view)
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """quorate schedules resume"""
    view = post(args, "resume", {})
    left_out = view.get("left_out") or 0
    text = f"resumed schedule {args.id}, next run {view.get('next_run') or 'none'}"
    if left_out:
        text += (
            f"; the pause left out {left_out}{' or more' if view.get('more') else ''} runs from "
            f"{view['left_out_first']} to {view['left_out_last']} (`backfill` makes up for them)"
        )
    print_done(args, text, view)
    return 0


def run_trigger(args: argparse.Namespace) -> int:
    """quorate schedules trigger"""
    body = schedule_flags.fields(args)
    view = post(args, "trigger", body, replayable=False)
    told = {
        "started": f"submitted job {view['job_id']}",
        "buffered": f"schedule {args.id}: the run waits until another one has ended",
        "skipped": f"schedule {args.id}: the run is left out, as another one is alive",
    }
    print_done(args, told.get(view.get("outcome"), told["started"]), view)
    return 0


def run_runs(args: argparse.Namespace) -> int:
    """quorate schedules runs"""
    params = {"nominal": args.nominal, "limit": args.limit}
    answer = with_client(
        args, lambda client: client.transport.json("GET", path(args, "runs"), params=params)
    )
    print_rows(args, answer["items"], RUN_COLUMNS)
    return 0


def run_timeline(args: argparse.Namespace) -> int:
    """quorate schedules timeline"""
    params = {"limit": args.limit}
    answer = with_client(
        args, lambda client: client.transport.json("GET", path(args, "timeline"), params=params)
    )
    print_rows(args, answer["events"], EVENT_COLUMNS)
    return 0


def run_delete(args: argparse.Namespace) -> int:
    """quorate schedules delete"""
    with_client(args, lambda client: client.schedules.delete(args.id))
    print_done(args, f"deleted schedule {args.id}", {"schedule_id": args.id, "deleted": True})
    return 0
