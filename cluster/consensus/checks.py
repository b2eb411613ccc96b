"""Whether the numbers of a configuration fit together, before anything is touched."""

from __future__ import annotations

from .interface import ConsensusConfig, ConsensusStartError

ENTRY_BYTES_LIMIT = 16 << 20  # well below the frame limit and the engine's own splitting


def check_settings(config: ConsensusConfig) -> None:
    """ConsensusStartError unless times and sizes fit together."""
    if not 0 < config.entry_bytes_max <= ENTRY_BYTES_LIMIT:
        raise ConsensusStartError(
            f"entry_bytes_max={config.entry_bytes_max} must be between 1 and {ENTRY_BYTES_LIMIT}"
        )
    if not 0 < config.heartbeat_ms * 3 < config.election_min_ms < config.election_max_ms:
        raise ConsensusStartError(
            f"heartbeat_ms={config.heartbeat_ms}, election_min_ms={config.election_min_ms} and "
            f"election_max_ms={config.election_max_ms} do not fit: three heartbeats must be "
            "shorter than the shortest election timeout, and that one shorter than the longest"
        )
