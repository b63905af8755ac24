"""Judges a state part's object: its encoding, its trie against a trusted state root, and its canonical order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.trie_kernel import Kernel
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding, decode_state_part
from schemas.published.torrent import PartPieces


@dataclass(frozen=True, slots=True)
class PartDigests:
    """What an object's bytes are and what they decode to."""

    stored_size: int
    stored_sha256: str
    decoded_size: int
    """Bytes of the PartialState, which are the same from every producer."""
    decoded_sha256: str


def digest_part(data: bytes, encoding: Encoding) -> tuple[PartDigests, pa.Buffer]:
    """Decode an object and digest both forms.

    Raises:
        MalformedPartError, PartLimitError: the object can't be decoded.
    """
    decoded = decode_state_part(data, encoding)
    digests = PartDigests(len(data), hashlib.sha256(data).hexdigest(), decoded.size, hashlib.sha256(decoded).hexdigest())
    return digests, decoded


def verify_part(
    kernel: Kernel, data: bytes, encoding: Encoding, state_root: CryptoHash, part_id: PartId, *, piece_length: int
) -> tuple[PartDigests, PartPieces]:
    """Decode an object, validate its trie and the order of its entries, and digest it; stored and decoded bytes are each read once.

    Raises:
        IntegrityError: the object is not this part of this state root.
    """
    decoded = decode_state_part(data, encoding)
    decoded_sha256 = kernel.validate_sorted(decoded, state_root, part_id)
    stored_sha256, pieces = kernel.digest_object(data, piece_length)
    return PartDigests(len(data), stored_sha256.hex(), decoded.size, decoded_sha256.hex()), pieces
