"""A scenario is a short file: which cluster, how much load, which faults how often and how long."""

from __future__ import annotations

import tomllib
from pathlib import Path

from msgspec import Struct, convert, field

FOLDER = Path(__file__).with_name("scenarios")


class ClusterPart(Struct, forbid_unknown_fields=True):
    """`wires`: nodes talk through proxies that can cut; `segment`: each has a network namespace,
    and cables that can be pulled; `clock_bound_s`: the jump of a clock that is believed; `disk_mb`:
    all data is on a file system of that size, which can be filled; `latecomers`: so many workers
    that report what they have long lost (see latecomer.py)."""

    nodes: int = 3
    workers: int = 2
    slots: int = 16
    wires: bool = False
    segment: bool = False
    clock_bound_s: float = 0.0
    disk_mb: int = 0
    latecomers: int = 0


class LoadPart(Struct, forbid_unknown_fields=True):
    """`think_s`: a client's longest pause between two requests."""

    clients: int = 3
    registers: int = 2
    think_s: float = 0.1


class FaultPart(Struct, forbid_unknown_fields=True):
    """`weight` beside the others; `seconds`: shortest and longest."""

    name: str
    weight: int = 1
    seconds: tuple[float, float] = (0.1, 1.5)


class Scenario(Struct, forbid_unknown_fields=True):
    about: str
    faults: list[FaultPart]
    calm_s: tuple[float, float] = (0.2, 1.0)  # between two faults
    cluster: ClusterPart = field(default_factory=ClusterPart)
    load: LoadPart = field(default_factory=LoadPart)
    excused: list[str] = field(default_factory=list)  # in alarms of the logs: a fault ordered them
    counted: list[str] = field(default_factory=list)  # errors of consensus, for the same reason
    name: str = ""


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Scenario:
    """Raises ValueError for a name or a file that is not one."""
    if name not in names():
        raise ValueError(f"no scenario {name!r}; there are {', '.join(names())}")
    told = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    return convert({**told, "name": name}, Scenario)
