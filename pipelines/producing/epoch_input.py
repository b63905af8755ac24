"""What a production works on: an epoch's context with a source to export, or with datasets that were exported before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.dataset.arrow_dataset import DATASET_SCHEME, ShardDataset, list_shards, select_epoch
from pipelines.near.epoch.epoch_context_finder import EpochContextFinder
from pipelines.near.epoch.given_context import GivenContextSource
from pipelines.near.files.records_file import records_context
from pipelines.near.files.sorted_file import SortedSize
from pipelines.near.files.sorting_source import SortingSource
from pipelines.near.flat_state_from_url import source_from_url
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.near.node.node_store import NodeSource
from pipelines.near.trie.trie_walk_source import StateWalk, choose_node_source, tracked_shards
from pipelines.producing.network_parts import NetworkParts
from schemas.errors import ContextMismatchError, InvalidInputError, SourceError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_context import EpochContext
from schemas.shown_text import shown_url


@dataclass(frozen=True, slots=True)
class EpochInput:
    """An epoch to work on."""

    context: EpochContext
    """With the shards to work on."""
    epoch_shard_uids: tuple[ShardUId, ...]
    """All shards that the epoch is known to have."""
    source: FlatStateSource | None
    """None where there are datasets, or peers."""
    datasets: tuple[ShardDataset, ...] = ()
    network: NetworkParts | None = None
    """Peers that have the parts themselves."""

    @property
    def epoch_shard_ids(self) -> tuple[int, ...]:
        """The ids of all shards that the epoch is known to have."""
        return tuple(shard_uid.shard_id for shard_uid in self.epoch_shard_uids)

    @property
    def left_out(self) -> tuple[ShardUId, ...]:
        """Shards of the epoch that are not worked on."""
        chosen = {shard.shard_uid for shard in self.context.shards}
        return tuple(shard_uid for shard_uid in self.epoch_shard_uids if shard_uid not in chosen)

    def sorting_in(self, folder: Path | None) -> EpochInput:
        """Return the same epoch, whose source makes its sorted copy, if it makes one, in a folder; None for where temporary files go."""
        source = self.source
        if folder is not None and isinstance(source, SortingSource):
            return replace(self, source=replace(source, scratch=str(folder)))
        return self

    def sorted_size(self) -> SortedSize | None:
        """Return what the sorted copy takes that the source makes; None where it makes none.

        Raises:
            SourceError: a file can't be read.
        """
        source = self.source
        return source.sorted_size() if isinstance(source, SortingSource) else None

    def describe(self) -> str:
        """Return what is read, in one line for people."""
        if self.network is not None:
            return self.network.describe()
        return self.source.describe() if self.source else f"dataset at {self.datasets[0].url}"


def node_input(
    home: Path,
    contexts: EpochContextFinder,
    selector: str,
    shard_ids: tuple[int, ...],
    *,
    state_walk: StateWalk,
    read_limit_bytes_per_s: int | None,
) -> EpochInput:
    """Return an epoch of a node; without ``shard_ids`` the shards that the node tracks.

    Raises:
        EpochNotReadyError, ContextMismatchError, InvalidInputError, SourceError, IntegrityError: as `agreed_epoch_context`,
            `tracked_shards` and `choose_node_source`.
    """
    context = contexts.find_in_node(home, selector, state_walk)
    chosen = tracked_shards(home, context, shard_ids)
    node = NodeSource(str(home.resolve()), chosen, read_limit_bytes_per_s)
    return EpochInput(chosen, _shard_uids(context), choose_node_source(node, state_walk))


def dataset_input(url: str, contexts: EpochContextFinder, selector: str, shard_ids: tuple[int, ...]) -> EpochInput:
    """Return an epoch that was exported before.

    Args:
        url: of the dataset, with or without ``dataset://``.
    Raises:
        InvalidInputError: the given context is not the dataset's.
        EpochNotReadyError, ContextMismatchError, SourceError, IntegrityError: as `select_epoch` and `agreed_epoch_context`.
    """
    own, datasets = select_epoch(list_shards(url.removeprefix(DATASET_SCHEME)), selector)
    if contexts.given is not None:
        given = contexts.given.epoch_context(selector)
        _check_same_epoch(given, own, url)
        own = own if own.shard_layout is not None else replace(own, shard_layout=given.shard_layout)
    if contexts.endpoints:
        own = replace(contexts, given=GivenContextSource(own, url)).find(str(own.epoch_id)) or own
    chosen = own.only(shard_ids)
    kept = {shard.shard_uid for shard in chosen.shards}
    return EpochInput(chosen, _shard_uids(own), None, tuple(dataset for dataset in datasets if dataset.summary.shard.shard_uid in kept))


def file_input(url: str, contexts: EpochContextFinder, selector: str, shard_ids: tuple[int, ...]) -> EpochInput:
    """Return the epoch of a genesis or records file.

    Args:
        url: ``genesis://…`` or ``records://…``.
    Raises:
        InvalidInputError: another scheme, or a context that is not the file's.
        EpochNotReadyError, ContextMismatchError, SourceError, IntegrityError: as `source_from_url` and `agreed_epoch_context`.
    """
    context = contexts.find(selector)
    source, own = source_from_url(url)
    if context is None:
        known = GivenContextSource(own or records_context(), url).epoch_context(selector)
        return EpochInput(known.only(shard_ids), _shard_uids(known), source)
    chosen = context.only(shard_ids)
    if own is not None:
        _check_layout(chosen, own, url)
    elif len(chosen.shards) != 1:
        raise InvalidInputError(
            problem="a records file holds one shard, the context has several", where=shown_url(url), remedy="Name it with --shard-id."
        )
    return EpochInput(chosen, _shard_uids(context), source)


def network_context(
    contexts: EpochContextFinder, selector: str, shard_ids: tuple[int, ...], trusted_block: CryptoHash | None
) -> tuple[EpochContext, tuple[ShardUId, ...]]:
    """Return the context of an epoch whose parts come from strangers, with the chosen shards, and all shards of the epoch.

    Nothing else vouches for its state roots, so it is the word of two sources, of endpoints and a given context, or a trusted block's.

    Raises:
        InvalidInputError: too few sources are named.
        SourceError: too few of them know the epoch.
        ContextMismatchError: the epoch is not that of the trusted block.
        EpochNotReadyError, ContextMismatchError, SourceError, IntegrityError: as `agreed_epoch_context`.
    """
    named = {endpoint.source_id for endpoint in contexts.endpoints} | ({contexts.given.source_id} if contexts.given else set())
    if not contexts.endpoints or (len(named) < 2 and trusted_block is None):
        raise InvalidInputError(
            problem="parts that come from peers are judged by state roots, and one source's word for these is not enough",
            where="--rpc",
            remedy="Name two endpoints of different operators with --rpc, or one and --trusted-block HASH.",
        )
    context, knowing = contexts.find_with_sources(selector)
    if not context.block_headers or any(shard.state_root is None for shard in context.shards):
        raise SourceError(problem="no endpoint shows the blocks of the epoch", where="--rpc", remedy="Name another endpoint.")
    if trusted_block is not None:
        parent_hash = decode_block_header(context.block_headers[0], "sync block", context.sync_hash).prev_hash
        if trusted_block not in (context.sync_hash, parent_hash):
            raise ContextMismatchError(
                problem=f"the sync block of epoch {context.epoch_height} is {context.sync_hash}, its parent {parent_hash}; neither is trusted",
                where=f"--trusted-block {trusted_block}",
                remedy="Name the epoch of the trusted block with --epoch, or trust another block.",
                field_name="sync_hash",
                values={"--rpc": str(context.sync_hash), "--trusted-block": str(trusted_block)},
            )
    elif len(knowing) < 2:
        raise SourceError(
            problem=f"of {len(named)} sources only one knows epoch {context.epoch_height} and can be reached: {', '.join(sorted(knowing))}",
            where="--rpc",
            remedy="Name one more endpoint with --rpc, or say --trusted-block HASH.",
        )
    return context.only(shard_ids), _shard_uids(context)


def _check_same_epoch(given: EpochContext, own: EpochContext, where: str) -> None:
    """Refuse a context that contradicts the dataset's summary."""
    for name in ("chain_id", "epoch_height", "epoch_id", "sync_hash", "protocol_version"):
        if getattr(given, name) != getattr(own, name):
            raise InvalidInputError(
                problem=f"the context says {name} {getattr(given, name)}, the dataset {getattr(own, name)}",
                where=where,
                remedy="They must be of one epoch.",
            )
    for shard in own.shards:
        known = given.shard(shard.shard_id)
        if known.state_root is not None and shard.state_root is not None and known.state_root != shard.state_root:
            raise InvalidInputError(problem=f"the context and the dataset give shard {shard.shard_id} different state roots", where=where)
    if given.shard_layout is not None and own.shard_layout not in (None, given.shard_layout):
        raise InvalidInputError(problem="the context and the dataset have different shard layouts", where=where)


def _check_layout(given: EpochContext, own: EpochContext, where: str) -> None:
    """Refuse a context of another chain or shard layout than the genesis file's."""
    if given.chain_id != own.chain_id:
        raise InvalidInputError(problem=f"the context is of chain {given.chain_id}, the genesis of {own.chain_id}", where=where)
    known = {shard.shard_uid for shard in own.shards}
    for shard in given.shards:
        if shard.shard_uid not in known:
            raise InvalidInputError(
                problem=f"the genesis has no shard {shard.shard_uid}", where=where, remedy=f"It has {', '.join(map(str, sorted(known)))}."
            )


def _shard_uids(context: EpochContext) -> tuple[ShardUId, ...]:
    return tuple(shard.shard_uid for shard in context.shards)
