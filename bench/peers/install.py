"""Says what the machine lacks for a peer, and installs the peer itself into its own environment.

System packages are named, never installed. A peer in Python gets a virtual environment, those in
JavaScript share one folder of modules, so that nothing of theirs meets what Quorate depends on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.peers.catalogue import MODULES, Peer
from bench.peers.servers import postgres_program

NODE_HINT = "node and npm (Debian: apt-get install nodejs npm)"
REDIS_HINT = "redis-server 6.2 or later (Debian: apt-get install redis-server)"
POSTGRES_HINT = "initdb and postgres 13 or later (Debian: apt-get install postgresql)"
_INSTALLED = "installed.txt"


def missing(peer: Peer) -> list[str]:
    """What somebody has to install before this peer can run, in words."""
    lacks = []
    if peer.server == "redis" and shutil.which("redis-server") is None:
        lacks.append(REDIS_HINT)
    if peer.server == "postgres" and None in (postgres_program("initdb"), _postgres()):
        lacks.append(POSTGRES_HINT)
    if peer.is_node and (shutil.which("node") is None or shutil.which("npm") is None):
        lacks.append(NODE_HINT)
    return lacks


def _postgres() -> Path | None:
    return postgres_program("postgres")


def is_installed(peer: Peer) -> bool:
    return peer.environment is None or _mark(peer).read_text() == _wanted(peer)


def install(peer: Peer) -> None:
    """Install the pinned versions unless they are there already."""
    if is_installed(peer):
        return
    print(f"installing {' '.join(peer.packages)} ...", file=sys.stderr, flush=True)
    if peer.is_node:
        _install_node(peer)
    else:
        _install_python(peer)
    _mark(peer).write_text(_wanted(peer))


def _install_python(peer: Peer) -> None:
    assert peer.environment is not None
    if not (peer.environment / "bin/python").exists():
        _run([sys.executable, "-m", "venv", "--without-pip", str(peer.environment)])
    pip = [sys.executable, "-m", "pip", "--python", str(peer.environment / "bin/python")]
    _run([*pip, "install", "--quiet", "--disable-pip-version-check", *peer.packages])


def _install_node(peer: Peer) -> None:
    MODULES.mkdir(parents=True, exist_ok=True)
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(MODULES)]
    _run(["npm", "install", *flags, *(package.replace("==", "@") for package in peer.packages)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def _wanted(peer: Peer) -> str:
    return "\n".join(peer.packages) + "\n"


def _mark(peer: Peer) -> Path:
    """The file that says what was installed; made empty when it is not there."""
    assert peer.environment is not None
    peer.environment.mkdir(parents=True, exist_ok=True)
    path = peer.environment / f"{peer.name}-{_INSTALLED}"
    path.touch()
    return path
