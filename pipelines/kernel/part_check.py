"""Judges a state part's object: its encoding, its trie against a trusted state root, and its canonical order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import MalformedPartError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding, decode_state_part


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


def verify_part(kernel: Kernel, data: bytes, encoding: Encoding, state_root: CryptoHash, part_id: PartId) -> PartDigests:
    """Decode an object, digest it and validate its trie.

    Raises:
        IntegrityError: the object is not this part of this state root.
    """
    digests, decoded = digest_part(data, encoding)
    validate_sorted(kernel, decoded, state_root, part_id)
    return digests


def validate_sorted(kernel: Kernel, decoded: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> None:
    """Validate the trie of PartialState bytes, and their order.

    nearcore does not judge the order of a part's entries, but every producer writes them sorted, and digests of decoded parts are
    compared between producers: another order is refused too.

    Raises:
        IntegrityError: they are not this part of this state root.
    """
    kernel.validate(decoded, state_root, part_id)
    if not kernel.assemble(decoded, ()).equals(decoded):
        raise MalformedPartError(problem=f"the entries of part {part_id} are not in ascending order")
