"""Proves the cluster secret in both directions before anything else of a stranger is parsed.

Each side sends a fixed-size greeting with a fresh nonce, then an HMAC over both nonces and its own
part in the exchange, so neither an old recording nor a reflected proof is accepted. It does not
encrypt: that is the job of TLS.
"""

from __future__ import annotations

import hmac
import os

MAGIC = b"QRTRAFT1"
NONCE_BYTES = 32
PROOF_BYTES = 32
TLS_RECORDS = (b"\x16\x03", b"\x15\x03")  # how a TLS handshake and its refusal begin
GREETING_BYTES = len(MAGIC) + NONCE_BYTES


class HandshakeError(Exception):
    """The stranger is not a member; `reason` is a counter name."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Handshake:
    """Sans-I/O: `begin()` and `feed()` return bytes to send; `rest` is set when it is over.

    The dialer proves first, so a node never hands a proof to somebody who has shown none.
    """

    def __init__(self, key: bytes, *, is_dialer: bool, nonce: bytes | None = None) -> None:
        self._key = key
        self._is_dialer = is_dialer
        self._own = nonce or os.urandom(NONCE_BYTES)
        self._theirs = b""
        self._buffer = b""
        self.rest: bytes | None = None

    def begin(self) -> bytes:
        return MAGIC + self._own if self._is_dialer else b""

    def feed(self, data: bytes) -> bytes:
        """What to answer; HandshakeError ends the connection."""
        self._buffer += data
        answer = b""
        if not self._theirs:
            if not MAGIC.startswith(self._buffer[: len(MAGIC)]):
                is_tls = self._buffer[:2] in TLS_RECORDS
                raise HandshakeError("tls_on_one_side" if is_tls else "bad_greeting")
            if len(self._buffer) < GREETING_BYTES:
                return b""
            self._theirs = self._take(GREETING_BYTES)[len(MAGIC) :]
            answer = self._prove() if self._is_dialer else MAGIC + self._own
        if len(self._buffer) >= PROOF_BYTES and self.rest is None:
            if not hmac.compare_digest(self._take(PROOF_BYTES), self._expected()):
                raise HandshakeError("bad_proof")
            if not self._is_dialer:
                answer += self._prove()
            self.rest = self._buffer
        return answer

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _prove(self) -> bytes:
        return self._digest(self._is_dialer)

    def _expected(self) -> bytes:
        return self._digest(not self._is_dialer)

    def _digest(self, of_dialer: bool) -> bytes:
        dialer, listener = (
            (self._own, self._theirs) if self._is_dialer else (self._theirs, self._own)
        )
        part = b"dialer\n" if of_dialer else b"listener\n"
        return hmac.digest(self._key, part + dialer + listener, "sha256")
