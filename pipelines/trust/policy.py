"""What a reader demands before it believes a manifest, a shard statement and a state header. Decisions only, no I/O.

The rules, in the order in which they are applied (why they are so: ``docs/decisions/0012``):

1. Without pinned keys and without a trusted block nothing is believed, unless the reader said so by name (``insecure``).
2. A manifest is one publisher's word: with pinned keys at least one of them must *stand behind* it. A key stands behind the newest
   revision that it has signed of all that are offered and remembered, unless it has signed two of one revision: that is equivocation,
   and then it stands behind none. What other keys have signed is no evidence against it. Of several acceptable manifests the order in
   `acceptable_manifests` decides; without pinned keys it is the order of the sources. Never an expired one.
3. A shard statement: the one that the manifest names by its digest, and of the manifest's chain, epoch and shard: a genuine statement
   of something else is evidence of nothing. With pinned keys at least the threshold of them has signed its payload, in whatever
   envelopes the signatures came; a key that has signed two contradicting statements does not count. Where the threshold stands behind a
   contradicting one too, a trusted block must decide.
4. With a trusted block: block headers, state header and statement hang together by hash (`pipelines.trust.chain`).
5. Parts validate against the statement's state root. That is not decided here.

Signatures and digests are of a payload's bytes, and are asked for before it is parsed: what no pinned key has signed costs a reader who
pins keys no more than its bytes. Offers are judged one after the other.

A manifest *holds* where all of this does for every shard that is wanted; a reader of several sources tries the acceptable ones in
their order. Only what held is remembered, and only of those who have signed it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pipelines.trust.chain import ProvenBlocks, prove_blocks, prove_statement
from pipelines.trust.equivocation import Contradiction, differing_fields, find_contradictions
from pipelines.trust.freshness import AcceptedManifests, check_not_expired, two_of_one_revision
from pipelines.trust.signatures import TrustRule, agreed_signers, verified_signers, who_signed
from schemas.errors import EquivocationError, InvalidInputError, ManifestError, RollbackError, SignatureError
from schemas.ids import CryptoHash
from schemas.published.dsse import Envelope, parse_envelope
from schemas.published.in_toto import parse_statement_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.public_key import PublicKey
from schemas.published.shard_statement import ShardStatement

STRANGER_RATIO: Final = 2
STRANGER_SPARE_BYTES: Final = 1 << 16
"""A statement that no pinned key has signed is read to see whether it contradicts the believed one, if it has at most so many times its
bytes, and so many more."""


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
    """A manifest that passed rules 1 and 2, and 4 as far as it goes without shards."""

    manifest: Manifest
    envelope: Envelope
    """With the signatures of pinned keys that hold from all offers, and the others of the first."""
    source_ids: tuple[str, ...]
    """Those that offer it, in the reader's order."""
    signers: tuple[PublicKey, ...]
    """Pinned keys that stand behind it."""
    blocks: ProvenBlocks | None
    """With a trusted block."""

    @property
    def source_id(self) -> str:
        """The first that offers it."""
        return self.source_ids[0]


@dataclass(frozen=True, slots=True)
class AcceptableManifests:
    """The manifests of one epoch that may be followed, in the order in which they are tried; at least one."""

    manifests: tuple[BelievedManifest, ...]
    refused: tuple[tuple[str, str], ...]
    """Source and problem of each offer, and of each pinned key's signature on one, that does not count."""

    @property
    def first(self) -> BelievedManifest:
        """The one to follow where there is one place to read from."""
        return self.manifests[0]


@dataclass(frozen=True, slots=True)
class BelievedStatement:
    """A shard statement that passed rule 3, and 4 where a state header was judged."""

    statement: ShardStatement
    envelope: Envelope
    """With the signatures of pinned keys that hold from all offers, and the others of the first."""
    signers: tuple[PublicKey, ...]
    contradictions: tuple[Contradiction, ...]
    refused: tuple[tuple[str, str], ...]


