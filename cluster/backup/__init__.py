"""Backups: the whole state at one log index in one file, and new clusters that begin with it."""

from .bundle import BackupError, Bundle, open_bundle
from .manifest import Manifest

__all__ = ["BackupError", "Bundle", "Manifest", "open_bundle"]
