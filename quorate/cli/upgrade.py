"""`quorate cluster upgrade`: the last step of a rolling upgrade, and the one without a way back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .options import Commands, leaf, option, with_client
from .output import print_done

if TYPE_CHECKING:
    from ..client import Client


def add(verbs: Commands) -> None:
    """Declares the command among those of `cluster`."""
    parser = leaf(
        verbs, "upgrade", run, "use what the nodes' new release brought; older ones are shut out"
    )
    option(
        parser,
        "--to",
        scope="upgrade",
        type=int,
        help="feature level; without it the highest that any node knows",
    )
    option(
        parser,
        "--dry-run",
        scope="upgrade",
        action="store_true",
        help="only say whether all nodes are ready for it",
    )


def run(args: argparse.Namespace) -> int:
    """quorate cluster upgrade"""

    async def upgrade(client: Client) -> dict[str, Any]:
        return await client.upgrade(args.to, dry_run=args.dry_run)

    answer = with_client(args, upgrade)
    print_done(args, _sentence(answer), answer)
    return 0


def _sentence(answer: dict[str, Any]) -> str:
    before, level = answer["before"], answer["level"]
    if before == level:
        return f"the cluster is at feature level {level} already"
    if answer["dry_run"]:
        return f"the cluster can be raised from feature level {before} to {level}"
    return f"raised from feature level {before} to {level}"
