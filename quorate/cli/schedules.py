"""`quorate schedules ...`: recurring jobs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .options import Commands, UsageError, json_value, leaf, noun, option, with_client
from .output import print_done, print_item, print_rows

if TYPE_CHECKING:
    from ..client import Client

COLUMNS = (
    "schedule_id",
    "name",
    "schedule",
    "every_seconds",
    "queue",
    "paused",
    "next_run",
    "run_count",
)


def add(commands: Commands) -> None:
    """Declares the verbs."""
    verbs = noun(commands, "schedules", "recurring jobs")
    leaf(verbs, "list", run_list, "list schedules")
    for verb, run, text in (
        ("show", run_show, "everything about one schedule"),
        ("pause", run_pause, "no more runs until resumed"),
        ("resume", run_resume, "go on with the next run after now"),
        ("trigger", run_trigger, "run it now, once"),
        ("delete", run_delete, "delete it; jobs it made stay"),
    ):
        parser = leaf(verbs, verb, run, text)
        parser.add_argument("id")
        if verb == "pause":
            option(parser, "--note", scope="schedule", help="why, shown with the schedule")
    create = leaf(verbs, "create", run_create, "create a schedule")
    create.add_argument("name", help="the task to run")
    option(create, "--cron", scope="schedule", help="five-field cron expression, UTC")
    option(create, "--every", scope="schedule", help="seconds or 5m between runs")
    option(create, "--id", scope="schedule", help="chosen id; without it the cluster makes one")
    option(create, "--payload", scope="schedule", help="JSON")
    option(create, "--queue", scope="schedule", help="queue (default)")


def run_list(args: argparse.Namespace) -> int:
    """quorate schedules list"""
    answer = with_client(args, lambda client: client.transport.json("GET", "/v1/schedules"))
    print_rows(args, answer["items"], COLUMNS)
    return 0


def run_create(args: argparse.Namespace) -> int:
    """quorate schedules create"""
    from ..durations import to_seconds

    if (args.cron is None) == (args.every is None):
        raise UsageError("give exactly one of --cron and --every")
    body: dict[str, Any] = {"name": args.name}
    if args.cron is not None:
        body["schedule"] = args.cron
    else:
        try:
            body["every_seconds"] = to_seconds(args.every)
        except ValueError as error:
            raise UsageError(str(error)) from error
    if args.payload is not None:
        body["payload"] = json_value(args.payload)
    body |= {k: v for k, v in {"id": args.id, "queue": args.queue}.items() if v is not None}
    view = with_client(args, lambda client: client.transport.json("POST", "/v1/schedules", body))
    print_done(args, f"created schedule {view['schedule_id']}", view)
    return 0


def _path(args: argparse.Namespace, verb: str = "") -> str:
    return f"/v1/schedules/{quote(args.id, safe='')}" + (f"/{verb}" if verb else "")


def run_show(args: argparse.Namespace) -> int:
    """quorate schedules show"""
    print_item(args, with_client(args, lambda client: client.transport.json("GET", _path(args))))
    return 0


def _post(args: argparse.Namespace, verb: str, body: Any, *, replayable: bool = True) -> Any:
    async def post(client: Client) -> Any:
        return await client.transport.json("POST", _path(args, verb), body, replayable=replayable)

    return with_client(args, post)


def run_pause(args: argparse.Namespace) -> int:
    """quorate schedules pause"""
    view = _post(args, "pause", {"note": args.note} if args.note else {})
    print_done(args, f"paused schedule {args.id}", view)
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """quorate schedules resume"""
    view = _post(args, "resume", {})
    print_done(args, f"resumed schedule {args.id}", view)
    return 0


def run_trigger(args: argparse.Namespace) -> int:
    """quorate schedules trigger"""
    view = _post(args, "trigger", {}, replayable=False)
    print_done(args, f"submitted job {view['job_id']}", view)
    return 0


def run_delete(args: argparse.Namespace) -> int:
    """quorate schedules delete"""
    with_client(args, lambda client: client.schedules.delete(args.id))
    print_done(args, f"deleted schedule {args.id}", {"schedule_id": args.id, "deleted": True})
    return 0
