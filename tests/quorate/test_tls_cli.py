"""`quorate tls`: files that OpenSSL itself accepts, and nothing overwritten or left half done."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest

from quorate.cli import main
from quorate.cli.certificates import file_stem


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(["tls", *argv, "--json"] if "show" not in argv else ["tls", *argv])
    captured = capsys.readouterr()
    return code, captured.out if code == 0 else captured.err


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "tls"
    assert run(capsys, "ca", "--out", str(folder))[0] == 0
    return folder


def issue(capsys: pytest.CaptureFixture[str], folder: Path, *argv: str) -> tuple[int, str]:
    return run(capsys, "cert", "--ca", str(folder), "--out", str(folder / "nodes"), *argv)


def test_an_issued_certificate_satisfies_openssl_in_both_roles(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = issue(
        capsys, made, "--node", "n1.example:7001", "--node", "10.0.0.1:7001", "--name", "alias"
    )
    assert code == 0
    files = json.loads(text)
    assert Path(files["cert"]).name == "n1.example-7001.crt"
    sides = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(made / "ca.crt")
        context.load_cert_chain(files["cert"], files["key"])
        context.verify_mode = ssl.CERT_REQUIRED
        sides.append(context)
    for name in ("n1.example", "10.0.0.1", "alias"):  # what tools check
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = sides[0].wrap_bio(up, down, server_side=True)
        client = sides[1].wrap_bio(down, up, server_hostname=name)
        for side in (client, server, client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        certificate = server.getpeercert()
        assert certificate is not None
        uris = [value for kind, value in certificate["subjectAltName"] if kind == "URI"]
        assert uris == ["quorate://node/n1.example:7001", "quorate://node/10.0.0.1:7001"]


def test_keys_are_for_their_owner_only(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert issue(capsys, made, "--node", "a:1")[0] == 0
    keys = list(made.rglob("*.key"))
    assert {path.name for path in keys} == {"ca.key", "a-1.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


def test_a_nodes_folder_holds_all_that_it_needs(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = issue(capsys, made, "--node", "a:1")
    assert code == 0
    assert Path(json.loads(text)["ca"]).read_bytes() == (made / "ca.crt").read_bytes()
    assert {path.name for path in (made / "nodes").iterdir()} == {"a-1.crt", "a-1.key", "ca.crt"}
    assert issue(capsys, made, "--node", "b:1")[0] == 0
    (made / "nodes" / "ca.crt").write_bytes(b"another")
    code, text = issue(capsys, made, "--node", "c:1")
    assert code == 2
    assert "another authority's" in text
    assert not (made / "nodes" / "c-1.key").exists()


def test_nothing_is_overwritten(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "ca.key").read_bytes()
    code, text = run(capsys, "ca", "--out", str(made))
    assert code == 2
    assert "ca.crt exists and is not overwritten" in text
    assert (made / "ca.key").read_bytes() == before
    assert issue(capsys, made, "--node", "a:1")[0] == 0
    (made / "nodes" / "a-1.crt").unlink()
    key = (made / "nodes" / "a-1.key").read_bytes()
    code, text = issue(capsys, made, "--node", "a:1")
    assert code == 2
    assert "a-1.key exists" in text
    assert (made / "nodes" / "a-1.key").read_bytes() == key
    assert not (made / "nodes" / "a-1.crt").exists()


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--node", "n1"], "write host:port"),
        (["--node", "::1:7001"], "write host:port"),
        (["--node", "n1:0"], "write host:port"),
        (["--node", "a:1", "--days", "5000"], "choose fewer --days"),
        (["--node", "a:1", "--days", "0"], "from 1 to 36500"),
        (["--node", "a:1", "--name", "x" * 80], "neither a host name nor an IP address"),
        ([], "--node"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    argv: list[str], part: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = issue(capsys, made, *argv)
    assert code == 2
    assert part in text
    assert not (made / "nodes").exists()


def test_an_authority_is_needed_and_its_key_must_fit(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "cert", "--ca", str(tmp_path / "none"), "--node", "a:1")
    assert code == 2
    assert "make the authority first with quorate tls ca" in text
    assert run(capsys, "ca", "--out", str(tmp_path / "other"))[0] == 0
    (made / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    code, text = issue(capsys, made, "--node", "a:1")
    assert code == 2
    assert "ca.key does not belong to ca.crt" in text


def test_show_says_whose_it_is_and_how_long(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert issue(capsys, made, "--node", "[::1]:7001", "--days", "30")[0] == 0
    code, text = run(capsys, "show", str(made / "nodes" / "1-7001.crt"))
    assert code == 0
    facts = json.loads(text)
    assert facts["nodes"] == ["[::1]:7001"]
    assert facts["names"] == ["::1"]
    assert facts["authority"] is False
    assert 29.9 < facts["days_left"] <= 30
    assert json.loads(run(capsys, "show", str(made / "ca.crt"))[1])["authority"] is True
    code, text = run(capsys, "show", str(made / "ca.key"))
    assert code == 2
    assert "no certificate" in text


def test_file_names_hold_no_surprises() -> None:
    assert file_stem("../../etc/x:1") == "..-..-etc-x-1"
    assert file_stem("[fe80::1%eth0]:7001") == "fe80-1-eth0-7001"
