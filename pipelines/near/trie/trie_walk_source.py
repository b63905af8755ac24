"""A node's state by a walk over its State column: for epochs that no flat state of the node can be brought to.

A walk costs some point reads a record where flat state is read in one sweep; in return it gives any state root that the node still keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipelines.near.node.flat_state_location import has_flat_storage, locate_flat_state
from pipelines.near.node.flat_state_source import FoundStateHeader, KeyRange
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.state_column import READ_ROWS, StateColumn, StateColumnPlace
from pipelines.near.record_batches import bounded
from pipelines.near.trie.walk_trie import Leaf, memory_usage, split_by_memory_usage, walk_leaves, within
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import InvalidInputError, SourceError, ValueMismatchError
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX, VALUE_BYTES_MAX

_EMPTY_VALUE_HASH: Final = hashlib.sha256(b"").digest()


class StateWalk(StrEnum):
    """When a node's State column is walked."""

    AUTO = "auto"
    """For shards whose flat state can't be brought to the wanted block while the node has the state root's node."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class StateWalkSource:
    """A node's state as a `FlatStateSource`: some shards by a walk over the State column, the others from flat state."""

    node: NodeSource
    walked: tuple[ShardUId, ...]
    """Shards that are walked."""
    on_node_disk: bool = True

    def describe(self) -> str:
        """Return what is read, for people."""
        every = len(self.walked) == len(self.node.context.shards)
        shards = "" if every else f" (shards {', '.join(map(str, self.walked))})"
        return f"{self.node.describe()}, by a walk over its State column{shards}"

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a text that changes when the records could: of a walk, every byte is checked against the state root.

        Raises:
            InvalidInputError: no state root is given.
            SourceError: as `NodeSource.fingerprint`.
        """
        if shard.shard_uid not in self.walked:
            return self.node.fingerprint(shard)
        return f"state-{hashlib.sha256(f'{shard.shard_uid} {_root(shard)}'.encode()).hexdigest()[:32]}"

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Split a shard by the memory usage that its trie's nodes tell.

        Raises:
            MissingTrieValueError: a node of the top of the trie is not there.
            SourceError, IntegrityError: a database can't be read.
        """
        if shard.shard_uid not in self.walked:
            return self.node.key_ranges(shard, range_bytes_target)
        return split_by_memory_usage(self._column(shard), _root(shard), range_bytes_target)

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range at the shard's state root.

        Raises:
            MissingTrieValueError: a node is not there, or its row does not hash; its prefix and hash are named.
            ValueMismatchError: the same of a value, whose key is named.
            SourceError, IntegrityError: a database can't be read.
        """
        if shard.shard_uid not in self.walked:
            yield from self.node.records(shard, key_range, record_batch_bytes_max)
            return
        column = self._column(shard)
        leaves = walk_leaves(column, _root(shard), within(key_range))
        yield from bounded(read_leaves(column, leaves), record_batch_bytes_max)

    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield referenced values from the State column, in the order asked for.

        Raises:
            ValueMismatchError: a value is missing or does not hash.
            ColumnMissingError, SourceError: a database can't be read.
        """
        column = self._column(shard)
        yield from bounded((_value_batch(column, value_hash) for value_hash in value_hashes), record_batch_bytes_max)

    def state_header(self, shard: ShardContext, sync_hash: bytes) -> FoundStateHeader:
        """Return the shard's verified header, as `NodeSource.state_header`.

        Raises:
            SourceError: the database can't be opened.
        """
        return self.node.state_header(shard, sync_hash)

    def verify_state_header(self, shard: ShardContext, sync_hash: bytes, header: bytes) -> None:
        """Verify all of a header, as `NodeSource.verify_state_header`.

        Raises:
            InvalidInputError, SourceError, IntegrityError: as there.
        """
        self.node.verify_state_header(shard, sync_hash, header)

    def root_memory_usage(self, shard: ShardContext) -> int | None:
        """Return the memory usage in the state root's node; None when the node does not have it, or no root is given.

        Raises:
            ColumnMissingError, SourceError: a database can't be read.
        """
        if shard.state_root is None or shard.state_root == ZERO_HASH:
            return None if shard.state_root is None else 0
        node = self._column(shard).read([shard.state_root])[0]
        return None if node is None else memory_usage(node)

    def state_column(self, shard: ShardContext) -> StateColumnPlace:
        """Say where the shard's trie nodes are."""
        return self.node.state_column(shard)

    def _column(self, shard: ShardContext) -> StateColumn:
        return self.state_column(shard).open()


def read_leaves(column: StateColumn, leaves: Iterator[list[Leaf]]) -> Iterator[pa.RecordBatch]:
    """Turn records of a walk into record batches, reading the values that are short enough to be inlined.

    Raises:
        ValueMismatchError: a value is missing, does not hash, or is over its limit; its key is named.
    """
    for group in leaves:
        for begin in range(0, len(group), READ_ROWS):
            yield _record_batch(column, group[begin : begin + READ_ROWS])


