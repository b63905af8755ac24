"""Trie nodes: their bytes, hashes and memory usage, and keys as nibbles.

A node is hashed as the SHA-256 of these bytes (borsh)::

    0 Leaf             vec<u8> encoded nibbles, ValueRef
    1 BranchNoValue    children
    2 BranchWithValue  ValueRef, children
    3 Extension        vec<u8> encoded nibbles, [u8; 32] child
    then, for each     u64 memory usage of the whole subtree

    ValueRef = u32 length, [u8; 32] sha256 of the value
    children = u16 bitmap (bit i: child i), then [u8; 32] for each bit set, ascending
    encoded nibbles = first byte 0x20 for a leaf, plus 0x10 + the first nibble when their number is odd; then two nibbles a byte

Here a list of nibbles is a byte string of one nibble a byte, so that it compares as nearcore's nibbles do. Nothing here reads a
trie or knows which nodes belong together.

Source: nearcore core/store/src/trie/{raw_node,nibble_slice}.rs, and trie/mod.rs for the costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from schemas.errors import MalformedNodeError
from schemas.ids import HASH_BYTES, CryptoHash
from schemas.nearcore.borsh import BorshReader, BorshWriter

NODE_MEMORY_USAGE = 50
"""Cost of a node, and again of a value (nearcore core/store/src/trie/mod.rs, TRIE_COSTS.node_cost)."""

KEY_BYTE_MEMORY_USAGE = 2
"""Cost of a byte of a node's encoded key (TRIE_COSTS.byte_of_key)."""

VALUE_BYTE_MEMORY_USAGE = 1
"""Cost of a byte of a value (TRIE_COSTS.byte_of_value)."""

BRANCH_CHILDREN = 16
"""Slots for children in a branch."""

_LEAF_FLAG = 0x20
_ODD_FLAG = 0x10
_NIBBLE_OF_HEX_DIGIT = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))
_HEX_DIGIT_OF_NIBBLE = bytes.maketrans(bytes(range(16)), b"0123456789abcdef")


@dataclass(frozen=True, slots=True)
class ValueRef:
    """A value by its length and hash."""

    length: int
    hash: bytes
    """32 bytes."""

    @property
    def memory_usage(self) -> int:
        """What the value adds to the memory usage of the node that holds it."""
        return self.length * VALUE_BYTE_MEMORY_USAGE + NODE_MEMORY_USAGE


@dataclass(frozen=True, slots=True)
class LeafNode:
    """The end of a key that no longer key begins with."""

    key: bytes
    """Encoded nibbles from the parent down."""
    value: ValueRef

    @property
    def own_memory_usage(self) -> int:
        """Memory usage of the node without what hangs under it."""
        return NODE_MEMORY_USAGE + len(self.key) * KEY_BYTE_MEMORY_USAGE + self.value.memory_usage


@dataclass(frozen=True, slots=True)
class BranchNode:
    """A place where keys part, or where one ends that others begin with."""

    children: dict[int, bytes]
    """Hash of each child by its nibble."""
    value: ValueRef | None

    @property
    def own_memory_usage(self) -> int:
        """Memory usage of the node without what hangs under it."""
        return NODE_MEMORY_USAGE + (0 if self.value is None else self.value.memory_usage)


@dataclass(frozen=True, slots=True)
class ExtensionNode:
    """A run of nibbles that all keys below share."""

    key: bytes
    """Encoded nibbles from the parent down."""
    child: bytes
    """Hash of the branch below."""

    @property
    def own_memory_usage(self) -> int:
        """Memory usage of the node without what hangs under it."""
        return NODE_MEMORY_USAGE + len(self.key) * KEY_BYTE_MEMORY_USAGE


@dataclass(frozen=True, slots=True)
class RawTrieNodeWithSize:
    """A node and the memory usage of its whole subtree, counted as a tree: equal subtrees count each time."""

    node: LeafNode | BranchNode | ExtensionNode
    memory_usage: int


def key_to_nibbles(key: bytes) -> bytes:
    """Return a key's nibbles, high nibble first."""
    return key.hex().encode().translate(_NIBBLE_OF_HEX_DIGIT)


