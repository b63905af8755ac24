"""Hashes and names of NEAR's things: CryptoHash, ShardUId, PartId.

Nothing here hashes or looks anything up.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from schemas.errors import InvalidInputError

HASH_BYTES = 32
_BASE58_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_INDEX = {character: index for index, character in enumerate(_BASE58_ALPHABET)}


def base58_encode(data: bytes) -> str:
    """Encode bytes in Bitcoin's base58; a leading zero byte becomes a ``1``."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def base58_decode(text: str) -> bytes:
    """Decode base58.

    Raises:
        InvalidInputError: a character is not of the alphabet.
    """
    number = 0
    for character in text:
        if character not in _BASE58_INDEX:
            raise InvalidInputError(problem=f"{character!r} is not a base58 character", where=text[:64])
        number = number * 58 + _BASE58_INDEX[character]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


class CryptoHash(bytes):
    """A SHA-256, 32 bytes; shown in base58 as nearcore shows it."""

    __slots__ = ()

    def __new__(cls, data: bytes) -> CryptoHash:
        """Take 32 bytes; raises InvalidInputError on any other number."""
        if len(data) != HASH_BYTES:
            raise InvalidInputError(problem=f"a hash has {HASH_BYTES} bytes, this has {len(data)}", where=data[:40].hex())
        return super().__new__(cls, data)

    @classmethod
    def from_base58(cls, text: str) -> CryptoHash:
        """Parse the base58 form.

        Raises:
            InvalidInputError: not base58, or not 32 bytes.
        """
        # 44 characters hold 32 bytes; the bound keeps the quadratic decoder away from long input.
        if len(text) > 44:
            raise InvalidInputError(problem="a base58 hash has at most 44 characters", where=text[:64])
        return cls(base58_decode(text))

    def __str__(self) -> str:
        return base58_encode(self)

    def __repr__(self) -> str:
        return f"CryptoHash({self})"


ZERO_HASH = CryptoHash(bytes(HASH_BYTES))
"""The state root of an empty trie, and the id of what has none."""


@dataclass(frozen=True, slots=True, order=True)
class ShardUId:
    """A shard in one version of the shard layout; shown ``s{shard_id}.v{version}``.

    Source: nearcore core/primitives/src/shard_layout.rs, ShardUId.
    """

    version: int
    shard_id: int

    def __post_init__(self) -> None:
        if not (0 <= self.version < 2**32 and 0 <= self.shard_id < 2**32):
            raise InvalidInputError(problem="version and shard id of a shard uid are unsigned 32-bit numbers", where=repr(self))

    def to_bytes(self) -> bytes:
        """Return the 8 bytes that prefix database keys: u32 LE version, u32 LE shard id."""
        return struct.pack("<II", self.version, self.shard_id)

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardUId:
        """Parse the 8-byte database form.

        Raises:
            InvalidInputError: not 8 bytes.
        """
        if len(data) != 8:
            raise InvalidInputError(problem=f"a shard uid has 8 bytes, this has {len(data)}", where=data[:16].hex())
        version, shard_id = struct.unpack("<II", data)
        return cls(version, shard_id)

    @classmethod
    def parse(cls, text: str) -> ShardUId:
        """Parse the form ``s0.v3``.

        Raises:
            InvalidInputError: another form.
        """
        match = re.fullmatch(r"s(\d{1,10})\.v(\d{1,10})", text)
        if match is None:
            raise InvalidInputError(problem="a shard uid looks like s0.v3", where=text[:64])
        return cls(version=int(match[2]), shard_id=int(match[1]))

    def __str__(self) -> str:
        return f"s{self.shard_id}.v{self.version}"


@dataclass(frozen=True, slots=True, order=True)
class PartId:
    """One state part out of ``total``: 0 <= idx < total.

    Source: nearcore core/primitives/src/state_part.rs, PartId.
    """

    idx: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.idx < self.total:
            raise InvalidInputError(problem=f"part {self.idx} of {self.total} is not a part", remedy="0 <= part_id < num_parts.")

    def __str__(self) -> str:
        return f"{self.idx}/{self.total}"
