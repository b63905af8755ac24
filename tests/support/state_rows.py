"""State columns for tests: tries as a node keeps them, of records that a test makes up."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.node_columns import STATE, STATE_SHARD_UID_MAPPING
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.state_column import StateColumn
from pipelines.near.trie.trie_walk_source import StateWalkSource
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.state_part import decode_partial_state
from tests.support.nodes import new_database
from tests.support.records import Pairs, parts_of

SHARD_UID = ShardUId(version=3, shard_id=0)


def trie_entries(pairs: Pairs) -> tuple[CryptoHash, list[bytes]]:
    """Return the state root of some records, and the bytes of all nodes and values of their trie."""
    whole = parts_of(choose_kernel("auto"), pairs, 1)
    return whole.state_root, [bytes(entry) for entry in decode_partial_state(whole.parts[0])]


def state_rows(
    entries: Iterable[bytes], prefix: bytes = SHARD_UID.to_bytes(), count: bytes = (1).to_bytes(8, "little")
) -> dict[bytes, bytes]:
    """Return the rows of State for nodes and values."""
    return {prefix + sha256(entry).digest(): entry + count for entry in entries}


def node_of(folder: Path, *states: Pairs) -> tuple[Path, list[CryptoHash]]:
    """Make a home whose State column has some states of one shard; return it and their roots."""
    tries = [trie_entries(pairs) for pairs in states]
    rows: dict[bytes, bytes] = {}
    for _, entries in tries:
        rows.update(state_rows(entries))
    new_database(folder / "data", {STATE: rows, STATE_SHARD_UID_MAPPING: {}})
    return folder, [root for root, _ in tries]


def context_at(state_root: CryptoHash, shard_uid: ShardUId = SHARD_UID, block: CryptoHash | None = None) -> EpochContext:
    """Return a context of one shard at a state root."""
    return EpochContext("test", 7, CryptoHash(b"\1" * 32), ZERO_HASH, 82, (ShardContext(shard_uid, state_root, block),))


def walk_source(home: Path, context: EpochContext) -> StateWalkSource:
    """Return a source that walks all shards of a context."""
    return StateWalkSource.of(NodeSource(str(home), context), tuple(shard.shard_uid for shard in context.shards))


def state_column(home: Path, shard_uid: ShardUId = SHARD_UID) -> StateColumn:
    """Open a home's State column."""
    return StateColumn(read_node_home(home), shard_uid)
