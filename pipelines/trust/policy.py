"""What a reader demands before it believes a manifest, a shard statement and a state header. Decisions only, no I/O.

The rules, in the order in which they are applied:

1. Without pinned keys and without a trusted block nothing is believed, unless the reader said so by name (``insecure``).
2. A manifest: with pinned keys at least one of them has signed it (it is one publisher's word), and of all that are offered the one
   with the highest revision counts; two of one revision, both signed, are equivocation. Without pinned keys the first that is offered
   counts, since a revision that nobody signed says nothing. Never an expired one, never one behind what was accepted before.
3. A shard statement: the one that the manifest names by its digest; with pinned keys at least the threshold of them has signed its
   payload, in whatever envelopes the signatures came. A pinned key that has signed two contradicting statements is an error;
   contradictions of others are reported.
4. With a trusted block: block headers, state header and statement hang together by hash (`pipelines.trust.chain`).
5. Parts validate against the statement's state root. That is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pipelines.trust.chain import ProvenBlocks, prove_blocks, prove_statement
from pipelines.trust.equivocation import Contradiction, find_contradictions
from pipelines.trust.freshness import AcceptedManifests, check_not_expired
from pipelines.trust.signatures import TrustRule, agreed_payload, verified_signers
from schemas.errors import EquivocationError, InvalidInputError, ManifestError, SignatureError
from schemas.ids import CryptoHash
from schemas.published.dsse import Envelope, parse_envelope
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.public_key import PublicKey
from schemas.published.shard_statement import ShardStatement


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """What ties an epoch to something that the reader knows."""

    keys: TrustRule | None = None
    """Publishers' keys, and how many of them must stand behind each shard statement."""
    trusted_block: CryptoHash | None = None
    """Hash of the epoch's sync block or of its parent."""
    insecure: bool = False
    """Neither is there, and the reader said that this is meant."""

    def __post_init__(self) -> None:
        if self.keys is None and self.trusted_block is None and not self.insecure:
            raise InvalidInputError(
                problem="nothing says whom to believe",
                remedy="Give a trusted block's hash (--trusted-block), publishers' keys (--trust-key), or both; --insecure believes anybody.",
            )

    @property
    def description(self) -> str:
        """The policy in a few words for people."""
        parts = []
        if self.trusted_block is not None:
            parts.append(f"tied to block {self.trusted_block}")
        if self.keys is not None:
            parts.append(f"{self.keys.threshold} of {len(self.keys.keys)} pinned keys")
        return " and ".join(parts) or "nothing: insecure"


@dataclass(frozen=True, slots=True)
class Offer:
    """A document as one source has it."""

    source_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class BelievedManifest:
    """A manifest that passed rules 1 and 2."""

    manifest: Manifest
    envelope: Envelope
    source_id: str
    signers: tuple[PublicKey, ...]
    """Pinned keys that have signed it."""
    blocks: ProvenBlocks | None
    """With a trusted block."""
    refused: tuple[tuple[str, str], ...]
    """Source and problem of each offer that did not count."""


@dataclass(frozen=True, slots=True)
class BelievedStatement:
    """A shard statement that passed rule 3, and 4 where a state header was judged."""

    statement: ShardStatement
    envelope: Envelope
    """With the signatures of pinned keys that hold from all offers, and the others of the first."""
    signers: tuple[PublicKey, ...]
    contradictions: tuple[Contradiction, ...]
    refused: tuple[tuple[str, str], ...]


def choose_manifest(
    policy: TrustPolicy,
    offers: Sequence[Offer],
    layout: EpochLayout,
    now: datetime,
    accepted: AcceptedManifests,
    *,
    must_be_newest: bool,
) -> BelievedManifest:
    """Return the manifest to follow among those that sources offer.

    Args:
        offers: envelopes, in the order of the reader's preference.
        now: with a time zone.
        accepted: what was accepted before.
        must_be_newest: as in `AcceptedManifests.check`.
    Raises:
        ManifestError: no offer passes; the error is that of the best one. Its subclasses say why.
        EquivocationError: pinned keys have signed two manifests of one revision.
    """
    assert offers, "somebody offers something"
    believed: list[tuple[Manifest, Envelope, Offer, tuple[PublicKey, ...]]] = []
    refused: list[tuple[str, str]] = []
    first_error: ManifestError | None = None
    for offer in offers:
        try:
            manifest, envelope = _parse_manifest(offer, layout)
            signers = _manifest_signers(policy, envelope, offer.source_id)
            accepted.check(manifest, envelope.payload_sha256, offer.source_id, must_be_newest=must_be_newest)
            check_not_expired(manifest, now, offer.source_id)
        except ManifestError as error:
            first_error = first_error or error
            refused.append((offer.source_id, error.problem))
            if isinstance(error, EquivocationError) and policy.keys is not None:
                raise
        else:
            believed.append((manifest, envelope, offer, signers))
    if not believed:
        assert first_error is not None
        raise first_error
    if policy.keys is not None:
        _refuse_two_of_one_revision([(manifest, envelope) for manifest, envelope, _, _ in believed], layout.manifest)
        believed.sort(key=lambda item: -item[0].revision)
    manifest, envelope, offer, signers = believed[0]
    blocks = None if policy.trusted_block is None else prove_blocks(policy.trusted_block, manifest, offer.source_id)
    return BelievedManifest(manifest, envelope, offer.source_id, signers, blocks, tuple(refused))


