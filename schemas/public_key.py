"""Public keys as NEAR shows them: ``ed25519:`` and the base58 of 32 bytes. Nothing here verifies."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from schemas.errors import InvalidInputError
from schemas.ids import base58_decode, base58_encode

PUBLIC_KEY_BYTES = 32
_PREFIX = "ed25519:"
_BASE58_LENGTH_MAX = 44


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """An ed25519 public key."""

    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != PUBLIC_KEY_BYTES:
            raise InvalidInputError(problem=f"an ed25519 public key has {PUBLIC_KEY_BYTES} bytes, this has {len(self.data)}")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Parse the form ``ed25519:BASE58``.

        Raises:
            InvalidInputError: another form, or a secret key.
        """
        encoded = text.removeprefix(_PREFIX)
        if encoded != text and len(encoded) <= _BASE58_LENGTH_MAX:
            # What can't be decoded is repeated by that error; here it is not.
            with suppress(InvalidInputError):
                return cls(base58_decode(encoded))
        # The text may be a secret key given by mistake: it is not repeated.
        raise InvalidInputError(
            problem="a public key looks like ed25519: and 43 or 44 base58 characters", remedy="statecast keygen prints it."
        )

    @property
    def key_id(self) -> str:
        """SHA-256 of the key's bytes in hexadecimal: its name in envelopes."""
        return hashlib.sha256(self.data).hexdigest()

    def __str__(self) -> str:
        return _PREFIX + base58_encode(self.data)
