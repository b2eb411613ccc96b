"""Who belongs to the cluster, as a value, and the single steps from one such value to the next.

A configuration is an entry of the log and takes effect as soon as it is in a log, committed or not
(Raft thesis 4.1). Each step changes at most one voter, so a majority before it and a majority after
it always share a node. Pure: who may take a step, and when, is decided in `membership.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from .interface import ConsensusStartError, MembershipError

CONFIG = b"\x20"  # first byte of a log entry that holds a configuration
MEMBERS_MAX = 64
REMOVED_KEPT = 64

Standing = Literal["voter", "joining", "learner"]


class Member(msgspec.Struct, frozen=True, array_like=True):
    """`folder` names the data folder a member was first seen with, "" before that.

    A `joining` member becomes a voter once it has caught up; a `learner` never does.
    """

    id: str
    standing: Standing
    folder: str = ""


class Members(msgspec.Struct, frozen=True, array_like=True):
    """One configuration; `epoch` counts the changes. `removed` is (id, folder), newest last."""

    epoch: int
    members: tuple[Member, ...]
    removed: tuple[tuple[str, str], ...] = ()

    def find(self, node_id: str) -> Member | None:
        return next((member for member in self.members if member.id == node_id), None)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(member.id for member in self.members)

    @property
    def voters(self) -> tuple[str, ...]:
        return tuple(member.id for member in self.members if member.standing == "voter")

    def refusal(self, node_id: str, folder: str) -> str:
        """Why a node with this data folder may not speak as that member, or ""."""
        if (node_id, folder) in self.removed:
            return "removed"
        member = self.find(node_id)
        if member is not None and member.folder not in ("", folder):
            return "other_folder"
        return ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Members)


def first_members(ids: Iterable[str]) -> Members:
    """The configuration that all nodes of a new cluster are started with."""
    chosen = tuple(sorted(set(ids)))
    if len(chosen) > MEMBERS_MAX:
        raise ConsensusStartError(f"{len(chosen)} members; at most {MEMBERS_MAX} are possible")
    return Members(0, tuple(Member(node_id, "voter") for node_id in chosen))


NOBODY = Members(0, ())  # what a node that waits to be added knows


def encode_members(members: Members) -> bytes:
    return _encoder.encode(members)


def decode_members(data: bytes) -> Members:
    """ValueError for anything but a sound configuration."""
    try:
        members = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a configuration: {error}") from error
    if list(members.ids) != sorted(set(members.ids)) or len(members.ids) > MEMBERS_MAX:
        raise ValueError("members are not sorted, not unique or too many")
    return members


def config_entry(members: Members) -> bytes:
    return CONFIG + encode_members(members)


def config_of(command: bytes) -> Members | None:
    """The configuration in a log entry, None in any other entry; ValueError if it is unsound."""
    return decode_members(command[1:]) if command[:1] == CONFIG else None


# Steps ------------------------------------------------------------------------------------------


def adding(old: Members, node_id: str, standing: Standing) -> Members:
    if old.find(node_id) is not None:
        raise MembershipError("already_member", f"{node_id} is a member already")
    if len(old.members) >= MEMBERS_MAX:
        raise MembershipError("too_many", f"a cluster has at most {MEMBERS_MAX} members")
    return _next(old, (*old.members, Member(node_id, standing)))


def removing(old: Members, node_id: str) -> Members:
    member = old.find(node_id)
    if member is None:
        known = ", ".join(old.ids)
        raise MembershipError("not_a_member", f"{node_id} is not a member; there are {known}")
    if old.voters == (node_id,):
        raise MembershipError("last_voter", f"{node_id} is the only voter; nobody would be left")
    removed = old.removed
    if member.folder:
        removed = (*removed, (member.id, member.folder))[-REMOVED_KEPT:]
    rest = tuple(other for other in old.members if other.id != node_id)
    return Members(old.epoch + 1, rest, removed)


def promoting(old: Members, node_id: str) -> Members:
    """A member that has caught up gets its vote."""
    return _replacing(old, {node_id: ("voter", None)})


def binding(old: Members, folders: Mapping[str, str]) -> Members:
    """Members are known by their data folders from now on; nobody's vote changes."""
    return _replacing(old, {node_id: (None, folder) for node_id, folder in folders.items()})


def is_single_step(old: Members, new: Members) -> bool:
    """Any two majorities of the two share a node."""
    return len(set(old.voters) ^ set(new.voters)) <= 1 and new.epoch == old.epoch + 1


def _replacing(old: Members, changes: Mapping[str, tuple[Standing | None, str | None]]) -> Members:
    changed = []
    for member in old.members:
        standing, folder = changes.get(member.id, (None, None))
        changed.append(
            Member(
                member.id, standing or member.standing, member.folder if folder is None else folder
            )
        )
    return _next(old, changed)


def _next(old: Members, members: Iterable[Member]) -> Members:
    ordered = tuple(sorted(members, key=lambda member: member.id))
    return Members(old.epoch + 1, ordered, old.removed)
