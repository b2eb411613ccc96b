"""The HTTP edge: everything a client or worker may say to a node, and nothing about how it is done.

`app.build_app` puts it together; one file per resource holds its rows of the route table, from
which routing, decoding and the OpenAPI document follow. Speaks to the node only through `Services`.
"""

from cluster.api.app import build_app

__all__ = ["build_app"]
