"""What plans rest on, as text that the log can carry: releases, and versions of calendars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from cluster.plan import Plan

CALENDARS = "; calendars "


class Basis(NamedTuple):
    """Releases by package, versions by calendar."""

    releases: dict[str, str]
    calendars: dict[str, str]

    @classmethod
    def of(cls, releases: str, calendars: Mapping[str, int]) -> Basis:
        """`releases` as `RELEASES` says them: "tzdata 2026.2, croniter 7.0.0"."""
        return cls(
            _pairs(releases.split(", "), " "),
            {name: str(version) for name, version in calendars.items()},
        )

    @classmethod
    def read(cls, text: str) -> Basis:
        """The inverse of `text`; an empty text knows nothing."""
        releases, _, calendars = text.partition(CALENDARS)
        versions = _pairs(calendars.split(), ":")
        return cls(
            _pairs(releases.split(", "), " "),
            {unquote(name): version for name, version in versions.items()},
        )

    @property
    def text(self) -> str:
        releases = ", ".join(f"{name} {version}" for name, version in self.releases.items())
        calendars = " ".join(
            f"{quote(name, safe='')}:{version}" for name, version in self.calendars.items()
        )
        return f"{releases}{CALENDARS}{calendars}" if calendars else releases


def _pairs(items: list[str], separator: str) -> dict[str, str]:
    parts = [item.rpartition(separator) for item in items]
    return {name: value for name, _, value in parts if name}


class Change(NamedTuple):
    """What differs between two bases."""

    tzdata: bool
    cron: bool
    calendars: frozenset[str]

    @classmethod
    def between(cls, old: Basis, new: Basis) -> Change:
        packages = {name for name in new.releases if old.releases.get(name) != new.releases[name]}
        calendars = (
            name for name in new.calendars if old.calendars.get(name) != new.calendars[name]
        )
        others = bool(packages - {"tzdata"})
        return cls("tzdata" in packages, others, frozenset(calendars))

    @property
    def reason(self) -> str:
        return "tzdata" if self.tzdata or self.cron else "calendar"

    def __bool__(self) -> bool:
        return bool(self.tzdata or self.cron or self.calendars)

    def concerns(self, plan: Plan) -> bool:
        """Whether the plan may name other instants than before."""
        sources = (*plan.triggers, *plan.unless)
        return (
            (self.tzdata and plan.timezone != "UTC")
            or (self.cron and any(source.cron for source in sources))
            or not self.calendars.isdisjoint(plan.calendars)
        )
