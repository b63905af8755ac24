"""Digests that come with another reading of the same bytes."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import pyarrow as pa
import pytest

from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import MalformedPartError
from schemas.ids import PartId
from schemas.nearcore.state_part import decode_partial_state, partial_state_bytes
from schemas.published.torrent import LEAF_BYTES, piece_hashes
from tests.support.records import parts_of

PAIRS = [(bytes([number]) * 3, bytes([number]) * number * 7) for number in range(40)]


def test_a_validated_part_is_digested_and_in_order(kernel: Kernel) -> None:
    """Its entries ascend; two that changed places make a part that is valid and yet refused."""
    shard = parts_of(kernel, PAIRS, 3)
    for idx, part in enumerate(shard.parts):
        assert kernel.validate_sorted(part, shard.state_root, PartId(idx, 3)) == sha256(part).digest()
        entries = decode_partial_state(part)
        entries[-1], entries[-2] = entries[-2], entries[-1]
        swapped = pa.py_buffer(partial_state_bytes(entries))
        kernel.validate(swapped, shard.state_root, PartId(idx, 3))
        with pytest.raises(MalformedPartError, match=f"the entries of part {idx}/3 are not in ascending order"):
            kernel.validate_sorted(swapped, shard.state_root, PartId(idx, 3))


@pytest.mark.parametrize("piece_leaves", [1, 4])
def test_an_object_and_its_pieces_are_digested_together(kernel: Kernel, piece_leaves: int) -> None:
    """The digests are those of the object read once for each, at every border of blocks, leaves and pieces."""
    data, piece_length = Random(5).randbytes(9 * LEAF_BYTES), piece_leaves * LEAF_BYTES
    for border in (0, 64, LEAF_BYTES, piece_length, 3 * LEAF_BYTES, 2 * piece_length, 9 * LEAF_BYTES - 64):
        for length in range(max(border - 1, 0), border + 2):
            found = kernel.digest_object(data[:length], piece_length)
            assert found == (sha256(data[:length]).digest(), piece_hashes(data[:length], piece_length)), length
