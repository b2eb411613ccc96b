"""A second place for what lies on the shelf: an object store, or whatever else fsspec reaches
(`s3://`, `gs://`, `az://`, `sftp://`, `file://`).

    <address>/<cluster id>/full-<index>-<created ms>.tar
    <address>/<cluster id>/log-<first index>-<last index>-<life of a node>.kept
    <address>/<cluster id>/life.json

Objects are written whole and never changed. One that was cut off has another size than its file and
is sent again; a reader notices it by its checksums.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .bundle import BackupError
from .life import MARK
from .logs import NAME as LOG
from .logs import last_index
from .shelf import FULL

NO_LOG = float("inf")
EXTRA = "pip install 'quorate[stores]'"


def is_address(text: str) -> bool:
    """Rather than the path of a file."""
    return "://" in text


class Store:
    """One folder of objects; everything in it blocks."""

    def __init__(self, address: str) -> None:
        """Raises BackupError when the address or what it takes to reach it is not known."""
        if importlib.util.find_spec("fsspec") is None:
            raise BackupError(f"{address}: an object store needs fsspec: {EXTRA}")
        import fsspec

        try:
            self._files, self._root = fsspec.url_to_fs(address)
        except (ImportError, ValueError) as error:  # it says which package is missing
            raise BackupError(f"{address} cannot be reached: {error}") from error
        self.address = address

    def sizes(self) -> dict[str, int]:
        """Of all objects, by name. Raises what the library raises."""
        self._files.invalidate_cache()
        try:
            found: list[dict[str, Any]] = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {one["name"].rsplit("/", 1)[-1]: one["size"] or 0 for one in found}

    @property
    def where(self) -> str:
        return self.address

    def mark(self) -> bytes | None:
        """What whoever began it left here."""
        self._files.invalidate_cache()
        try:
            found: bytes = self._files.cat_file(f"{self._root}/{MARK}")
        except FileNotFoundError:
            return None
        return found

    def put_mark(self, data: bytes) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{MARK}", data)

    def reach(self, *, exact: bool) -> int:
        """The highest log index of which there is anything, 0 if there is nothing. The names of
        objects are always exact."""
        names = self.sizes()
        fulls = [_full_index(name) for name in names if FULL.fullmatch(name)]
        logs = [int(_last(name)) for name in names if _last(name) != NO_LOG]
        return max(fulls + logs, default=0)

    def put(self, path: Path, name: str) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        self._files.put_file(str(path), f"{self._root}/{name}")

    def get(self, name: str, folder: Path) -> Path:
        self._files.get_file(f"{self._root}/{name}", str(folder / name))
        return folder / name

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._files.rm_file(f"{self._root}/{name}")


class Copies:
    """Brings the files of a shelf's folder into a store, and takes out what nobody needs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._names: dict[tuple[Path, int], str] = {}  # of log files, by their size
        self.sent_total = 0
        self.is_listed = False  # `newest` is what is there
        self.newest = (0, 0)  # index and moment (ms) of the newest whole backup in the store

    def send(self, folder: Path) -> None:
        """Whatever the folder has and the store has not. A log file should be at its end; one that
        is not is sent as it is, and once more when it has grown. Raises what the library raises."""
        there = self.store.sizes()
        self._note_newest(there)
        for path, name, size in self._files(folder):
            if there.get(name) != size:
                self.store.put(path, name)
                self.sent_total += 1
                there[name] = size
        self._note_newest(there)

    def _note_newest(self, names: Iterable[str]) -> None:
        matches = filter(None, map(FULL.fullmatch, names))
        self.is_listed = True
        self.newest = max(((int(match[1]), int(match[2])) for match in matches), default=(0, 0))

    def prune(self, folder: Path, keep: int, *, leads: bool) -> None:
        """All but the newest `keep` whole backups goes, and the log that only older ones need: out
        of the folder, and by the leader out of the store. Raises what the library raises."""
        names = self.store.sizes()
        fulls = sorted(name for name in names if FULL.fullmatch(name))
        if len(fulls) < keep:
            return
        oldest = fulls[-keep]
        if leads:
            self.store.remove([name for name in names if _is_old(name, oldest)])
        for path, name, _ in self._files(folder):
            if _is_old(name, oldest):
                path.unlink(missing_ok=True)
        self._names = {key: name for key, name in self._names.items() if key[0].exists()}

    def _files(self, folder: Path) -> list[tuple[Path, str, int]]:
        """(path, its name in the store, size) of what belongs there."""
        if not folder.is_dir():
            return []
        found = ((path, path.stat().st_size) for path in sorted(folder.iterdir()))
        named = ((path, self._name(path, size), size) for path, size in found)
        return [each for each in named if each[1]]

    def _name(self, path: Path, size: int) -> str:
        if FULL.fullmatch(path.name):
            return path.name
        match = LOG.fullmatch(path.name)
        if match is None:
            return ""
        key = (path, size)
        if key not in self._names:
            last = last_index(path)
            self._names[key] = f"log-{match[1]}-{last:020d}-{match[2]}.kept" if last else ""
        return self._names[key]


def _is_old(name: str, oldest: str) -> bool:
    """A whole backup before the oldest one that stays, or log that ends no later than it."""
    if FULL.fullmatch(name):
        return name < oldest
    return _last(name) <= _full_index(oldest)


def _full_index(name: str) -> int:
    match = FULL.fullmatch(name)
    assert match is not None
    return int(match[1])


def _last(name: str) -> float:
    """The last entry in a log object; what is none is never old."""
    parts = name.split("-")
    return int(parts[2]) if LOG.fullmatch(name) and len(parts) == 4 else NO_LOG


def fetched(text: str, folder: Path) -> Path:
    """A whole backup as a file: the path itself, or what lies at the address. BackupError."""
    if not is_address(text):
        return Path(text)
    root, _, name = text.rpartition("/")
    try:
        return Store(root).get(name, folder)
    except BackupError:
        raise
    except Exception as error:  # of whatever library stands behind the address
        raise BackupError(f"{text} cannot be read: {error!r}") from error


def fetched_log(text: str, folder: Path, after: int) -> Path:
    """A folder with the kept log behind an index. BackupError."""
    if not is_address(text):
        return Path(text)
    try:
        store = Store(text)
        for name in store.sizes():
            if LOG.fullmatch(name) and _last(name) > after:
                store.get(name, folder)
    except BackupError:
        raise
    except Exception as error:
        raise BackupError(f"{text} cannot be read: {error!r}") from error
    return folder


def listed(text: str) -> list[dict[str, int | str]]:
    """The whole backups in a folder or at an address, oldest first. BackupError."""
    try:
        if is_address(text):
            sizes = Store(text).sizes()
        else:
            sizes = {path.name: path.stat().st_size for path in Path(text).iterdir()}
    except BackupError:
        raise
    except Exception as error:
        raise BackupError(f"{text} cannot be read: {error}") from error
    found = ((FULL.fullmatch(name), name) for name in sorted(sizes))
    return [
        {
            "at": f"{text.rstrip('/')}/{name}",
            "index": int(match[1]),
            "created_ms": int(match[2]),
            "bytes": sizes[name],
        }
        for match, name in found
        if match
    ]
