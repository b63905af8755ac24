"""Which manifest and which statement are followed, among those that are offered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipelines.producing.publish.signing import Signer, sign_payload
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import (
    AcceptableManifests,
    BelievedManifest,
    Offer,
    TrustPolicy,
    acceptable_manifests,
    check_state_header,
    choose_statement,
)
from pipelines.trust.signatures import TrustRule
from schemas.errors import EquivocationError, InvalidInputError, ManifestError, ManifestExpiredError, RollbackError, SignatureError
from schemas.ids import CryptoHash
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.published.dsse import Envelope
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.manifest import Manifest, MissingKind, MissingObject
from schemas.published.shard_statement import ShardStatement
from tests.support.published_values import make_manifest, make_manifest_shard, make_statement

MANIFEST = make_manifest()
LISTED = MANIFEST.shards[0]
STATEMENT = make_statement()
LAYOUT = MANIFEST.layout
NOW = datetime(2026, 11, 25, tzinfo=UTC)
INSECURE = TrustPolicy(insecure=True)


def trusting(*signers: Signer, threshold: int = 1) -> TrustPolicy:
    """A policy that pins keys."""
    return TrustPolicy(TrustRule(tuple(signer.public_key for signer in signers), threshold))


def offered(source_id: str, document: Manifest | ShardStatement, *signers: Signer) -> Offer:
    """A document as a source has it."""
    return Offer(source_id, sign_payload(document.to_payload(), signers).to_bytes())


def acceptable(policy: TrustPolicy, *offers: Offer, accepted: AcceptedManifests | None = None) -> AcceptableManifests:
    """Judge what is offered now."""
    return acceptable_manifests(policy, offers, LAYOUT, NOW, accepted or AcceptedManifests(MANIFEST.chain_id), must_be_newest=True)


def choose(policy: TrustPolicy, *offers: Offer, accepted: AcceptedManifests | None = None) -> BelievedManifest:
    """Return the manifest that is tried first."""
    return acceptable(policy, *offers, accepted=accepted).first


def test_nothing_is_believed_by_default() -> None:
    """A reader that wants that must say so."""
    with pytest.raises(InvalidInputError, match="--insecure"):
        TrustPolicy()
    assert choose(INSECURE, offered("a", MANIFEST)).signers == ()


def test_of_one_key_s_manifests_the_highest_revision_counts(signers: tuple[Signer, ...]) -> None:
    """Unsigned ones don't, however high."""
    newer, forged = replace(MANIFEST, revision=2), replace(MANIFEST, revision=99)
    offers = offered("old", MANIFEST, signers[0]), offered("new", newer, signers[0]), offered("liar", forged, signers[1])
    found = acceptable(trusting(signers[0]), *offers)
    (chosen,) = found.manifests
    assert (chosen.manifest.revision, chosen.source_id, chosen.signers) == (2, "new", (signers[0].public_key,))
    assert [source_id for source_id, _ in found.refused] == ["old", "liar"]


def test_manifests_of_different_keys_stand_beside_each_other(signers: tuple[Signer, ...]) -> None:
    """By shards, keys and revision; the same whatever the order of sources and keys."""
    whole = replace(MANIFEST, missing=())
    few = replace(
        MANIFEST, missing=(MissingObject(MissingKind.SHARD, "late", 1), *MANIFEST.missing), shards=MANIFEST.shards[:1], revision=9
    )
    offers = [
        offered("few", few, signers[2]),
        offered("low", replace(whole, revision=2), signers[1]),
        offered("high", replace(whole, revision=3), signers[2]),
        offered("both", whole, signers[0], signers[1]),
        offered("one", replace(whole, mirrors=()), signers[3]),
    ]
    # A key stands behind its newest alone, so that the second keeps one of the two that signed "both".
    for order in (offers, offers[::-1]):
        found = acceptable(trusting(*signers[:2], signers[3]), *order)
        assert [one.source_id for one in found.manifests][:1] == ["low"]
        assert {one.source_id: one.signers for one in found.manifests}["both"] == (signers[0].public_key,)
    (first, *_) = acceptable(trusting(signers[0], signers[2]), *offers[2:]).manifests
    assert first.source_id == "high"
    chosen = acceptable(trusting(*signers), offers[0], offers[3], offers[4]).manifests
    assert [one.source_id for one in chosen] == ["both", "one", "few"]


