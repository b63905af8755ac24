"""Records for tests: builders of record batches, a whole shard's parts by one kernel, and Hypothesis strategies."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate, pairwise

import pyarrow as pa
from hypothesis import strategies as st

from pipelines.kernel.trie_kernel import Build, Kernel, Sealed
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.state_part import boundary_threshold, encode_partial_state

Pairs = Sequence[tuple[bytes, bytes]]
"""(key, value), ascending by key, each key once."""


def record_batches(pairs: Pairs, rows_max: int = 1000) -> list[pa.RecordBatch]:
    """Return records as an export writes them: values of at most 4000 bytes inlined, longer ones as references."""
    rows = [_record(key, value) for key, value in pairs]
    return [pa.RecordBatch.from_pylist(rows[start : start + rows_max], schema=RECORD_SCHEMA) for start in range(0, len(rows), rows_max)]


def value_batches(pairs: Pairs, rows_max: int = 1000) -> list[pa.RecordBatch]:
    """Return the referenced values of records, each once, ascending by hash."""
    referenced = {sha256(value).digest(): value for _, value in pairs if len(value) > INLINED_VALUE_BYTES_MAX}
    rows = [{"value_hash": value_hash, "value": referenced[value_hash]} for value_hash in sorted(referenced)]
    return [pa.RecordBatch.from_pylist(rows[start : start + rows_max], schema=VALUE_SCHEMA) for start in range(0, len(rows), rows_max)]


def _record(key: bytes, value: bytes) -> dict[str, object]:
    if len(value) <= INLINED_VALUE_BYTES_MAX:
        return {"key": key, "value": value, "value_length": len(value), "value_hash": None}
    return {"key": key, "value": None, "value_length": len(value), "value_hash": sha256(value).digest()}


def pairs_of(records: Iterable[pa.RecordBatch], values: Iterable[pa.RecordBatch]) -> list[tuple[bytes, bytes]]:
    """Return the (key, value) pairs of records, references resolved."""
    by_hash = {row["value_hash"]: row["value"] for batch in values for row in batch.to_pylist()}
    rows = [row for batch in records for row in batch.to_pylist()]
    return [(row["key"], by_hash[row["value_hash"]] if row["value"] is None else row["value"]) for row in rows]


@dataclass(frozen=True, slots=True)
class KeyRangeOfPairs:
    """Adjacent records with the keys around them."""

    pairs: Pairs
    left_key: bytes | None
    right_key: bytes | None


def cut_pairs(pairs: Pairs, cuts: Iterable[int]) -> list[KeyRangeOfPairs]:
    """Cut records into key ranges before the given positions, taken modulo their number; no range is empty."""
    starts = sorted({0, *(cut % len(pairs) for cut in cuts)})
    ranges = []
    for start, stop in zip(starts, [*starts[1:], len(pairs)], strict=True):
        left_key = pairs[start - 1][0] if start else None
        right_key = pairs[stop][0] if stop < len(pairs) else None
        ranges.append(KeyRangeOfPairs(pairs=pairs[start:stop], left_key=left_key, right_key=right_key))
    return ranges


def build_ranges(kernel: Kernel, ranges: Sequence[KeyRangeOfPairs]) -> list[Build]:
    """Build each key range."""
    return [kernel.build(record_batches(r.pairs), value_batches(r.pairs), r.left_key, r.right_key) for r in ranges]


def running_memory_usage(kernel: Kernel, ranges: Sequence[KeyRangeOfPairs]) -> tuple[list[int], Sealed]:
    """Return nearcore's running total at each record (S in the Protocol) out of the structures of key ranges, and their seal."""
    structures = [kernel.structure(record_batches(r.pairs), r.left_key, r.right_key) for r in ranges]
    sealed = kernel.seal([structure.edge for structure in structures])
    charges: list[int] = []
    for key_range, structure, added in zip(ranges, structures, sealed.charges, strict=True):
        by_key = dict(added)
        own = structure.charges.to_pylist()
        charges += [charge + by_key.pop(key, 0) for (key, _), charge in zip(key_range.pairs, own, strict=True)]
        assert not by_key, "a charge is of a key of its range"
    return list(accumulate(charges)), sealed


