"""The HTTP edge: everything a client or worker may say to a node, and nothing about how it is done.

`app.build_app` puts it together; one file per resource holds its rows of the route table, from
which routing, decoding and the OpenAPI document follow. Speaks to the node only through `Services`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from cluster.actors.services import Services

__all__ = ["build_app"]


def build_app(services: Services) -> web.Application:
    """The node's HTTP application; runs wherever an aiohttp runner puts it."""
    # Not at the top: an ingest process uses some parts and never the whole.
    from cluster.api.app import build_app

    return build_app(services)