def nibbles_to_key(nibbles: bytes) -> bytes:
    """Return the key that has these nibbles.

    Raises:
        MalformedNodeError: their number is odd, so no key has them.
    """
    if len(nibbles) % 2:
        raise MalformedNodeError(problem="a trie key ends in the middle of a byte", where=nibbles.hex()[1:80:2])
    return bytes.fromhex(nibbles.translate(_HEX_DIGIT_OF_NIBBLE).decode())


def common_prefix_length(left: bytes, right: bytes) -> int:
    """Return how many nibbles two lists of nibbles share at their beginning."""
    length = 0
    for left_nibble, right_nibble in zip(left, right, strict=False):
        if left_nibble != right_nibble:
            break
        length += 1
    return length


def encode_nibbles(nibbles: bytes, is_leaf: bool) -> bytes:
    """Return the encoded form that leaves and extensions hold."""
    odd = len(nibbles) % 2
    first = (_LEAF_FLAG if is_leaf else 0) + (_ODD_FLAG + nibbles[0] if odd else 0)
    return bytes([first]) + nibbles_to_key(nibbles[odd:])


def decode_nibbles(encoded: bytes) -> bytes:
    """Return the nibbles of an encoded key; like nearcore, looks at no flag but the one for an odd number.

    Raises:
        MalformedNodeError: no byte at all.
    """
    if not encoded:
        raise MalformedNodeError(problem="the key of a leaf or extension has no byte")
    return key_to_nibbles(encoded)[1 if encoded[0] & _ODD_FLAG else 2 :]


def hash_node(node_bytes: bytes) -> CryptoHash:
    """Return the hash that refers to a node or value."""
    return CryptoHash(sha256(node_bytes).digest())


def encode_trie_node(raw: RawTrieNodeWithSize) -> bytes:
    """Return a node's bytes."""
    writer = BorshWriter()
    match raw.node:
        case LeafNode(key, value):
            writer.u8(0).byte_vec(key)
            write_value_ref(writer, value)
        case BranchNode(children, None):
            _write_children(writer.u8(1), children)
        case BranchNode(children, ValueRef() as value):
            write_value_ref(writer.u8(2), value)
            _write_children(writer, children)
        case ExtensionNode(key, child):
            writer.u8(3).byte_vec(key).fixed(child)
    return writer.u64(raw.memory_usage).to_bytes()


def decode_trie_node(node_bytes: bytes | memoryview) -> RawTrieNodeWithSize:
    """Parse a node's bytes.

    Raises:
        MalformedNodeError: they are no node, or bytes follow it.
    """
    reader = BorshReader(node_bytes, where="trie node", error_class=MalformedNodeError)
    node: LeafNode | BranchNode | ExtensionNode
    match reader.u8():
        case 0:
            node = LeafNode(key=reader.byte_vec(), value=read_value_ref(reader))
        case 1:
            node = BranchNode(children=_read_children(reader), value=None)
        case 2:
            value = read_value_ref(reader)
            node = BranchNode(children=_read_children(reader), value=value)
        case 3:
            node = ExtensionNode(key=reader.byte_vec(), child=reader.fixed(HASH_BYTES))
        case tag:
            reader.fail(f"no kind of node has the tag {tag}")
    raw = RawTrieNodeWithSize(node=node, memory_usage=reader.u64())
    reader.end()
    return raw


def write_value_ref(writer: BorshWriter, value: ValueRef) -> None:
    """Append a ValueRef."""
    writer.u32(value.length).fixed(value.hash)


def read_value_ref(reader: BorshReader) -> ValueRef:
    """Take a ValueRef."""
    return ValueRef(length=reader.u32(), hash=reader.fixed(HASH_BYTES))


def children_bitmap(indices: dict[int, bytes] | set[int]) -> int:
    """Return the bitmap of the children that are there."""
    return sum(1 << index for index in indices)


def bitmap_children(bitmap: int) -> list[int]:
    """Return the indices of the children that are there, ascending."""
    return [index for index in range(BRANCH_CHILDREN) if bitmap >> index & 1]


def _write_children(writer: BorshWriter, children: dict[int, bytes]) -> None:
    writer.u16(children_bitmap(children))
    for index in sorted(children):
        writer.fixed(children[index])


def _read_children(reader: BorshReader) -> dict[int, bytes]:
    return {index: reader.fixed(HASH_BYTES) for index in bitmap_children(reader.u16())}