def part_starts(running: Sequence[int], num_parts: int) -> list[int | None]:
    """Return, for boundaries 0 to num_parts, the position of the record that it lies before; None for the right edge."""
    total = running[-1]
    starts: list[int | None] = [0]
    for part_id in range(1, num_parts):
        threshold = boundary_threshold(part_id, num_parts, total)
        starts.append(bisect_right(running, threshold) if threshold < total else None)
    return [*starts, None]


@dataclass(frozen=True, slots=True)
class ShardParts:
    """A shard's parts and what they are of."""

    state_root: CryptoHash
    memory_usage: int
    root_node: bytes
    parts: tuple[pa.Buffer, ...]
    part_pairs: tuple[Pairs, ...]
    """The records of each part's key interval."""


def parts_of(kernel: Kernel, pairs: Pairs, num_parts: int) -> ShardParts:
    """Compute all parts of a shard on one machine: plan by structure, build each part's key range, seal, assemble."""
    if not pairs:
        return ShardParts(ZERO_HASH, 0, b"", (encode_partial_state([]),) * num_parts, ((),) * num_parts)
    running, planned = running_memory_usage(kernel, cut_pairs(pairs, []))
    starts = part_starts(running, num_parts)
    positions = sorted({start for start in starts if start is not None})
    builds = build_ranges(kernel, cut_pairs(pairs, positions))
    sealed = kernel.seal([build.edge for build in builds])
    assert sealed.memory_usage == planned.memory_usage == running[-1]
    interiors = {start: build.interior for start, build in zip(positions, builds, strict=True)}
    boundary_nodes = dict(zip(positions, sealed.boundary_nodes, strict=True))
    parts: list[pa.Buffer] = []
    part_pairs: list[Pairs] = []
    for part_id, (begin, end) in enumerate(pairwise(starts)):
        if begin is None:
            # More parts than memory usage: nearcore's proof of a part behind the right edge is the whole trie.
            parts.append(kernel.assemble(kernel.build(record_batches(pairs), value_batches(pairs), None, None).interior, []))
            part_pairs.append(pairs)
            continue
        nodes = [*(boundary_nodes[begin] if part_id else ()), *(boundary_nodes[end] if end is not None else ())]
        parts.append(kernel.assemble(None if begin == end else interiors[begin], nodes))
        part_pairs.append(pairs[begin : len(pairs) if end is None else end])
    return ShardParts(sealed.state_root, sealed.memory_usage, sealed.root_node, tuple(parts), tuple(part_pairs))


_SHARED_VALUES = [b"", b"\0", b"shared", b"s" * 4000, b"r" * 4001, b"R" * 9000]
_PREFIXES = [b"", b"\0", b"\x01alice.near", b"\x09alice.near,", b"\x09" + b"deep" * 40]


def keys() -> st.SearchStrategy[bytes]:
    """Keys that often begin with one another, part in the middle of a byte, or share a long prefix."""
    tail = st.lists(st.sampled_from([0x00, 0x01, 0x0F, 0x10, 0x11, 0xF0, 0xFF]), max_size=5).map(bytes)
    return st.builds(lambda prefix, end: prefix + end, st.sampled_from(_PREFIXES), tail | st.binary(max_size=4))


def values() -> st.SearchStrategy[bytes]:
    """Values that are empty, shared between keys, at the inlining limit or over it."""
    return st.sampled_from(_SHARED_VALUES) | st.binary(max_size=40)


def record_sets(min_size: int = 1, max_size: int = 60) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """Records of a shard, ascending by key."""

    def of_size(size: int) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
        return st.dictionaries(keys(), values(), min_size=size, max_size=max_size).map(lambda records: sorted(records.items()))

    # Left to itself Hypothesis draws few records, and few records have few branches to cut through.
    return st.sampled_from(sorted({min_size, max_size // 3, max_size * 2 // 3})).flatmap(of_size)
