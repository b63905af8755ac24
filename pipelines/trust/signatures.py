"""Whose signatures on an envelope hold, and whether enough pinned keys stand behind one payload.

Trust is in keys that the reader pinned, never in a key id that an envelope names. A signature that does not verify counts as
absent: whoever can write to the store could otherwise spoil a good envelope by adding a bad signature. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import EquivocationError, InvalidInputError, SignatureError
from schemas.published.dsse import Envelope
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.public_key import KeyScheme, PublicKey

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

PINNED_KEYS_MAX = 256
"""Most keys of a trust rule."""


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
                # A mistyped one shows here, and not when somebody names it in an envelope.
                _pem(key)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A payload that enough pinned keys have signed."""

    payload: bytes
    signers: tuple[PublicKey, ...]
    """Ascending."""


def verified_signers(envelope: Envelope, keys: Iterable[PublicKey]) -> frozenset[PublicKey]:
    """Return those of the pinned keys whose signatures on this envelope hold."""
    by_key_id = {signature.key_id: signature.signature for signature in envelope.signatures}
    signed = envelope.pre_authentication_encoding()
    return frozenset(key for key in keys if key.key_id in by_key_id and _holds(key, by_key_id[key.key_id], signed))


def agreed_payload(envelopes: Sequence[Envelope], rule: TrustRule, where: str, payload_type: str = PAYLOAD_TYPE) -> Agreement:
    """Return the payload behind which enough pinned keys stand.

    Signatures on byte-identical payloads are counted together, whichever envelope they came in; a key counts once a payload.

    Args:
        envelopes: of one document, from any number of places.
    Raises:
        SignatureError: no payload has enough valid signatures of pinned keys, or the type is another.
        EquivocationError: two payloads have.
    """
    signers: dict[bytes, set[PublicKey]] = {}
    for envelope in envelopes:
        if envelope.payload_type == payload_type:
            signers.setdefault(envelope.payload, set()).update(verified_signers(envelope, rule.keys))
    agreed = [Agreement(payload, tuple(sorted(found))) for payload, found in signers.items() if len(found) >= rule.threshold]
    if len(agreed) > 1:
        named = ", ".join(str(key) for key in sorted({key for agreement in agreed for key in agreement.signers}))
        raise EquivocationError(
            problem=f"trusted keys have signed different payloads: {named}", where=where, remedy="At least one of them lies or is stolen."
        )
    if not agreed:
        most = max((len(found) for found in signers.values()), default=0)
        raise SignatureError(
            problem=f"{most} of {len(rule.keys)} pinned keys have signed, {rule.threshold} must",
            where=where,
            remedy="Check the keys, or wait for more signatures.",
        )
    return agreed[0]


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
