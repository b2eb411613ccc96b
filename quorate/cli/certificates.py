"""Makes and reads X.509 certificates; the only file that needs the `cryptography` package.

EC P-256 and SHA-256 throughout: every TLS library there is takes them.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .options import UsageError

NODE_URI = "quorate://node/"  # as cluster/consensus/tls.py reads it
BACKDATED = timedelta(hours=1)  # the clocks of the nodes may be behind


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def split_node(node: str) -> str:
    """The host of a node id; UsageError for what is none."""
    host, separator, port = node.rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535
    if not separator or not inner or not is_port or (":" in inner and inner == host):
        raise UsageError(f"--node {node!r} is not an address: write host:port")
    return inner


def file_stem(node: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", node).strip("-")


def make_authority(validity: timedelta) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own: with equal names, errors about the wrong authority mislead.
    name = _name(f"Quorate cluster authority {secrets.token_hex(4)}")
    builder = _builder(name, name, key, validity)
    usage = _usage(signs_certificates=True)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(authority: Pair, nodes: Sequence[str], names: Sequence[str], validity: timedelta) -> Pair:
    """A certificate with which each of `nodes` can both dial and be dialed."""
    until = datetime.now(UTC) + validity
    if until > authority.certificate.not_valid_after_utc:
        raise UsageError(
            f"the authority is valid until {authority.certificate.not_valid_after_utc:%Y-%m-%d} "
            "only: choose fewer --days, or make a new authority"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = authority.certificate
    builder = _builder(_name(nodes[0][:64]), issuer.subject, key, validity)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(nodes, names)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def read_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise UsageError("this is no certificate in PEM form") from None


def read_authority(certificate_pem: bytes, key_pem: bytes) -> Pair:
    """UsageError unless the two belong together and may sign."""
    certificate = read_certificate(certificate_pem)
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise UsageError("ca.key is no private key in PEM form without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not is_authority(certificate):
        raise UsageError("this authority was not made by quorate tls ca: use its own tool to sign")
    if certificate.public_key() != key.public_key():
        raise UsageError("ca.key does not belong to ca.crt")
    return Pair(certificate, key)


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def nodes_of(certificate: x509.Certificate) -> list[str]:
    uris = _alternatives(certificate, x509.UniformResourceIdentifier)
    return [unquote(uri.removeprefix(NODE_URI)) for uri in uris if uri.startswith(NODE_URI)]


def names_of(certificate: x509.Certificate) -> list[str]:
    return _alternatives(certificate, x509.DNSName) + _alternatives(certificate, x509.IPAddress)


def _alternatives(certificate: x509.Certificate, kind: type[x509.GeneralName]) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found.value if isinstance(name, kind)]


def _names(nodes: Sequence[str], names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(NODE_URI + quote(node, safe=":")) for node in nodes
    ]
    for host in dict.fromkeys([*map(split_node, nodes), *names]):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            try:
                found.append(x509.DNSName(host.encode("idna").decode("ascii")))
            except (UnicodeError, ValueError):
                raise UsageError(f"{host!r} is neither a host name nor an IP address") from None
    return found


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, validity: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
