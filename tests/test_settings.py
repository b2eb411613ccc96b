"""Layers, one clear line for every mistake, and the rules between settings."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from cluster.settings import HIDDEN, Settings, SettingsError, is_loopback, parse_address
from cluster.settings.layers import is_secret

CONFIG = Path(__file__).parent.parent / "config"
TLS_KEYS = ("raft_tls_ca", "raft_tls_cert", "raft_tls_key")
TLS_FLAGS = [part for key in TLS_KEYS for part in ("--" + key.replace("_", "-"), f"{key}.pem")]
SECRET = "a long enough shared secret"


def load(*argv: str, **environ: str) -> Settings:
    return Settings.load(argv, environ)


def refusal(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*argv, **environ)
    line = str(caught.value)
    assert "\n" not in line
    return line


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_without_anything_a_node_runs_alone_on_loopback() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.node_count == 1
    assert settings.warnings() == []
    assert (settings.advertise, settings.advertise_http) == ("127.0.0.1:7001", "127.0.0.1:8000")
    assert settings.name == "127.0.0.1:7001"


def test_later_layers_win(tmp_path: Path) -> None:
    config = toml(tmp_path, 'heartbeat_ms = 10\nelection_min_ms = 200\nlisten = "127.0.0.1:1"')
    environ = {"QUORATE_ELECTION_MIN_MS": "210", "QUORATE_LISTEN": "127.0.0.1:2"}
    settings = load("--config", config, "--listen", "127.0.0.1:3", **environ)
    assert settings.heartbeat_ms == 10
    assert settings.election_min_ms == 210
    assert settings.listen == "127.0.0.1:3"
    assert settings.election_max_ms == 600


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    assert load(QUORATE_CONFIG=toml(tmp_path, 'name = "n1"')).name == "n1"


@pytest.mark.parametrize("key", [info.name for info in msgspec.structs.fields(Settings)])
def test_every_setting_has_a_flag_a_variable_and_a_key(key: str, tmp_path: Path) -> None:
    samples: dict[str, object] = {
        "listen": "127.0.0.1:7009",
        "peers": ["127.0.0.1:7002", "127.0.0.1:7003"],
        "advertise": "localhost:7001",
        "http": "127.0.0.1:8009",
        "advertise_http": "localhost:8000",
        "data": "elsewhere",
        "backup_folder": "shelf",
        "backup_store": "s3://bucket/quorate",
        "cluster_secret": SECRET,
        **dict.fromkeys(TLS_KEYS, "some.pem"),
        "name": "n1",
        "log_level": "debug",
        "fsync": False,
        "backup_history": True,
        "backup_log": False,
        "join": True,
        "heartbeat_ms": 60,
        "election_min_ms": 310,
        "election_max_ms": 610,
        "request_max_bytes": 1 << 20,
        "ingest": 2,
    }
    value = samples.get(key, 4.5 if key.endswith("_seconds") else 4321)
    text = ",".join(value) if isinstance(value, list) else str(value)
    in_toml = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    flag = "--" + key.replace("_", "-")
    switches = {
        "fsync": ["--no-fsync"],
        "join": ["--join"],
        "backup_history": ["--backup-history"],
        "backup_log": ["--no-backup-log"],
    }
    argv = switches.get(key, [flag, text])
    others = {k: "x.pem" for k in TLS_KEYS if k != key and key in TLS_KEYS}  # they come in threes
    if key == "join":
        others = {"peers": "127.0.0.1:7002"}
    if key == "backup_store":
        others = {"backup_folder": "shelf"}
    with_others = {f"QUORATE_{k.upper()}": value for k, value in others.items()}
    from_flag = load(*argv, **with_others)
    assert from_flag == load(**{f"QUORATE_{key.upper()}": text}, **with_others)
    lines = [f"{key} = {in_toml}"]
    lines += [f'{k} = ["{v}"]' if k == "peers" else f'{k} = "{v}"' for k, v in others.items()]
    assert from_flag == Settings.from_toml(toml(tmp_path, "\n".join(lines)))
    assert getattr(from_flag, key) != getattr(Settings(), key)


def test_peers_may_name_this_node_and_repeat_themselves() -> None:
    peers = "127.0.0.1:7001, 127.0.0.1:7002,127.0.0.1:7003,127.0.0.1:7002"
    settings = load("--peers", peers)
    assert settings.peers == ("127.0.0.1:7002", "127.0.0.1:7003")
    assert settings.node_count == 3
    assert settings.warnings() == []


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--backup-store", "bucket"], ["backup_store", "'bucket' is no address", "s3://"]),
        (["--backup-store", "s3://bucket"], ["backup_store", "needs backup_folder"]),
        (["--heartbeat-ms", "soon"], ["heartbeat_ms = 'soon' (--heartbeat-ms)", "whole number"]),
        (["--join"], ["join", "peers is empty"]),
        (["--heartbeat-ms", "0"], ["from 1 to 3600000", "for example 50"]),
        (["--worker-ttl-seconds", "nan"], ["worker_ttl_seconds", "from 0.1 to 3600"]),
        (["--worker-ttl-seconds", "inf"], ["worker_ttl_seconds", "from 0.1 to 3600"]),
        (["--job-timeout-seconds", "inf"], ["from 0.001 to 1000000000"]),
        (["--heartbeet-ms", "5"], ["unknown flag --heartbeet-ms", "did you mean --heartbeat-ms?"]),
        (["--heartbeat", "5"], ["unknown flag --heartbeat"]),
        (["start"], ["unrecognized arguments: start", "--help"]),
        (["--listen"], ["--listen", "expected one argument"]),
        (["--log-level", "loud"], ["'loud'", "one of debug, info, warning, error"]),
        (["--listen", "7001"], ["listen = '7001'", "host:port"]),
        (["--listen", "::1:7001"], ["listen = '::1:7001'", "host:port"]),
        (["--listen", "127.0.0.1:70000"], ["port", "1 to 65535"]),
        (["--http", "127.0.0.1:0"], ["http", "1 to 65535"]),
        (["--peers", "127.0.0.1:7002,n3"], ["peers = 'n3'", "host:port"]),
        (["--http", "127.0.0.1:7001"], ["listen and http", "different ports"]),
        (
            ["--http", "0.0.0.0:8000"],
            ["http = '0.0.0.0:8000'", "needs --cluster-secret", "loopback"],
        ),
        (["--listen", "10.0.0.1:7001"], ["listen = ", "needs --cluster-secret", "loopback"]),
        (["--listen", "n1:7001"], ["needs --cluster-secret", "--raft-tls-cert"]),
        (["--listen", "[::]:7001"], ["listen = ", "needs --cluster-secret"]),
        (["--listen", "[fe80::1]:7001"], ["needs --cluster-secret"]),
        (["--listen", "[::ffff:10.0.0.1]:7001"], ["needs --cluster-secret"]),
        (["--listen", "[::ffff:0.0.0.0]:7001"], ["needs --cluster-secret"]),
        (["--listen", "0:7001"], ["needs --cluster-secret"]),
        (
            ["--raft-tls-key", "k"],
            ["raft_tls_key is set, but not raft_tls_ca and raft_tls_cert", "all three"],
        ),
        (["--raft-tls-ca", "c", "--raft-tls-cert", "c"], ["is set, but not raft_tls_key:"]),
        (["--cluster-secret", ""], ["cluster_secret is empty"]),
        (["--heartbeat-ms", "100"], ["election_min_ms = 300", "three heartbeats (300 ms)"]),
        (
            ["--election-max-ms", "300"],
            ["election_max_ms = 300", "more than election_min_ms (300)"],
        ),
        (["--payload-max-bytes", "9000000"], ["payload_max_bytes", "request_max_bytes"]),
        (["--config", "absent.toml"], ["'absent.toml'", "cannot be read", "check the path"]),
        (
            ["--listen", "0.0.0.0:1", "--cluster-secret", SECRET, "--peers", "n2:1,n3:1"],
            ["advertise = '0.0.0.0:1'", "--advertise"],
        ),
    ],
)
def test_a_mistake_is_one_line_with_key_value_and_fix(argv: list[str], parts: list[str]) -> None:
    line = refusal(*argv)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("heartbeat = 5", ["unknown key 'heartbeat'", "did you mean heartbeat_ms?"]),
        ("zzz = 5", ["unknown key 'zzz'", "config/dev.toml"]),
        ("[raft]\nlisten = 1", ["unknown key 'raft'"]),
        ('heartbeat_ms = "50"', ["heartbeat_ms = '50' is refused", "whole number"]),
        ("peers = [7001]", ["peers = [7001]", "addresses like 127.0.0.1:7001"]),
        ("fsync = 1", ["fsync = 1", "true or false"]),
        ("listen =", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_the_file_names_the_file(tmp_path: Path, text: str, parts: list[str]) -> None:
    line = refusal("--config", toml(tmp_path, text))
    for part in ["node.toml", *parts]:
        assert part in line


def test_a_misspelt_variable_is_refused_and_a_clients_variable_is_not() -> None:
    line = refusal(QUORATE_HEARTBEAT_MSS="5")
    assert "unknown variable QUORATE_HEARTBEAT_MSS: did you mean QUORATE_HEARTBEAT_MS?" in line
    assert load(QUORATE_NODES="http://127.0.0.1:8001", QUORATE_TOKEN="x") == Settings()


def test_the_secret_is_never_shown() -> None:
    settings = load("--cluster-secret", SECRET)
    assert SECRET not in repr(settings)
    assert settings.public()["cluster_secret"] == HIDDEN
    assert settings.cluster_secret == SECRET
    assert load(QUORATE_CLUSTER_SECRET="null").cluster_secret == "null"


def test_whatever_sounds_like_a_secret_is_one() -> None:
    """Who adds a setting with such a name has to say in the table that nobody may see it."""
    words = ("secret", "password", "token", "credential", "api_key")
    infos = msgspec.structs.fields(Settings)
    named = [info.name for info in infos if any(word in info.name for word in words)]
    assert named == [info.name for info in infos if is_secret(info)] == ["cluster_secret"]


def test_a_text_is_shown_without_secrets() -> None:
    text = f"started with --cluster-secret {SECRET}, twice: {SECRET}"
    assert load("--cluster-secret", SECRET).without_secrets(text) == text.replace(SECRET, HIDDEN)
    assert Settings().without_secrets(text) == text


def test_with_a_secret_any_address_may_be_used() -> None:
    settings = load("--http", "0.0.0.0:8000", "--listen", "[::]:7001", "--cluster-secret", SECRET)
    assert settings.http == "0.0.0.0:8000"
    assert settings.warnings() == []


def test_with_tls_any_address_may_be_used() -> None:
    settings = load("--http", "0.0.0.0:8000", "--listen", "[::]:7001", *TLS_FLAGS)
    assert settings.raft_tls == tuple(Path(f"{key}.pem") for key in TLS_KEYS)
    assert settings.public()["raft_tls_ca"] == "raft_tls_ca.pem"
    assert load().raft_tls is None


@pytest.mark.parametrize(
    ("argv", "warning"),
    [
        (["--peers", "127.0.0.1:7002"], "2 nodes survive no more failures than 1"),
        (["--no-fsync"], "fsync is off"),
        (["--cluster-secret", "short"], "guessed"),
        (["--peers", "10.0.0.2:7001,10.0.0.3:7001"], "is loopback, so 10.0.0.2:7001 cannot reach"),
    ],
)
def test_what_is_hardly_meant_is_warned_about(argv: list[str], warning: str) -> None:
    (line,) = load(*argv).warnings()
    assert warning in line


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for info in msgspec.structs.fields(Settings):
        assert "--" + info.name.replace("_", "-") in text


def test_addresses() -> None:
    assert parse_address("[::1]:7001", "listen") == ("::1", 7001)
    assert parse_address("n1.example:80", "listen") == ("n1.example", 80)
    assert is_loopback("127.9.9.9:1")
    assert is_loopback("[::1]:1")
    assert is_loopback("[::ffff:127.0.0.1]:1")
    assert not is_loopback("[::ffff:10.0.0.1]:1")
    assert not is_loopback("localhost.example:1")


@pytest.mark.parametrize("path", sorted(CONFIG.rglob("*.toml")), ids=lambda path: path.stem)
def test_the_example_files_are_valid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if "cluster_secret" not in tomllib.loads(text) and "production" in path.name:
        Settings.load(["--config", str(path)], {"QUORATE_CLUSTER_SECRET": SECRET})
    else:
        assert Settings.from_toml(path).warnings() == []


def test_the_three_example_nodes_form_one_cluster() -> None:
    nodes = [Settings.from_toml(CONFIG / "three-nodes" / f"n{n}.toml") for n in (1, 2, 3)]
    members = {node.advertise for node in nodes}
    assert len(members) == 3
    for node in nodes:
        assert set(node.peers) | {node.advertise} == members
    assert len({node.http for node in nodes} | {node.listen for node in nodes}) == 6
    assert len({node.data for node in nodes}) == 3


def test_the_dev_file_names_every_setting() -> None:
    text = (CONFIG / "dev.toml").read_text(encoding="utf-8")
    for info in msgspec.structs.fields(Settings):
        assert f"\n{info.name} = " in text or f"\n# {info.name} = " in text, info.name
