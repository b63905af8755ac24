"""The epoch context out of a node's database alone, every hash on the way recomputed.

StateSyncHashes gives the sync hash of the newest epochs, and `pipelines.near.epoch.sync_block` that of older ones; its block's parent holds
the chunk headers, whose Merkle root the parent's header commits to, and whose prev_state_root and prev_block_hash are the shard's state
root and the block that flat state must stand at. The chain id, which no column has, comes from the genesis file; shard uids and
parents from `pipelines.near.epoch.node_shards`.

What is believed is the node: its database says which blocks are the chain. `pipelines.trust` ties a block hash to anything else.

Source: nearcore chain/chain/src/state_sync/adapter.rs, ChainStateSyncAdapter::compute_state_response_header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pipelines.near.epoch.chain_rows import ChainRows, open_chain_rows
from pipelines.near.epoch.context_agreement import compare_contexts, mismatch
from pipelines.near.epoch.epoch_context_source import LATEST
from pipelines.near.epoch.node_epochs import EpochListing, KnownEpoch, NodeEpoch, UnreadableEpoch, list_all_epochs
from pipelines.near.epoch.node_shards import (
    USE_CONTEXT,
    choose_shard_layout,
    find_parents,
    find_shard_uids,
    genesis_head,
    location_failure,
    with_mapped_parents,
)
from pipelines.near.epoch.sync_block import SYNC_BLOCK_COLUMNS, find_sync_hash
from pipelines.near.node.node_columns import (
    BLOCK,
    BLOCK_HEADER,
    CHUNK_EXTRA,
    EPOCH_INFO,
    STATE_SHARD_UID_MAPPING,
    STATE_SYNC_HASHES,
    display_name,
)
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.trie.trie_walk_source import StateWalk, has_state_root
from schemas.errors import ColumnMissingError, EpochNotReadyError, IntegrityError, SourceError, StatecastError
from schemas.ids import CryptoHash
from schemas.nearcore.block import BlockHeader, decode_block_chunks, decode_block_header
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.epoch_info import decode_epoch_shard_layout
from schemas.nearcore.shard_layout import ShardLayout

_CHAIN_COLUMNS = (*SYNC_BLOCK_COLUMNS, CHUNK_EXTRA, EPOCH_INFO)
_OPTIONAL_COLUMNS = (STATE_SHARD_UID_MAPPING, STATE_SYNC_HASHES)
"""Nodes of before resharding without copies have no StateShardUIdMapping, those of before protocol 74 no StateSyncHashes."""


def list_epochs(node_home: str | Path) -> EpochListing:
    """Return the epochs that the database has rows of; also the next ones, that have not begun.

    Raises:
        SourceError: the database can't be read.
    """
    with open_node(node_home) as node:
        return node.listing


def epoch_context_from_node(node_home: str | Path, selector: str = LATEST, state_walk: StateWalk = StateWalk.NEVER) -> EpochContext:
    """Build the context of one epoch.

    Args:
        selector: ``latest``, an epoch height, or an epoch id in base58.
        state_walk: see `open_node`.
    Raises:
        EpochNotReadyError: the node does not have the epoch, or can't tell its sync hash; for ``latest``, has the state of none.
        InvalidInputError: no selector has this form.
        SourceError: the database or the genesis file can't be read.
        IntegrityError: a row can't be decoded, or a hash is wrong.
    """
    with open_node(node_home, state_walk) as node:
        return node.epoch_context(selector)


@contextmanager
def open_node(node_home: str | Path, state_walk: StateWalk = StateWalk.NEVER) -> Iterator[OpenedNode]:
    """Open a node's database for as many contexts as are wanted: each sees it as it is now.

    Args:
        state_walk: what ``latest`` may be had by. Flat state comes first, also that of an older epoch: a walk takes much longer.
    Raises:
        SourceError: the home is not there, or the database can't be opened.
    """
    home = read_node_home(node_home)
    with open_chain_rows(home, (*_CHAIN_COLUMNS, *_OPTIONAL_COLUMNS)) as reader:
        yield OpenedNode(_source_id(node_home), home, reader, state_walk)


class OpenedNode:
    """An `EpochContextSource`: a node's database as it was when it was opened. Its epochs are listed once, when first asked for."""

    def __init__(self, source_id: str, home: NodeHome, reader: ChainRows, state_walk: StateWalk = StateWalk.NEVER) -> None:
        self.note = ""
        """Why the epoch that was chosen last is the newest that can be had; empty where it simply is the newest."""
        self._source_id = source_id
        self._state_walk = state_walk
        self._home = home
        self._reader = reader

    @property
    def source_id(self) -> str:
        """The node's home."""
        return self._source_id

    @property
    def is_given(self) -> bool:
        """See `EpochContextSource.is_given`."""
        return False

    @cached_property
    def listing(self) -> EpochListing:
        """The epochs that the database has rows of.

        Raises:
            ColumnMissingError: it has no rows of a chain, as a state snapshot has none.
            SourceError: the database can't be read.
        """
        if self._lacking:
            raise ColumnMissingError(
                problem=f"the database has no column family {display_name(self._lacking[0])}, so that it tells nothing of epochs",
                where=str(self._home.data),
                remedy=f"A state snapshot is no more than the state: point to the home of a nearcore node. {USE_CONTEXT}",
            )
        return list_all_epochs(self._reader)

    @property
    def _lacking(self) -> list[str]:
        """Column families that a chain's blocks and epochs can't be told without."""
        return [column for column in _CHAIN_COLUMNS if column not in self._reader.columns]

    def epoch_context(self, selector: str = LATEST) -> EpochContext:
        """See `epoch_context_from_node`."""
        if selector != LATEST:
            return self._context(self._selected(selector))
        where = str(self._home.data)
        if not self.listing.newest_recorded:
            raise EpochNotReadyError(problem="the node's database has no sync hash of any epoch", where=where, remedy=USE_CONTEXT)
        failures: list[tuple[int, StatecastError]] = []
        if self._state_walk is not StateWalk.ALWAYS:
            for context in self._contexts(self.listing.newest_recorded, failures):
                failure = _unreachable(self._home, context)
                if failure is None:
                    self.note = _passed_over(context.epoch_height, "flat state", failures)
                    return context
                failures.append((context.epoch_height, failure))
        if self._state_walk is not StateWalk.NEVER:
            for context in self._contexts(self.listing.newest_recorded, []):
                if any(has_state_root(self._home, shard) for shard in context.shards):
                    self.note = _passed_over(context.epoch_height, "a walk over the State column", failures)
                    return context
        allowed = "flat state" if self._state_walk is StateWalk.NEVER else "the state"
        of_oldest = f"; of the oldest: {failures[-1][1]}" if failures else ""
        raise EpochNotReadyError(
            problem=f"the node has {allowed} of none of the epochs that it has a sync hash of{of_oldest}",
            where=where,
            remedy="Wait for the next state snapshot, or name an epoch.",
        )

    def _contexts(self, epochs: Iterable[KnownEpoch], failures: list[tuple[int, StatecastError]]) -> Iterator[EpochContext]:
        """Yield the contexts of some epochs, in their order; those whose blocks are not there are passed over."""
        for epoch in epochs:
            if isinstance(epoch, UnreadableEpoch):
                raise epoch.failure
            try:
                yield self._context(epoch)
            except EpochNotReadyError as error:
                failures.append((epoch.epoch_height, error))

    def check(self, context: EpochContext, source_id: str, *, of_given: bool = False) -> EpochContext | None:
        """See `EpochContextSource.check`; a node that does not know the epoch still knows its chain, and the epochs of its blocks."""
        home, reader = self._home, self._reader
        if home.genesis_file is not None and (chain_id := genesis_head(home, context.protocol_version)[0]) != context.chain_id:
            raise mismatch("chain_id", context.chain_id, source_id, chain_id, self.source_id, of_given=of_given)
        if self._lacking:
            return None
        known = self.listing.of_id(context.epoch_id)
        if isinstance(known, UnreadableEpoch):
            raise known.failure
        sync_hash = None if known is None else known.sync_hash or find_sync_hash(reader, known.epoch_id, known.protocol_version)
        if known is None or sync_hash is None:
            row = reader.get(BLOCK_HEADER, context.sync_hash)
            header = None if row is None else decode_block_header(row, self.source_id, context.sync_hash)
            if header is not None and header.epoch_id != context.epoch_id:
                name = f"epoch of sync_hash {context.sync_hash}"
                raise mismatch(name, context.epoch_id, source_id, header.epoch_id, self.source_id, of_given=of_given)
            return None
        own = self._context(replace(known, sync_hash=sync_hash))
        compare_contexts(context, source_id, own, self.source_id, of_given=of_given)
        return own

    def with_parents(self, context: EpochContext) -> EpochContext:
        """Return a context of any source with the parents of shards that it leaves open, as far as the node knows them.

        Raises:
            SourceError, IntegrityError: the database can't be read.
        """
        if all(shard.parent_shard_uid is not None for shard in context.shards):
            return context
        return with_mapped_parents(context, self._reader)

    def _selected(self, selector: str) -> NodeEpoch:
        if selector.isdecimal() and len(selector) <= 20:
            found = self.listing.of_height(int(selector))
        else:
            named = self.listing.of_id(CryptoHash.from_base58(selector))
            found = [] if named is None else [named]
        # Of several epochs of one height, as there are before the chain's second, the one that can be had is meant.
        for epoch in reversed(found):
            if isinstance(epoch, UnreadableEpoch):
                raise epoch.failure
            sync_hash = epoch.sync_hash or find_sync_hash(self._reader, epoch.epoch_id, epoch.protocol_version)
            if sync_hash is not None:
                return replace(epoch, sync_hash=sync_hash)
        if found:
            problem = (
                f"the sync hash of epoch {selector} is not known yet: its sync block is not there, or not final; or its blocks are gone"
            )
        else:
            hidden = self.listing.unreadable
            problem = f"the node does not know epoch {selector}"
            problem += f", unless it is one of {len(hidden)} whose rows can't be read" if hidden else ""
        known = ", ".join(f"{epoch.epoch_height} ({epoch.epoch_id})" for epoch in reversed(self.listing.newest_recorded))
        remedy = f"It has the sync hash of {known}. {USE_CONTEXT}" if known else USE_CONTEXT
        raise EpochNotReadyError(problem=problem, where=str(self._home.data), remedy=remedy)

    def _context(self, epoch: NodeEpoch) -> EpochContext:
        assert epoch.sync_hash is not None, "a chosen epoch has a sync hash"
        home, reader = self._home, self._reader
        sync_block = _header(reader, epoch.sync_hash)
        if sync_block.epoch_id != epoch.epoch_id:
            raise IntegrityError(
                problem=f"the sync block {epoch.sync_hash} is of epoch {sync_block.epoch_id}, not {epoch.epoch_id}",
                where=f"StateSyncHashes, {reader.folder}",
            )
        parent = _header(reader, sync_block.prev_hash)
        where = f"Block {parent.hash}, {reader.folder}"
        row = reader.get(BLOCK, parent.hash)
        if row is None:
            raise EpochNotReadyError(
                problem=f"the node does not have the block before the sync block, {parent.hash}", where=where, remedy=USE_CONTEXT
            )
        chunks = decode_block_chunks(row, parent, where)
        chain_id, configured = genesis_head(home, epoch.protocol_version)
        layouts = (_epoch_layout(reader, epoch.epoch_id), configured)
        shard_uids = find_shard_uids(home, reader, chunks, layouts)
        parents = find_parents(reader, shard_uids, layouts)
        shards = [
            ShardContext(
                shard_uid,
                chunk.prev_state_root,
                chunk.prev_block_hash,
                parents.get(shard_uid),
                _header_or_none(reader, chunk.prev_block_hash),
            )
            for shard_uid, chunk in zip(shard_uids, chunks, strict=True)
        ]
        return EpochContext(
            chain_id=chain_id,
            epoch_height=epoch.epoch_height,
            epoch_id=epoch.epoch_id,
            sync_hash=epoch.sync_hash,
            protocol_version=epoch.protocol_version,
            shards=tuple(sorted(shards, key=lambda shard: shard.shard_id)),
            block_headers=(sync_block.encoded, parent.encoded),
            shard_layout=choose_shard_layout(shard_uids, layouts),
        )