def test_without_keys_the_order_of_the_sources_counts(signers: tuple[Signer, ...]) -> None:
    """A revision that nobody signed says nothing; the others are there for whom the first does not hold."""
    found = acceptable(INSECURE, offered("first", MANIFEST), offered("second", replace(MANIFEST, revision=9)), offered("third", MANIFEST))
    assert [one.source_id for one in found.manifests] == ["first", "second"]


def test_a_damaged_manifest_does_not_hide_a_good_one() -> None:
    """What can't be parsed, and another epoch's, are passed over."""
    other = replace(MANIFEST, epoch_height=MANIFEST.epoch_height + 1)
    found = acceptable(INSECURE, Offer("junk", b"{"), offered("other", other), offered("good", MANIFEST))
    assert found.first.source_id == "good"
    assert [source_id for source_id, _ in found.refused] == ["junk", "other"]


def test_no_signature_of_a_pinned_key_is_an_error(signers: tuple[Signer, ...]) -> None:
    """With the kind that says so."""
    with pytest.raises(SignatureError):
        choose(trusting(signers[0]), offered("a", MANIFEST, signers[1]), offered("b", MANIFEST))


def test_an_expired_manifest_and_a_rollback_are_errors_of_their_own(signers: tuple[Signer, ...]) -> None:
    """So that a program can tell them apart."""
    assert MANIFEST.expires is not None
    old = replace(MANIFEST, created=datetime(2026, 1, 1, tzinfo=UTC), expires=datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(ManifestExpiredError):
        choose(trusting(signers[0]), offered("a", old, signers[0]))
    newer = replace(MANIFEST, revision=7)
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted([signers[0].public_key], newer, "0" * 64)
    with pytest.raises(RollbackError):
        choose(trusting(signers[0]), offered("a", MANIFEST, signers[0]), accepted=memory)


def test_a_fresh_mirror_makes_up_for_one_that_lags(signers: tuple[Signer, ...]) -> None:
    """The manifest that was rolled back is refused, the other followed."""
    newer = replace(MANIFEST, revision=7)
    envelope = sign_payload(newer.to_payload(), signers[:1])
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted([signers[0].public_key], newer, envelope.payload_sha256)
    chosen = choose(trusting(signers[0]), offered("lags", MANIFEST, signers[0]), Offer("fresh", envelope.to_bytes()), accepted=memory)
    assert chosen.source_id == "fresh"


def test_two_manifests_of_one_revision_by_one_key_are_equivocation(signers: tuple[Signer, ...]) -> None:
    """At once in two sources, or one of them remembered; the key is named, and stands behind neither nor behind a later one."""
    other = replace(MANIFEST, mirrors=())
    policy = trusting(*signers[:2])
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted([signers[0].public_key], other, "0" * 64)
    both = [offered("a", MANIFEST, signers[0]), offered("b", other, signers[0])]
    later = offered("c", replace(MANIFEST, revision=2), signers[0])
    for offers, accepted in ((both, None), ([*both, later], None), (both[:1], memory)):
        with pytest.raises(EquivocationError, match=str(signers[0].public_key)):
            choose(policy, *offers, accepted=accepted)
        honest = replace(MANIFEST, trackers=())
        found = acceptable(policy, *offers, offered("honest", honest, *signers[:2]), accepted=accepted)
        (chosen,) = found.manifests
        assert (chosen.manifest, chosen.signers) == (honest, (signers[1].public_key,))
        assert any(str(signers[0].public_key) in problem for _, problem in found.refused)


def test_signatures_of_a_manifest_are_counted_over_all_sources(signers: tuple[Signer, ...]) -> None:
    """The envelope that is kept has both."""
    chosen = choose(trusting(*signers), offered("a", MANIFEST, signers[0]), offered("b", MANIFEST, signers[1]))
    assert set(chosen.signers) == {signers[0].public_key, signers[1].public_key}
    assert len(chosen.envelope.signatures) == 2


def test_signatures_of_a_statement_are_counted_over_all_sources(signers: tuple[Signer, ...]) -> None:
    """Two of three, each from another source; the envelope that is kept has both."""
    policy = trusting(*signers, threshold=2)
    chosen = choose_statement(policy, [offered("a", STATEMENT, signers[0]), offered("b", STATEMENT, signers[2])], MANIFEST, LISTED)
    assert set(chosen.signers) == {signers[0].public_key, signers[2].public_key}
    assert len(chosen.envelope.signatures) == 2
    with pytest.raises(SignatureError):
        choose_statement(policy, [offered("a", STATEMENT, signers[0]), offered("b", STATEMENT, signers[0])], MANIFEST, LISTED)


def test_a_key_that_signed_two_statements_equivocates(signers: tuple[Signer, ...]) -> None:
    """It does not count; where the threshold is not met without it, it is named."""
    other = replace(STATEMENT, state_root=CryptoHash(b"\7" * 32))
    offers = [offered("a", STATEMENT, *signers[:2]), offered("b", other, signers[1])]
    chosen = choose_statement(trusting(*signers), offers, MANIFEST, LISTED)
    assert chosen.signers == (signers[0].public_key,)
    assert chosen.contradictions[0].two_faced == (signers[1].public_key,)
    with pytest.raises(EquivocationError, match=r"(?s)state_root") as caught:
        choose_statement(trusting(*signers, threshold=2), offers, MANIFEST, LISTED)
    assert str(signers[1].public_key) in str(caught.value)


def test_pinned_keys_that_contradict_each_other_are_believed_only_by_a_block(signers: tuple[Signer, ...]) -> None:
    """Neither equivocates; nothing tells who lies, unless the chain does, or more keys stand behind one of them."""
    other = replace(STATEMENT, state_root=CryptoHash(b"\7" * 32))
    offers = [offered("a", STATEMENT, *signers[:2]), offered("b", other, signers[2])]
    with pytest.raises(ManifestError, match="contradict each other") as caught:
        choose_statement(trusting(*signers), offers, MANIFEST, LISTED)
    assert type(caught.value) is ManifestError
    assert choose_statement(trusting(*signers, threshold=2), offers, MANIFEST, LISTED).statement == STATEMENT
    tied = replace(trusting(*signers), trusted_block=CryptoHash(b"\5" * 32))
    assert choose_statement(tied, offers, MANIFEST, LISTED).statement == STATEMENT


@pytest.mark.parametrize("replayed", ["shard", "epoch", "chain", "cut", "header", "type"])
def test_a_genuine_statement_of_something_else_is_evidence_of_nothing(replayed: str, signers: tuple[Signer, ...]) -> None:
    """Any mirror can serve it under this shard's name; it is refused, and neither counted nor held against its signer."""
    other = {
        "shard": make_statement(shard_id=1),
        "epoch": replace(STATEMENT, epoch_id=CryptoHash(b"\6" * 32), epoch_height=8),
        "chain": replace(STATEMENT, chain_id="mainnet"),
        "cut": make_statement(num_parts=2),
        "header": make_statement(header=False),
        "type": replace(STATEMENT, memory_usage=1),
    }[replayed]
    payload_type = "text/plain" if replayed == "type" else PAYLOAD_TYPE
    offers = [Offer("replay", sign_payload(other.to_payload(), signers, payload_type).to_bytes()), offered("true", STATEMENT, *signers)]
    chosen = choose_statement(trusting(*signers, threshold=2), offers, MANIFEST, LISTED)
    assert (chosen.statement, len(chosen.signers), chosen.contradictions) == (STATEMENT, len(signers), ())
    assert [source_id for source_id, _ in chosen.refused] == ["replay"]
    with pytest.raises(ManifestError, match="no source has the statement") as caught:
        choose_statement(trusting(*signers), offers[:1], MANIFEST, LISTED)
    assert not isinstance(caught.value, EquivocationError)


def test_contradictions_of_strangers_are_reported(signers: tuple[Signer, ...]) -> None:
    """And change nothing."""
    other = replace(STATEMENT, memory_usage=STATEMENT.memory_usage + 1)
    chosen = choose_statement(trusting(signers[0]), [offered("b", other), offered("a", STATEMENT, signers[0])], MANIFEST, LISTED)
    assert chosen.statement == STATEMENT
    assert [found.fields for found in chosen.contradictions] == [("memory_usage",)]
    assert [source_id for source_id, _ in chosen.refused] == ["b"]


def test_a_strangers_statement_that_is_much_larger_is_not_read(signers: tuple[Signer, ...]) -> None:
    """What is looked at of what nobody known has signed is in proportion to what somebody has."""
    cuts = [bytes([idx]) * KEY_BYTES_MAX for idx in range(1, 40)]
    bounds = list(zip([b"", *cuts], [*cuts, None], strict=True))
    small, large = make_statement(num_parts=40), []
    for part, (begin, end) in zip(small.parts, bounds, strict=True):
        large.append(replace(part, key_begin=begin, key_end=end))
    other, manifest = replace(small, parts=tuple(large)), replace(MANIFEST, shards=(make_manifest_shard(small),))
    two_of_three = trusting(*signers[:3], threshold=2)
    for policy, theirs, reported in ((trusting(signers[0]), (), 0), (INSECURE, (), 0), (two_of_three, (signers[1],), 1)):
        offers = [offered("b", other, *theirs), offered("a", small, signers[0], signers[2])]
        chosen = choose_statement(policy, offers, manifest, manifest.shards[0])
        assert (len(chosen.contradictions), [source_id for source_id, _ in chosen.refused]) == (reported, ["b"])


def test_a_signature_is_asked_for_before_a_payload_is_read(signers: tuple[Signer, ...]) -> None:
    """So a payload that nobody known has signed is not even known to be no manifest or statement."""
    junk = Offer("a", Envelope(b"no JSON at all", PAYLOAD_TYPE).to_bytes())
    with pytest.raises(SignatureError):
        choose(trusting(signers[0]), junk)
    with pytest.raises(ManifestError, match="not JSON"):
        choose(INSECURE, junk)
    chosen = choose_statement(trusting(signers[0]), [junk, offered("b", STATEMENT, signers[0])], MANIFEST, LISTED)
    assert "JSON" not in dict(chosen.refused)["a"]


def test_an_unsigned_copy_of_a_signed_manifest_counts_as_an_offer(signers: tuple[Signer, ...]) -> None:
    """Whichever comes first: the bytes are those that the key has signed."""
    signed, copy = offered("signed", MANIFEST, signers[0]), offered("copy", MANIFEST)
    for offers in ((signed, copy), (copy, signed)):
        assert choose(trusting(signers[0]), *offers).source_ids == tuple(offer.source_id for offer in offers)


def test_the_statement_is_the_one_that_the_manifest_names(signers: tuple[Signer, ...]) -> None:
    """Another one, however well signed, is not that of these parts."""
    other = make_statement(num_parts=2)
    for policy in (INSECURE, trusting(signers[0])):
        with pytest.raises(ManifestError):
            choose_statement(policy, [offered("a", other, signers[0])], MANIFEST, LISTED)


def test_a_bad_signature_does_not_replace_a_good_one(signers: tuple[Signer, ...]) -> None:
    """A writer to one mirror can't take a signature away."""
    good = sign_payload(STATEMENT.to_payload(), signers[:1])
    bad = replace(good, signatures=(replace(good.signatures[0], signature=bytes(64)),))
    chosen = choose_statement(trusting(signers[0]), [Offer("a", good.to_bytes()), Offer("b", bad.to_bytes())], MANIFEST, LISTED)
    assert chosen.envelope == good


def test_a_trusted_block_needs_a_state_header() -> None:
    """Without a trusted block there is nothing to ask of it."""
    check_state_header(None, STATEMENT, None, "test")
    manifest_blocks = object()
    with pytest.raises(ManifestError, match="without a state header"):
        check_state_header(manifest_blocks, STATEMENT, None, "test")  # type: ignore[arg-type]
