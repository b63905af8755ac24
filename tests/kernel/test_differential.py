"""Both kernels give the same bytes, the same verdicts and the same errors."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.reference import ReferenceKernel
from pipelines.kernel.trie_kernel import Kernel, Sealed
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import decode_partial_state, partial_state_bytes
from tests.support.records import Pairs, build_ranges, cut_pairs, parts_of, record_batches, record_sets

CUTS = st.lists(st.integers(0, 2**16), max_size=6)
REFERENCE = ReferenceKernel()


def sealed_facts(sealed: Sealed) -> tuple[object, ...]:
    """Return what must be equal of a seal: boundary nodes have no order."""
    return (sealed.state_root, sealed.memory_usage, sealed.root_node, [sorted(nodes) for nodes in sealed.boundary_nodes], sealed.charges)


def outcome(call: Callable[[], Any]) -> object:
    """Return what a call returns, or the class of the integrity error that it raises."""
    try:
        return call()
    except IntegrityError as error:
        return type(error)


@given(pairs=record_sets(), cuts=CUTS)
def test_structures_agree(native_kernel: Kernel, pairs: Pairs, cuts: list[int]) -> None:
    """Edges, charges, merges and seals of structures are equal."""
    ranges = cut_pairs(pairs, cuts)
    ours = [REFERENCE.structure(record_batches(r.pairs), r.left_key, r.right_key) for r in ranges]
    theirs = [native_kernel.structure(record_batches(r.pairs), r.left_key, r.right_key) for r in ranges]

    assert [(s.edge, s.charges.to_pylist()) for s in ours] == [(s.edge, s.charges.to_pylist()) for s in theirs]
    check_joined(native_kernel, [s.edge for s in ours])


@given(pairs=record_sets(), cuts=CUTS)
def test_builds_agree(native_kernel: Kernel, pairs: Pairs, cuts: list[int]) -> None:
    """Edges, interiors, counts, merges and seals of builds are equal."""
    ranges = cut_pairs(pairs, cuts)
    ours = build_ranges(REFERENCE, ranges)
    theirs = build_ranges(native_kernel, ranges)

    assert ours == theirs
    check_joined(native_kernel, [b.edge for b in ours])


def check_joined(native_kernel: Kernel, edges: list[bytes]) -> None:
    """Compare seals, and each merge from left to right."""
    assert sealed_facts(REFERENCE.seal(edges)) == sealed_facts(native_kernel.seal(edges))
    merged = edges[0]
    for edge in edges[1:]:
        assert REFERENCE.merge(merged, edge) == native_kernel.merge(merged, edge)
        merged = REFERENCE.merge(merged, edge)


@given(pairs=record_sets(min_size=0), num_parts=st.integers(1, 9))
def test_parts_agree(native_kernel: Kernel, pairs: Pairs, num_parts: int) -> None:
    """Assembled parts are equal, and so are the records that they apply to."""
    ours = parts_of(REFERENCE, pairs, num_parts)
    theirs = parts_of(native_kernel, pairs, num_parts)

    assert (ours.state_root, ours.memory_usage, ours.root_node) == (theirs.state_root, theirs.memory_usage, theirs.root_node)
    for idx, (our_part, their_part) in enumerate(zip(ours.parts, theirs.parts, strict=True)):
        assert our_part == their_part
        one = REFERENCE.apply(our_part, ours.state_root, PartId(idx, num_parts))
        other = native_kernel.apply(our_part, ours.state_root, PartId(idx, num_parts))
        assert rows(one.records) == rows(other.records)
        assert rows(one.values) == rows(other.values)
        assert {batch.schema for batch in one.records} == {batch.schema for batch in other.records}
        assert {batch.schema for batch in one.values} == {batch.schema for batch in other.values}


@given(pairs=record_sets(max_size=12), num_parts=st.integers(1, 4), data=st.data())
def test_verdicts_on_damaged_parts_agree(native_kernel: Kernel, pairs: Pairs, num_parts: int, data: st.DataObject) -> None:
    """A part with entries dropped, doubled, flipped or moved, or judged as another part, gets the same answer."""
    shard = parts_of(REFERENCE, pairs, num_parts)
    idx = data.draw(st.integers(0, num_parts - 1))
    entries = decode_partial_state(shard.parts[idx])
    at = data.draw(st.integers(0, len(entries) - 1)) if entries else 0
    flip = data.draw(st.integers(0, 2**16))
    entry = bytearray(entries[at]) if entries else bytearray()
    if entry:
        entry[flip % len(entry)] ^= 1 << flip % 8
    variants = [
        entries[:at] + entries[at + 1 :],
        [*entries, *entries[at : at + 1]],
        entries[::-1],
        [*entries[:at], bytes(entry), *entries[at + 1 :]],
    ]
    judged = PartId(data.draw(st.integers(0, num_parts - 1)), num_parts)
    for variant in [entries, *variants]:
        damaged = pa.py_buffer(partial_state_bytes(variant))
        for part_id in (PartId(idx, num_parts), judged):
            assert outcome(lambda: REFERENCE.validate(damaged, shard.state_root, part_id)) == outcome(  # noqa: B023
                lambda: native_kernel.validate(damaged, shard.state_root, part_id)  # noqa: B023
            )
            assert outcome(lambda: REFERENCE.validate_sorted(damaged, shard.state_root, part_id)) == outcome(  # noqa: B023
                lambda: native_kernel.validate_sorted(damaged, shard.state_root, part_id)  # noqa: B023
            )


@given(entries=st.lists(st.binary(max_size=60), max_size=4), idx=st.integers(0, 2))
def test_verdicts_on_tries_of_a_hostile_root_agree(native_kernel: Kernel, entries: list[bytes], idx: int) -> None:
    """Even where the trusted root itself is of nonsense, both kernels give the same kind of answer."""
    partial_state = pa.py_buffer(partial_state_bytes(entries))
    roots = [CryptoHash(sha256(entry).digest()) for entry in entries]
    for root in roots:
        ours = outcome(lambda: REFERENCE.validate(partial_state, root, PartId(idx, 3)))  # noqa: B023
        assert ours == outcome(lambda: native_kernel.validate(partial_state, root, PartId(idx, 3)))  # noqa: B023


def rows(batches: tuple[pa.RecordBatch, ...]) -> list[dict[str, Any]]:
    """Return the rows of record batches, however they are cut."""
    return [row for batch in batches for row in batch.to_pylist()]