def acceptable_manifests(
    policy: TrustPolicy,
    offers: Iterable[Offer],
    layout: EpochLayout,
    now: datetime,
    accepted: AcceptedManifests,
    *,
    must_be_newest: bool,
) -> AcceptableManifests:
    """Return the manifests that may be followed among those that sources offer.

    Those that list more shards come first, since each that is listed must be proved. Then, with pinned keys, those behind which more keys
    stand, the highest revision, and the lowest payload digest: the order is the same for every reader. Without keys it is the order of
    the sources; so it is from the start where no block is trusted either, since nothing is proved then.

    Args:
        offers: envelopes, in the order of the reader's preference.
        now: with a time zone.
        accepted: what was accepted before.
        must_be_newest: as in `AcceptedManifests.check_not_behind`.
    Raises:
        ManifestError: no offer passes; the error is that of the first. Its subclasses say why.
        EquivocationError: no offer passes, and a pinned key has signed two manifests of one revision.
    """
    offered, refusals, order = _parse_manifests(policy, offers, layout)
    assert order, "somebody offers something"
    acceptable = []
    for one in offered:
        manifest, where = one.manifest, one.source_ids[0]
        signers: tuple[PublicKey, ...] = ()
        try:
            if policy.keys is not None:
                signers, problems = _standing_behind(one, offered, accepted, where, must_be_newest=must_be_newest)
                refusals += [(where, problem) for problem in problems]
            check_not_expired(manifest, now, where)
            blocks = None if policy.trusted_block is None else prove_blocks(policy.trusted_block, manifest, where)
        except ManifestError as error:
            refusals += [(source_id, error) for source_id in one.source_ids]
        else:
            acceptable.append(BelievedManifest(manifest, _merged(one.envelopes, _pinned(policy)), one.source_ids, signers, blocks))
    refusals.sort(key=lambda refusal: order.index(refusal[0]))
    if not acceptable:
        raise next((error for _, error in refusals if isinstance(error, EquivocationError)), refusals[0][1])
    if policy.keys is not None:
        acceptable.sort(key=_rank)
    elif policy.trusted_block is not None:
        acceptable.sort(key=lambda one: -len(one.manifest.shards))
    return AcceptableManifests(tuple(acceptable), tuple((source_id, error.problem) for source_id, error in refusals))


def choose_statement(policy: TrustPolicy, offers: Iterable[Offer], manifest: Manifest, listed: ManifestShard) -> BelievedStatement:
    """Return the statement of a shard that a manifest lists, once enough pinned keys stand behind it.

    Args:
        offers: envelopes of the shard's statement from any number of sources; gone through twice.
    Raises:
        SignatureError: too few pinned keys have signed.
        EquivocationError: too few pinned keys are left, since some have signed statements that contradict each other.
        ManifestError: no offer is the statement that the manifest names, or the statement is of something else; or pinned keys contradict
            each other, and there is no trusted block to decide.
    """
    where = f"statement of shard {listed.shard_id}"
    sorted_offers = _SortedOffers.of(offers, manifest, listed, _pinned(policy), where)
    named, refused = sorted_offers.named, sorted_offers.refused
    envelopes = [*named, *sorted_offers.others]
    if not named:
        raise ManifestError(
            problem="no source has the statement that the manifest names by its sha256",
            where=where,
            remedy="; ".join(f"{source_id}: {problem}" for source_id, problem in refused[:5]),
        )
    contradictions = find_contradictions(envelopes, _pinned(policy), where)
    signers = _statement_signers(policy, envelopes, named, contradictions, where)
    statement = ShardStatement.from_payload(named[0].payload, where)
    _check_same(statement, manifest, listed, where)
    envelope = _merged(named, _pinned(policy))
    strangers = (offer for offer in offers if offer.source_id in sorted_offers.strangers)
    contradictions += tuple(_contradictions_of_strangers(strangers, statement, envelope))
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


@dataclass(frozen=True, slots=True)
class _OfferedManifest:
    """One payload, and all sources that offer it."""

    manifest: Manifest
    payload_sha256: str
    source_ids: tuple[str, ...]
    envelopes: tuple[Envelope, ...]
    signers: frozenset[PublicKey]
    """Pinned keys that have signed it, whether or not they stand behind it; with pinned keys at least one."""


