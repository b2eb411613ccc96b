"""A piece of history on its way from one node to another: a stretch of the log under a seal.

The stretch goes from one place in the log to another; what its entries finished is in the parcel,
all of it, in chunks as they will be stored. The seal is a digest over the content and the cluster's
id, keyed with the cluster's secret if there is one, so that neither a damaged nor a foreign parcel
is ever written. Rows older than the receiver keeps are left out.
"""

from __future__ import annotations

import hashlib

import msgspec

from cluster.history.gaps import Place
from cluster.history.record import HistoryError, PastEvent

ROWS_MAX = 2_000  # about ten milliseconds of work at either end
BYTES_MAX = 1 << 20  # of payloads, outputs and logs; a single row may be larger
SEAL_BYTES = 32
PERSON = b"quorate-history"


class ParcelError(HistoryError):
    """A parcel is not what it should be; nothing of it was written."""


class Parcel(msgspec.Struct, array_like=True, frozen=True):
    """Rows behind the place (`index`, `after_id`) up to and including (`next_index`,
    `next_after_id`). `chunks` are (form, blob); `kept_from_ms`: the sender may lack what finished
    before."""

    index: int
    after_id: int
    next_index: int
    next_after_id: int
    rows: int
    kept_from_ms: int
    chunks: list[tuple[int, bytes]]
    events: list[PastEvent]

    @property
    def start(self) -> Place:
        return Place(self.index, self.after_id)

    @property
    def end(self) -> Place:
        return Place(self.next_index, self.next_after_id)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Parcel).decode


class Seal:
    """Marks parcels of one cluster and knows them again."""

    def __init__(self, cluster_id: str, secret: str | None) -> None:
        key = hashlib.sha256(secret.encode()).digest() if secret else b""
        self._digest = hashlib.blake2b(
            cluster_id.encode(), digest_size=SEAL_BYTES, key=key, person=PERSON
        )

    def close(self, parcel: Parcel) -> bytes:
        content = _encode(parcel)
        return self._of(content) + content

    def open(self, sealed: bytes) -> Parcel:
        """Raises ParcelError for anything that `close` of another node did not make."""
        content = memoryview(sealed)[SEAL_BYTES:]
        if self._of(content) != sealed[:SEAL_BYTES]:
            raise ParcelError("a piece of history arrived damaged, or is another cluster's")
        try:
            return _decode(content)
        except msgspec.MsgspecError as error:
            raise ParcelError(f"a piece of history is not understood: {error}") from error

    def _of(self, content: bytes | memoryview) -> bytes:
        digest = self._digest.copy()
        digest.update(content)
        return digest.digest()
