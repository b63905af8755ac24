"""Shard statements that contradict each other.

Honest producers of one (chain, epoch, shard, num_parts) write the same statement, with one exception: a producer without a state header
leaves it out. Any other difference proves that one of them is wrong; both envelopes are the evidence. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import combinations

from pipelines.trust.signatures import verified_signers
from schemas.published.dsse import Envelope
from schemas.published.public_key import PublicKey
from schemas.published.shard_statement import ShardStatement


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two statements of one shard that can't both be true."""

    left_sha256: str
    """Of the payload."""
    right_sha256: str
    fields: tuple[str, ...]
    """Fields that differ; a part's as ``parts[IDX]``."""
    two_faced: tuple[PublicKey, ...]
    """Pinned keys that have signed both."""


def differing_fields(left: ShardStatement, right: ShardStatement) -> tuple[str, ...]:
    """Return what two statements of one (chain, epoch, shard, num_parts) contradict each other in; empty for statements of others."""
    if _subject_of(left) != _subject_of(right):
        return ()
    differing = [
        field.name
        for field in fields(ShardStatement)
        if field.name not in ("parts", "header_sha256") and getattr(left, field.name) != getattr(right, field.name)
    ]
    if None not in (left.header_sha256, right.header_sha256) and left.header_sha256 != right.header_sha256:
        differing.append("header_sha256")
    pairs = zip(left.parts, right.parts, strict=True)
    return (*differing, *(f"parts[{ours.part_id}]" for ours, theirs in pairs if ours != theirs))


def find_contradictions(envelopes: Sequence[Envelope], keys: Iterable[PublicKey], where: str) -> tuple[Contradiction, ...]:
    """Compare every statement with every other.

    Args:
        envelopes: of shard statements; signatures of keys that are not pinned don't count.
    Raises:
        ManifestError: a payload is no shard statement.
    """
    pinned = tuple(keys)
    unique = {envelope.payload_sha256: ShardStatement.from_payload(envelope.payload, where) for envelope in envelopes}
    signers: dict[str, set[PublicKey]] = {sha256: set() for sha256 in unique}
    for envelope in envelopes:
        signers[envelope.payload_sha256] |= verified_signers(envelope, pinned)
    found = []
    for left, right in combinations(sorted(unique), 2):
        differing = differing_fields(unique[left], unique[right])
        if differing:
            found.append(Contradiction(left, right, differing, tuple(sorted(signers[left] & signers[right]))))
    return tuple(found)


def _subject_of(statement: ShardStatement) -> tuple[object, ...]:
    # The epoch's height follows from its id, and the shard's version from the layout: a difference there is a contradiction.
    return statement.chain_id, statement.epoch_id, statement.shard_id, statement.num_parts
