"""Mutual TLS between members: whose certificate this is, and why one is refused.

Both sides show a certificate of the cluster's own authority, and the id that a node claims must be
in it as `quorate://node/<id>`: an authority that also certifies other things gives those no vote.
Files are read again when they change; links that stand are left alone.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .interface import ConsensusStartError, TlsFiles

logger = logging.getLogger("quorate.consensus.tls")

NODE_URI = "quorate://node/"
EXPIRY_WARNING = timedelta(days=21)

# What the ssl module says, in our words; the first that occurs in its text is taken.
_REASONS = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "tls_no_certificate"),
    ("certificate has expired", "tls_expired"),
    ("not yet valid", "tls_not_yet_valid"),
    ("CERTIFICATE_VERIFY_FAILED", "tls_other_authority"),
    ("WRONG_VERSION_NUMBER", "tls_on_one_side"),
    ("HTTP_REQUEST", "tls_on_one_side"),
    ("ALERT", "tls_refused_by_peer"),
)


def node_uri(node_id: str) -> str:
    """The name of a node in its certificate."""
    return NODE_URI + quote(node_id, safe=":")


def node_ids(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The node ids in a certificate that the ssl module has verified."""
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(
        unquote(value.removeprefix(NODE_URI))
        for kind, value in names
        if kind == "URI" and value.startswith(NODE_URI)
    )


def reason_of(error: BaseException) -> str:
    """A counter's name for a handshake that failed."""
    text = str(error)
    if isinstance(error, ssl.SSLError):
        return next((reason for mark, reason in _REASONS if mark in text), "tls_failed")
    return "handshake_timeout" if isinstance(error, TimeoutError) else "connection_lost"


def check_tls(files: TlsFiles, node_id: str) -> None:
    """Raises ConsensusStartError, before anything else of a start has left a trace."""
    Certificates(files, node_id)


