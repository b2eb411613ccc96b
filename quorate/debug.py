"""Debug bundles: what every node knows of itself, in one file to look at or to send to somebody.

Asks each node for itself, so it works without a leader; a node that does not answer is written down
as such. What a node tells is without payloads and secrets; that is the node's own business.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from .transport import CONNECT_TIMEOUT_SECONDS, Transport

ASK_SECONDS = 10.0
ANSWER_BYTES_MAX = 8 << 20
NODES_MAX = 100
ASKED = {
    "debug.json": "/v1/debug",
    "cluster.json": "/v1/cluster?consistency=stale",
    "members.json": "/v1/cluster/members?consistency=stale",
    "clock.json": "/v1/cluster/clock?consistency=stale",
    "stats.json": "/v1/stats?consistency=stale",
    "ready.json": "/readyz?verbose",
    "live.json": "/livez",
    "metrics.txt": "/metrics",
}


@dataclass
class NodeFiles:
    """What one node said, by file name, and what it did not say."""

    url: str
    answers: dict[str, bytes] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)


class DebugBundles:
    """`client.debug`"""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def save(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Writes a gzipped tar file that only its owner can read; returns its manifest.

        Asks all given nodes and all members that these name. OSError when it cannot be written."""
        nodes = await self._collect()
        manifest = _manifest(nodes)
        await asyncio.to_thread(_write, Path(path), nodes, manifest)
        return manifest

    async def _collect(self) -> list[NodeFiles]:
        """Members that are only known by name are asked once their names are known."""
        asked: dict[str, NodeFiles] = {}
        waiting = list(self._transport.nodes)
        while waiting and len(asked) < NODES_MAX:
            nodes = await asyncio.gather(*(self._ask_all(url) for url in waiting[:NODES_MAX]))
            asked |= {node.url: node for node in nodes}
            named = [url for node in nodes for url in _members(node)]
            waiting = [url for url in dict.fromkeys(named) if url not in asked]
        return list(asked.values())

    async def _ask_all(self, url: str) -> NodeFiles:
        node = NodeFiles(url)
        await asyncio.gather(*(self._ask(node, name, path) for name, path in ASKED.items()))
        return node

    async def _ask(self, node: NodeFiles, name: str, path: str) -> None:
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS)
        try:
            async with self._transport.session().get(node.url + path, timeout=timeout) as answer:
                body = bytearray()
                async for piece in answer.content.iter_chunked(1 << 16):
                    body += piece[: ANSWER_BYTES_MAX - len(body)]
                    if len(body) >= ANSWER_BYTES_MAX:
                        node.troubles[name] = f"cut at {ANSWER_BYTES_MAX} bytes"
                        break
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            node.troubles[name] = f"no answer: {str(error) or type(error).__name__}"
            return
        node.answers[name] = bytes(body)  # a refusal, too, is an answer: /readyz says why
        if answer.status >= 400:
            node.troubles.setdefault(name, f"status {answer.status}")


def _members(node: NodeFiles) -> list[str]:
    """The addresses of all members' APIs, as this node knows them."""
    with contextlib.suppress(msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        view = msgspec.json.decode(node.answers["cluster.json"])
        return [str(m["http"]).rstrip("/") for m in view["members"] if m.get("http")]
    return []


def _folder(url: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", url.partition("://")[2]).strip("-")


def _manifest(nodes: list[NodeFiles]) -> dict[str, Any]:
    from . import __version__

    return {
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "quorate": __version__,
        "nodes": [
            {
                "url": node.url,
                "folder": _folder(node.url),
                "answered": bool(node.answers),
                "troubles": node.troubles,
            }
            for node in nodes
        ],
    }


def _write(path: Path, nodes: list[NodeFiles], manifest: Mapping[str, Any]) -> None:
    """Whole or not at all. A name that is taken is written over, like any output file."""
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            _add(tar, "bundle.json", msgspec.json.format(msgspec.json.encode(manifest)))
            for node in nodes:
                for name, body in sorted(node.answers.items()):
                    _add(tar, f"{_folder(node.url)}/{name}", body)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    entry = tarfile.TarInfo(f"quorate-debug/{name}")
    entry.size, entry.mtime, entry.mode = len(body), int(time.time()), 0o600
    tar.addfile(entry, io.BytesIO(body))
