"""A shard's state header out of a node: the row that the node has cached, or one computed from its blocks, chunks and receipts.

No unverified header leaves this module. Without the native wheel nothing can be verified, so there is no header.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.near.node.configured_layouts import configured_layout
from pipelines.near.node.counted_value import find_payload
from pipelines.near.node.flat_state_source import FoundStateHeader
from pipelines.near.node.hot_then_cold import HotThenCold
from pipelines.near.node.native_state_header import HeaderChain, VerifiedStateHeader, compute_state_header, verify_state_header
from pipelines.near.node.node_columns import (
    BLOCK,
    BLOCK_HEADER,
    CHUNKS,
    EPOCH_INFO,
    INCOMING_RECEIPTS,
    STATE,
    STATE_HEADERS,
    STATE_SHARD_UID_MAPPING,
)
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader, list_columns
from pipelines.near.node.state_column import state_prefixes
from schemas.errors import IntegrityError, InvalidInputError, SourceError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_info import decode_epoch_info
from schemas.nearcore.state_header import HeaderOrigin

_COLUMNS: Final[Mapping[str, str]] = {
    "BlockHeader": BLOCK_HEADER,
    "Block": BLOCK,
    "Chunks": CHUNKS,
    "IncomingReceipts": INCOMING_RECEIPTS,
    "EpochInfo": EPOCH_INFO,
}
_STATE_COLUMNS: Final = (STATE, STATE_SHARD_UID_MAPPING)


@dataclass(frozen=True, slots=True)
class NodeStateHeader:
    """The state header of one shard at one sync block, over databases that `open_state_header` holds open."""

    readers: Iterable[RocksDbReader]
    """The hot store, then an archival node's cold store, which is opened when it is asked."""
    chain: HeaderChain
    shard_uid: ShardUId
    sync_hash: CryptoHash

    def cached(self) -> bytes | None:
        """Return the node's own StateHeaders row, as it is; None when it has none.

        Raises:
            SourceError: the database can't be read.
        """
        return self._row(STATE_HEADERS, self.shard_uid.shard_id.to_bytes(8, "little") + self.sync_hash)

    def compute(self) -> bytes:
        """Compute the header, and verify it.

        Raises:
            InvalidInputError: the native wheel is not installed.
            SourceError: the node lacks a row, or the database can't be read.
            IntegrityError: a row does not hash as it should.
        """
        return compute_state_header(self._named_row, self.chain, self.sync_hash, self.shard_uid.shard_id)

    def verify(self, header: bytes) -> VerifiedStateHeader:
        """Verify a header, whatever its origin.

        Raises:
            InvalidInputError: the native wheel is not installed.
            SourceError: the node lacks a row, or the database can't be read.
            IntegrityError: it is not the header of this shard at this block.
        """
        return verify_state_header(header, self._named_row, self.chain, self.sync_hash, self.shard_uid.shard_id)

    def find(self) -> FoundStateHeader:
        """Return the cached header if it verifies, else the computed one; where neither can be had, why.

        A reason goes into the manifest, so it holds none of the machine's paths.
        """
        try:
            problem = ""
            if (cached := self.cached()) is not None:
                try:
                    self.verify(cached)
                    return FoundStateHeader(cached, HeaderOrigin.COPIED, is_verified=True)
                except (SourceError, IntegrityError) as error:
                    problem = f"the node's own does not verify: {error.problem}; "
            try:
                return FoundStateHeader(self.compute(), HeaderOrigin.COMPUTED, is_verified=True)
            except (SourceError, IntegrityError) as error:
                return FoundStateHeader(None, reason=f"{problem}none can be computed: {error.problem}")
        except (InvalidInputError, SourceError) as error:
            return FoundStateHeader(None, reason=error.problem)

    def _named_row(self, column: str, key: bytes) -> bytes | None:
        if column == "State":
            return self._state_node(key)
        # A node's rows name no layout by epoch.
        return None if column == "ShardLayout" else self._row(_COLUMNS[column], key)

    def _row(self, column: str, key: bytes) -> bytes | None:
        return _first_row(self.readers, column, key)

    def _state_node(self, node_hash: bytes) -> bytes | None:
        for reader in self.readers:
            for prefix in state_prefixes(reader, self.shard_uid) if STATE in reader.columns else ():
                row = reader.get(STATE, prefix + node_hash)
                node = None if row is None else find_payload(row, node_hash, MERGE_DELIMITER)
                if node is not None:
                    return node
        return None


@contextlib.contextmanager
def open_state_header(node_home: str | Path, chain_id: str, shard_uid: ShardUId, sync_hash: CryptoHash) -> Iterator[NodeStateHeader]:
    """Open what a state header is made of, as it is now: a running node goes on writing.

    Raises:
        SourceError: the node's home, database or a file that names a shard layout can't be read.
    """
    home = read_node_home(node_home)
    with contextlib.ExitStack() as opened:
        readers = HotThenCold(home, lambda folder: opened.enter_context(_open(folder)))
        yield NodeStateHeader(readers, HeaderChain(chain_id, _layout(home, readers, sync_hash)), shard_uid, sync_hash)


def find_node_state_header(node_home: str | Path, chain_id: str, shard_uid: ShardUId, sync_hash: CryptoHash) -> FoundStateHeader:
    """Return a node's header of a shard, copied or computed, verified; where there is none, why.

    Raises:
        SourceError: the node's database can't be opened.
    """
    with open_state_header(node_home, chain_id, shard_uid, sync_hash) as state_header:
        return state_header.find()


def _open(folder: Path) -> RocksDbReader:
    """Open the columns that are there: those that a header lacks are told by name when a row is asked for."""
    there = set(list_columns(folder))
    wanted = (*_COLUMNS.values(), STATE_HEADERS, *_STATE_COLUMNS)
    return RocksDbReader(folder, [column for column in wanted if column in there])


def _layout(home: NodeHome, readers: Iterable[RocksDbReader], sync_hash: CryptoHash) -> str | None:
    """Return the layout of the sync block's epoch, as far as the node's files tell it."""
    version = 0
    # A damaged row is named where the header is computed.
    with contextlib.suppress(IntegrityError):
        if (header := _first_row(readers, BLOCK_HEADER, sync_hash)) is not None:
            epoch_id = decode_block_header(header, "BlockHeader", sync_hash).epoch_id
            if (info := _first_row(readers, EPOCH_INFO, epoch_id)) is not None:
                version = decode_epoch_info(info, "EpochInfo").protocol_version
    layout = configured_layout(home, version)
    return None if layout is None else json.dumps(layout)


def _first_row(readers: Iterable[RocksDbReader], column: str, key: bytes) -> bytes | None:
    return next((row for reader in readers if column in reader.columns and (row := reader.get(column, key)) is not None), None)
