"""Which source to ask first for a part: nearcore's rule, weighted by measured throughput. A pure function.

nearcore asks, of the hosts that have a part, the one that was asked least often for it, and among equals the one with the least
SHA-256 over (peer id, shard id, part id): every part has an order of its own, so requests spread evenly without coordination.
Here the hash, read as a number u in [0, 1), becomes -ln(1 - u) / weight. With equal weights that is the same order; with weights a
source comes first with a probability in proportion to its weight (weighted rendezvous hashing).

Source: nearcore chain/network/src/snapshot_hosts/mod.rs, priority_score, PartPriority.
"""

from __future__ import annotations

import hashlib
import math

_HASH_SPACE = float(2**256)


def priority_score(source_id: str, shard_id: int, part_id: int) -> bytes:
    """Return the hash that orders sources for a part; the least comes first."""
    return hashlib.sha256(source_id.encode() + shard_id.to_bytes(8, "little") + part_id.to_bytes(8, "little")).digest()


def weighted_score(score: bytes, weight: float) -> float:
    """Return the score with a weight; the least comes first, and with equal weights the order is that of the hashes.

    Args:
        score: from `priority_score`.
        weight: above 0.
    """
    assert weight > 0
    fraction = int.from_bytes(score, "big") / _HASH_SPACE
    # A fraction so close to 1 that it rounds to it would have no logarithm.
    return -math.log1p(-min(fraction, 1 - 2**-53)) / weight
