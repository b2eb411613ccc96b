"""Meshes without a core behind them, and certificates of every sort, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from consensus_helpers import until
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cluster.consensus.counters import Counters
from cluster.consensus.interface import ConsensusConfig, TlsFiles
from cluster.consensus.mesh import Mesh
from quorate.cli import certificates

KEY = b"k" * 32
CLUSTER = b"c" * 16
YEAR = timedelta(days=365)


def save(folder: Path, authority: certificates.Pair, made: certificates.Pair) -> TlsFiles:
    """The three files as a node gets them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(folder / "ca.crt", folder / "node.crt", folder / "node.key")
    files.ca.write_bytes(authority.certificate_pem())
    files.cert.write_bytes(made.certificate_pem())
    files.key.write_bytes(made.key_pem())
    files.key.chmod(0o600)
    return files


@dataclass
class Authority:
    """Issues certificates into folders of their own."""

    folder: Path
    pair: certificates.Pair = field(default_factory=lambda: certificates.make_authority(10 * YEAR))
    issued: int = 0

    def files(self, *nodes: str, validity: timedelta = YEAR) -> TlsFiles:
        self.issued += 1
        made = certificates.issue(self.pair, nodes, [], validity)
        return save(self.folder / f"issued-{self.issued}", self.pair, made)

    def unchecked(self, files: TlsFiles) -> FakeCertificates:
        """For a node that accepts this authority and itself shows whatever it likes."""
        made = []
        for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(protocol)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.pair.certificate_pem().decode())
            context.load_cert_chain(files.cert, files.key)
            made.append(context)
        return FakeCertificates(*made)


@dataclass
class FakeCertificates:
    server: ssl.SSLContext
    client: ssl.SSLContext

    def refresh(self) -> bool:
        return False

    def warn_of_expiry(self) -> bool:
        return False

    def days_left(self) -> float:
        return 1.0


def make_mesh(node_id: str, *peers: str, key: bytes = KEY, **settings: Any) -> Mesh:
    config = ConsensusConfig(node_id, node_id, tuple(peers), Path("unused"), **settings)
    mesh = Mesh(config, key, Counters(), lambda: None)
    mesh.identify(CLUSTER, "folder")
    mesh.set_peers(config.peers)
    return mesh


@contextlib.asynccontextmanager
async def started(*meshes: Mesh) -> AsyncIterator[None]:
    try:
        for mesh in meshes:
            if mesh.certificates is None:
                mesh.bind()
        for mesh in meshes:
            await mesh.start()
        yield
    finally:
        for mesh in meshes:
            await mesh.close()


async def dials_nobody(peer: str) -> None:
    """Stands in for `Mesh._dial`, so that it is known who met whom."""


async def linked(one: Mesh, other: Mesh) -> None:
    await until(lambda: one.epoch(other.node_id) and other.epoch(one.node_id))


async def dropped(mesh: Mesh, reason: str) -> None:
    await until(lambda: mesh.counters.dropped[reason])


def address(mesh: Mesh) -> tuple[str, int]:
    host, port = mesh.node_id.rsplit(":", 1)
    return host, int(port)


async def read_until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except OSError:
        return b""


def expired(pair: certificates.Pair, nodes: list[str], shift: timedelta) -> certificates.Pair:
    """A certificate whose whole validity lies `shift` from now."""
    good = certificates.issue(pair, nodes, [], YEAR).certificate
    made = certificates.issue(pair, nodes, [], YEAR)
    builder = (
        x509.CertificateBuilder()
        .subject_name(good.subject)
        .issuer_name(good.issuer)
        .public_key(made.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(good.not_valid_before_utc + shift)
        .not_valid_after(good.not_valid_before_utc + shift + timedelta(days=1))
    )
    for extension in made.certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return certificates.Pair(builder.sign(pair.key, hashes.SHA256()), made.key)
