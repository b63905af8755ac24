"""Input that breaks a kernel's rules, and input at its limits."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pyarrow as pa
import pytest

from pipelines.kernel.edge import decode_edge, encode_edge
from pipelines.kernel.trie_kernel import Kernel
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import IntegrityError, MalformedNodeError, MalformedPartError, PartLimitError, RecordOrderError, ValueMismatchError
from schemas.ids import PartId
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.state_part import decode_partial_state
from schemas.nearcore.trie_node import ValueRef
from tests.support.records import build_ranges, cut_pairs, pairs_of, parts_of, record_batches, value_batches

LONG = b"L" * 4001
LONG_HASH = sha256(LONG).digest()


def one_record(**fields: object) -> list[pa.RecordBatch]:
    """Return one record, of key ``k``, with the given fields."""
    return [
        pa.RecordBatch.from_pylist([{"key": b"k", "value": None, "value_length": 0, "value_hash": None, **fields}], schema=RECORD_SCHEMA)
    ]


def one_value(value_hash: bytes, value: bytes) -> list[pa.RecordBatch]:
    """Return one referenced value."""
    return [pa.RecordBatch.from_pylist([{"value_hash": value_hash, "value": value}], schema=VALUE_SCHEMA)]


@pytest.mark.parametrize(
    ("keys", "left_key", "right_key"),
    [
        ([b"b", b"a"], None, None),
        ([b"a", b"a"], None, None),
        ([b"b"], b"b", None),
        ([b"b"], b"c", None),
        ([b"b"], None, b"b"),
        ([b"b"], None, b"a"),
        ([b"b", b"ba"], None, b"b\xff"),
        ([b"ab", b"a"], None, None),
    ],
)
def test_order_is_checked(kernel: Kernel, keys: list[bytes], left_key: bytes | None, right_key: bytes | None) -> None:
    """Keys ascend strictly, also between record batches, and lie strictly between their neighbours."""
    records = [batch for key in keys for batch in record_batches([(key, b"")])]
    if keys == [b"b", b"ba"]:
        kernel.structure(records, left_key, right_key)
        return
    with pytest.raises(RecordOrderError):
        kernel.structure(records, left_key, right_key)
    with pytest.raises(RecordOrderError):
        kernel.build(records, [], left_key, right_key)


def test_key_length_is_limited(kernel: Kernel) -> None:
    """A key of KEY_BYTES_MAX bytes is taken, one byte more is over the limit."""
    longest = b"\x10" * KEY_BYTES_MAX
    kernel.build(record_batches([(longest, b"")]), [], None, None)
    for call in (kernel.structure, lambda records, left, right: kernel.build(records, [], left, right)):
        with pytest.raises(PartLimitError):
            call(record_batches([(longest + b"\0", b"")]), None, None)


@pytest.mark.parametrize(
    ("records", "values"),
    [
        (one_record(value=b"abc", value_length=2), []),
        (one_record(value_length=0), []),
        (one_record(value_length=4001, value_hash=LONG_HASH), []),
        (one_record(value_length=4001, value_hash=LONG_HASH), one_value(LONG_HASH, LONG[:-1] + b"M")),
        (one_record(value_length=4002, value_hash=LONG_HASH), one_value(LONG_HASH, LONG)),
        (one_record(value_length=4001, value_hash=LONG_HASH), one_value(sha256(b"").digest(), b"")),
    ],
    ids=["inlined length", "neither", "no values", "wrong bytes", "referenced length", "another value"],
)
def test_values_are_checked(kernel: Kernel, records: list[pa.RecordBatch], values: list[pa.RecordBatch]) -> None:
    """A value that is missing, or has not the length or hash that its record says, is a mismatch."""
    with pytest.raises(ValueMismatchError):
        kernel.build(records, values, None, None)


def test_values_that_nothing_refers_to_are_ignored(kernel: Kernel) -> None:
    """Only what a record refers to is looked at, so one values file can serve many key ranges."""
    records = record_batches([(b"k", LONG)])
    values = [*one_value(b"\1" * 32, b"does not hash"), *value_batches([(b"k", LONG)])]
    build = kernel.build(records, values, None, None)
    assert LONG in decode_partial_state(build.interior)
    assert b"does not hash" not in decode_partial_state(build.interior)


def test_equal_values_are_kept_once(kernel: Kernel) -> None:
    """A value that many keys share, inlined or referenced, is in the interior once."""
    pairs = [(bytes([i]), value) for i, value in enumerate([LONG, LONG, b"short", b"short", b"", b""])]
    entries = decode_partial_state(build_ranges(kernel, cut_pairs(pairs, []))[0].interior)
    assert [entries.count(value) for value in (LONG, b"short", b"")] == [1, 1, 1]
    assert entries == sorted(set(entries))


def test_keys_that_begin_with_one_another_to_the_longest(kernel: Kernel) -> None:
    """A chain of keys each a byte longer, down to the deepest that is allowed, is built, cut, validated and applied."""
    pairs = [(b"\x11" * length, bytes([length % 251])) for length in range(0, KEY_BYTES_MAX + 1, 4)]
    shard = parts_of(kernel, pairs, 3)
    applied = [kernel.apply(part, shard.state_root, PartId(idx, 3)) for idx, part in enumerate(shard.parts)]
    assert [pair for part in applied for pair in pairs_of(part.records, part.values)] == pairs


def test_edges_that_are_not_adjacent(kernel: Kernel) -> None:
    """Only adjacent edges of one kind can be joined, and only a whole shard sealed: anything else is a fault of the caller."""
    pairs = [(bytes([i]), b"v") for i in range(9)]
    ranges = cut_pairs(pairs, [3, 6])
    first, second, third = (build.edge for build in build_ranges(kernel, ranges))
    structure = kernel.structure(record_batches(ranges[1].pairs), ranges[1].left_key, ranges[1].right_key).edge
    for left, right in [(first, third), (second, first), (first, structure)]:
        with pytest.raises(AssertionError):
            kernel.merge(left, right)
    for edges in ([first, third], [first, second], [second, third], [first, structure, third], []):
        with pytest.raises(AssertionError):
            kernel.seal(edges)


def test_edges_that_contradict_each_other(kernel: Kernel) -> None:
    """Edges that claim one slot or value twice, leave a branch with a single child, or add up to over 64 bits, are refused."""
    pairs = [(b"\x10", b""), (b"\x11", b""), (b"\x12", b""), (b"\x13", b"")]
    left, right = (decode_edge(build.edge) for build in build_ranges(kernel, cut_pairs(pairs, [2])))
    (here,), (there,) = left.open_nodes, right.open_nodes
    heavy = {index: replace(child, memory_usage=2**63) for index, child in there.children.items()}
    value = ValueRef(0, sha256(b"").digest())
    contradictions = [
        (left, replace(right, open_nodes=(replace(there, children=there.children | here.children),))),
        (replace(left, open_nodes=(replace(here, value=value),)), replace(right, open_nodes=(replace(there, value=value),))),
        (
            replace(left, open_nodes=(replace(here, children={}),)),
            replace(right, open_nodes=(replace(there, children={3: there.children[3]}),)),
        ),
        (left, replace(right, open_nodes=(replace(there, children=heavy),))),
    ]

    assert kernel.merge(encode_edge(left), encode_edge(right))
    for one, other in contradictions:
        with pytest.raises(MalformedNodeError):
            kernel.merge(encode_edge(one), encode_edge(other))
        with pytest.raises(MalformedNodeError):
            kernel.seal([encode_edge(one), encode_edge(other)])


@pytest.mark.parametrize("edge", [b"", b"\1", b"\1\2", b"\2" + bytes(40), b"\1\1" + b"\0" * 9 + b"\xff" * 4 + bytes(9)])
def test_what_is_no_edge(kernel: Kernel, edge: bytes) -> None:
    """Bytes that are no edge are malformed."""
    with pytest.raises(MalformedNodeError):
        kernel.seal([edge])
    with pytest.raises(MalformedNodeError):
        kernel.merge(edge, edge)


def test_an_edge_has_no_byte_behind(kernel: Kernel) -> None:
    """An edge with anything behind it, or cut off anywhere, is malformed."""
    (build,) = build_ranges(kernel, cut_pairs([(b"a", b""), (b"b", b"")], []))
    for damaged in [build.edge + b"\0", *(build.edge[:length] for length in range(len(build.edge)))]:
        with pytest.raises(MalformedNodeError):
            kernel.seal([damaged])


def test_assembling(kernel: Kernel) -> None:
    """A part is interior and boundary nodes, sorted, each once; nothing at all is the empty part."""
    (build,) = build_ranges(kernel, cut_pairs([(b"a", b"x"), (b"b", b"y")], []))
    entries = decode_partial_state(build.interior)
    part = kernel.assemble(build.interior, [b"zz", entries[0], b"", b"zz"])
    assert sorted({*entries, b"zz", b""}) == decode_partial_state(part)
    assert kernel.assemble(None, []).to_pybytes() == bytes(5)
    with pytest.raises(MalformedPartError):
        kernel.assemble(pa.py_buffer(b"\0\1\0\0\0"), [])


def test_kernels_are_named(kernel: Kernel) -> None:
    """A kernel says which one it is."""
    assert kernel.name in ("reference", "native")


def test_errors_name_their_facts(kernel: Kernel) -> None:
    """An error says in one line what is wrong, and where."""
    with pytest.raises(IntegrityError) as caught:
        kernel.build(one_record(value_length=4001, value_hash=LONG_HASH), [], None, None)
    assert "\n" not in str(caught.value)
    assert caught.value.problem and caught.value.where
