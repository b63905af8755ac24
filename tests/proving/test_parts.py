"""One state part has all nodes on the way to every key of its interval, there or not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.choice import choose_kernel
from pipelines.proving.node_readers import NodesByHash
from pipelines.proving.walk_proof import check_claim, read_value, walk_to_key
from schemas.errors import MissingTrieValueError
from schemas.nearcore.state_part import decode_partial_state
from tests.support.records import ShardParts, keys, parts_of, record_sets


def _intervals(shard: ShardParts) -> list[tuple[bytes, bytes | None]]:
    """Return each part's key interval, from the records of the parts."""
    begins: list[bytes | None] = [None]
    for pairs in reversed(shard.part_pairs[1:]):
        begins.append(pairs[0][0] if pairs else begins[-1])
    begins.append(b"")
    begins.reverse()
    return [(begin, end) for begin, end in pairwise(begins) if begin is not None]


def _neighbours(pairs: list[tuple[bytes, bytes]]) -> set[bytes]:
    """Return keys close to each record's: before it, after it, shorter, with another last nibble."""
    found = set()
    for key, _ in pairs:
        found |= {key, key + b"\0", key + b"\xff", key[:-1]}
        if key:
            last = key[-1]
            found |= {key[:-1] + bytes([last ^ bit]) for bit in (0x01, 0x10, 0x80)}
            found |= {key[:-1] + bytes([other, tail]) for other in {max(last - 1, 0), min(last + 1, 255)} for tail in (0, 255)}
    return found


@given(record_sets(), st.integers(1, 9), st.sets(keys(), max_size=20))
def test_the_part_of_a_key_proves_it(pairs: list[tuple[bytes, bytes]], num_parts: int, others: set[bytes]) -> None:
    """For each key of a part's interval, the part alone proves its value or its absence."""
    records = tuple(sorted(dict(pairs).items()))
    shard = parts_of(choose_kernel("auto"), records, num_parts)
    intervals = _intervals(shard)
    for key in _neighbours(list(records)) | others:
        (part_id,) = [index for index, (begin, end) in enumerate(intervals) if begin <= key and (end is None or key < end)]
        read = NodesByHash(decode_partial_state(shard.parts[part_id]), f"part {part_id}")
        path = walk_to_key(read, shard.state_root, key)
        value = None if path.value is None else read_value(read, key, path.value)
        assert value == dict(records).get(key)
        check_claim(path, key, value)


def test_another_part_lacks_the_nodes() -> None:
    """The part is needed: others don't have the record's leaf."""
    records = tuple((bytes([number, number]), bytes(200)) for number in range(200))
    shard = parts_of(choose_kernel("auto"), records, 5)
    read = NodesByHash(decode_partial_state(shard.parts[0]), "part 0")
    with pytest.raises(MissingTrieValueError):
        walk_to_key(read, shard.state_root, shard.part_pairs[3][1][0])