def _record_batch(column: StateColumn, leaves: Sequence[Leaf]) -> pa.RecordBatch:
    inlined = [leaf for leaf in leaves if leaf.value_length <= INLINED_VALUE_BYTES_MAX]
    # An empty value is known by its hash, and needs no row.
    read = iter(column.read([leaf.value_hash for leaf in inlined if leaf.value_hash != _EMPTY_VALUE_HASH]))
    values: list[bytes | None] = []
    for leaf in leaves:
        if leaf.value_length > INLINED_VALUE_BYTES_MAX:
            if leaf.value_length > VALUE_BYTES_MAX:
                raise _refused(column, leaf, f"has {leaf.value_length} bytes, the limit is {VALUE_BYTES_MAX}")
            values.append(None)
            continue
        value = b"" if leaf.value_hash == _EMPTY_VALUE_HASH else next(read)
        if value is None:
            raise _refused(column, leaf, column.explain(leaf.value_hash))
        if len(value) != leaf.value_length:
            raise _refused(column, leaf, f"has {len(value)} bytes, its trie node says {leaf.value_length}")
        values.append(value)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([leaf.key for leaf in leaves], pa.binary()),
            pa.array(values, pa.binary()),
            pa.array([leaf.value_length for leaf in leaves], pa.uint32()),
            pa.array([leaf.value_hash if value is None else None for leaf, value in zip(leaves, values, strict=True)], pa.binary(32)),
        ],
        schema=RECORD_SCHEMA,
    )


def _refused(column: StateColumn, leaf: Leaf, problem: str) -> ValueMismatchError:
    return ValueMismatchError(
        problem=f"the value {CryptoHash(leaf.value_hash)} {problem}",
        where=f"trie key {leaf.key.hex()}, {column.where}",
        remedy="The node no longer keeps this state, or its database is damaged; take a node that has it.",
    )


def _value_batch(column: StateColumn, value_hash: bytes) -> pa.RecordBatch:
    value = column.read([value_hash])[0]
    if value is None:
        raise ValueMismatchError(
            problem=f"the value {CryptoHash(value_hash)} {column.explain(value_hash)}",
            where=column.where,
            remedy="The node no longer keeps this state, or its database is damaged; take a node that has it.",
        )
    return pa.RecordBatch.from_arrays([pa.array([value_hash], pa.binary(32)), pa.array([value], pa.binary())], schema=VALUE_SCHEMA)


def choose_node_source(node: NodeSource, state_walk: StateWalk) -> NodeSource | StateWalkSource:
    """Decide shard by shard between flat state and a walk over the State column.

    Raises:
        InvalidInputError: ``always``, and a shard's state root is not given.
        SourceError: a database can't be read.
    """
    if state_walk is StateWalk.NEVER:
        return node
    shards = node.context.shards
    if state_walk is StateWalk.ALWAYS:
        return StateWalkSource(node, tuple(shard.shard_uid for shard in shards if _root(shard)))
    home = read_node_home(Path(node.node_home))
    walked = tuple(shard.shard_uid for shard in shards if not _has_flat_state(home, shard) and has_state_root(home, shard))
    return StateWalkSource(node, walked) if walked else node


def tracked_shards(node_home: str | Path, context: EpochContext, shard_ids: tuple[int, ...] = ()) -> EpochContext:
    """Return an epoch's context with the shards that are meant: those named, else those that the node tracks.

    A node tracks a shard that it has or makes flat storage of, or whose state root's node it has. Where it has nothing of any, all are
    left, so that what is missing can be told.

    Raises:
        InvalidInputError: a named shard is not in the epoch.
        SourceError: a database can't be read.
        IntegrityError: a row can't be decoded.
    """
    if shard_ids:
        return context.only(shard_ids)
    home = read_node_home(node_home)
    found = tuple(shard for shard in context.shards if has_flat_storage(home, shard.shard_uid) or has_state_root(home, shard))
    return replace(context, shards=found or context.shards)


def _has_flat_state(home: NodeHome, shard: ShardContext) -> bool:
    if shard.flat_head_target is None:
        return False
    try:
        locate_flat_state(home, shard.shard_uid, shard.flat_head_target)
    except SourceError:
        return False
    return True


def has_state_root(home: NodeHome, shard: ShardContext) -> bool:
    """Tell whether the node has the node of a shard's state root: the State column is worth a walk."""
    if shard.state_root is None:
        return False
    if shard.state_root == ZERO_HASH:
        return True
    try:
        return StateColumn(home, shard.shard_uid).read([shard.state_root])[0] is not None
    except SourceError:
        return False


def _root(shard: ShardContext) -> CryptoHash:
    if shard.state_root is None:
        raise InvalidInputError(
            problem=f"the epoch context does not give the state root of shard {shard.shard_uid}, and a walk begins there",
            remedy="Add state_root to the context, or let it be read from the node's database.",
        )
    return shard.state_root