def choose_statement(policy: TrustPolicy, offers: Sequence[Offer], manifest: Manifest, listed: ManifestShard) -> BelievedStatement:
    """Return the statement of a shard that a manifest lists, once enough pinned keys stand behind it.

    Args:
        offers: envelopes of the shard's statement from any number of sources.
    Raises:
        SignatureError: too few pinned keys have signed.
        EquivocationError: pinned keys have signed contradicting statements.
        ManifestError: no offer is the statement that the manifest names, or the statement is of something else.
    """
    where = f"statement of shard {listed.shard_id}"
    envelopes: list[Envelope] = []
    refused: list[tuple[str, str]] = []
    for offer in offers:
        try:
            envelope = parse_envelope(offer.data, f"{offer.source_id}, {where}")
            ShardStatement.from_payload(envelope.payload, f"{offer.source_id}, {where}")
        except ManifestError as error:
            refused.append((offer.source_id, error.problem))
            continue
        envelopes.append(envelope)
        if envelope.payload_sha256 != listed.statement_sha256:
            refused.append((offer.source_id, f"its {where} is not the one that the manifest names"))
    named = [envelope for envelope in envelopes if envelope.payload_sha256 == listed.statement_sha256]
    pinned = () if policy.keys is None else policy.keys.keys
    contradictions = find_contradictions(envelopes, pinned, where)
    two_faced = sorted({str(key) for found in contradictions for key in found.two_faced})
    if two_faced:
        raise EquivocationError(
            problem=f"{', '.join(two_faced)} signed two statements that contradict each other in {', '.join(contradictions[0].fields[:5])}",
            where=where,
            remedy="That key lies or is stolen: trust it no longer.",
        )
    signers: tuple[PublicKey, ...] = ()
    if policy.keys is not None:
        agreement = agreed_payload(envelopes, policy.keys, where)
        signers = agreement.signers
        if not named or agreement.payload != named[0].payload:
            raise ManifestError(problem="trusted keys stand behind another statement than the one that the manifest names", where=where)
    if not named:
        raise ManifestError(
            problem="no source has the statement that the manifest names by its sha256",
            where=where,
            remedy="; ".join(f"{source_id}: {problem}" for source_id, problem in refused[:5]),
        )
    statement = ShardStatement.from_payload(named[0].payload, where)
    _check_same(statement, manifest, listed, where)
    envelope = _merged(named, pinned)
    return BelievedStatement(statement, envelope, signers, contradictions, tuple(refused))


def check_state_header(blocks: ProvenBlocks | None, statement: ShardStatement, state_header: bytes | None, where: str) -> None:
    """Apply rule 4 to one shard; nothing to do without a trusted block.

    Raises:
        ManifestError: there is no state header, or it does not prove what the statement says.
    """
    if blocks is None:
        return
    if state_header is None:
        raise ManifestError(
            problem=f"shard {statement.shard_id} is published without a state header, so nothing ties it to the trusted block",
            where=where,
            remedy="Trust publisher keys instead, or fetch from a publisher that has it.",
        )
    prove_statement(blocks, statement, state_header, where)


def _parse_manifest(offer: Offer, layout: EpochLayout) -> tuple[Manifest, Envelope]:
    envelope = parse_envelope(offer.data, offer.source_id)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ManifestError(problem=f"the payload's type is {envelope.payload_type!r}", where=offer.source_id)
    manifest = Manifest.from_payload(envelope.payload, offer.source_id)
    if EpochLayout(manifest.chain_id, manifest.epoch_height, manifest.epoch_id) != layout:
        raise ManifestError(
            problem=f"the manifest is of epoch {manifest.epoch_height} ({manifest.epoch_id}) of {manifest.chain_id}", where=offer.source_id
        )
    return manifest, envelope


def _manifest_signers(policy: TrustPolicy, envelope: Envelope, where: str) -> tuple[PublicKey, ...]:
    if policy.keys is None:
        return ()
    signers = tuple(sorted(verified_signers(envelope, policy.keys.keys)))
    if not signers:
        raise SignatureError(problem="none of the pinned keys has signed the manifest", where=where, remedy="Check the keys.")
    return signers


def _refuse_two_of_one_revision(believed: Sequence[tuple[Manifest, Envelope]], where: str) -> None:
    by_revision: dict[int, str] = {}
    for manifest, envelope in believed:
        if by_revision.setdefault(manifest.revision, envelope.payload_sha256) != envelope.payload_sha256:
            raise EquivocationError(
                problem=f"trusted keys have signed two different manifests of revision {manifest.revision}",
                where=where,
                remedy="A publisher equivocates, or two publish at once.",
            )


def _check_same(statement: ShardStatement, manifest: Manifest, listed: ManifestShard, where: str) -> None:
    epoch = (statement.chain_id, statement.epoch_height, statement.epoch_id, statement.sync_hash)
    shard = (statement.shard_uid, statement.state_root, statement.num_parts)
    if epoch != (manifest.chain_id, manifest.epoch_height, manifest.epoch_id, manifest.sync_hash) or shard != (
        listed.shard_uid,
        listed.state_root,
        listed.num_parts,
    ):
        raise ManifestError(
            problem="the statement is of another epoch, shard, state root or number of parts than the manifest says", where=where
        )
    if listed.header is not None and statement.header_sha256 not in (None, listed.header.sha256):
        raise ManifestError(problem="statement and manifest name different state headers", where=where)


def _merged(named: Sequence[Envelope], pinned: Sequence[PublicKey]) -> Envelope:
    """Return one envelope with all signatures of pinned keys that hold; another's bad signature must not replace a good one."""
    merged = named[0]
    for envelope in named[1:]:
        holding = {key.key_id for key in verified_signers(envelope, pinned)}
        merged = merged.with_signatures(tuple(found for found in envelope.signatures if found.key_id in holding))
    return merged
