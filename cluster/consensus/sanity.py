"""Messages that contradict themselves: no healthy member sends them, so nothing acts on them.

Types and ranges are the decoder's business. Members are trusted not to lie (Raft's assumption);
this only keeps one slip in one of them from doing harm that cannot be undone, above all a term so
high that no election could ever follow it.
"""

from __future__ import annotations

from .wire import Append, Message, PreVote, RequestVote, SnapshotChunk

# Several elections per second for longer than a node can have been away; yet a slip may repeat
# this a billion times before terms run out.
TERM_LEAP_MAX = 1 << 32


def absurdity_of(message: Message, blob_bytes: int, own_term: int) -> str:
    """A counter's name, or "" for a message that can be meant."""
    term = getattr(message, "term", 0)
    if term > own_term + TERM_LEAP_MAX:
        return "absurd_term"
    match message:
        case Append():
            absurd = message.prev_term > term or bool(blob_bytes) != bool(message.count)
        case RequestVote() | PreVote():
            absurd = message.last_term > term
        case SnapshotChunk():
            absurd = message.index_term > term or message.offset + blob_bytes > message.size
        case _:
            absurd = False
    return "absurd_message" if absurd else ""
