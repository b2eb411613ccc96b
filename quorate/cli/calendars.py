"""`quorate calendars ...`: named days that schedules look at."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from datetime import date
from typing import TYPE_CHECKING, Any

from .options import Commands, UsageError, leaf, noun, option, with_client
from .output import print_done, print_item, print_rows, print_table, wants_json

if TYPE_CHECKING:
    from ..calendars import CalendarView
    from ..client import Client

COLUMNS = ("name", "day_count", "first", "last", "used_by", "description")


def add(commands: Commands) -> None:
    """Declares the verbs."""
    verbs = noun(commands, "calendars", "days that schedules look at: holidays and the like")
    leaf(verbs, "list", run_list, "list calendars")
    show = leaf(verbs, "show", run_show, "a calendar's days, and the schedules that name it")
    create = leaf(verbs, "create", run_create, "create a calendar from dates")
    more = leaf(verbs, "add", run_add, "add days, or give days another label")
    less = leaf(verbs, "remove", run_remove, "remove days")
    taken = leaf(verbs, "import", run_import, "take public holidays into a calendar")
    delete = leaf(verbs, "delete", run_delete, "delete a calendar that no schedule names")
    for parser in (show, create, more, less, taken, delete):
        parser.add_argument("name")
    for parser in (create, more):
        parser.add_argument("days", nargs="*", metavar="DATE[=LABEL]", help="2026-12-25=Christmas")
    less.add_argument("days", nargs="+", metavar="DATE")
    option(create, "--description", scope="calendar", default="", help="what it is for")
    option(taken, "--country", scope="calendar", help="ISO code, e.g. DE")
    option(taken, "--subdivision", scope="calendar", help="a part of the country, e.g. BY")
    option(taken, "--exchange", scope="calendar", help="of an exchange instead, e.g. XNYS")
    option(taken, "--years", scope="calendar", help="e.g. 2026,2027 or 2026-2030")
    option(
        taken,
        "--replace",
        scope="calendar",
        action="store_true",
        help="drop the days that the calendar has",
    )


def run_list(args: argparse.Namespace) -> int:
    """quorate calendars list"""
    answer = with_client(args, lambda client: client.transport.json("GET", "/v1/calendars"))
    print_rows(args, answer["items"], COLUMNS)
    return 0


def run_show(args: argparse.Namespace) -> int:
    """quorate calendars show"""
    view = _view(args, lambda client: client.calendars.get(args.name))
    if wants_json(args):
        print_item(args, view)
        return 0
    days = view.pop("days")
    print_item(args, view)
    if days:
        print()
        print_table(("date", "label"), [[day["date"], day["label"]] for day in days])
    return 0


def run_create(args: argparse.Namespace) -> int:
    """quorate calendars create"""
    days = _labelled(args.days)
    view = _view(
        args,
        lambda client: client.calendars.create(args.name, days, description=args.description),
    )
    return _told(args, view)


def run_add(args: argparse.Namespace) -> int:
    """quorate calendars add"""
    days = _labelled(args.days)
    return _told(args, _view(args, lambda client: client.calendars.change(args.name, add=days)))


def run_remove(args: argparse.Namespace) -> int:
    """quorate calendars remove"""
    days = [_day(text) for text in args.days]
    view = _view(args, lambda client: client.calendars.change(args.name, remove=days))
    return _told(args, view)


def run_import(args: argparse.Namespace) -> int:
    """quorate calendars import"""
    years = _years(args.years)
    view = _view(
        args,
        lambda client: client.calendars.import_holidays(
            args.name,
            years,
            country=args.country,
            subdivision=args.subdivision,
            exchange=args.exchange,
            replace=args.replace,
        ),
    )
    return _told(args, view)


def run_delete(args: argparse.Namespace) -> int:
    """quorate calendars delete"""
    with_client(args, lambda client: client.calendars.delete(args.name))
    print_done(args, f"deleted calendar {args.name}", {"name": args.name, "deleted": True})
    return 0


def _view(
    args: argparse.Namespace, call: Callable[[Client], Coroutine[Any, Any, CalendarView]]
) -> dict[str, Any]:
    import msgspec

    view: dict[str, Any] = msgspec.to_builtins(with_client(args, call))
    return view


def _told(args: argparse.Namespace, view: dict[str, Any]) -> int:
    print_done(args, f"calendar {view['name']} has {len(view['days'])} days", view)
    return 0


def _labelled(words: list[str]) -> dict[Any, str]:
    """DATE=LABEL words."""
    pairs = (word.partition("=") for word in words)
    return {_day(day): label for day, _, label in pairs}


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no date ({error}): write 2026-12-25") from error


def _years(text: str | None) -> list[int]:
    """2026,2028-2030 as numbers."""
    years: list[int] = []
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() or not last)):
            raise UsageError(f"--years {text or ''}: write years like 2026,2027 or 2026-2030")
        years.extend(range(int(first), int(last or first) + 1))
    return years
