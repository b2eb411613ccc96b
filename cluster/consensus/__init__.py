"""Replicates an opaque log through pysyncobj's Raft and drives a machine with it.

The only place that imports pysyncobj, and it knows nothing of jobs. Why the library is wrapped so
tightly is told in docs/decisions/001-pysyncobj-behind-an-adapter.md.
"""

from .consensus import Consensus
from .interface import (
    BUSY,
    DISK_FULL,
    ConsensusConfig,
    ConsensusError,
    ConsensusStartError,
    FatalError,
    MembershipError,
    Outcome,
    PeerStatus,
    ProposalCallback,
    ReadError,
    ReadFailure,
    ReplicatedMachine,
    Role,
    RoleCallback,
    SnapshotError,
    TlsFiles,
    TransferError,
)
from .plant import plant
from .snapfile import SnapshotFile, SnapshotFileError, read_copy
from .tls import check_tls

__all__ = [
    "BUSY",
    "DISK_FULL",
    "Consensus",
    "ConsensusConfig",
    "ConsensusError",
    "ConsensusStartError",
    "FatalError",
    "MembershipError",
    "Outcome",
    "PeerStatus",
    "ProposalCallback",
    "ReadError",
    "ReadFailure",
    "ReplicatedMachine",
    "Role",
    "RoleCallback",
    "SnapshotError",
    "SnapshotFile",
    "SnapshotFileError",
    "TlsFiles",
    "TransferError",
    "check_tls",
    "plant",
    "read_copy",
]
