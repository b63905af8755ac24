"""What happened to a shard's records between two blocks of a chain, out of a node's database.

Two ways, which can be mixed by kind of key. The StateChanges column has what each block did to accounts, access keys, contract code and
contract data, all shards mixed: the shard layout assigns keys to shards. What that column does not record, or all where the layout is not
known, comes from the difference between the two tries in the State column. Neither is trusted: the result is proved
against the state root.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pipelines.near.node.configured_layouts import known_layouts
from pipelines.near.node.node_columns import BLOCK_HEADER, CHUNK_EXTRA, STATE_CHANGES
from pipelines.near.node.node_home import NodeHome
from pipelines.near.node.rocksdb_reader import RocksDbReader, cached_reader
from pipelines.near.node.state_column import StateColumn
from pipelines.near.trie.walk_difference import trie_difference
from schemas.errors import ColumnMissingError, SnapshotMismatchError, StatecastError
from schemas.ids import HASH_BYTES, CryptoHash, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_context import ShardContext
from schemas.nearcore.shard_layout import ShardLayout, shard_layout_from_json
from schemas.nearcore.state_changes import RECORDED_KINDS, account_of, decode_last_change

BLOCKS_MAX: Final = 1 << 20
"""Most blocks between two states; an epoch of mainnet has 43,200."""

_AFTER_BLOCK: Final = b"\xff" * 4096
_EXTRA_ROOT: Final = slice(1, 1 + HASH_BYTES)
_COLUMNS: Final = (BLOCK_HEADER, STATE_CHANGES, CHUNK_EXTRA)

Change = tuple[bytes, bytes | None]
"""A trie key and its new value; None where the key is gone."""


@dataclass(frozen=True, slots=True)
class BlockChanges:
    """The StateChanges rows of some blocks, one shard's."""

    home: NodeHome
    shard: ShardContext
    """At the later block."""
    layout: ShardLayout

    def blocks_since(self, earlier: CryptoHash) -> tuple[CryptoHash, ...]:
        """Return the blocks after an earlier one up to the shard's own, oldest first.

        Raises:
            SnapshotMismatchError: a header is gone, or the earlier block is not an ancestor.
            IntegrityError: a header does not hash.
            SourceError: a database can't be read.
        """
        readers = _chain_readers(self.home)
        block_hash = self.shard.flat_head_target
        blocks: list[CryptoHash] = []
        for _ in range(BLOCKS_MAX):
            if block_hash == earlier:
                return tuple(reversed(blocks))
            row = None if block_hash is None else _get(readers, BLOCK_HEADER, block_hash)
            if block_hash is None or row is None:
                break
            blocks.append(block_hash)
            block_hash = decode_block_header(row, f"BlockHeader {block_hash}, {readers[0].folder}", block_hash).prev_hash
        raise SnapshotMismatchError(
            problem=f"no chain of block headers leads from block {self.shard.flat_head_target} back to block {earlier}: "
            f"that of block {block_hash} is not there",
            where=f"BlockHeader, {readers[0].folder}",
        )

    def changes(self, block_hash: CryptoHash) -> list[Change]:
        """Return what one block did to the shard's records of the recorded kinds.

        Raises:
            IntegrityError: a row can't be decoded.
            SourceError: a database can't be read.
        """
        for reader in _chain_readers(self.home):
            # An archival node's hot store has the newest blocks' rows, its cold store all others'.
            if found := list(self._rows(reader, block_hash)):
                return found
        return []

    def _rows(self, reader: RocksDbReader, block_hash: CryptoHash) -> Iterator[Change]:
        where = f"StateChanges of block {block_hash}, {reader.folder}"
        for rows in reader.scan(STATE_CHANGES, block_hash, block_hash + _AFTER_BLOCK):
            for key, row in rows:
                trie_key = key[HASH_BYTES:]
                if trie_key[:1] and trie_key[0] in RECORDED_KINDS and self._owns(trie_key, where):
                    yield trie_key, decode_last_change(row, trie_key, where)

    def _owns(self, trie_key: bytes, where: str) -> bool:
        return self.layout.shard_uids[self.layout.shard_index_of(account_of(trie_key, where))] == self.shard.shard_uid

    def check_kept(self, before: CryptoHash, block_hash: CryptoHash) -> None:
        """Check that a block without rows really changed nothing of the recorded kinds, where the node can still tell.

        Args:
            before: the block before it.
        Raises:
            SnapshotMismatchError: it did change something, so its rows are gone.
        """
        readers = _chain_readers(self.home)
        extras = [_get(readers, CHUNK_EXTRA, block + self.shard.shard_uid.to_bytes()) for block in (before, block_hash)]
        if extras[0] is None or extras[1] is None:
            return
        roots = [extra[_EXTRA_ROOT] for extra in extras if extra is not None]
        if roots[0] == roots[1]:
            return
        column = StateColumn(self.home, self.shard.shard_uid)
        try:
            changed = next(trie_difference(column, roots[0], roots[1], KindFilter(RECORDED_KINDS)), None)
        except StatecastError:
            # Can't be decided without the tries; the proof of the state root will show it.
            return
        if changed is not None:
            raise SnapshotMismatchError(
                problem=f"the state changes of block {block_hash} are gone: shard {self.shard.shard_uid} changed there, and no row says how",
                where=f"StateChanges of block {block_hash}, {readers[0].folder}",
                remedy="Walk the State column instead, or take a node that keeps state changes (save_state_changes).",
            )


@dataclass(frozen=True, slots=True)
class KindFilter:
    """Prefixes of keys by their first byte."""

    kinds: frozenset[int]

    def __call__(self, prefix: bytes) -> bool:
        """Return whether anything under a prefix (one nibble a byte) begins with one of the bytes."""
        if len(prefix) >= 2:
            return prefix[0] << 4 | prefix[1] in self.kinds
        return not prefix or any(kind >> 4 == prefix[0] for kind in self.kinds)


def find_known_layout(home: NodeHome, shard_uids: frozenset[ShardUId]) -> ShardLayout | None:
    """Return the layout that has exactly these shards, where the genesis file or an epoch configuration has it; None where none does.

    Raises:
        SourceError: such a file can't be read.
        InvalidInputError: its layout is of an unknown kind.
    """
    layouts = (shard_layout_from_json(document, str(file)) for document, file in known_layouts(home))
    return next((layout for layout in layouts if frozenset(layout.shard_uids) == shard_uids), None)


def _chain_readers(home: NodeHome) -> tuple[RocksDbReader, ...]:
    folders = (home.data,) if home.cold_data is None else (home.data, home.cold_data)
    readers = []
    failure: ColumnMissingError | None = None
    for folder in folders:
        try:
            readers.append(cached_reader(folder, _COLUMNS))
        except ColumnMissingError as error:
            failure = error
    if not readers:
        assert failure is not None, "there is a hot store"
        raise failure
    return tuple(readers)


def _get(readers: tuple[RocksDbReader, ...], column: str, key: bytes) -> bytes | None:
    return next((row for reader in readers if (row := reader.get(column, key)) is not None), None)
