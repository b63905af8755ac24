"""What a kernel computes never depends on how a shard is cut into key ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.edge import Charge, Edge, decode_edge
from pipelines.kernel.trie_kernel import Kernel
from schemas.ids import PartId
from schemas.nearcore.state_part import decode_partial_state, encode_partial_state
from tests.support.records import (
    Pairs,
    build_ranges,
    cut_pairs,
    pairs_of,
    part_starts,
    parts_of,
    record_batches,
    record_sets,
    running_memory_usage,
    value_batches,
)

CUTS = st.lists(st.integers(0, 2**16), max_size=8)


def edges_of(kernel: Kernel, pairs: Pairs, cuts: list[int], *, hashed: bool) -> list[bytes]:
    """Return the edges of a shard's key ranges."""
    ranges = cut_pairs(pairs, cuts)
    if hashed:
        return [build.edge for build in build_ranges(kernel, ranges)]
    return [kernel.structure(record_batches(r.pairs), r.left_key, r.right_key).edge for r in ranges]


def merge_in_order(kernel: Kernel, edges: list[bytes], order: list[int]) -> bytes:
    """Merge adjacent edges, the next pair chosen by ``order``, until one is left."""
    edges = list(edges)
    for choice in order + [0] * len(edges):
        if len(edges) == 1:
            break
        at = choice % (len(edges) - 1)
        edges[at : at + 2] = [kernel.merge(edges[at], edges[at + 1])]
    return edges[0]


@given(pairs=record_sets(), cuts=CUTS)
def test_the_root_does_not_depend_on_cuts(kernel: Kernel, pairs: Pairs, cuts: list[int]) -> None:
    """Root, memory usage and root node of any cuts are those of one key range."""
    (whole,) = build_ranges(kernel, cut_pairs(pairs, []))
    expected = kernel.seal([whole.edge])
    sealed = kernel.seal(edges_of(kernel, pairs, cuts, hashed=True))

    assert (expected.state_root, expected.memory_usage, expected.root_node) == (sealed.state_root, sealed.memory_usage, sealed.root_node)


@given(pairs=record_sets(), cuts=CUTS, order=st.lists(st.integers(0, 60), max_size=8), hashed=st.booleans())
def test_merging_is_associative(kernel: Kernel, pairs: Pairs, cuts: list[int], order: list[int], hashed: bool) -> None:
    """Edges merged in any order give one edge, that of the uncut range (charges apart, which only merging makes)."""
    edges = edges_of(kernel, pairs, cuts, hashed=hashed)
    left_to_right = merge_in_order(kernel, edges, [])
    (whole,) = edges_of(kernel, pairs, [], hashed=hashed)

    assert left_to_right == merge_in_order(kernel, edges, order)
    assert _without_charges(decode_edge(whole)) == _without_charges(decode_edge(left_to_right))


@given(pairs=record_sets(min_size=4), cuts=CUTS, hashed=st.booleans())
def test_a_merge_inside_a_shard_is_the_edge_of_the_united_range(kernel: Kernel, pairs: Pairs, cuts: list[int], hashed: bool) -> None:
    """The same holds between neighbours: the middle of a shard, cut or not, leaves the same open nodes."""
    inner = [1, len(pairs) - 1]
    edges = edges_of(kernel, pairs, inner + cuts, hashed=hashed)
    middle = edges[1:-1]
    (_, whole, _) = edges_of(kernel, pairs, inner, hashed=hashed)

    assert _without_charges(decode_edge(whole)) == _without_charges(decode_edge(merge_in_order(kernel, middle, [])))


@given(pairs=record_sets(), cuts=CUTS)
def test_a_part_built_in_one_go_is_the_assembled_one(kernel: Kernel, pairs: Pairs, cuts: list[int]) -> None:
    """An interior united with boundary nodes is what assembling both gives, also where some are in it already or are no nodes at all."""
    ranges = cut_pairs(pairs, cuts)
    builds = build_ranges(kernel, ranges)
    boundaries = [*kernel.seal([build.edge for build in builds]).boundary_nodes, ()]
    for index, (one, build) in enumerate(zip(ranges, builds, strict=True)):
        assert build.interior is not None
        nodes = [*boundaries[index], *boundaries[index + 1], *decode_partial_state(build.interior)[:1], b"no node", b""]
        records, values = record_batches(one.pairs), value_batches(one.pairs)
        united = kernel.build(records, values, one.left_key, one.right_key, boundary_nodes=nodes)
        assert (united.interior, united.edge) == (kernel.assemble(build.interior, nodes), build.edge)
        assert (united.node_count, united.hashed_bytes) == (build.node_count, build.hashed_bytes)


@given(pairs=record_sets(), cuts=CUTS, order=st.lists(st.integers(0, 60), max_size=8))
def test_charges_of_merges_add_up(kernel: Kernel, pairs: Pairs, cuts: list[int], order: list[int]) -> None:
    """The charges that merging makes are those that sealing the unmerged edges makes."""
    edges = edges_of(kernel, pairs, cuts, hashed=False)
    merged = decode_edge(merge_in_order(kernel, edges, order))
    sealed = kernel.seal(edges)

    assert merged.charges == tuple(Charge(key, usage) for charges in sealed.charges for key, usage in charges)


