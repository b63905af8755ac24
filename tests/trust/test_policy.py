"""Which manifest and which statement are followed, among those that are offered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipelines.producing.publish.key_file import generate_key, load_signer
from pipelines.producing.publish.signing import Signer, sign_payload
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import BelievedManifest, Offer, TrustPolicy, check_state_header, choose_manifest, choose_statement
from pipelines.trust.signatures import TrustRule
from schemas.errors import EquivocationError, InvalidInputError, ManifestError, ManifestExpiredError, RollbackError, SignatureError
from schemas.ids import CryptoHash
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement
from tests.support.published_values import make_manifest, make_statement

MANIFEST = make_manifest()
LISTED = MANIFEST.shards[0]
STATEMENT = make_statement()
LAYOUT = EpochLayout(MANIFEST.chain_id, MANIFEST.epoch_height, MANIFEST.epoch_id)
NOW = datetime(2026, 11, 25, tzinfo=UTC)
INSECURE = TrustPolicy(insecure=True)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, ...]:
    """Three keys."""
    folder = tmp_path_factory.mktemp("keys")
    for number in range(3):
        generate_key(folder / f"{number}.json")
    return tuple(load_signer(folder / f"{number}.json") for number in range(3))


def trusting(*signers: Signer, threshold: int = 1) -> TrustPolicy:
    """A policy that pins keys."""
    return TrustPolicy(TrustRule(tuple(signer.public_key for signer in signers), threshold))


def offered(source_id: str, document: Manifest | ShardStatement, *signers: Signer) -> Offer:
    """A document as a source has it."""
    return Offer(source_id, sign_payload(document.to_payload(), signers).to_bytes())


def choose(policy: TrustPolicy, *offers: Offer, accepted: AcceptedManifests | None = None) -> BelievedManifest:
    """Choose a manifest now."""
    return choose_manifest(policy, offers, LAYOUT, NOW, accepted or AcceptedManifests(MANIFEST.chain_id), must_be_newest=True)


def test_nothing_is_believed_by_default() -> None:
    """Whoever wants that must say so."""
    with pytest.raises(InvalidInputError, match="--insecure"):
        TrustPolicy()
    assert choose(INSECURE, offered("a", MANIFEST)).signers == ()


def test_of_signed_manifests_the_highest_revision_counts(signers: tuple[Signer, ...]) -> None:
    """Unsigned ones don't, however high."""
    newer, forged = replace(MANIFEST, revision=2), replace(MANIFEST, revision=99)
    chosen = choose(
        trusting(signers[0]), offered("old", MANIFEST, signers[0]), offered("new", newer, signers[0]), offered("liar", forged, signers[1])
    )
    assert (chosen.manifest.revision, chosen.source_id, chosen.signers) == (2, "new", (signers[0].public_key,))
    assert [source_id for source_id, _ in chosen.refused] == ["liar"]


def test_without_keys_the_first_source_counts() -> None:
    """A revision that nobody signed says nothing."""
    assert choose(INSECURE, offered("first", MANIFEST), offered("second", replace(MANIFEST, revision=9))).source_id == "first"


def test_a_damaged_manifest_does_not_hide_a_good_one() -> None:
    """What can't be parsed, and another epoch's, are passed over."""
    other = replace(MANIFEST, epoch_height=MANIFEST.epoch_height + 1)
    chosen = choose(INSECURE, Offer("junk", b"{"), offered("other", other), offered("good", MANIFEST))
    assert chosen.source_id == "good"
    assert [source_id for source_id, _ in chosen.refused] == ["junk", "other"]


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
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted(newer, "0" * 64)
    with pytest.raises(RollbackError):
        choose(trusting(signers[0]), offered("a", MANIFEST, signers[0]), accepted=memory)


def test_a_fresh_mirror_makes_up_for_one_that_lags(signers: tuple[Signer, ...]) -> None:
    """The manifest that was rolled back is refused, the other followed."""
    newer = replace(MANIFEST, revision=7)
    envelope = sign_payload(newer.to_payload(), signers[:1])
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted(newer, envelope.payload_sha256)
    chosen = choose(trusting(signers[0]), offered("lags", MANIFEST, signers[0]), Offer("fresh", envelope.to_bytes()), accepted=memory)
    assert chosen.source_id == "fresh"


def test_two_signed_manifests_of_one_revision_are_equivocation(signers: tuple[Signer, ...]) -> None:
    """At once in two sources, or one of them remembered."""
    other = replace(MANIFEST, mirrors=())
    with pytest.raises(EquivocationError):
        choose(trusting(signers[0]), offered("a", MANIFEST, signers[0]), offered("b", other, signers[0]))
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted(other, "0" * 64)
    with pytest.raises(EquivocationError):
        choose(trusting(signers[0]), offered("a", MANIFEST, signers[0]), accepted=memory)


def test_signatures_of_a_statement_are_counted_over_all_sources(signers: tuple[Signer, ...]) -> None:
    """Two of three, each from another source; the envelope that is kept has both."""
    policy = trusting(*signers, threshold=2)
    chosen = choose_statement(policy, [offered("a", STATEMENT, signers[0]), offered("b", STATEMENT, signers[2])], MANIFEST, LISTED)
    assert set(chosen.signers) == {signers[0].public_key, signers[2].public_key}
    assert len(chosen.envelope.signatures) == 2
    with pytest.raises(SignatureError):
        choose_statement(policy, [offered("a", STATEMENT, signers[0]), offered("b", STATEMENT, signers[0])], MANIFEST, LISTED)


def test_a_key_that_signed_two_statements_equivocates(signers: tuple[Signer, ...]) -> None:
    """Even where the threshold is met by one of them."""
    other = replace(STATEMENT, state_root=CryptoHash(b"\7" * 32))
    with pytest.raises(EquivocationError, match="state_root"):
        choose_statement(trusting(*signers), [offered("a", STATEMENT, *signers), offered("b", other, signers[1])], MANIFEST, LISTED)


def test_contradictions_of_strangers_are_reported(signers: tuple[Signer, ...]) -> None:
    """And change nothing."""
    other = replace(STATEMENT, memory_usage=STATEMENT.memory_usage + 1)
    chosen = choose_statement(trusting(signers[0]), [offered("b", other), offered("a", STATEMENT, signers[0])], MANIFEST, LISTED)
    assert chosen.statement == STATEMENT
    assert [found.fields for found in chosen.contradictions] == [("memory_usage",)]
    assert [source_id for source_id, _ in chosen.refused] == ["b"]


def test_the_statement_is_the_one_that_the_manifest_names(signers: tuple[Signer, ...]) -> None:
    """Another one, however well signed, is not that of these parts."""
    other = make_statement(num_parts=2)
    for policy in (INSECURE, trusting(signers[0])):
        with pytest.raises(ManifestError):
            choose_statement(policy, [offered("a", other, signers[0])], MANIFEST, LISTED)


def test_a_bad_signature_does_not_replace_a_good_one(signers: tuple[Signer, ...]) -> None:
    """Whoever can write to one mirror can't take a signature away."""
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