def _parse_manifests(
    policy: TrustPolicy, offers: Iterable[Offer], layout: EpochLayout
) -> tuple[list[_OfferedManifest], list[tuple[str, ManifestError]], list[str]]:
    """Return what is offered by payload, in the order of the first offers; what is no signed manifest of this epoch, by source; all sources.

    With pinned keys nothing is parsed that none of them has signed.
    """
    found: dict[str, tuple[Manifest, list[tuple[str, Envelope]]]] = {}
    unsigned: list[tuple[str, str, Envelope]] = []
    refusals: list[tuple[str, ManifestError]] = []
    order: list[str] = []
    for offer in offers:
        order.append(offer.source_id)
        try:
            envelope = parse_statement_envelope(offer.data, offer.source_id)
            sha256 = envelope.payload_sha256
            if sha256 in found:
                # A payload is parsed and held once, whatever other source has it.
                found[sha256][1].append((offer.source_id, replace(envelope, payload=found[sha256][1][0][1].payload)))
            elif policy.keys is None or verified_signers(envelope, policy.keys.keys):
                found[sha256] = (Manifest.of_epoch(layout, envelope.payload, offer.source_id), [(offer.source_id, envelope)])
            else:
                unsigned.append((offer.source_id, sha256, replace(envelope, payload=b"")))
        except ManifestError as error:
            refusals.append((offer.source_id, error))
    for source_id, sha256, envelope in unsigned:
        if sha256 in found:
            # Another source has the signature.
            found[sha256][1].append((source_id, replace(envelope, payload=found[sha256][1][0][1].payload)))
        else:
            signed = who_signed([envelope], _pinned(policy))
            problem = f"none of the pinned keys has signed the manifest: {signed}"
            refusals.append((source_id, SignatureError(problem=problem, where=source_id, remedy="Check the keys.")))
    offered = []
    for sha256, (manifest, offering) in found.items():
        offering.sort(key=lambda one: order.index(one[0]))
        source_ids, envelopes = (tuple(column) for column in zip(*offering, strict=True))
        offered.append(_OfferedManifest(manifest, sha256, source_ids, envelopes, _signers(envelopes, _pinned(policy))))
    return sorted(offered, key=lambda one: order.index(one.source_ids[0])), refusals, order


def _standing_behind(
    one: _OfferedManifest, offered: Sequence[_OfferedManifest], accepted: AcceptedManifests, where: str, *, must_be_newest: bool
) -> tuple[tuple[PublicKey, ...], list[ManifestError]]:
    """Return the pinned keys that stand behind a manifest, ascending, and why others that have signed it do not.

    Raises:
        EquivocationError, RollbackError: none of those who have signed it stands behind it.
    """
    standing: list[PublicKey] = []
    problems: list[ManifestError] = []
    for key in sorted(one.signers):
        signed = [other for other in offered if key in other.signers]
        try:
            _check_stands_behind(key, one, signed, accepted, where, must_be_newest=must_be_newest)
        except ManifestError as error:
            problems.append(error)
        else:
            standing.append(key)
    if not standing:
        raise next((problem for problem in problems if isinstance(problem, EquivocationError)), problems[0])
    return tuple(standing), problems


def _check_stands_behind(
    key: PublicKey,
    one: _OfferedManifest,
    signed: Sequence[_OfferedManifest],
    accepted: AcceptedManifests,
    where: str,
    *,
    must_be_newest: bool,
) -> None:
    """Check that a key stands behind a manifest.

    Args:
        signed: all that it has signed of those that are offered.
    Raises:
        EquivocationError: it has signed two of one revision.
        RollbackError: it has signed a newer one.
    """
    by_revision: dict[int, str] = {}
    for other in signed:
        accepted.check_same(key, other.manifest, other.payload_sha256, where)
        if by_revision.setdefault(other.manifest.revision, other.payload_sha256) != other.payload_sha256:
            raise two_of_one_revision(key, other.manifest.revision, where)
    accepted.check_not_behind(key, one.manifest, where, must_be_newest=must_be_newest)
    newest = max(by_revision)
    if one.manifest.revision < newest:
        raise RollbackError(
            problem=f"revision {newest} of {key} is offered too, this is {one.manifest.revision}",
            where=where,
            remedy="Somebody serves an old manifest.",
        )


def _rank(one: BelievedManifest) -> tuple[int, int, int, str]:
    return -len(one.manifest.shards), -len(one.signers), -one.manifest.revision, one.envelope.payload_sha256


@dataclass(frozen=True, slots=True)
class _SortedOffers:
    """What sources offer as a statement, by who stands behind it."""

    named: list[Envelope]
    """With the payload that the manifest names."""
    others: list[Envelope]
    """With another one, which a pinned key has signed."""
    strangers: set[str]
    """Sources of anything else: it was not parsed."""
    refused: list[tuple[str, str]]

    @classmethod
    def of(
        cls, offers: Iterable[Offer], manifest: Manifest, listed: ManifestShard, pinned: Sequence[PublicKey], where: str
    ) -> _SortedOffers:
        found = cls([], [], set(), [])
        payloads: dict[str, bytes] = {}
        for offer in offers:
            try:
                envelope = parse_statement_envelope(offer.data, f"{offer.source_id}, {where}")
                sha256 = envelope.payload_sha256
                is_named = sha256 == listed.statement_sha256
                if is_named or verified_signers(envelope, pinned):
                    if sha256 not in payloads:
                        _check_subject(envelope, manifest, listed, f"{offer.source_id}, {where}")
                    # A payload is held once, whatever other source has it.
                    envelope = replace(envelope, payload=payloads.setdefault(sha256, envelope.payload))
                    (found.named if is_named else found.others).append(envelope)
                else:
                    found.strangers.add(offer.source_id)
            except ManifestError as error:
                found.refused.append((offer.source_id, error.problem))
            else:
                if not is_named:
                    found.refused.append((offer.source_id, f"its {where} is not the one that the manifest names"))
        return found