@given(pairs=record_sets(), cuts=CUTS)
def test_running_memory_usage_does_not_depend_on_cuts(kernel: Kernel, pairs: Pairs, cuts: list[int]) -> None:
    """The running totals ascend to the root's memory usage, which is that of the hashed trie, wherever the ranges are cut."""
    expected, _ = running_memory_usage(kernel, cut_pairs(pairs, []))
    running, sealed = running_memory_usage(kernel, cut_pairs(pairs, cuts))
    hashed = kernel.seal(edges_of(kernel, pairs, [], hashed=True))

    assert expected == running
    assert running == sorted(running)
    assert running[-1] == sealed.memory_usage == hashed.memory_usage
    assert sealed.root_node == b"" and not any(sealed.state_root)


@given(pairs=record_sets(), cuts=CUTS)
def test_interiors_and_boundary_nodes_hold_the_trie(kernel: Kernel, pairs: Pairs, cuts: list[int]) -> None:
    """The interiors of all ranges and the nodes at their boundaries are together exactly the nodes and values of the trie."""
    (whole,) = build_ranges(kernel, cut_pairs(pairs, []))
    builds = build_ranges(kernel, cut_pairs(pairs, cuts))
    sealed = kernel.seal([build.edge for build in builds])
    entries = {entry for build in builds for entry in decode_partial_state(build.interior)}
    entries |= {node for nodes in sealed.boundary_nodes for node in nodes}

    assert whole.interior == encode_partial_state(entries)
    assert sum(build.node_count for build in builds) <= whole.node_count


@given(pairs=record_sets(min_size=0), num_parts=st.integers(1, 12))
def test_parts_prove_and_return_the_records(kernel: Kernel, pairs: Pairs, num_parts: int) -> None:
    """Every part of a shard validates, and applied in order they give the shard's records, each once."""
    shard = parts_of(kernel, pairs, num_parts)
    applied = [kernel.apply(part, shard.state_root, PartId(i, num_parts)) for i, part in enumerate(shard.parts)]
    records = [record for part in applied for record in pairs_of(part.records, part.values)]

    assert records == list(pairs)
    for part in applied:
        hashes = [value_hash for batch in part.values for value_hash in batch.column("value_hash").to_pylist()]
        assert hashes == sorted(set(hashes))


def test_every_threshold(kernel: Kernel) -> None:
    """With as many parts as memory usage every threshold occurs, also those that a running total meets exactly."""
    pairs = [(b"", b"root"), (b"a", b""), (b"a\x12", b"yy"), (b"a\x13", b"y"), (b"b", b"zzz")]
    total = running_memory_usage(kernel, cut_pairs(pairs, []))[0][-1]
    shard = parts_of(kernel, pairs, total)
    for part_id, (part, part_pairs) in enumerate(zip(shard.parts, shard.part_pairs, strict=True)):
        applied = kernel.apply(part, shard.state_root, PartId(part_id, total))
        assert pairs_of(applied.records, applied.values) == list(part_pairs)


@given(pairs=record_sets(max_size=3), part_id=st.integers(0, 999))
def test_more_parts_than_memory_usage(kernel: Kernel, pairs: Pairs, part_id: int) -> None:
    """A part that begins behind the last key is, as in nearcore, proved by the whole trie and gives all its records."""
    total = kernel.seal(edges_of(kernel, pairs, [], hashed=False)).memory_usage
    num_parts = total + 1000
    starts = part_starts(running_memory_usage(kernel, cut_pairs(pairs, []))[0], num_parts)
    part_id = total + part_id % 1000
    whole = kernel.build(record_batches(pairs), value_batches(pairs), None, None)
    state_root = kernel.seal([whole.edge]).state_root

    assert starts[part_id] is None
    kernel.validate(whole.interior, state_root, PartId(part_id, num_parts))
    applied = kernel.apply(whole.interior, state_root, PartId(part_id, num_parts))
    assert pairs_of(applied.records, applied.values) == list(pairs)


@given(pairs=record_sets())
def test_without_the_interior_the_edge_is_the_same(kernel: Kernel, pairs: Pairs) -> None:
    """Without the interior no referenced value is needed, and edge and node count stay."""
    full = kernel.build(record_batches(pairs, rows_max=7), value_batches(pairs), None, None)
    bare = kernel.build(record_batches(pairs), [], None, None, keep_interior=False)

    assert bare.interior is None
    assert (full.edge, full.node_count) == (bare.edge, bare.node_count)
    referenced = {value for _, value in pairs if len(value) > 4000}
    assert full.hashed_bytes == bare.hashed_bytes + sum(map(len, referenced))


def _without_charges(edge: Edge) -> tuple[object, ...]:
    return (edge.hashed, edge.left_key, edge.first_key, edge.last_key, edge.right_key, edge.open_nodes, edge.first_path, edge.top)
