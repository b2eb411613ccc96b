"""Host names to addresses, without ever holding up the loop or its shared threads.

A name server that does not answer keeps one thread per name busy, not one per attempt; meanwhile
the addresses of the last good answer are used, so links come back even while names do not resolve.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading

PATIENCE_S = 0.5  # with older addresses at hand, no longer than this


def known_without_asking(host: str) -> list[str] | None:
    if host == "localhost":
        return ["127.0.0.1", "::1"]
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return [host]


class Resolver:
    """Lives on one loop."""

    def __init__(self) -> None:
        self._asked: dict[str, asyncio.Future[list[str]]] = {}
        self._found: dict[str, list[str]] = {}

    async def addresses(self, host: str) -> list[str]:
        """At least one; OSError when the name does not resolve and never did."""
        known = known_without_asking(host)
        if known is not None:
            return known
        answer = self._asked.get(host) or self._ask(host)
        older = self._found.get(host)
        try:
            async with asyncio.timeout(PATIENCE_S if older else None):
                return await asyncio.shield(answer)
        except (OSError, TimeoutError):
            if older is None:
                raise
            return older

    def _ask(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        answer.add_done_callback(lambda done: self._answered(host, done))
        self._asked[host] = answer

        def finish(found: list[str], error: OSError | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found)

        def work() -> None:
            found: list[str] = []
            failure: OSError | None = None
            try:
                found = look_up(host)
            except OSError as error:
                failure = error
            except UnicodeError as error:  # a name that no name server could be asked for
                failure = OSError(f"{host!r} is not a host name: {error}")
            with contextlib.suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(finish, found, failure)

        # A daemon, not of a pool: a hanging name server must not hold up the end of the process.
        threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()
        return answer

    def _answered(self, host: str, answer: asyncio.Future[list[str]]) -> None:
        del self._asked[host]
        if not answer.cancelled() and answer.exception() is None:
            self._found[host] = answer.result()


def look_up(host: str) -> list[str]:
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))
