"""`quorate tls ca|cert|show`: an authority for one cluster and certificates for its nodes.

The private key of the authority never has to be on a node; whoever has it can be any node.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import QuorateError
from .options import Commands, UsageError, leaf, noun, option
from .output import print_done, print_item

if TYPE_CHECKING:
    from cryptography import x509

    from .certificates import Pair

CA_CRT, CA_KEY = "ca.crt", "ca.key"
CA_DAYS = 3650
NODE_DAYS = 365


def add(commands: Commands) -> None:
    """Declares the commands."""
    verbs = noun(commands, "tls", "certificates with which nodes prove who they are")
    ca = leaf(verbs, "ca", run_ca, "make the authority of one cluster: ca.crt and ca.key")
    _out(ca)
    option(ca, "--days", scope="tls", type=_days, default=CA_DAYS, help=f"validity ({CA_DAYS})")
    cert = leaf(verbs, "cert", run_cert, "issue the certificate of a node")
    option(
        cert, "--ca", scope="tls", default=".", help="folder with ca.crt and ca.key (this folder)"
    )
    cert.add_argument(
        "--node",
        action="append",
        required=True,
        metavar="HOST:PORT",
        help="the node's Raft address as the others know it (advertise); again for more than one",
    )
    cert.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a further host name or IP address to put in, for tools that check it",
    )
    _out(cert)
    option(
        cert, "--days", scope="tls", type=_days, default=NODE_DAYS, help=f"validity ({NODE_DAYS})"
    )
    show = leaf(verbs, "show", run_show, "print what a certificate says")
    show.add_argument("file", type=Path)


def _out(parser: argparse.ArgumentParser) -> None:
    option(parser, "--out", scope="tls", default=".", help="folder for the new files (this folder)")


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 36_500:
        raise argparse.ArgumentTypeError(f"{days} is not from 1 to 36500 days")
    return days


def run_ca(args: argparse.Namespace) -> int:
    """quorate tls ca"""
    made = _library().make_authority(timedelta(days=args.days))
    folder = Path(args.out)
    crt, key = _write(made, folder / CA_CRT, folder / CA_KEY)
    text = (
        f"{crt}  give it to every node\n"
        f"{key}  keep it away from the nodes: whoever has it can be any of them\n"
        f"next: quorate tls cert --ca {shlex.quote(str(folder))} --node HOST:PORT, for each node"
    )
    print_done(args, text, {"ca": str(crt), "key": str(key)})
    return 0


def run_cert(args: argparse.Namespace) -> int:
    """quorate tls cert"""
    library = _library()
    folder, ca = Path(args.out), Path(args.ca)
    if ca.is_file():
        ca = ca.parent
    nodes = list(dict.fromkeys(args.node))
    for node in nodes:
        library.split_node(node)
    authority_pem = _read(ca / CA_CRT)
    authority = library.read_authority(authority_pem, _read(ca / CA_KEY))
    _check_copy(folder / CA_CRT, authority_pem)
    made = library.issue(authority, nodes, args.name, timedelta(days=args.days))
    stem = library.file_stem(nodes[0])
    crt, key = _write(made, folder / f"{stem}.crt", folder / f"{stem}.key")
    copy = _copy_authority(folder / CA_CRT, authority_pem)
    flags = ["--raft-tls-ca", copy, "--raft-tls-cert", crt, "--raft-tls-key", key]
    text = (
        f"{crt}\n{key}\n{copy}\n"
        f"next: bring the three to {' and '.join(nodes)} and start it with\n"
        f"  {shlex.join(map(str, flags))}"
    )
    facts = {"nodes": nodes, "cert": str(crt), "key": str(key), "ca": str(copy)}
    print_done(args, text, facts)
    return 0


def _check_copy(path: Path, authority_pem: bytes) -> None:
    if path.exists() and path.read_bytes() != authority_pem:
        raise UsageError(f"{path} is another authority's: choose another --out")


def _copy_authority(path: Path, authority_pem: bytes) -> Path:
    """Beside the node's certificate, so that one folder is all that a node needs."""
    if not path.exists():
        _create(path, authority_pem, 0o644)
    return path


def run_show(args: argparse.Namespace) -> int:
    """quorate tls show"""
    library = _library()
    certificate = library.read_certificate(_read(args.file))
    print_item(args, _facts(library, certificate))
    return 0


def _facts(library: Any, certificate: x509.Certificate) -> dict[str, Any]:
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "nodes": library.nodes_of(certificate),
        "names": library.names_of(certificate),
        "authority": library.is_authority(certificate),
        "valid_from": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "days_left": round(left / timedelta(days=1), 1),
        "serial": f"{certificate.serial_number:x}",
    }


def _library() -> Any:
    try:
        from . import certificates
    except ImportError as error:
        raise QuorateError(
            f"{error}: install what issues certificates with pip install 'quorate[tls]'"
        ) from error
    return certificates


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        hint = ": make the authority first with quorate tls ca" if path.name == CA_CRT else ""
        raise UsageError(f"{path} does not exist{hint}") from None


def _write(made: Pair, crt: Path, key: Path) -> tuple[Path, Path]:
    """Both or none, and never over something that a running cluster may depend on."""
    crt.parent.mkdir(parents=True, exist_ok=True)
    for path in (crt, key):
        if path.exists():
            raise UsageError(f"{path} exists and is not overwritten: move it or choose --out")
    _create(key, made.key_pem(), 0o600)
    try:
        _create(crt, made.certificate_pem(), 0o644)
    except OSError:
        with contextlib.suppress(OSError):
            key.unlink()
        raise
    return crt, key


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
