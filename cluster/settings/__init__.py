"""All settings of a node in one table, because a setting that has three spellings has three bugs.

The table is the struct `Settings`: from a field follow the flag (`--heartbeat-ms`), the environment
variable (`QUORATE_HEARTBEAT_MS`), the TOML key (`heartbeat_ms`), the type, the range, the default
and the help text. Layers, later ones win: defaults, TOML file, environment, flags.

Whatever is wrong ends as a `SettingsError` of one line that names the setting, the value, where it
came from, and the fix. A `Settings` that exists is valid. What may change while the cluster runs
(limits of a queue, access rights) belongs to the replicated state, not here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from .addresses import SettingsError, is_loopback, parse_address
from .layers import HIDDEN, Layers, flag_of, is_secret, variable_of

__all__ = ["HIDDEN", "Settings", "SettingsError", "is_loopback", "parse_address"]

SECRET_CHARACTERS_MIN = 16  # below this a secret can be guessed: warned about

LONG_SECONDS = 1e9  # thirty years: long enough for anything, and finite
Milliseconds = Annotated[int, Meta(ge=1, le=3_600_000)]


_SECRET = Meta(extra={"secret": True})  # never shown, in no page, log or bundle


def _help(text: str) -> Meta:
    return Meta(description=text)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A node's settings, complete and checked: defaults that follow from others are filled in.

    Raises SettingsError when a rule between settings is broken.
    """

    listen: Annotated[str, _help("host:port for the other nodes (Raft)")] = "127.0.0.1:7001"
    peers: Annotated[
        tuple[str, ...],
        _help(
            "host:port of every node, separated by commas; may include this one; counts at the"
            " first start only"
        ),
    ] = ()
    join: Annotated[
        bool, _help("wait to be added to the running cluster of which peers are members")
    ] = False
    advertise: Annotated[
        str, _help("host:port under which other nodes reach this one; default: listen")
    ] = ""
    http: Annotated[str, _help("host:port of the API")] = "127.0.0.1:8000"
    advertise_http: Annotated[
        str, _help("host:port under which clients reach the API; default: http")
    ] = ""
    ingest: Annotated[int, Meta(ge=0, le=64), _help("processes that take submissions in")] = 0
    data: Annotated[Path, _help("folder of journal, snapshots and history")] = Path("data")
    cluster_secret: Annotated[
        str | None, _SECRET, _help("shared by all nodes; better in the environment than in a flag")
    ] = None
    raft_tls_ca: Annotated[
        Path | None, _help("certificate of the authority that all nodes' certificates are from")
    ] = None
    raft_tls_cert: Annotated[
        Path | None, _help("this node's certificate, with its advertised address in it")
    ] = None
    raft_tls_key: Annotated[Path | None, _help("private key of that certificate")] = None
    name: Annotated[str, _help("the node's name in logs and pages; default: advertise")] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _help("the least severe level that is logged")
    ] = "info"
    fsync: Annotated[
        bool, _help("force every entry to disk before answering; off only for benchmarks")
    ] = True
    heartbeat_ms: Annotated[Milliseconds, _help("pause between the leader's heartbeats")] = 50
    election_min_ms: Annotated[
        Milliseconds, _help("shortest silence of the leader that starts an election")
    ] = 300
    election_max_ms: Annotated[
        Milliseconds, _help("longest silence of the leader that starts an election")
    ] = 600
    snapshot_journal_mb: Annotated[
        int, Meta(ge=1, le=1 << 20), _help("journal growth in MiB that triggers a snapshot")
    ] = 64
    payload_max_bytes: Annotated[
        int, Meta(ge=1, le=64 << 20), _help("largest payload of one job")
    ] = 256 << 10
    request_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 30), _help("largest request body")] = (
        8 << 20
    )
    output_max_bytes: Annotated[
        int, Meta(ge=0, le=64 << 20), _help("largest output kept of one job")
    ] = 64 << 10
    queue_jobs_max: Annotated[
        int, Meta(ge=1), _help("pending jobs per queue; above this submissions get 429")
    ] = 5_000_000
    worker_ttl_seconds: Annotated[
        float, Meta(ge=0.1, le=3600), _help("silence after which a worker counts as lost")
    ] = 10.0
    worker_reconnect_grace_seconds: Annotated[
        float, Meta(ge=0, le=3600), _help("time to reconnect after a closed connection")
    ] = 2.0
    idempotency_ttl_seconds: Annotated[
        float, Meta(ge=1, le=LONG_SECONDS), _help("how long an Idempotency-Key is remembered")
    ] = 86_400.0
    dead_letters_max: Annotated[
        int, Meta(ge=0), _help("failed jobs kept for replay; the oldest leave first")
    ] = 100_000
    clock_jump_seconds: Annotated[
        float,
        Meta(ge=0.5, le=86_400),
        _help("a wall clock that jumps further, or is further off a majority's, is not followed"),
    ] = 10.0
    drain_seconds: Annotated[
        float, Meta(ge=0, le=3600), _help("time that a stopping node gives requests in flight")
    ] = 5.0
    loop_stall_warn_ms: Annotated[
        int,
        Meta(ge=0, le=3_600_000),
        _help("a node that stands still for longer logs where; 0: nobody watches"),
    ] = 500
    loop_stall_exit_seconds: Annotated[
        float,
        Meta(ge=0, le=LONG_SECONDS),
        _help("a node that stands still for longer ends itself, to be started anew; 0: never"),
    ] = 30.0
    memory_limit_mb: Annotated[
        int,
        Meta(ge=0, le=1 << 30),
        _help("at 90 % of so many MiB new work is refused; 0: the container's limit, if any"),
    ] = 0
    connections_expected: Annotated[
        int,
        Meta(ge=1, le=10_000_000),
        _help("workers and clients at the same time; warns if files may be too few"),
    ] = 1_000
    history_retention_days: Annotated[
        int, Meta(ge=0, le=36_500), _help("how long finished jobs are kept; 0: forever")
    ] = 30
    history_fetch_mb_per_second: Annotated[
        float,
        Meta(ge=0, le=10_000),
        _help("MiB of finished jobs fetched from other nodes while some are lacking; 0: none are"),
    ] = 4.0
    backup_folder: Annotated[
        Path | None, _help("folder for backups, the same on all nodes; without it there are none")
    ] = None
    backup_every_seconds: Annotated[
        float, Meta(ge=1, le=LONG_SECONDS), _help("time between two whole backups")
    ] = 86_400.0
    backup_keep: Annotated[
        int, Meta(ge=1, le=100_000), _help("whole backups that stay; older ones are removed")
    ] = 7
    backup_history: Annotated[bool, _help("put finished jobs into whole backups, too")] = False
    backup_log: Annotated[
        bool, _help("keep the log beside the backups, for a restore to any moment")
    ] = True
    backup_store: Annotated[
        str, _help("address of a second place for backups, e.g. s3://bucket/quorate; none: empty")
    ] = ""
    backup_store_seconds: Annotated[
        float, Meta(ge=1, le=LONG_SECONDS), _help("how often what is new is sent there")
    ] = 60.0
    feature_level_max: Annotated[
        int, Meta(ge=0, le=10_000), _help("the cluster is not raised above it; 0: no bound")
    ] = 0
    feature_level_delay_seconds: Annotated[
        float,
        Meta(ge=0, le=LONG_SECONDS),
        _help("from when all nodes know a feature level until it is used: the way back is open"),
    ] = 3600.0
    job_timeout_seconds: Annotated[
        float,
        Meta(ge=0.001, le=LONG_SECONDS),
        _help("execution time limit of a job that names none"),
    ] = 3600.0

    def __post_init__(self) -> None:
        fill = msgspec.structs.force_setattr
        fill(self, "advertise", self.advertise or self.listen)
        fill(self, "advertise_http", self.advertise_http or self.http)
        fill(self, "name", self.name or self.advertise)
        for key in ("listen", "advertise", "http", "advertise_http"):
            parse_address(getattr(self, key), key)
        for peer in self.peers:
            parse_address(peer, "peers")
        this_node = (self.advertise, self.listen)
        fill(self, "peers", tuple(p for p in dict.fromkeys(self.peers) if p not in this_node))
        _check_tls(self)
        _check_store(self)
        _check_reachability(self)
        _check_numbers(self)

    @classmethod
    def load(cls, argv: Sequence[str], environ: Mapping[str, str]) -> Self:
        """Merges all layers; `argv` without the program's name. `--help` prints and exits 0.

        Raises SettingsError for anything that is not understood.
        """
        return cls(**Layers(cls).merged(argv, environ))

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Defaults and one file, for embedding. Relative paths start at the working directory.

        Raises SettingsError.
        """
        return cls(**Layers(cls).of_toml(Path(path)))

    @property
    def raft_tls(self) -> tuple[Path, Path, Path] | None:
        """Authority, certificate and key, or None without TLS between nodes."""
        if self.raft_tls_ca is None or self.raft_tls_cert is None or self.raft_tls_key is None:
            return None
        return self.raft_tls_ca, self.raft_tls_cert, self.raft_tls_key

    @property
    def node_count(self) -> int:
        """Nodes of the cluster, with this one."""
        return len(self.peers) + 1

    def warnings(self) -> list[str]:
        """What works but is hardly meant; one sentence each, for the log."""
        found = []
        if self.node_count % 2 == 0 and not self.join:
            found.append(
                f"{self.node_count} nodes survive no more failures than {self.node_count - 1}: "
                "add or remove one"
            )
        if not self.fsync:
            found.append(
                "fsync is off: a power failure can lose committed jobs, on every node at once"
            )
        if self.cluster_secret is not None and len(self.cluster_secret) < SECRET_CHARACTERS_MIN:
            found.append(
                f"cluster_secret can be guessed: use at least {SECRET_CHARACTERS_MIN} characters"
            )
        remote = [peer for peer in self.peers if not is_loopback(peer)]
        if remote and is_loopback(self.advertise):
            found.append(
                f"advertise = {self.advertise!r} is loopback, so {remote[0]} cannot reach this node"
            )
        return found

    def public(self) -> dict[str, object]:
        """All settings for pages and logs: without the secrets."""
        values = msgspec.structs.asdict(self)
        values |= {key: str(value) for key, value in values.items() if isinstance(value, Path)}
        return values | dict.fromkeys(self._secrets(), HIDDEN)

    def without_secrets(self, text: str) -> str:
        """A text of which nobody knows what went into it, fit to be shown."""
        for secret in self._secrets().values():
            text = text.replace(secret, HIDDEN)
        return text

    def _secrets(self) -> dict[str, str]:
        """Those that are set."""
        names = [info.name for info in msgspec.structs.fields(type(self)) if is_secret(info)]
        return {name: value for name in names if (value := getattr(self, name))}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{k}={v!r}' for k, v in self.public().items())})"


def _check_tls(settings: Settings) -> None:
    """All three files or none: half of it would be taken for the whole."""
    keys = ("raft_tls_ca", "raft_tls_cert", "raft_tls_key")
    missing = [key for key in keys if getattr(settings, key) is None]
    if missing and len(missing) < len(keys):
        given = next(key for key in keys if key not in missing)
        raise SettingsError(
            f"{given} is set, but not {' and '.join(missing)}: TLS between nodes needs all three"
        )


def _check_store(settings: Settings) -> None:
    store = settings.backup_store
    if store and "://" not in store:
        raise SettingsError(
            f"backup_store: {store!r} is no address; write e.g. s3://bucket/quorate, or "
            "file:///mnt/backups for a folder"
        )
    if store and settings.backup_folder is None:
        raise SettingsError(
            "backup_store: needs backup_folder, a folder of the node's own that backups go through"
        )


def _check_reachability(settings: Settings) -> None:
    is_protected = settings.cluster_secret is not None or settings.raft_tls is not None
    for key in ("listen", "http"):
        if not is_protected and not is_loopback(getattr(settings, key)):
            raise SettingsError(
                f"{key} = {getattr(settings, key)!r} can be reached from other machines: "
                f"needs --cluster-secret (or {variable_of('cluster_secret')}), or --raft-tls-ca, "
                "--raft-tls-cert and --raft-tls-key, or loopback, for example 127.0.0.1"
            )
    if settings.cluster_secret == "":
        raise SettingsError("cluster_secret is empty: write a secret or leave it out")
    for key in ("advertise", "advertise_http"):
        value = getattr(settings, key)
        if settings.peers and parse_address(value, key)[0] in ("0.0.0.0", "::"):
            raise SettingsError(
                f"{key} = {value!r} tells others no address: set {flag_of(key)} to the host:port "
                "under which they reach this node"
            )
    if settings.join and not settings.peers:
        raise SettingsError("join is set but peers is empty: name members of the running cluster")
    if settings.listen == settings.http:
        raise SettingsError(
            f"listen and http are both {settings.http!r}: give them different ports"
        )


def _check_numbers(settings: Settings) -> None:
    if settings.election_min_ms <= 3 * settings.heartbeat_ms:
        raise SettingsError(
            f"election_min_ms = {settings.election_min_ms} must be more than three heartbeats "
            f"({3 * settings.heartbeat_ms} ms): raise it or lower heartbeat_ms"
        )
    if settings.election_max_ms <= settings.election_min_ms:
        raise SettingsError(
            f"election_max_ms = {settings.election_max_ms} must be more than election_min_ms "
            f"({settings.election_min_ms}): raise it, twice as much is usual"
        )
    if settings.payload_max_bytes > settings.request_max_bytes:
        raise SettingsError(
            f"payload_max_bytes = {settings.payload_max_bytes} does not fit into request_max_bytes "
            f"({settings.request_max_bytes}): raise that or lower this"
        )
