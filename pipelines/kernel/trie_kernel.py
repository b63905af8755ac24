"""What a kernel does: trie structure, hashing, parts and proofs over Arrow record batches.

A shard's records, sorted by key, are cut into adjacent *key ranges*. Each range is worked on alone, with nothing but its own
records and its two neighbouring keys (the last key before it and the first key after it; None at the ends of the shard). That
is enough to finish every node whose keys all lie inside, because the depth of each node's parent branch follows from the
neighbours. What can't be finished is handed on as an *edge*; edges of adjacent ranges merge, and the merge of all is the root.

Terms. A key is a list of nibbles, high nibble first. ``lcp`` is the length of the longest common prefix, in nibbles. A prefix
*straddles* the left end of a range when it is a prefix of both ``left_key`` and ``first_key`` (its length is at most their
lcp), the right end when it is one of both ``last_key`` and ``right_key``. A node is *open* when the prefix at which its branch
stands straddles an end, else *closed*.

Edge, borsh, integers little-endian::

    u8  version = 1
    u8  hashed                 1 from build, 0 from structure
    option<vec<u8>> left_key   last key before the range
    vec<u8> first_key
    vec<u8> last_key
    option<vec<u8>> right_key  first key after the range
    vec<OpenNode> open         ascending by prefix (as byte strings of one nibble a byte)
    vec<vec<u8>> first_path    hashed only, else empty: bytes of the closed nodes on the way to first_key, top first
    option<Child> top          the root node, when no node is open (no neighbours on either side)
    vec<Charge> charges        structure only, else empty: memory usage to add to records, see below; ascending by key
    OpenNode = vec<u8> prefix (one nibble a byte)
               option<vec<u8>> first_key   first key under the prefix; None when it lies before the range (left_key is under it)
               option<ValueRef> value      of the key that ends at the prefix, if it is inside the range
               u16 bitmap, then a Child for each bit set, ascending: the closed children
    ValueRef = u32 length, [u8; 32] sha256 (zeros when not hashed)
    Child    = [u8; 32] hash (zeros when not hashed), u64 memory_usage, vec<u8> node bytes (empty when not hashed)
    Charge   = vec<u8> key, u64 memory_usage

What is listed as open: the deepest prefix of each end, that is first_key up to lcp(left_key, first_key) and last_key up to
lcp(last_key, right_key), and every shorter prefix that straddles an end and at which a key of the range ends or two keys of the
range part. A branch certainly stands at each of these, even where the edge knows neither value nor child: lcp(first_key,
last_key) can straddle both ends with an open node under each of its two children. A child that itself contains an open node is
not listed in its parent (its index is known from the deeper open prefix).

A Child at (prefix, index) is the node directly under that branch: its bytes start with the nibbles after prefix + [index],
so it is a leaf, a branch, or an extension whose branch lies deeper.

Merging A with its right neighbour B (A.right_key == B.first_key and B.left_key == A.last_key, else AssertionError): unite the
open nodes by prefix (value and children; first_key is None if A.left_key is under the prefix, else the earliest first_key of
any listed prefix that is or extends it: A need not list a prefix that B lists), then close, deepest first, each node that
straddles neither A's left nor B's right end: it becomes a child of the longest listed proper prefix (an extension before it
where nibbles remain between), or ``top`` when there is none. A closed node whose keys include A.first_key is put before A's
first_path (the extension first); B's first_path is dropped. A branch that would have fewer than two of {value, child} is not a
branch: an open node with a single child and no value can't occur once closed, since each listed prefix really branches. The
merge of two edges has the bytes of the edge of the united range, but for ``charges``.

Memory usage of records. The *preorder* of a trie charges each node's own memory usage to the first key under it. S(k), the
sum of the charges of all keys up to and including k, is then nearcore's running total at k's node, and part boundaries follow
from S alone: the boundary for a threshold is the first key with S(k) > threshold. ``structure`` returns the charge of each
record for closed nodes; a node closed by a merge is charged to its first key in ``charges``, where each key stands once (A's,
B's and the new charges, those of one key added up).

Source of the rules: nearcore core/store/src/trie/{raw_node,nibble_slice,state_parts}.rs and trie/ops/iter.rs. A kernel does no
I/O, keeps no state between calls, and never panics or loops on hostile input: it raises an `IntegrityError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import PARTIAL_STATE_BYTES_MAX, PARTIAL_STATE_ENTRIES_MAX, STATE_PART_MEMORY_USAGE
from schemas.nearcore.trie_node import KEY_BYTE_MEMORY_USAGE, NODE_MEMORY_USAGE
from schemas.published.torrent import PartPieces

__all__ = [
    "APPLIED_BYTES_MAX",
    "APPLIED_RATIO_MAX",
    "KEY_BYTE_MEMORY_USAGE",
    "NODE_MEMORY_USAGE",
    "PARTIAL_STATE_BYTES_MAX",
    "PARTIAL_STATE_ENTRIES_MAX",
    "REFERENCES_SCHEMA",
    "STATE_PART_MEMORY_USAGE",
    "TRIE_DEPTH_MAX",
    "WALK_STEPS_MAX",
    "AppliedPart",
    "Build",
    "CountedPart",
    "Kernel",
    "Sealed",
    "Structure",
]

TRIE_DEPTH_MAX = 2 * (2048 + 256)
"""Deepest path in nibbles: twice `schemas.dataset.flat_state.KEY_BYTES_MAX`."""

WALK_STEPS_MAX = 64 << 20
"""Most reads of nodes and values in one validation or application: shared subtrees would let a small part unfold without end."""

APPLIED_BYTES_MAX = 1 << 30
"""Most bytes of keys and inlined values of a part whose share of the memory usage is over ``STATE_PART_MEMORY_USAGE``."""

APPLIED_RATIO_MAX = 32
"""The same for a byte of the part. A record that shares no node with another has at most 2304 bytes of key over 89 bytes of nodes."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What `Kernel.structure` knows of a key range without hashing."""

    edge: bytes
    charges: pa.UInt64Array
    """A record's charge, in record order: own memory usage of the closed nodes whose first key it is."""


