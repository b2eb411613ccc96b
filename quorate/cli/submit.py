"""`quorate submit NAME`: one job or many alike, optionally waiting for the end."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .options import Commands, UsageError, json_value, leaf, option, with_client
from .output import print_done, print_json, wants_json

if TYPE_CHECKING:
    from ..client import Client
    from ..requests import JobRequest
    from ..views import JobView


def add(commands: Commands) -> None:
    """Declares the command."""
    parser = leaf(commands, "submit", run, "submit a job by the name of its task")
    parser.add_argument("name", help="e.g. simulate, command, http, or a task of your workers")
    option(parser, "--payload", scope="submit", help="JSON, or - to read it from stdin")
    option(parser, "--queue", scope="submit", help="queue (default)")
    option(parser, "--priority", scope="submit", help="1..10, or critical, high, normal, low")
    option(parser, "--delay", scope="submit", help="seconds or 5m: run that much later")
    option(parser, "--run-at", scope="submit", help="RFC 3339 time to run at")
    option(parser, "--max-retries", scope="submit", type=int, help="attempts after the first")
    option(parser, "--timeout", scope="submit", help="seconds or 5m that one attempt may take")
    option(parser, "--key", scope="submit", help="unique key: a second job with it is not made")
    option(parser, "--tag", scope="submit", action="append", help="may be given more than once")
    option(parser, "--count", scope="submit", type=int, default=1, help="how many of them (1)")
    option(
        parser,
        "--wait",
        scope="submit",
        action="store_true",
        help="wait for the end; exit 1 if it is bad",
    )


def run(args: argparse.Namespace) -> int:
    """Submits and reports."""
    if args.count < 1:
        raise UsageError("--count must be at least 1")
    request = _request(args)
    return with_client(args, lambda client: _submit(client, args, request))


def _request(args: argparse.Namespace) -> JobRequest:
    from ..requests import job_request

    payload = args.payload
    if payload is not None:
        payload = json_value(sys.stdin.read() if payload == "-" else payload)
    priority: Any = args.priority
    if isinstance(priority, str) and priority.isdigit():
        priority = int(priority)
    options = {
        "queue": args.queue,
        "priority": priority,
        "delay": args.delay,
        "run_at": args.run_at,
        "max_retries": args.max_retries,
        "timeout": args.timeout,
        "key": args.key,
        "tags": args.tag,
    }
    try:
        return job_request(args.name, payload, options)
    except ValueError as error:
        raise UsageError(str(error)) from error


async def _submit(client: Client, args: argparse.Namespace, request: JobRequest) -> int:
    import asyncio

    handles = await client.submit_many([request] * args.count)
    if not args.wait:
        _print_ids(args, [handle.id for handle in handles])
        return 0
    views = await asyncio.gather(*(handle.wait() for handle in handles))
    for view in views:
        _print_end(args, view)
    return 0 if all(view.status == "completed" for view in views) else 1


def _print_ids(args: argparse.Namespace, ids: list[str]) -> None:
    if len(ids) > 1 and not wants_json(args):
        print(f"submitted {len(ids)} jobs: {ids[0]} .. {ids[-1]}")
        return
    for job_id in ids:
        print_done(args, f"submitted job {job_id}", {"job_id": job_id})


def _wire(view: JobView) -> dict[str, Any]:
    """The view with times as the API writes them."""
    import msgspec

    from ..durations import to_rfc3339

    fields = msgspec.to_builtins(view, builtin_types=(datetime,))
    return {k: to_rfc3339(v) if isinstance(v, datetime) else v for k, v in fields.items()}


def _print_end(args: argparse.Namespace, view: JobView) -> None:
    if wants_json(args):
        print_json(_wire(view))
        return
    detail = view.error_message if view.status != "completed" else None
    print(f"job {view.job_id} {view.status}" + (f": {detail}" if detail else ""))
    if view.status == "completed" and view.output is not None:
        print_json(view.output)
