"""What a data folder says about itself, and how a cluster gets its name and its key.

The first members' list and the secret name the cluster, so no first start has to agree on a name.
Later changes of the members leave the name as it is; a node that joins is told it.
"""

from __future__ import annotations

import functools
import hashlib

import msgspec

from .interface import ConsensusStartError
from .members import Members, first_members
from .pin import token

FORMAT = 2
FOLDER_BYTES = 8


class Identity(msgspec.Struct, frozen=True):
    """`folder_id` tells this folder from any other one of the same node id.

    `members` are the first ones of the cluster; a node that joined later knows none.
    """

    format: int
    cluster_id: str
    node_id: str
    folder_id: str
    members: tuple[str, ...]

    @property
    def cluster(self) -> bytes:
        return bytes.fromhex(self.cluster_id)

    @property
    def first(self) -> Members:
        return first_members(self.members)


def new_identity(cluster_id: bytes, node_id: str, members: tuple[str, ...]) -> Identity:
    return Identity(FORMAT, cluster_id.hex(), node_id, token(FOLDER_BYTES).hex(), members)


@functools.lru_cache(maxsize=8)
def cluster_key(secret: str | None) -> bytes:
    """32 bytes that prove the secret; scrypt, as strangers are told what is derived from it."""
    if secret is None:
        return hashlib.sha256(b"quorate no secret").digest()
    return hashlib.scrypt(secret.encode(), salt=b"quorate", n=1 << 14, r=8, p=1, dklen=32)


def cluster_id_of(key: bytes, members: tuple[str, ...]) -> bytes:
    """16 bytes that name the cluster without revealing its key."""
    names = "\n".join(sorted(members)).encode()
    return hashlib.sha256(b"quorate cluster id\n" + key + names).digest()[:16]


def encode_identity(identity: Identity) -> bytes:
    return msgspec.json.encode(identity) + b"\n"


def decode_identity(data: bytes, where: str) -> Identity:
    """ConsensusStartError that names the file if it is unreadable or of another release."""
    try:
        version = msgspec.json.decode(data, type=_Format).format
        if version != FORMAT:
            raise ConsensusStartError(
                f"{where} has format {version}, this release reads {FORMAT}; use the release that "
                "wrote it"
            )
        identity = msgspec.json.decode(data, type=Identity)
        bytes.fromhex(identity.cluster_id)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConsensusStartError(f"{where} is unreadable ({error}); restore it") from error
    return identity


class _Format(msgspec.Struct):
    format: int
