"""Command-line options that can also be environment variables, and what all commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from ..client import Client
    from ..transport import Consistency

T = TypeVar("T")
LEVELS: tuple[Consistency, ...] = ("stale", "leader", "linearizable")
TRUE_WORDS = ("1", "true", "yes", "on")


class UsageError(Exception):
    """The command line makes no sense; exit code 2."""


class Commands(Protocol):
    """What argparse's add_subparsers returns."""

    def add_parser(self, name: str, **kwargs: Any) -> argparse.ArgumentParser: ...


def variable(flag: str, scope: str = "") -> str:
    """--grace-seconds -> QUORATE_GRACE_SECONDS; --queue of scope "submit" ->
    QUORATE_SUBMIT_QUEUE"""
    words = flag.lstrip("-").replace("-", "_").upper()
    return f"QUORATE_{scope.upper()}_{words}" if scope else f"QUORATE_{words}"


def option(parser: argparse.ArgumentParser, flag: str, *, scope: str = "", **kwargs: Any) -> None:
    """Adds a flag whose default comes from its variable; argparse converts and checks it alike.

    A `scope` keeps variables apart that mean different things: a QUORATE_NAME for a node must not
    filter what `jobs list` shows."""
    name = variable(flag, scope)
    value = os.environ.get(name)
    if kwargs.get("action") == "store_true":
        kwargs["default"] = (value or "").lower() in TRUE_WORDS
    elif value:
        kwargs["default"] = value.split(",") if kwargs.get("action") == "append" else value
    kwargs["help"] = f"{kwargs.get('help', '')} [{name}]"
    parser.add_argument(flag, **kwargs)


def common_options(parser: argparse.ArgumentParser) -> None:
    """--nodes, --json, --consistency and --retry-seconds, allowed before and after the command."""
    group = parser.add_argument_group("anywhere")
    hidden = argparse.SUPPRESS  # a subparser's default must not overwrite what stood before it
    group.add_argument(
        "--nodes", default=hidden, help="node URLs, separated by commas [QUORATE_NODES]"
    )
    group.add_argument(
        "--json",
        action="store_true",
        default=hidden,
        help="JSON lines; the default when stdout is no terminal [QUORATE_JSON]",
    )
    group.add_argument(
        "--consistency",
        choices=LEVELS,
        default=hidden,
        help="how fresh what is read must be: what the asked node has, what the leader has (the "
        "default but for `cluster status`), or all that was acknowledged [QUORATE_CONSISTENCY]",
    )
    group.add_argument(
        "--retry-seconds",
        type=float,
        default=hidden,
        help="how long to go on while no node can answer (10) [QUORATE_RETRY_SECONDS]",
    )


def leaf(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], help: str
) -> argparse.ArgumentParser:
    """A command that does something."""
    parser = commands.add_parser(name, help=help, description=help)
    common_options(parser)
    parser.set_defaults(run=run)
    return parser


def noun(commands: Commands, name: str, help: str) -> Commands:
    """A group of verbs; alone it prints its help."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(parser=parser)
    verbs: Commands = parser.add_subparsers(title="verbs", metavar="VERB")
    return verbs


def with_client(args: argparse.Namespace, work: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
    """Runs `work(client)` to its end."""
    import asyncio

    from ..client import Client

    seconds = getattr(args, "retry_seconds", None)
    if seconds is None:
        try:
            seconds = float(os.environ.get("QUORATE_RETRY_SECONDS") or 10)
        except ValueError:
            raise UsageError("QUORATE_RETRY_SECONDS must be a number of seconds") from None

    level = getattr(args, "consistency", None) or os.environ.get("QUORATE_CONSISTENCY") or None
    if level not in (None, *LEVELS):
        raise UsageError(f"QUORATE_CONSISTENCY must be one of {', '.join(LEVELS)}")

    async def main() -> T:
        try:
            nodes = getattr(args, "nodes", None)
            client = Client(nodes, retry_seconds=seconds, consistency=level)
        except ValueError as error:
            raise UsageError(str(error)) from error
        async with client:
            return await work(client)

    return asyncio.run(main())


def json_value(text: str) -> Any:
    """An argument that is JSON; UsageError says where it is not."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(f"{text!r} is not JSON: {error}") from error