def _passed_over(epoch_height: int, way: str, failures: Sequence[tuple[int, StatecastError]]) -> str:
    """Say why this epoch, and by this way; empty where it is simply the newest."""
    if not failures:
        return ""
    reasons = "; ".join(f"epoch {height}: {failure.problem}" for height, failure in failures)
    return f"epoch {epoch_height}, by {way}, is the newest that can be had; {reasons}"


def _epoch_layout(reader: ChainRows, epoch_id: CryptoHash) -> ShardLayout | None:
    row = reader.get(EPOCH_INFO, epoch_id)
    return None if row is None else decode_epoch_shard_layout(row, f"EpochInfo of epoch {epoch_id}, {reader.folder}")


def _header(reader: ChainRows, block_hash: CryptoHash) -> BlockHeader:
    where = f"BlockHeader {block_hash}, {reader.folder}"
    row = reader.get(BLOCK_HEADER, block_hash)
    if row is None:
        raise EpochNotReadyError(problem=f"the node does not have the header of block {block_hash}", where=where, remedy=USE_CONTEXT)
    return decode_block_header(row, where, block_hash)


def _header_or_none(reader: ChainRows, block_hash: CryptoHash) -> bytes:
    """Return a header that nothing depends on; empty where the node does not have it."""
    row = reader.get(BLOCK_HEADER, block_hash)
    return b"" if row is None else decode_block_header(row, f"BlockHeader {block_hash}, {reader.folder}", block_hash).encoded


def _unreachable(home: NodeHome, context: EpochContext) -> SourceError | None:
    failure: SourceError | None = None
    for shard in context.shards:
        assert shard.flat_head_target is not None, "a context out of a node's blocks names each shard's block"
        failure = location_failure(home, shard.shard_uid, shard.flat_head_target)
        if failure is None:
            return None
    return failure


def _source_id(node_home: str | Path) -> str:
    return f"node {node_home}"
