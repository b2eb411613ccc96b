"""`quorate schedules create | apply | change`: what a schedule is, from flags or a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import schedule_flags
from .options import Commands, UsageError, leaf, option, with_client
from .output import print_done

if TYPE_CHECKING:
    from ..client import Client

TRIGGERS = ("schedule", "every_seconds", "at", "any_of")


def add(verbs: Commands) -> None:
    """Declares the verbs."""
    create = leaf(verbs, "create", run_create, "create a schedule")
    create.add_argument("name", help="the task to run")
    option(create, "--id", scope="schedule", help="chosen id; without it the cluster makes one")
    apply = leaf(verbs, "apply", run_apply, "create schedules, or make stored ones equal")
    apply.add_argument("id", nargs="?", help="of the schedule, unless a file names it")
    apply.add_argument("name", nargs="?", help="the task to run")
    change = leaf(verbs, "change", run_change, "change what is named, keep the rest")
    change.add_argument("id")
    option(change, "--name", scope="schedule", help="another task to run")
    for parser in (create, apply, change):
        schedule_flags.add_timing(parser)
        schedule_flags.add_job(parser)
    for parser in (create, apply):
        schedule_flags.add_start(parser)
    for parser in (apply, change):
        option(
            parser, "--if-version", scope="schedule", type=int, help="only if it is at this version"
        )
    schedule_flags.add_file(apply, "TOML or JSON: one schedule, or several under `schedules`")
    _add_unset(change)


def _add_unset(parser: argparse.ArgumentParser) -> None:
    option(
        parser,
        "--unset",
        scope="schedule",
        action="append",
        help="field that goes back to its default, e.g. windows; may be repeated",
    )


def run_create(args: argparse.Namespace) -> int:
    """quorate schedules create"""
    body = {"name": args.name, **schedule_flags.fields(args)}
    if args.id is not None:
        body["id"] = args.id
    require_one_trigger(body)
    view = with_client(args, lambda client: client.transport.json("POST", "/v1/schedules", body))
    print_done(args, f"created schedule {view['schedule_id']}: {_told(view)}", view)
    return 0


def require_one_trigger(body: dict[str, Any]) -> None:
    """Raises UsageError in the words of the command line."""
    if sum(name in body for name in TRIGGERS) != 1:
        raise UsageError("give exactly one of --cron, --every and --at")


def _told(view: dict[str, Any]) -> str:
    when = str(view.get("explanation") or "stored").rstrip(".")
    return f"{when}; the first run is {view.get('next_run') or 'none'}"


def run_apply(args: argparse.Namespace) -> int:
    """quorate schedules apply"""
    definitions = _definitions(args)

    async def work(client: Client) -> None:
        for definition in definitions:
            schedule_id = definition.pop("id")
            view = await _send(client, args, "PUT", schedule_id, definition)
            _print_change(args, view)

    with_client(args, work)
    return 0


def _definitions(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What to apply; the flags are added to, and win over, a lone schedule of a file."""
    flags = schedule_flags.fields(args)
    named = {name: value for name in ("id", "name") if (value := getattr(args, name)) is not None}
    if args.file is None:
        definitions = [{**named, **flags}]
        require_one_trigger(definitions[0])
    else:
        definitions = schedule_flags.read_file(args.file)
        if len(definitions) == 1:
            definitions = [{**definitions[0], **named, **flags}]
        elif flags or named:
            raise UsageError("flags can only be added to a file with one schedule")
    for definition in definitions:
        if not definition.get("id") or not definition.get("name"):
            raise UsageError("name the schedule and its task: quorate schedules apply ID NAME ...")
    return definitions


async def _send(
    client: Client, args: argparse.Namespace, method: str, schedule_id: str, body: dict[str, Any]
) -> dict[str, Any]:
    from .. import payloads

    response = await client.transport.request(
        method,
        f"/v1/schedules/{quote(str(schedule_id), safe='')}",
        payloads.encode(body),
        headers=None if args.if_version is None else {"If-Match": f'"{args.if_version}"'},
        replayable=args.if_version is None,
    )
    view: dict[str, Any] = response.json()
    return view


def changes_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags change, null for what --unset names."""
    body = schedule_flags.fields(args)
    if getattr(args, "name", None) is not None:
        body["name"] = args.name
    for name in args.unset or ():
        if name in body:
            raise UsageError(f"{name} is given and unset")
        body[name] = None
    if not body:
        raise UsageError("say what shall change: give a flag or --unset FIELD")
    return body


def run_change(args: argparse.Namespace) -> int:
    """quorate schedules change"""
    body = changes_of(args)
    view = with_client(args, lambda client: _send(client, args, "PATCH", args.id, body))
    _print_change(args, view)
    return 0


def _print_change(args: argparse.Namespace, view: dict[str, Any]) -> None:
    told = f"{view.get('outcome')} schedule {view['schedule_id']}: {view.get('change_explanation')}"
    print_done(args, told, view)