@dataclass(frozen=True, slots=True)
class Build:
    """What `Kernel.build` makes of a key range."""

    edge: bytes
    interior: pa.Buffer | None
    """PartialState bytes of the closed nodes and the values in the range: sorted, unique; None when not asked for."""
    node_count: int
    """Closed nodes, counted as a tree."""
    hashed_bytes: int
    """Bytes that were hashed: each record's inlined value, each closed node, and, when the interior is kept, each referenced value
    once."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The merge of all edges of a shard."""

    state_root: CryptoHash
    """Zeros when not hashed."""
    memory_usage: int
    root_node: bytes
    """Node bytes of the root; empty when not hashed."""
    boundary_nodes: tuple[tuple[bytes, ...], ...]
    """For each edge in order, empty when not hashed: the nodes from the root to the node of its first key, and every sibling to the left of
    that path: what nearcore's find_state_part_boundary reads. Unique, in no particular order."""
    charges: tuple[tuple[tuple[bytes, int], ...], ...]
    """For each edge in order, empty when hashed: (key, memory usage) to add to that range's charges, ascending by key, each once."""


@dataclass(frozen=True, slots=True)
class AppliedPart:
    """The records of a part, as `schemas.dataset.flat_state` describes them; values over 4000 bytes are references."""

    records: tuple[pa.RecordBatch, ...]
    values: tuple[pa.RecordBatch, ...]
    """Referenced values, unique, ascending by hash."""


