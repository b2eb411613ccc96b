"""Taking backups of a running cluster: into a file, or onto an address that takes a PUT."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from .errors import QuorateError, Unavailable
from .transport import CONNECT_TIMEOUT_SECONDS, Consistency, Response, Transport, refuse

PIECE_BYTES = 1 << 20
SILENCE_SECONDS = 120.0  # a large state takes a while before its first byte
MANIFEST = "manifest.json"


class Backups:
    """`client.backups`: whole backups, from whichever node can give one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def save(
        self,
        path: str | os.PathLike[str],
        *,
        history: bool = False,
        consistency: Consistency | None = None,
    ) -> dict[str, Any]:
        """Writes a backup to `path`, checked and durable; returns its manifest.

        The file appears whole or not at all. Unavailable when no node gives one, QuorateError when
        what arrived is not what was sent, OSError when it cannot be written."""
        target = Path(path)
        part = target.with_name(target.name + ".part")
        try:
            with part.open("wb") as file:
                async for piece in self._pieces(history, consistency):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            manifest = await asyncio.to_thread(check, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return manifest

    async def put(
        self, url: str, *, history: bool = False, consistency: Consistency | None = None
    ) -> dict[str, Any]:
        """Sends a backup to `url` with one PUT, as object stores take it by a signed address.

        Returns its log `index`, and whether its history is complete (None without history)."""
        told: dict[str, Any] = {}
        pieces = self._pieces(history, consistency, told)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS)
        try:
            async with self._transport.session().put(url, data=pieces, timeout=timeout) as answer:
                if answer.status >= 400:
                    text = (await answer.text())[:500]
                    raise QuorateError(f"{url} refused the backup: {answer.status} {text}")
        except aiohttp.ClientError as error:
            raise Unavailable(f"the backup did not reach {url}: {error}") from error
        return told

    async def _pieces(
        self, history: bool, consistency: Consistency | None, told: dict[str, Any] | None = None
    ) -> AsyncIterator[bytes]:
        params = {"history": "true" if history else "false"}
        if consistency is not None:
            params["consistency"] = consistency
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=SILENCE_SECONDS
        )
        last: Exception = Unavailable("no node was asked")
        for node in self._transport.nodes:
            began = False
            try:
                async with self._transport.session().post(
                    node + "/v1/cluster/backup", params=params, timeout=timeout
                ) as answer:
                    if answer.status >= 400:
                        response = Response(answer.status, answer.headers, await answer.read())
                        last = refuse(response)
                        continue
                    if told is not None:
                        told["index"] = int(answer.headers.get("X-Quorate-Index", 0))
                        is_lacking = "X-Quorate-History" in answer.headers
                        told["history_complete"] = not is_lacking if history else None
                    async for piece in answer.content.iter_chunked(PIECE_BYTES):
                        began = True
                        yield piece
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                last = Unavailable(f"{node}: {str(error) or type(error).__name__}")
                if began:
                    raise last from error
        raise last


def check(path: Path) -> dict[str, Any]:
    """Reads a backup and compares it with its manifest; returns that. Raises QuorateError."""
    try:
        with tarfile.open(path, "r:") as tar:
            manifest: dict[str, Any] = msgspec.json.decode(_part(tar, MANIFEST).read())
            for name, expected in manifest["parts"].items():
                found, part = hashlib.sha256(), _part(tar, name)
                while piece := part.read(PIECE_BYTES):
                    found.update(piece)
                if found.hexdigest() != expected["sha256"]:
                    raise QuorateError(f"{name} arrived damaged: try again")
    except (tarfile.TarError, msgspec.DecodeError, KeyError, OSError) as error:
        raise QuorateError(f"what arrived is no whole backup ({error}): try again") from error
    return manifest


def _part(tar: tarfile.TarFile, name: str) -> Any:
    part = tar.extractfile(name)
    if part is None:
        raise tarfile.ReadError(f"{name} is missing")
    return part
