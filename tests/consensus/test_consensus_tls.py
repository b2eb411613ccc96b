"""Mutual TLS between nodes: who gets in, who is refused with which words, and what is reloaded."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from consensus_helpers import free_addresses, running, until
from mesh_helpers import (
    YEAR,
    Authority,
    address,
    dials_nobody,
    dropped,
    expired,
    linked,
    make_mesh,
    read_until_closed,
    save,
    started,
)

from cluster.consensus import ConsensusStartError, TlsFiles
from cluster.consensus.mesh import Disconnected, Mesh
from cluster.consensus.tls import EXPIRY_WARNING, Certificates, node_ids, node_uri
from cluster.consensus.wire import Append, Blob
from quorate.cli import certificates


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def on_both_loops(work: Callable[[], Any]) -> None:
    """The shipped loop has a TLS implementation of its own, so asyncio's alone proves little."""
    asyncio.run(work())
    if sys.platform != "win32":
        import uvloop

        uvloop.run(work())


# Who gets in --------------------------------------------------------------------------------


def test_certificates_of_one_authority_need_no_secret(authority: Authority) -> None:
    async def work() -> None:
        a, b = free_addresses(2)
        one = make_mesh(a, b, tls=authority.files(a))
        other = make_mesh(b, a, tls=authority.files(b))
        async with started(one, other):
            await linked(one, other)
            await until(lambda: one.counters.tls_days_left)
            assert 364 < one.counters.view()["tls_days_left"] < 366  # type: ignore[operator]
            assert one.counters.dropped.total() == other.counters.dropped.total() == 0

    on_both_loops(work)


