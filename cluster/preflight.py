"""What must hold before a node starts: its addresses are free, what its settings need is there."""

from __future__ import annotations

import socket
from pathlib import Path

from cluster.backup import BackupError
from cluster.backup.store import Store
from cluster.consensus import ConsensusStartError
from cluster.consensus.folder import DataFolder
from cluster.consensus.storage import FILES
from cluster.settings import parse_address


class NodeStartError(Exception):
    """The node cannot start; one line that names the file or port and the fix."""


def require_free(address: str, flag: str) -> None:
    """Raises NodeStartError when another program has the address."""
    host, port = parse_address(address, flag)
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise NodeStartError(
            f"cannot listen on {address}: {error.strerror}; "
            f"stop what uses that port or choose another with --{flag}"
        ) from error


def require_own(data: Path, node_id: str) -> None:
    """Raises NodeStartError when the folder is another node's, or in use. Asked before the history
    in it is opened, which folds what a killed node left beside it; consensus asks again, and keeps
    the lock."""
    folder = DataFolder(FILES, data, node_id)
    try:
        folder.open()
    except ConsensusStartError as error:
        raise NodeStartError(str(error)) from error
    finally:
        folder.close()


def require_store(address: str) -> None:
    """Raises NodeStartError when nothing is installed that knows such an address."""
    try:
        if address:
            Store(address)
    except BackupError as error:
        raise NodeStartError(f"backup_store: {error}") from error
