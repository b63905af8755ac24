"""Judges a revision of a manifest that was replaced by a later one: kept as history, and followed by nobody."""

from __future__ import annotations

from pipelines.trust.chain import prove_blocks
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import verified_signers
from schemas.errors import ManifestError, SignatureError
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout


def judge_past_revision(policy: TrustPolicy, data: bytes, layout: EpochLayout, revision: int) -> bytes:
    """Return the envelope of a past revision. It may have expired.

    Raises:
        ManifestError: it is another epoch's or revision's, no pinned key has signed it, or its block headers do not lead to the trusted block.
    """
    where = layout.manifest_revision(revision)
    envelope = parse_envelope(data, where)
    if policy.keys is not None and not verified_signers(envelope, policy.keys.keys):
        raise SignatureError(problem="none of the pinned keys has signed it", where=where)
    manifest = Manifest.of_epoch(layout, envelope.payload, where)
    if manifest.revision != revision:
        raise ManifestError(problem=f"it is revision {manifest.revision}", where=where)
    if policy.trusted_block is not None:
        prove_blocks(policy.trusted_block, manifest, where)
    return envelope.to_bytes()
