"""Persist, then speak: holds back what promises something until the disk has it.

A held message belongs to the connection it was said on; if that is gone, so is the message. An
answer to a leader whose term is over is dropped as well: the next leader may have removed what it
is about.
"""

from __future__ import annotations

from collections import deque

from .guards import Guards
from .journal import Journal
from .mesh import Network
from .wire import EMPTY, AppendReply, Blob, Message


class Outbox:
    def __init__(self, network: Network, journal: Journal, guards: Guards) -> None:
        self._network = network
        self._journal = journal
        self._guards = guards
        self._held: deque[tuple[int, str, int, Message]] = deque()

    def send(self, peer: str, message: Message, blob: Blob = EMPTY) -> bool:
        """For what promises nothing: appends, questions, heartbeats."""
        return self._network.send(peer, message, blob)

    def say(self, peer: str, message: Message) -> None:
        """For promises: leaves when everything journaled so far is durable."""
        journal = self._journal
        if journal.is_durable or not self._guards.on("persist_then_speak"):
            self._network.send(peer, message)
            return
        self._held.append((journal.generation, peer, self._network.epoch(peer), message))

    def release(self) -> None:
        """Called when the disk has finished something."""
        while self._held and self._held[0][0] <= self._journal.durable_generation:
            _, peer, epoch, message = self._held.popleft()
            is_same = epoch != 0 and epoch == self._network.epoch(peer)
            if isinstance(message, AppendReply) and message.term < self._journal.getCurrentTerm():
                continue
            if is_same or not self._guards.on("outbox_epoch"):
                self._network.send(peer, message)
