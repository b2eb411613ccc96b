"""/docs and /openapi.json: the API's own description, with everything it needs on board.

Swagger UI is vendored (see static/SOURCE) and stored compressed; nothing is loaded from elsewhere,
no script stands inside a page, and the policy of the page says so to the browser.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aiohttp import web

from cluster.api.codec import encode_json
from cluster.api.errors import ProblemError
from cluster.api.openapi import build_document
from cluster.api.routing import Call, Endpoint, Query, Routes

routes = Routes("documentation")

STATIC = Path(__file__).parent / "static"
FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "init.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}
# Swagger UI sets style attributes while it draws; scripts come from this origin only.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Quorate API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/init.js"></script>
</body>
</html>
"""

DOCUMENT: web.AppKey[Document] = web.AppKey("openapi")


class Document:
    """The OpenAPI document, built when it is first asked for."""

    def __init__(self, table: Iterable[Endpoint]) -> None:
        self._table = tuple(table)
        self._body = b""
        self._etag = ""

    def get(self) -> tuple[bytes, str]:
        if not self._body:
            self._body = encode_json(build_document(self._table, _release()))
            self._etag = f'"{hashlib.sha256(self._body).hexdigest()[:16]}"'
        return self._body, self._etag


def _release() -> str:
    try:
        return version("quorate")
    except PackageNotFoundError:
        return "dev"


def prepare(app: web.Application, table: Iterable[Endpoint]) -> None:
    app[DOCUMENT] = Document(table)


@cache
def _file(name: str) -> bytes:
    """A static file, compressed."""
    packed = STATIC / f"{name}.gz"
    if packed.exists():
        return packed.read_bytes()
    return gzip.compress((STATIC / name).read_bytes(), mtime=0)


@routes.add("GET", "/openapi.json", "Describe this API as OpenAPI 3.1", local=True)
async def get_openapi(call: Call[None, Query]) -> web.Response:
    body, etag = call.request.app[DOCUMENT].get()
    headers = {"Content-Type": "application/json", "ETag": etag, "Cache-Control": "no-cache"}
    if call.request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)


@routes.add("GET", "/docs", "Show this API in a browser", local=True)
async def get_docs(call: Call[None, Query]) -> web.Response:
    headers = {"Content-Type": "text/html; charset=utf-8", **SECURITY}
    return web.Response(body=PAGE, headers=headers)


@routes.add("GET", "/docs/{file}", "Parts of the page", local=True)
async def get_docs_file(call: Call[None, Query]) -> web.Response:
    name = call.path("file")
    if name not in FILES:
        raise ProblemError("not_found", "the page has no such part")
    packed = _file(name)
    headers = {
        "Content-Type": FILES[name],
        "Cache-Control": "public, max-age=86400",
        "Vary": "Accept-Encoding",
        **SECURITY,
    }
    if "gzip" in call.request.headers.get("Accept-Encoding", ""):
        return web.Response(body=packed, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=gzip.decompress(packed), headers=headers)