async def test_a_cluster_works_over_tls_with_a_secret_too(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    async with running(tmp_path, 3) as plain:
        ids = [node.id for node in plain.nodes]
        await plain.commit(b"before")
        await plain.all_equal()
    files = authority.files(*ids)
    plain.nodes = [node.again(tls=files) for node in plain.nodes]
    try:
        await plain.start()
        big = b"x" * (3 << 20)
        await plain.commit(b"small", big)
        assert await plain.all_equal() == [b"before", b"small", big]
    finally:
        await plain.stop()


def test_a_peer_that_stops_reading_is_noticed_and_at_last_cut_off(authority: Authority) -> None:
    """Encryption adds buffers of its own; the bounds must see through them."""

    async def work() -> None:
        a, b = free_addresses(2)
        one = make_mesh(a, b, tls=authority.files(a))
        other = make_mesh(b, a, tls=authority.files(b))
        other._dial = dials_nobody  # type: ignore[method-assign]  # one link, and it stays
        blob = Blob.of((b"x" * (1 << 20),))
        async with started(one, other):
            await linked(one, other)
            link = other._links[a]
            assert link._transport is not None
            link._transport.pause_reading()
            sent = 0
            while one.writable(b):
                assert one.send(b, Append(1, 1, 1, 1, 1, 1), blob)
                await asyncio.sleep(0)
                sent += 1
                assert sent < 64
            while one.send(b, Append(1, 1, 1, 1, 1, 1), blob):
                await asyncio.sleep(0)
                sent += 1
                assert sent < 256
            assert not one.epoch(b)

    on_both_loops(work)


def test_a_process_that_dies_is_noticed_at_once(authority: Authority) -> None:
    async def work() -> None:
        a, b = free_addresses(2)
        one = make_mesh(a, b, tls=authority.files(a))
        other = make_mesh(b, a, tls=authority.files(b))
        async with started(one, other):
            await linked(one, other)
            other.abort()
            await until(lambda: not one.epoch(b), seconds=5)
            assert Disconnected(b, one._last_epoch) in one.inbox

    on_both_loops(work)


# Who is refused -----------------------------------------------------------------------------


def show(mesh: Mesh, authority: Authority, files: TlsFiles) -> None:
    """From now on the node shows these, whatever the checks at its start would have said."""
    mesh.bind()
    mesh.certificates = authority.unchecked(files)  # type: ignore[assignment]


BAD = {
    "tls_other_authority": lambda good, other, node: other.files(node),
    "wrong_certificate": lambda good, other, node: good.files("127.0.0.1:1"),
    "tls_expired": lambda good, other, node: save(
        good.folder / "late", good.pair, expired(good.pair, [node], -2 * YEAR)
    ),
    "tls_not_yet_valid": lambda good, other, node: save(
        good.folder / "early", good.pair, expired(good.pair, [node], YEAR)
    ),
}


@pytest.mark.parametrize("reason", BAD)
@pytest.mark.parametrize("bad_side_dials", [True, False], ids=["dials", "is dialed"])
def test_a_bad_certificate_is_refused_on_both_sides(
    reason: str, bad_side_dials: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    other_authority = Authority(authority.folder / "other")

    async def work() -> None:
        caplog.clear()
        a, b = free_addresses(2)
        good = make_mesh(a, b, tls=authority.files(a))
        bad = make_mesh(b, a)
        show(bad, authority, BAD[reason](authority, other_authority, b))
        lazy = good if bad_side_dials else bad
        lazy._dial = dials_nobody  # type: ignore[method-assign]
        async with started(good, bad):
            await dropped(good, reason)
            assert not good.epoch(b)
            assert not good.inbox
        lines = [r.getMessage() for r in caplog.records if reason in r.getMessage()]
        assert len([line for line in lines if line.endswith(f"({reason}, 1)")]) == 1

    on_both_loops(work)


def test_the_refused_node_is_told_in_its_own_log(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        caplog.clear()
        a, b = free_addresses(2)
        good = make_mesh(a, b, tls=authority.files(a))
        bad = make_mesh(b, a)
        show(bad, authority, Authority(authority.folder / "other").files(b))
        async with started(good, bad):
            await until(lambda: "it ended the handshake; its log may say why" in caplog.text)
            await dropped(bad, "hung_up")

    on_both_loops(work)


def test_without_a_certificate_nobody_gets_in(authority: Authority) -> None:
    async def work() -> None:
        a, b = free_addresses(2)
        node = make_mesh(a, b, tls=authority.files(a))
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        async with started(node):
            reader, writer = await asyncio.open_connection(*address(node), ssl=client)
            assert await read_until_closed(reader) == b""
            await dropped(node, "tls_no_certificate")
            writer.close()

    on_both_loops(work)


def test_old_tls_is_refused(authority: Authority) -> None:
    async def work() -> None:
        a, b = free_addresses(2)
        files = authority.files(a)
        node = make_mesh(a, b, tls=files)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.load_verify_locations(files.ca)
        client.load_cert_chain(files.cert, files.key)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        async with started(node):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(*address(node), ssl=client)
            await dropped(node, "tls_failed")

    on_both_loops(work)


def test_tls_on_one_side_only_is_refused_and_named(authority: Authority) -> None:
    async def work() -> None:
        a, b = free_addresses(2)
        encrypted, plain = make_mesh(a, b, tls=authority.files(a)), make_mesh(b, a)
        async with started(encrypted, plain):
            await dropped(encrypted, "tls_on_one_side")
            await dropped(plain, "tls_on_one_side")
            assert not encrypted.epoch(b)
            assert not plain.epoch(a)

    on_both_loops(work)


# What is checked at the start ---------------------------------------------------------------


def refusal(files: TlsFiles, node_id: str = "a:1") -> str:
    with pytest.raises(ConsensusStartError) as caught:
        Certificates(files, node_id)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_others_would_refuse_is_refused_at_the_start(authority: Authority) -> None:
    good = authority.files("a:1")
    other = Authority(authority.folder / "other").files("a:1")
    late = save(authority.folder / "late", authority.pair, expired(authority.pair, ["a:1"], -YEAR))
    early = save(authority.folder / "early", authority.pair, expired(authority.pair, ["a:1"], YEAR))
    absent = replace(good, key=authority.folder / "absent.key")
    for files, parts in [
        (absent, ["raft_tls_key", "absent.key", "No such file", "quorate tls cert"]),
        (replace(good, ca=good.key), ["raft_tls_ca", "no certificate", "quorate tls ca"]),
        (replace(good, cert=good.key), ["raft_tls_cert", "PEM"]),
        (replace(good, key=good.cert), ["raft_tls_key", "PEM"]),
        (replace(good, key=other.key), ["raft_tls_key", "does not belong to raft_tls_cert"]),
        (replace(good, ca=other.ca), ["raft_tls_cert", "must be signed by raft_tls_ca"]),
        (late, ["raft_tls_cert", "expired", "quorate tls cert"]),
        (early, ["raft_tls_cert", "not yet valid"]),
        (authority.files("b:1", "c:1"), ["raft_tls_cert", "is for b:1, c:1, this node is a:1"]),
    ]:
        line = refusal(files)
        for part in parts:
            assert part in line


def test_a_key_that_everybody_can_read_is_warned_about(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.files("a:1")
    Certificates(files, "a:1")
    assert not caplog.records
    files.key.chmod(0o644)
    Certificates(files, "a:1")
    assert "can be read by every user" in caplog.text


def test_a_key_with_a_password_is_refused_instead_of_asking(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    files = authority.files("a:1")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert "password" in refusal(files)


@pytest.mark.parametrize(
    "node_id", ["10.0.0.1:7001", "[::1]:7001", "knöten.example:1", "a b/?#%:1"]
)
def test_any_node_id_fits_into_a_certificate(node_id: str, authority: Authority) -> None:
    uri = node_uri(node_id)
    assert uri.isascii()
    assert node_ids({"subjectAltName": (("URI", uri), ("DNS", "x"))}) == {node_id}
    assert certificates.NODE_URI + uri.removeprefix("quorate://node/") == uri


def test_only_the_uri_names_a_node() -> None:
    names = (("DNS", "a:1"), ("URI", "https://a:1"), ("URI", "quorate://other/a:1"))
    assert node_ids({"subjectAltName": names}) == frozenset()
    assert node_ids(None) == frozenset()


# What is replaced while running -------------------------------------------------------------


def replace_files(old: TlsFiles, new: TlsFiles) -> None:
    for name in ("ca", "cert", "key"):
        getattr(new, name).replace(getattr(old, name))


def test_new_files_are_taken_over(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = authority.files("a:1", validity=timedelta(days=3))
    held = Certificates(files, "a:1")
    server, expires = held.server, held.expires
    assert not held.refresh()
    replace_files(files, authority.files("a:1"))
    assert held.refresh()
    assert held.expires > expires
    assert held.server is not server
    assert not held.refresh()
    assert "new certificate, valid until" in caplog.text


def test_bad_new_files_are_not_and_are_complained_about_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.files("a:1")
    held = Certificates(files, "a:1")
    server = held.server
    replace_files(files, authority.files("b:1"))
    assert not held.refresh()
    assert not held.refresh()
    files.key.unlink()
    assert not held.refresh()
    assert not held.refresh()
    assert held.server is server
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR"]
    assert "is for b:1" in caplog.text
    replace_files(files, authority.files("a:1"))
    assert held.refresh()


def test_a_certificate_about_to_expire_is_warned_about_daily(authority: Authority) -> None:
    held = Certificates(authority.files("a:1"), "a:1")
    now = datetime.now(UTC)
    assert not held.warn_of_expiry(now)
    soon = held.expires - EXPIRY_WARNING + timedelta(hours=1)
    assert held.warn_of_expiry(soon)
    assert not held.warn_of_expiry(soon + timedelta(hours=23))
    assert held.warn_of_expiry(soon + timedelta(hours=25))
    assert 364 < held.days_left(now) < 365.1


async def test_links_made_after_a_reload_show_the_new_certificate(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.consensus.mesh.CERTIFICATES_EVERY_S", 0.02)
    a, b = free_addresses(2)
    files = authority.files(a)
    one, other = make_mesh(a, b, tls=files), make_mesh(b, a, tls=authority.files(b))
    async with started(one, other):
        await linked(one, other)
        before = one.certificates.expires  # type: ignore[union-attr]
        epoch = one.epoch(b)
        replace_files(files, authority.files(a, validity=2 * YEAR))
        await until(lambda: one.certificates.expires > before)  # type: ignore[union-attr]
        assert one.epoch(b) == epoch  # a link that stands is left alone
        one._links[b].close("")
        await until(lambda: one.epoch(b) > epoch)
