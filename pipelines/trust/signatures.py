"""Whose signatures on an envelope hold, and whether enough pinned keys stand behind one payload.

Trust is in keys that the reader pinned, never in a key id that an envelope names. A signature that does not verify counts as
absent: a writer to the store could otherwise spoil a good envelope by adding a bad signature. No I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import InvalidInputError, SignatureError
from schemas.published.dsse import Envelope
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.public_key import KeyScheme, PublicKey

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

PINNED_KEYS_MAX = 256
"""Most keys of a trust rule."""

SIGNERS_SHOWN_MAX = 4
"""Most signatures, and most keys, that an error names."""


@dataclass(frozen=True, slots=True)
class TrustRule:
    """At least ``threshold`` of these keys must have signed the same payload."""

    keys: tuple[PublicKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        if len(set(self.keys)) != len(self.keys) or len(self.keys) > PINNED_KEYS_MAX:
            raise InvalidInputError(problem=f"pinned keys are given once each, and at most {PINNED_KEYS_MAX}")
        if not 1 <= self.threshold <= len(self.keys):
            raise InvalidInputError(
                problem=f"{self.threshold} signatures can't be asked of {len(self.keys)} keys", remedy="1 <= threshold <= number of keys."
            )
        for key in self.keys:
            if key.scheme is KeyScheme.ECDSA_P256:
                # A mistyped one shows here, and not first when an envelope names it.
                _pem(key)


def verified_signers(envelope: Envelope, keys: Iterable[PublicKey], payload_type: str = PAYLOAD_TYPE) -> frozenset[PublicKey]:
    """Return those of the pinned keys whose signatures on this envelope hold; none where it is of another type."""
    if envelope.payload_type != payload_type:
        return frozenset()
    by_key_id = {signature.key_id: signature.signature for signature in envelope.signatures}
    signed = envelope.pre_authentication_encoding()
    return frozenset(key for key in keys if key.key_id in by_key_id and _holds(key, by_key_id[key.key_id], signed))


def agreed_signers(
    envelopes: Sequence[Envelope], rule: TrustRule, where: str, discounted: Collection[PublicKey] = ()
) -> tuple[PublicKey, ...]:
    """Return the pinned keys that stand behind one payload, ascending, once there are enough of them.

    Signatures are counted together, whichever envelope they came in; a key counts once.

    Args:
        envelopes: of the same payload, from any number of places.
        discounted: pinned keys that are not believed any more.
    Raises:
        SignatureError: too few have signed.
    """
    assert len({envelope.payload for envelope in envelopes}) <= 1, "signatures are counted by payload"
    signers = {key for envelope in envelopes for key in verified_signers(envelope, rule.keys) if key not in discounted}
    if len(signers) < rule.threshold:
        raise SignatureError(
            problem=f"{len(signers)} of {len(rule.keys)} pinned keys have signed, {rule.threshold} must; {who_signed(envelopes, rule.keys)}",
            where=where,
            remedy="Check the keys, or wait for more signatures; `statecast keygen` and `produce` print a public key with its key id.",
        )
    return tuple(sorted(signers))


def who_signed(envelopes: Sequence[Envelope], keys: Collection[PublicKey]) -> str:
    """Say whose signatures are there, and which of the pinned keys' are not. An envelope has no public keys but their ids, and those that are pinned are known by both."""
    verified = {key for envelope in envelopes for key in verified_signers(envelope, keys)}
    pinned = {key.key_id: key for key in keys}
    told = []
    for key_id in sorted({signature.key_id for envelope in envelopes for signature in envelope.signatures}):
        key = pinned.get(key_id)
        note = (
            "another key, not pinned; its envelope has no more of it than this id"
            if key is None
            else "pinned"
            if key in verified
            else "pinned, and its signature does not verify"
        )
        told.append(f"{'' if key is None else f'{key}, '}key id {key_id} ({note})")
    more = f" and {len(told) - SIGNERS_SHOWN_MAX} more" if len(told) > SIGNERS_SHOWN_MAX else ""
    signed = f"signed by {'; '.join(told[:SIGNERS_SHOWN_MAX])}{more}" if told else "nobody signed it"
    absent = [f"{key}, key id {key_id}" for key_id, key in pinned.items() if key not in verified]
    left = f" and {len(absent) - SIGNERS_SHOWN_MAX} more" if len(absent) > SIGNERS_SHOWN_MAX else ""
    return f"{signed}; not by {'; '.join(absent[:SIGNERS_SHOWN_MAX])}{left}" if absent else signed


def _holds(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    # Imported here: the package loads every cloud's key service that is installed, and most commands verify nothing.
    from securesystemslib.exceptions import UnverifiedSignatureError
    from securesystemslib.signer import Signature

    try:
        library_key(key).verify_signature(Signature(key.key_id, signature.hex()), signed)
    except (UnverifiedSignatureError, InvalidInputError):
        return False
    return True


def library_key(key: PublicKey) -> SSlibKey:
    """Return a key as the library takes it, under our key id.

    Raises:
        InvalidInputError: it is no point of its curve.
    """
    from securesystemslib.signer import SSlibKey

    if key.scheme is KeyScheme.ED25519:
        return SSlibKey(key.key_id, "ed25519", "ed25519", {"public": key.data.hex()})
    return SSlibKey(key.key_id, "ecdsa", "ecdsa-sha2-nistp256", {"public": _pem(key)})


def _pem(key: PublicKey) -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        point = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), key.data)
    except ValueError:
        raise InvalidInputError(problem="this is no point of the curve P-256", where=str(key), remedy="Check the public key.") from None
    return point.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
