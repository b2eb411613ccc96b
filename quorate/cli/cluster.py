"""`quorate cluster|workers|stats`: the health of the whole."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import Conflict
from . import backup, upgrade
from .options import Commands, UsageError, leaf, noun, option, with_client
from .output import print_done, print_item, print_json, print_rows, print_table, wants_json

if TYPE_CHECKING:
    from ..client import Client
    from ..views import ClockView

MEMBER_COLUMNS = ("id", "standing", "role", "connected", "match_index", "http")
PEER_COLUMNS = ("id", "skew_seconds", "round_trip_ms", "age_seconds", "refused", "releases")
WORKER_COLUMNS = ("worker_id", "name", "status", "slots", "running", "queues", "last_seen_at")


def add(commands: Commands) -> None:
    """Declares the commands."""
    verbs = noun(commands, "workers", "the registered workers")
    leaf(verbs, "list", run_workers, "list workers")
    drain = leaf(verbs, "drain", run_drain, "let a worker finish what it runs and leave")
    drain.add_argument("id")
    verbs = noun(commands, "cluster", "the nodes and their leader")
    leaf(verbs, "status", run_status, "members, leader, term")
    transfer = leaf(verbs, "transfer", run_transfer, "hand leadership to another node")
    option(
        transfer,
        "--to",
        scope="transfer",
        help="the node to lead; without it the most advanced follower",
    )
    leaf(verbs, "members", run_members, "who belongs to the cluster, and who votes")
    add = leaf(verbs, "add", run_add, "let a node in and wait until it votes")
    add.add_argument("id", help="host:port under which the other nodes reach it")
    option(add, "--learner", scope="add", action="store_true", help="a copy that never votes")
    remove = leaf(verbs, "remove", run_remove, "take a node out for good")
    remove.add_argument("id")
    replace = leaf(verbs, "replace", run_replace, "add a node, wait until it votes, remove another")
    replace.add_argument("old", help="the member that goes, running or not")
    replace.add_argument("new", help="the node that comes; start it with --join")
    for parser in (add, replace):
        option(
            parser,
            "--timeout",
            scope="members",
            default="60",
            help="how long it may take to catch up, e.g. 90 or 5m (60)",
        )
    upgrade.add(verbs)
    backup.taking(leaf(verbs, "backup", backup.run_take, "take a backup of all of it"))
    clock = leaf(verbs, "clock", run_clock, "the leader's clock, and how far the others' are off")
    option(
        clock,
        "--accept",
        scope="clock",
        action="store_true",
        help="follow the leader's wall clock although it was refused",
    )
    leaf(commands, "stats", run_stats, "counts of jobs by status and queue")


def _get(args: argparse.Namespace, path: str) -> Any:
    return with_client(args, lambda client: client.transport.json("GET", path))


def run_workers(args: argparse.Namespace) -> int:
    """quorate workers list"""

    async def pages(client: Client) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await client.transport.json("GET", "/v1/workers", params={"cursor": cursor})
            found += page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return found

    items = with_client(args, pages)
    if not wants_json(args):
        items = [{**item, "running": _count(item.get("running"))} for item in items]
    print_rows(args, items, WORKER_COLUMNS)
    return 0


def _count(running: Any) -> Any:
    return len(running) if isinstance(running, list) else running


def run_drain(args: argparse.Namespace) -> int:
    """quorate workers drain"""
    path = f"/v1/workers/{quote(args.id, safe='')}/drain"
    answer = with_client(args, lambda client: client.transport.json("POST", path))
    print_done(args, f"worker {args.id} finishes and leaves", answer or {"worker_id": args.id})
    return 0


def run_status(args: argparse.Namespace) -> int:
    """quorate cluster status"""
    view: Mapping[str, Any] = _get(args, "/v1/cluster")
    if wants_json(args):
        print_json(view)
        return 0
    tables = {name: value for name, value in view.items() if _is_table(value)}
    inner = {name: value for name, value in view.items() if isinstance(value, Mapping)}
    plain = {k: v for k, v in view.items() if k not in tables and k not in inner}
    print_item(args, plain)
    for name, values in inner.items():
        print(f"\n{name}:")
        print_item(args, values)
    for name, items in tables.items():
        print(f"\n{name}:")
        columns = list(dict.fromkeys(key for item in items for key in item))
        print_table(columns, [[_plain(item.get(c)) for c in columns] for item in items])
    return 0


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(i, dict) for i in value)


def _plain(value: Any) -> str:
    return "-" if value is None else str(value)


def run_members(args: argparse.Namespace) -> int:
    """quorate cluster members"""
    print_rows(args, _get(args, "/v1/cluster/members")["members"], MEMBER_COLUMNS)
    return 0


def run_add(args: argparse.Namespace) -> int:
    """quorate cluster add"""
    seconds = _timeout(args)

    async def add(client: Client) -> str:
        try:
            await client.members.add(args.id, learner=args.learner)
        except Conflict as error:
            if error.code != "already_member":
                raise
        if args.learner:
            return "learner"
        return (await client.members.wait_voting(args.id, seconds)).standing

    standing = with_client(args, add)
    print_done(args, f"{args.id} is a {standing}", {"id": args.id, "standing": standing})
    return 0


def run_remove(args: argparse.Namespace) -> int:
    """quorate cluster remove"""
    with_client(args, lambda client: client.members.remove(args.id))
    print_done(args, f"removed {args.id}", {"id": args.id, "removed": True})
    return 0


def run_replace(args: argparse.Namespace) -> int:
    """quorate cluster replace"""
    seconds = _timeout(args)
    with_client(args, lambda client: client.members.replace(args.old, args.new, seconds))
    print_done(args, f"{args.new} replaces {args.old}", {"added": args.new, "removed": args.old})
    return 0


def _timeout(args: argparse.Namespace) -> float:
    from ..durations import to_seconds

    try:
        return to_seconds(args.timeout)
    except ValueError as error:
        raise UsageError(str(error)) from error


def run_transfer(args: argparse.Namespace) -> int:
    """quorate cluster transfer"""

    async def transfer(client: Client) -> dict[str, Any]:
        return await client.transfer_leadership(args.to)

    answer = with_client(args, transfer)
    leader = answer.get("leader") or answer.get("leader_id")
    if isinstance(leader, Mapping):
        leader = leader.get("id") or leader.get("http")
    print_done(args, f"leader is {leader}" if leader else "leadership handed over", answer)
    return 0


def run_clock(args: argparse.Namespace) -> int:
    """quorate cluster clock"""

    async def clock(client: Client) -> ClockView:
        if args.accept:
            return await client.clock.accept()
        return await client.clock.get(consistency=client.transport.consistency or "leader")

    import msgspec

    view = msgspec.to_builtins(with_client(args, clock))
    if wants_json(args):
        print_json(view)
        return 0
    peers = view.pop("peers")
    print_item(args, view)
    if peers:
        print()
        print_rows(args, peers, PEER_COLUMNS)
    return 0


def run_stats(args: argparse.Namespace) -> int:
    """quorate stats"""
    view: Mapping[str, Any] = _get(args, "/v1/stats")
    if wants_json(args):
        print_json(view)
        return 0
    by_status = view.get("jobs_by_status") or {}
    queues = view.get("queues") or {}
    rest = {k: v for k, v in view.items() if not isinstance(v, Mapping)}
    print_item(args, {**rest, **{f"jobs {name}": count for name, count in by_status.items()}})
    if isinstance(queues, Mapping) and queues:
        print()
        rows = [{"queue": name, **counts} for name, counts in queues.items()]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        print_table(columns, [[_plain(row.get(c)) for c in columns] for row in rows])
    return 0
