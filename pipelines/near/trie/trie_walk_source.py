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
from pipelines.near.node.flat_state_rows import SHAPE_COLUMNS
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.state_column import READ_ROWS, StateColumn
from pipelines.near.record_batches import bounded
from pipelines.near.trie.walk_trie import Leaf, split_by_memory_usage, walk_leaves, within
from schemas.dataset.flat_state import RECORD_SCHEMA
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
class StateWalkSource(NodeSource):
    """A node's state as a `FlatStateSource`: some shards by a walk over the State column, the others from flat state."""

    walked: tuple[ShardUId, ...] = ()
    """Shards that are walked."""

    @classmethod
    def of(cls, node: NodeSource, walked: tuple[ShardUId, ...]) -> StateWalkSource:
        """Return the source of a node that walks some shards."""
        return cls(node.node_home, node.context, node.read_limit_bytes_per_s, walked=walked)

    def describe(self) -> str:
        """Return what is read, for people."""
        every = len(self.walked) == len(self.context.shards)
        shards = "" if every else f" (shards {', '.join(map(str, self.walked))})"
        return f"{NodeSource.describe(self)}, by a walk over its State column{shards}"

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a text that changes when the records could: of a walk, every byte is checked against the state root.

        Raises:
            InvalidInputError: no state root is given.
            SourceError: as `NodeSource.fingerprint`.
        """
        if shard.shard_uid not in self.walked:
            return NodeSource.fingerprint(self, shard)
        return f"state-{hashlib.sha256(f'{shard.shard_uid} {_root(shard)}'.encode()).hexdigest()[:32]}"

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Split a shard by the memory usage that its trie's nodes tell.

        Raises:
            MissingTrieValueError: a node of the top of the trie is not there.
            SourceError, IntegrityError: a database can't be read.
        """
        if shard.shard_uid not in self.walked:
            return NodeSource.key_ranges(self, shard, range_bytes_target)
        return split_by_memory_usage(self.state_column(shard).open(), _root(shard), range_bytes_target)

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range at the shard's state root.

        Raises:
            MissingTrieValueError: a node is not there, or its row does not hash; its prefix and hash are named.
            ValueMismatchError: the same of a value, whose key is named.
            SourceError, IntegrityError: a database can't be read.
        """
        if shard.shard_uid not in self.walked:
            yield from NodeSource.records(self, shard, key_range, record_batch_bytes_max)
            return
        column = self.state_column(shard).open()
        leaves = walk_leaves(column, _root(shard), within(key_range))
        yield from bounded(read_leaves(column, leaves), record_batch_bytes_max)

    def shapes(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield keys and value lengths of a key range at the shard's state root.

        Raises:
            As `records`.
        """
        if shard.shard_uid not in self.walked:
            return NodeSource.shapes(self, shard, key_range, record_batch_bytes_max)
        return (batch.select(SHAPE_COLUMNS) for batch in self.records(shard, key_range, record_batch_bytes_max))


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


def choose_node_source(node: NodeSource, state_walk: StateWalk) -> NodeSource:
    """Decide shard by shard between flat state and a walk over the State column.

    Raises:
        InvalidInputError: ``always``, and a shard's state root is not given.
        SourceError: a database can't be read.
    """
    if state_walk is StateWalk.NEVER:
        return node
    shards = node.context.shards
    if state_walk is StateWalk.ALWAYS:
        return StateWalkSource.of(node, tuple(shard.shard_uid for shard in shards if _root(shard)))
    home = read_node_home(Path(node.node_home))
    walked = tuple(shard.shard_uid for shard in shards if not _has_flat_state(home, shard) and has_state_root(home, shard))
    return StateWalkSource.of(node, walked) if walked else node


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
    """Return whether the node has the node of a shard's state root: the State column is worth a walk."""
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
