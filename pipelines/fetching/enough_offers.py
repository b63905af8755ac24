"""When what some sources say of a document is enough to go on, so that nobody waits for those that fail. It decides nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.trust.chain import prove_blocks
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import verified_signers
from schemas.errors import ManifestError
from schemas.published.in_toto import parse_statement_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.public_key import PublicKey


@dataclass(slots=True)
class EnoughForManifest:
    """One manifest of the epoch that a pinned key has signed; without pinned keys one that leads to the trusted block, where there is one."""

    policy: TrustPolicy
    layout: EpochLayout

    def __call__(self, data: bytes) -> bool:
        """Tell of one more offer."""
        where = self.layout.manifest
        try:
            envelope = parse_statement_envelope(data, where)
            if self.policy.keys is not None and not verified_signers(envelope, self.policy.keys.keys):
                return False
            manifest = Manifest.from_payload(envelope.payload, where)
            if self.policy.trusted_block is not None:
                prove_blocks(self.policy.trusted_block, manifest, where)
        except ManifestError:
            return False
        return manifest.layout == self.layout


@dataclass(slots=True)
class EnoughForStatement:
    """The statement that a manifest names, with as many signatures of pinned keys as are asked for."""

    policy: TrustPolicy
    listed: ManifestShard
    _signers: set[PublicKey] = field(default_factory=set)

    def __call__(self, data: bytes) -> bool:
        """Tell of one more offer."""
        try:
            envelope = parse_statement_envelope(data, "statement")
        except ManifestError:
            return False
        if envelope.payload_sha256 != self.listed.statement_sha256:
            return False
        rule = self.policy.keys
        if rule is None:
            return True
        self._signers |= verified_signers(envelope, rule.keys)
        return len(self._signers) >= rule.threshold
