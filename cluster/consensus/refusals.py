"""Why a connection was refused, in words for the operator; the keys are counters in `dropped`.

Reasons that any stranger can cause at will and that nobody has to act on are not listed: they are
only counted.
"""

from __future__ import annotations

import logging

from .counters import Counters

logger = logging.getLogger("quorate.consensus.mesh")

WORDS = {
    "bad_proof": "it has another cluster secret",
    "other_cluster": "it belongs to another cluster",
    "removed": "it was removed from this cluster",
    "other_folder": "it lost its data folder: remove it from the cluster and add it again",
    "other_protocol": "its release speaks another protocol",
    "wrong_member": "another member answers at its address",
    "this_node_itself": "its address leads back to this node: correct the list of members",
    "same_id_twice": "two running processes claim this id: stop the one that should not be",
    "tls_on_one_side": "only one of the two sides uses TLS: all nodes need raft_tls_* or none",
    "tls_no_certificate": "it showed no certificate",
    "tls_other_authority": "its certificate is not signed by raft_tls_ca",
    "tls_expired": "its certificate has expired",
    "tls_not_yet_valid": "its certificate is not valid yet: compare the clocks",
    "tls_refused_by_peer": "it does not accept the certificate of this node; its log says why",
    "hung_up": "it ended the handshake; its log may say why",
    "tls_failed": "the TLS handshake failed",
    "wrong_certificate": "its certificate is for another node",
}

# What a node is told by a member that knows better, and why it must not go on.
ENDS = {
    "removed": (
        "{} says that this node was removed from the cluster; to add it again, start it with an "
        "empty data folder and --join"
    ),
    "other_folder": (
        "{} knows this node with another data folder: what it has promised is lost; restore that "
        "folder, or remove this node from the cluster and add it again"
    ),
}

# The other side may be right: told so that a leader whom a member doubts can make way.
IN_DOUBT = "folder_in_doubt"
TOLD = frozenset({*ENDS, IN_DOUBT})

OFTEN_HARMLESS = {"hung_up": 8}  # two nodes that dial each other at once, a node that just stops


def report(counters: Counters, reason: str, whom: str) -> None:
    """One line for the 1st, 2nd, 4th, 8th ... time: both sides dial for ever."""
    times = counters.dropped[reason]
    if times < OFTEN_HARMLESS.get(reason, 1):
        return
    if reason in WORDS and times & (times - 1) == 0:
        logger.warning(
            "connection with %s refused: %s (%s, %d)", whom, WORDS[reason], reason, times
        )


def report_known_otherwise(counters: Counters, peer: str) -> None:
    """As often; only who asked knows that this may be the peer's mistake."""
    counters.dropped["known_otherwise"] += 1
    times = counters.dropped["known_otherwise"]
    if times & (times - 1) == 0:
        logger.warning(
            "%s knows this node with another data folder: it is behind, or the lost folder must be "
            "removed from the cluster before this one is added (%d)",
            peer,
            times,
        )
