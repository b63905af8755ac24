"""Public keys as text: a scheme, a colon, and the base58 of the key's bytes. Nothing here verifies.

``ed25519:`` and 32 bytes is NEAR's own form. ``ecdsa-p256:`` and 33 bytes, a point of NIST P-256 in the compressed form of SEC 1 (2.3.3),
is for keys that a cloud's key service holds: of what those sign with, it is what takes a document of any length.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from schemas.errors import InvalidInputError
from schemas.ids import base58_decode, base58_encode

_BASE58_LENGTH_MAX = 46
"""Longest base58 of 33 bytes."""


class KeyScheme(StrEnum):
    """How a key signs."""

    ED25519 = "ed25519"
    """RFC 8032, over the message itself."""
    ECDSA_P256 = "ecdsa-p256"
    """NIST P-256 over the message's SHA-256; signatures in DER."""

    @property
    def key_bytes(self) -> int:
        """How many bytes a public key has."""
        return 32 if self is KeyScheme.ED25519 else 33


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """A public key that envelopes are signed with."""

    data: bytes
    scheme: KeyScheme = KeyScheme.ED25519

    def __post_init__(self) -> None:
        if len(self.data) != self.scheme.key_bytes:
            raise InvalidInputError(problem=f"an {self.scheme} public key has {self.scheme.key_bytes} bytes, this has {len(self.data)}")
        if self.scheme is KeyScheme.ECDSA_P256 and self.data[0] not in (2, 3):
            raise InvalidInputError(problem="an ecdsa-p256 public key is a compressed point, which begins with 2 or 3")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Parse the form ``SCHEME:BASE58``.

        Raises:
            InvalidInputError: another form, or a secret key.
        """
        scheme, colon, encoded = text.partition(":")
        if colon and scheme in [*KeyScheme] and len(encoded) <= _BASE58_LENGTH_MAX:
            # What can't be decoded is repeated by that error; here it is not.
            with suppress(InvalidInputError):
                return cls(base58_decode(encoded), KeyScheme(scheme))
        # The text may be a secret key given by mistake: it is not repeated.
        raise InvalidInputError(
            problem="a public key looks like ed25519: and 43 or 44 base58 characters, or ecdsa-p256: and 44 to 46",
            remedy="statecast keygen prints it.",
        )

    @property
    def key_id(self) -> str:
        """SHA-256 of the key's bytes in hexadecimal: its name in envelopes."""
        return hashlib.sha256(self.data).hexdigest()

    def __str__(self) -> str:
        return f"{self.scheme}:{base58_encode(self.data)}"
