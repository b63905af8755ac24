"""Signatures on DSSE envelopes, by a key that is at hand or one that a key service holds.

Only the process that publishes holds a signer; it can't be pickled to workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from pipelines.trust.signatures import verified_signers
from schemas.errors import ManifestError, SignatureError
from schemas.published.dsse import SIGNATURES_MAX, Envelope, EnvelopeSignature
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.public_key import PublicKey


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key that can be used."""

    public_key: PublicKey
    _sign: Callable[[bytes], bytes] = field(repr=False)
    """Makes the signature over some bytes."""

    def sign(self, envelope: Envelope) -> Envelope:
        """Return the envelope with this key's signature; one that is there and holds stays, since not every scheme gives the same twice.

        Raises:
            SignatureError: the key can't be used now, or what it made is no signature of this public key.
        """
        if verified_signers(envelope, (self.public_key,), envelope.payload_type):
            return envelope
        signature = self._sign(envelope.pre_authentication_encoding())
        signed = envelope.with_signatures((EnvelopeSignature(self.public_key.key_id, signature),))
        if not verified_signers(signed, (self.public_key,), signed.payload_type):
            raise SignatureError(
                problem="the signature that was made does not verify", where=str(self.public_key), remedy="Check which key signs."
            )
        return signed

    def __reduce__(self) -> NoReturn:
        raise AssertionError("a signing key does not leave its process")


def sign_payload(payload: bytes, signers: Sequence[Signer], payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Put a payload into an envelope signed by all of these; by none: unsigned.

    Raises:
        SignatureError: a key can't be used now.
    """
    envelope = Envelope(payload, payload_type)
    for signer in signers:
        envelope = signer.sign(envelope)
    return envelope


def add_signatures(theirs: Envelope, signers: Sequence[Signer], where: str) -> Envelope:
    """Return another publisher's envelope over the same payload, with the signatures of all of these added.

    Raises:
        ManifestError: it is of another type, or there would be more signatures than an envelope may have.
        SignatureError: a key can't be used now.
    """
    if theirs.payload_type != PAYLOAD_TYPE:
        raise ManifestError(problem=f"its type is not {PAYLOAD_TYPE}, so it can't be signed", where=where)
    envelope = theirs
    for signer in signers:
        envelope = signer.sign(envelope)
    if len(envelope.signatures) > SIGNATURES_MAX:
        raise ManifestError(
            problem=f"an envelope has at most {SIGNATURES_MAX} signatures", where=where, remedy="Merge those of known keys alone."
        )
    return envelope
