"""Judges a state part's object: its encoding, its trie against a trusted state root, and its canonical order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import ObjectMismatchError, PartLimitError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import PARTIAL_STATE_BYTES_MAX, Encoding, decode_state_part
from schemas.published.torrent import PartPieces

_ANOTHER_PART = "it does not decode to the statement's size and sha256"


@dataclass(frozen=True, slots=True)
class PartDigests:
    """What an object's bytes are and what they decode to."""

    stored_size: int
    stored_sha256: str
    decoded_size: int
    """Bytes of the PartialState, which are the same from every producer."""
    decoded_sha256: str


def decode_stated_part(data: bytes, encoding: Encoding, sha256: str, size: int | None = None) -> pa.Buffer:
    """Decode an object, compare what it decodes to with its statement, and return that.

    Args:
        sha256: of the PartialState bytes, in hexadecimal.
        size: of these; nothing larger is ever decoded. None where it is not known.
    Raises:
        MalformedPartError, PartLimitError: it can't be decoded.
        ObjectMismatchError: it decodes to something else, or to more.
    """
    try:
        decoded = decode_state_part(data, encoding, decoded_bytes_max=PARTIAL_STATE_BYTES_MAX if size is None else size)
    except PartLimitError as error:
        if size is None:
            raise
        raise ObjectMismatchError(problem=f"{_ANOTHER_PART}: {error.problem}") from None
    check_stated(decoded, sha256, size)
    return decoded


def check_stated(decoded: pa.Buffer, sha256: str, size: int | None = None, where: str = "") -> None:
    """Compare PartialState bytes with the statement of their part.

    Raises:
        ObjectMismatchError: they have another size or digest.
    """
    if size not in (None, decoded.size) or hashlib.sha256(decoded).hexdigest() != sha256:
        raise ObjectMismatchError(problem=_ANOTHER_PART, where=where)


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