class Certificates:
    """The contexts for both directions, checked as a whole before they are used."""

    def __init__(self, files: TlsFiles, node_id: str) -> None:
        """ConsensusStartError names the file, the setting and the fix."""
        self._files = files
        self._node_id = node_id
        self._stamps: tuple[tuple[int, int, int], ...] = ()
        self._complained = ""
        self._warned = datetime.min.replace(tzinfo=UTC)
        self.expires = self._warned
        self._load()

    @property
    def server(self) -> ssl.SSLContext:
        return self._server

    @property
    def client(self) -> ssl.SSLContext:
        return self._client

    def refresh(self) -> bool:
        """Takes over changed files; bad ones are complained about once and the old ones kept."""
        try:
            if self._read_stamps() == self._stamps:
                return False
            self._load()
        except ConsensusStartError as error:
            if str(error) != self._complained:
                logger.error("the changed certificate is not used: %s", error)
            self._complained = str(error)
            return False
        self._complained = ""
        logger.info("new certificate, valid until %s", f"{self.expires:%Y-%m-%d %H:%M} UTC")
        return True

    def days_left(self, now: datetime | None = None) -> float:
        left = self.expires - (now or datetime.now(UTC))
        return round(left / timedelta(days=1), 2)

    def warn_of_expiry(self, now: datetime | None = None) -> bool:
        """Once a day while the certificate is about to expire."""
        now = now or datetime.now(UTC)
        if self.expires - now > EXPIRY_WARNING or now - self._warned < timedelta(days=1):
            return False
        self._warned = now
        logger.warning(
            "%s expires in %.1f days: replace it, it is read without a restart",
            self._files.cert,
            self.days_left(now),
        )
        return True

    def _load(self) -> None:
        self._stamps = self._read_stamps()
        server = self._context(ssl.PROTOCOL_TLS_SERVER)
        client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        certificate = self._show_to_itself(server, client)
        if self._node_id not in node_ids(certificate):
            found = ", ".join(sorted(node_ids(certificate))) or "no node"
            raise ConsensusStartError(
                f"raft_tls_cert = '{self._files.cert}' is for {found}, this node is "
                f"{self._node_id}; issue one with: quorate tls cert --node {self._node_id}"
            )
        if self._files.key.stat().st_mode & 0o007:
            logger.warning(
                "%s can be read by every user of this machine: chmod 600 it", self._files.key
            )
        expires = ssl.cert_time_to_seconds(certificate["notAfter"])
        self.expires = datetime.fromtimestamp(expires, UTC)
        self._server, self._client = server, client

    def _read_stamps(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for key, path in self._named():
            try:
                found = os.stat(path)  # noqa: PTH116 - symlinks are followed on purpose
            except OSError as error:
                raise ConsensusStartError(
                    f"{key} = '{path}' cannot be read: {error.strerror}; correct the path, or make "
                    "the file with: quorate tls ca, quorate tls cert"
                ) from error
            stamps.append((found.st_ino, found.st_size, found.st_mtime_ns))
        return tuple(stamps)

    def _named(self) -> tuple[tuple[str, Path], ...]:
        files = self._files
        return (
            ("raft_tls_ca", files.ca),
            ("raft_tls_cert", files.cert),
            ("raft_tls_key", files.key),
        )

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3  # all members are of our own making
        context.check_hostname = False  # the node id is checked instead: addresses may be aliases
        context.verify_mode = ssl.CERT_REQUIRED
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # nothing is resumed, so that every link proves itself anew
        files = self._files
        try:
            context.load_verify_locations(files.ca)
        except (OSError, ValueError) as error:
            raise ConsensusStartError(
                f"raft_tls_ca = '{files.ca}' holds no certificate in PEM form ({_text(error)}); "
                "give the ca.crt that quorate tls ca has made"
            ) from error
        try:
            context.load_cert_chain(files.cert, files.key, _refuse_password)
        except (OSError, ValueError) as error:
            raise ConsensusStartError(self._explain(error)) from error
        return context

    def _explain(self, error: Exception) -> str:
        files, text = self._files, _text(error)
        if isinstance(error, PermissionError):
            return f"raft_tls_key = '{files.key}' cannot be read: {text}; correct its owner or mode"
        if "KEY_VALUES_MISMATCH" in str(error):
            return (
                f"raft_tls_key = '{files.key}' does not belong to raft_tls_cert = '{files.cert}'; "
                "give the two files that were made together"
            )
        if isinstance(error, ValueError):
            return f"raft_tls_key = '{files.key}': {text}"
        return (
            f"raft_tls_cert = '{files.cert}' and raft_tls_key = '{files.key}' are no certificate "
            f"and its key in PEM form ({text})"
        )

    def _show_to_itself(self, server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
        """A handshake in memory: what the others will object to is found before they see it."""
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        listener = server.wrap_bio(up, down, server_side=True)
        dialer = client.wrap_bio(down, up, server_side=False)
        waiting = [dialer, listener]
        try:
            while waiting:
                for side in tuple(waiting):
                    try:
                        side.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
                    waiting.remove(side)
        except ssl.SSLError as error:
            fix = "issue a new one with: quorate tls cert"
            if reason_of(error) == "tls_other_authority":
                fix = f"it must be signed by raft_tls_ca = '{self._files.ca}'; {fix}"
            raise ConsensusStartError(
                f"raft_tls_cert = '{self._files.cert}' would be refused by the other nodes: "
                f"{_text(error)}; {fix}"
            ) from error
        certificate = listener.getpeercert()
        assert certificate is not None
        return certificate


def _refuse_password() -> str:
    raise ValueError("is protected by a password, which nobody can type at a restart; remove it")


def _text(error: Exception) -> str:
    """The library's words without the place in its source."""
    text = str(getattr(error, "strerror", None) or error)
    return re.sub(r"^\[[^]]*\] | \(_ssl\.c.*$", "", text)