REFERENCES_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(32), nullable=False),
        pa.field("references", pa.int64(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)
"""Nodes and values with the references to them, ascending by hash."""


@dataclass(frozen=True, slots=True)
class CountedPart:
    """The records of a part, and how often each of its nodes and values is referred to."""

    records: tuple[pa.RecordBatch, ...]
    """As those of `AppliedPart`."""
    references: tuple[pa.RecordBatch, ...]
    """Of ``REFERENCES_SCHEMA``: what the part's key interval refers to, once each, a record batch a bucket of hashes."""


class Kernel(Protocol):
    """The trie arithmetic. Implementations agree byte for byte, edges included."""

    name: str
    """``native`` or ``reference``."""

    def structure(self, records: Sequence[pa.RecordBatch], left_key: bytes | None, right_key: bytes | None) -> Structure:
        """Compute shape and memory usage of a key range from its keys and value lengths.

        Args:
            records: at least one row in all; needs the columns ``key`` and ``value_length`` alone.
            left_key: the last key before the range; None at the left end of the shard.
            right_key: the first key after the range; None at the right end.
        Raises:
            RecordOrderError: keys not strictly ascending, or not between the neighbours.
            PartLimitError: a key is longer than ``KEY_BYTES_MAX``.
        """
        ...

    def build(
        self,
        records: Sequence[pa.RecordBatch],
        values: Sequence[pa.RecordBatch],
        left_key: bytes | None,
        right_key: bytes | None,
        *,
        keep_interior: bool = True,
        boundary_nodes: Sequence[bytes] = (),
    ) -> Build:
        """Hash all that lies inside a key range.

        Args:
            records: at least one row in all, of ``RECORD_SCHEMA``.
            values: of ``VALUE_SCHEMA``, any order: holds each value that a record refers to when ``keep_interior``; what no record
                refers to is ignored. Without ``keep_interior`` it may be empty, and references are taken at their word.
            keep_interior: also return the nodes' and values' bytes.
            boundary_nodes: united with the interior, in any order: with those of a part's two ends the interior is the part, as `assemble`
                gives it.
        Raises:
            RecordOrderError, PartLimitError: as `structure`; also an interior over ``PARTIAL_STATE_BYTES_MAX``.
            ValueMismatchError: a referenced value is missing or does not hash, value_length is not the value's length, or a record
                has neither value nor value_hash. (With both, the value counts and the hash is not looked at.)
        """
        ...

    def merge(self, left: bytes, right: bytes) -> bytes:
        """Merge the edges of two adjacent key ranges; associative. Keeps no boundary nodes.

        Raises:
            MalformedNodeError: an edge can't be decoded.
        """
        ...

    def seal(self, edges: Sequence[bytes]) -> Sealed:
        """Merge all edges of a shard, left to right, keeping what parts need for their proofs.

        Args:
            edges: at least one; the first has no left_key, the last no right_key, all hashed or none.
        Raises:
            MalformedNodeError: an edge can't be decoded.
        """
        ...

    def assemble(self, interior: pa.Buffer | None, nodes: Sequence[bytes]) -> pa.Buffer:
        """Return a part's PartialState bytes: interior and boundary nodes united, sorted by bytes, each once.

        Args:
            interior: as `build` returned it; None for a part without records.
        Raises:
            MalformedPartError: the interior can't be decoded.
            PartLimitError: over ``PARTIAL_STATE_BYTES_MAX``.
        """
        ...

    def validate(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> None:
        """Judge a part as nearcore does: three walks from the trusted root, every entry visited.

        Subtrees may be shared, so a small part can unfold to many records. What they would have is counted before anything is made of
        them, and refused where no state can have it: a part ends at the first key with which the running memory usage is over its share
        of the root's (``memory_usage / num_parts``), so all its records but the first have less together, each its value's bytes and 100
        more. A root that nobody vouches for may claim any memory usage; a part whose share is over ``STATE_PART_MEMORY_USAGE`` is
        therefore bounded by its own bytes too. nearcore does not look at this; no part of a chain's root fails it.

        Raises:
            MalformedPartError: not PartialState bytes (nearcore's verdict: malformed).
            MissingTrieValueError, UnexpectedTrieValueError, MalformedNodeError: nearcore's verdict: invalid.
            PartLimitError: over a limit of this module, or the records are more than the part's share of the memory usage.
        As in nearcore the part of an empty trie (root of 32 zero bytes) has no entries, and a part that begins at the right edge
        (more parts than bytes of memory usage) is walked from the empty key, so that it holds every node and value.
        Source: nearcore core/store/src/trie/state_parts.rs, Trie::validate_state_part.
        """
        ...

    def validate_sorted(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> bytes:
        """Judge a part as `validate` does, and then the order of its entries: strictly ascending.

        nearcore does not judge the order, but every producer writes entries sorted, and digests of decoded parts are compared between
        producers.

        Returns:
            SHA-256 of the PartialState bytes, taken while the entries are hashed.
        Raises:
            As `validate`; MalformedPartError: the part is valid and its entries are in another order.
        """
        ...

    def digest_object(self, data: bytes, piece_length: int) -> tuple[bytes, PartPieces]:
        """Return the SHA-256 of a stored object and its piece hashes, its bytes read once.

        Args:
            piece_length: as `schemas.published.torrent.piece_hashes`, which says what the hashes are.
        """
        ...

    def apply(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> AppliedPart:
        """Validate a part and return the records of its key interval.

        Raises:
            As `validate`.
        Source: nearcore core/store/src/trie/state_parts.rs, Trie::apply_state_part.
        """
        ...

    def apply_counted(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId, bucket_count: int) -> CountedPart:
        """Validate a part, and return its records and how often its nodes and values are referred to.

        What is counted is said in `pipelines.kernel.reference_counts`, and how hashes are divided among buckets.

        Args:
            bucket_count: from 1 to 65,536.
        Raises:
            As `validate`; PartLimitError: more than ``WALK_STEPS_MAX`` references.
        """
        ...
