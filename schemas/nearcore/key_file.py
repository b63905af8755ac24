"""Key files of NEAR: JSON with ``public_key`` and ``secret_key`` (``private_key``, as near-cli writes), as validator_key.json and node_key.json have it.

Keys have the form ``ed25519:BASE58``; a secret key is 64 bytes, the seed and the public key. Other fields are ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import InvalidInputError
from schemas.ids import base58_decode, base58_encode

KEY_FILE_BYTES_MAX: Final = 1 << 16
"""Largest key file that is read."""

SEED_BYTES: Final = 32
_PUBLIC_BYTES: Final = 32
_PREFIX: Final = "ed25519:"
_SECRET_LENGTH_MAX: Final = 90
"""Longest base58 of 64 bytes is 88 characters."""


@dataclass(frozen=True, slots=True)
class SecretKey:
    """An ed25519 key as a file has it; whether the public half is that of the seed is not looked at."""

    seed: bytes = field(repr=False)
    public: bytes

    @property
    def public_text(self) -> str:
        """The public half as it is written."""
        return _PREFIX + base58_encode(self.public)

    def to_json(self) -> dict[str, str]:
        """Return what a key file holds."""
        return {"public_key": self.public_text, "secret_key": _PREFIX + base58_encode(self.seed + self.public)}


def read_key_file(data: bytes, where: str) -> SecretKey:
    """Read a key file.

    Args:
        data: at most one byte more than `KEY_FILE_BYTES_MAX` is needed to tell that it is too large.
    Raises:
        InvalidInputError: no key file, or its two keys do not belong together. Never shows what is in it.
    """
    try:
        document = json.loads(data) if len(data) <= KEY_FILE_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidInputError(problem="this is no key file", where=where, remedy="It holds JSON with public_key and secret_key.")
    secret = _decode_secret(document.get("secret_key", document.get("private_key")))
    if secret is None:
        raise InvalidInputError(problem="secret_key is not ed25519: and the base58 of 64 bytes", where=where)
    key = SecretKey(secret[:SEED_BYTES], secret[SEED_BYTES:])
    if document.get("public_key") != key.public_text:
        raise halves_differ(where)
    return key


def halves_differ(where: str) -> InvalidInputError:
    """Return the error of a file whose public key is not its secret key's."""
    return InvalidInputError(problem="public_key and secret_key do not belong together", where=where)


def _decode_secret(value: object) -> bytes | None:
    if not isinstance(value, str) or not value.startswith(_PREFIX) or len(value) > len(_PREFIX) + _SECRET_LENGTH_MAX:
        return None
    try:
        secret = base58_decode(value.removeprefix(_PREFIX))
    except InvalidInputError:
        # The error would repeat a part of the secret.
        return None
    return secret if len(secret) == SEED_BYTES + _PUBLIC_BYTES else None
