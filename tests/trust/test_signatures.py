"""Whose word counts: pinned keys, thresholds, contradictions, freshness."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

from pipelines.producing.publish.signing import Signer, sign_payload
from pipelines.trust.equivocation import differing_fields, find_contradictions
from pipelines.trust.freshness import check_not_expired
from pipelines.trust.signatures import TrustRule, agreed_signers, verified_signers
from schemas.errors import InvalidInputError, ManifestError, SignatureError
from schemas.ids import CryptoHash
from schemas.published.dsse import Envelope, EnvelopeSignature
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.public_key import KeyScheme, PublicKey
from tests.support.published_values import digest, make_manifest, make_statement


def test_a_signature_of_a_pinned_key_counts(signers: tuple[Signer, ...]) -> None:
    """Of two keys that signed, the pinned one is returned."""
    envelope = sign_payload(b"payload", signers[:2])
    assert verified_signers(envelope, [signers[0].public_key, signers[2].public_key]) == {signers[0].public_key}
    assert verified_signers(sign_payload(b"payload", ()), [signers[0].public_key]) == frozenset()


def test_every_bit_of_a_signed_envelope_matters(signers: tuple[Signer, ...]) -> None:
    """Payload, payload type and signature are all covered."""
    envelope = sign_payload(b"payload", signers[:1])
    [signature] = envelope.signatures
    keys = [signers[0].public_key]
    damaged = [
        replace(envelope, payload=b"Payload"),
        replace(envelope, payload_type="application/other"),
        # The boundary between type and payload must not be movable.
        replace(envelope, payload=b"n 7 payload", payload_type=envelope.payload_type[:-1]),
        *(
            replace(envelope, signatures=(replace(signature, signature=bytes(b ^ (i == at) for i, b in enumerate(signature.signature))),))
            for at in range(64)
        ),
        replace(envelope, signatures=(replace(signature, signature=b""),)),
        replace(envelope, signatures=(replace(signature, signature=signature.signature + b"\0"),)),
    ]
    assert verified_signers(envelope, keys) == set(keys)
    assert [verified_signers(found, keys) for found in damaged] == [frozenset()] * len(damaged)


def test_a_key_id_gives_no_trust(signers: tuple[Signer, ...]) -> None:
    """A stranger's signature under a pinned key's id does not count."""
    [stranger] = sign_payload(b"payload", signers[1:2]).signatures
    envelope = Envelope(b"payload", "application/vnd.in-toto+json", (EnvelopeSignature(signers[0].public_key.key_id, stranger.signature),))
    assert verified_signers(envelope, [signers[0].public_key]) == frozenset()


def test_signatures_of_one_payload_are_counted_together(signers: tuple[Signer, ...]) -> None:
    """Two of three is reached by two envelopes of one signature each, and not by a key that is believed no more."""
    rule = TrustRule(tuple(signer.public_key for signer in signers[:3]), 2)
    envelopes = [sign_payload(b"payload", signers[:1]), sign_payload(b"payload", signers[1:2])]
    assert agreed_signers(envelopes, rule, "test") == tuple(sorted(signer.public_key for signer in signers[:2]))
    with pytest.raises(SignatureError, match="1 of 3"):
        agreed_signers(envelopes, rule, "test", {signers[1].public_key})


def test_a_key_counts_once(signers: tuple[Signer, ...]) -> None:
    """Neither two envelopes of one key nor a stranger's signature reach a threshold of two."""
    rule = TrustRule(tuple(signer.public_key for signer in signers[:3]), 2)
    with pytest.raises(SignatureError, match="1 of 3 pinned keys have signed, 2 must"):
        agreed_signers([sign_payload(b"payload", signers[:1]), sign_payload(b"payload", [signers[0], signers[3]])], rule, "test")


def test_another_payload_type_does_not_count(signers: tuple[Signer, ...]) -> None:
    """A signature over something else can't be shown as one over a statement."""
    rule = TrustRule((signers[0].public_key,))
    with pytest.raises(SignatureError):
        agreed_signers([sign_payload(b"payload", signers[:1], "text/plain")], rule, "test")
    with pytest.raises(SignatureError):
        agreed_signers([], rule, "test")


@pytest.mark.parametrize(("count", "threshold"), [(0, 1), (2, 0), (2, 3)])
def test_a_rule_that_no_key_or_every_key_fulfils_is_refused(signers: tuple[Signer, ...], count: int, threshold: int) -> None:
    """1 <= threshold <= number of keys, and a key given twice is not two keys."""
    with pytest.raises(InvalidInputError):
        TrustRule(tuple(signer.public_key for signer in signers[:count]), threshold)
    with pytest.raises(InvalidInputError):
        TrustRule((signers[0].public_key,) * 2, 2)


def test_contradicting_statements_are_found_and_their_author_named(signers: tuple[Signer, ...]) -> None:
    """Both payloads, what differs, and who signed both."""
    honest = make_statement()
    other = replace(honest, parts=(*honest.parts[:2], replace(honest.parts[2], sha256=digest("lie"))), sync_hash=CryptoHash(b"\x44" * 32))
    envelopes = [
        sign_payload(honest.to_payload(), signers[:2]),
        sign_payload(other.to_payload(), signers[1:3]),
        sign_payload(honest.to_payload(), ()),
    ]
    [found] = find_contradictions(envelopes, [signer.public_key for signer in signers], "test")
    assert {found.left_sha256, found.right_sha256} == {honest.payload_sha256, other.payload_sha256}
    assert found.fields == ("sync_hash", "parts[2]")
    assert found.two_faced == (signers[1].public_key,)


def test_silence_and_other_cuts_are_no_contradiction() -> None:
    """A statement without a state header says nothing of it; another num_parts or shard is another matter."""
    statement = make_statement()
    silent = make_statement(header=False)
    assert differing_fields(statement, silent) == ()
    assert differing_fields(statement, make_statement(num_parts=2)) == ()
    assert differing_fields(statement, make_statement(shard_id=1)) == ()
    assert differing_fields(statement, replace(statement, header_sha256=digest("other"))) == ("header_sha256",)
    assert differing_fields(replace(silent, memory_usage=1), statement) == ("memory_usage",)
    assert find_contradictions([sign_payload(found.to_payload(), ()) for found in (statement, silent)], (), "test") == ()


def test_a_manifest_expires() -> None:
    """At its hour, not before; one without an hour never."""
    manifest = make_manifest()
    assert manifest.expires is not None
    check_not_expired(manifest, manifest.expires - timedelta(seconds=1), "test")
    with pytest.raises(ManifestError, match="expired at 2026-12-23 08:30 UTC"):
        check_not_expired(manifest, manifest.expires, "test")
    check_not_expired(replace(manifest, expires=None), manifest.expires + timedelta(days=9999), "test")


def test_a_key_that_is_no_point_of_its_curve_is_refused_when_it_is_pinned() -> None:
    """A mistyped one; a writer to the store can't bring it up later."""
    nowhere = next(
        key for key in (PublicKey(bytes([2, *bytes(31), number]), KeyScheme.ECDSA_P256) for number in range(8)) if not _is_point(key)
    )
    with pytest.raises(InvalidInputError, match="no point of the curve"):
        TrustRule((nowhere,))
    envelope = Envelope(b"payload", PAYLOAD_TYPE, (EnvelopeSignature(nowhere.key_id, b"anything"),))
    assert verified_signers(envelope, (nowhere,)) == frozenset()


def _is_point(key: PublicKey) -> bool:
    try:
        EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key.data)
    except ValueError:
        return False
    return True