def _contradictions_of_strangers(offers: Iterable[Offer], believed: ShardStatement, envelope: Envelope) -> Iterator[Contradiction]:
    """Compare what no pinned key has signed with the believed statement, one after the other."""
    seen: set[str] = set()
    for offer in offers:
        other = parse_envelope(offer.data, offer.source_id)
        sha256 = other.payload_sha256
        if sha256 in seen or len(other.payload) > STRANGER_RATIO * len(envelope.payload) + STRANGER_SPARE_BYTES:
            continue
        seen.add(sha256)
        with suppress(ManifestError):
            fields = differing_fields(believed, ShardStatement.from_payload(other.payload, offer.source_id))
            if fields:
                left_sha256, right_sha256 = sorted((envelope.payload_sha256, sha256))
                yield Contradiction(left_sha256, right_sha256, fields, ())


def _check_subject(envelope: Envelope, manifest: Manifest, listed: ManifestShard, where: str) -> None:
    """Check that a payload is a statement of the manifest's chain, epoch and shard.

    A genuine one of something else says nothing here, whoever has signed it: any mirror can serve it under this name.
    """
    statement = ShardStatement.from_payload(envelope.payload, where)
    if (statement.chain_id, statement.epoch_id, statement.shard_id) != (manifest.chain_id, manifest.epoch_id, listed.shard_id):
        raise ManifestError(
            problem=f"it is the statement of shard {statement.shard_id} in epoch {statement.epoch_id} of {statement.chain_id}", where=where
        )


def _statement_signers(
    policy: TrustPolicy,
    envelopes: Sequence[Envelope],
    named: Sequence[Envelope],
    contradictions: Sequence[Contradiction],
    where: str,
) -> tuple[PublicKey, ...]:
    """Return who stands behind the statement that is named, once that is enough; nobody where no key is pinned."""
    rule = policy.keys
    if rule is None:
        return ()
    two_faced = {key: found for found in contradictions for key in found.two_faced}
    try:
        signers = agreed_signers(named, rule, where, two_faced)
    except SignatureError:
        if not two_faced:
            raise
        fields = ", ".join(next(iter(two_faced.values())).fields[:5])
        raise EquivocationError(
            problem=f"{', '.join(sorted(map(str, two_faced)))} signed two statements that contradict each other in {fields}",
            where=where,
            remedy="That key lies or is stolen: trust it no longer.",
        ) from None
    against = {
        sha256
        for found in contradictions
        for sha256 in (found.left_sha256, found.right_sha256)
        if named[0].payload_sha256 in (found.left_sha256, found.right_sha256) and sha256 != named[0].payload_sha256
    }
    for sha256 in sorted(against) if policy.trusted_block is None else ():
        others = _signers([envelope for envelope in envelopes if envelope.payload_sha256 == sha256], rule.keys) - set(two_faced)
        if len(others) >= rule.threshold:
            raise ManifestError(
                problem=f"pinned keys contradict each other: {', '.join(sorted(map(str, (*signers, *others))))}",
                where=where,
                remedy="At least one of them lies or is stolen: trust it no longer, ask for more signatures, or trust a block as well.",
            )
    return signers


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


def _pinned(policy: TrustPolicy) -> tuple[PublicKey, ...]:
    return () if policy.keys is None else policy.keys.keys


def _signers(envelopes: Sequence[Envelope], keys: Sequence[PublicKey]) -> frozenset[PublicKey]:
    return frozenset(key for envelope in envelopes for key in verified_signers(envelope, keys))


def _merged(envelopes: Sequence[Envelope], pinned: Sequence[PublicKey]) -> Envelope:
    """Return one envelope with all signatures of pinned keys that hold; another's bad signature must not replace a good one."""
    merged = envelopes[0]
    for envelope in envelopes[1:]:
        holding = {key.key_id for key in verified_signers(envelope, pinned)}
        merged = merged.with_signatures(tuple(found for found in envelope.signatures if found.key_id in holding))
    return merged
