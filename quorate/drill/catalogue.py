"""All drills by the name of their command."""

from __future__ import annotations

from .backup import BackupDrill
from .dr import DisasterRecovery
from .failover import Failover
from .script import Script
from .worker_loss import WorkerLoss

SCRIPTS: dict[str, type[Script]] = {
    script.name: script for script in (Failover, WorkerLoss, BackupDrill, DisasterRecovery)
}
