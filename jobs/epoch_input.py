"""From options to what a job works on: a source, the epoch's context, or datasets that are there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from jobs.options import epoch_selector, parse_byte_count
from pipelines.dataset.arrow_dataset import ShardDataset, list_shards, select_epoch
from pipelines.near.epoch.context_agreement import agreed_epoch_context
from pipelines.near.epoch.epoch_context_source import EpochContextSource
from pipelines.near.epoch.given_context import GivenContextSource, read_context_file
from pipelines.near.epoch.node_context import OpenedNode, open_node
from pipelines.near.epoch.rpc_client import REQUESTS_PER_S, RpcClient, RpcLimits
from pipelines.near.epoch.rpc_context import RpcContextSource
from pipelines.near.flat_state_from_url import source_from_url
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.near.node.node_store import NodeSource
from pipelines.near.trie.trie_walk_source import StateWalk, choose_node_source, tracked_shards
from schemas.errors import InvalidInputError
from schemas.nearcore.epoch_context import EpochContext

DATASET_SCHEME = "dataset://"


@dataclass(frozen=True, slots=True)
class InputOptions:
    """What the options say about the input."""

    node_home: Path | None
    source_url: str | None
    context_file: Path | None
    epoch: str | None
    epoch_id: str | None
    shard_ids: tuple[int, ...]
    read_limit: str | None
    readers: int
    """Processes that may read at once; they share the read limit."""
    state_walk: StateWalk = StateWalk.AUTO
    """When a node's State column is walked instead of reading flat state."""
    rpc_urls: tuple[str, ...] = ()
    """JSON-RPC endpoints that the context is taken from, or checked against."""
    rpc_requests_per_s: float = REQUESTS_PER_S
    """To each endpoint."""


@dataclass(frozen=True, slots=True)
class EpochInput:
    """What a job works on: a source to export, or datasets that were exported before."""

    context: EpochContext
    """With the shards to work on."""
    epoch_shard_ids: tuple[int, ...]
    """All shards that the epoch is known to have."""
    source: FlatStateSource | None
    datasets: tuple[ShardDataset, ...] = ()

    def describe(self) -> str:
        """Return what is read, in one line for people."""
        return self.source.describe() if self.source else f"dataset at {self.datasets[0].url}"


def open_input(options: InputOptions) -> EpochInput:
    """Resolve the input options.

    Raises:
        InvalidInputError: no source, two sources, or a context that does not fit.
        EpochNotReadyError: the epoch is not there.
        SourceError: the source can't be read.
    """
    if (options.node_home is None) == (options.source_url is None):
        raise InvalidInputError(
            problem="name one source", remedy="Give --node-home HOME, or --from dataset://…, genesis://… or records://…."
        )
    selector = epoch_selector(options.epoch, options.epoch_id)
    given = () if options.context_file is None else (read_context_file(options.context_file.expanduser()),)
    endpoints = rpc_sources(options.rpc_urls, options.rpc_requests_per_s)
    if options.node_home is not None:
        return _node_input(options, options.node_home, given, endpoints, selector)
    assert options.source_url is not None, "one of the two is given"
    if options.source_url.startswith(DATASET_SCHEME):
        return _dataset_input(options.source_url, given, endpoints, selector, options.shard_ids)
    if options.read_limit is not None:
        raise InvalidInputError(problem="--read-limit is for --node-home")
    context = agreed_context(given, selector, endpoints) if given or endpoints else None
    return _file_input(options.source_url, context, selector, options.shard_ids)


def rpc_sources(urls: Sequence[str], requests_per_s: float) -> tuple[RpcContextSource, ...]:
    """Return the endpoints that ``--rpc`` names.

    Raises:
        InvalidInputError: not an http or https URL.
    """
    return tuple(RpcContextSource(RpcClient(url, RpcLimits(requests_per_s=requests_per_s))) for url in urls)


def agreed_context(sources: Sequence[EpochContextSource], selector: str, endpoints: Sequence[RpcContextSource]) -> EpochContext:
    """Return the context that no source contradicts; an endpoint that was left out is logged.

    Raises:
        EpochNotReadyError, ContextMismatchError, InvalidInputError, SourceError, IntegrityError: as `agreed_epoch_context`.
    """
    agreed = agreed_epoch_context(sources, selector, endpoints)
    for failure in agreed.unreachable:
        structlog.get_logger().warning("an endpoint was left out", where=failure.where, problem=failure.problem)
    return agreed.context


def node_context(
    home: Path, selector: str, endpoints: Sequence[RpcContextSource], given: Sequence[GivenContextSource] = ()
) -> EpochContext:
    """Return the context of an epoch that is read from a node: a given one comes first, then the node's, then the endpoints'.

    Raises:
        EpochNotReadyError, ContextMismatchError, InvalidInputError, SourceError, IntegrityError: as `agreed_epoch_context`.
    """
    with open_node(home) as node:
        return open_node_context(node, selector, endpoints, given)


def open_node_context(
    node: OpenedNode, selector: str, endpoints: Sequence[RpcContextSource], given: Sequence[GivenContextSource] = ()
) -> EpochContext:
    """Do what `node_context` does, of a node that is open: for several epochs.

    Raises:
        As `node_context`.
    """
    return node.with_parents(agreed_context((*given, node), selector, endpoints))


def _check_selected(context: EpochContext, selector: str, where: str) -> None:
    GivenContextSource(context, where).epoch_context(selector)


def _node_input(
    options: InputOptions,
    node_home: Path,
    given: tuple[GivenContextSource, ...],
    endpoints: tuple[RpcContextSource, ...],
    selector: str,
) -> EpochInput:
    home = node_home.expanduser()
    context = node_context(home, selector, endpoints, given)
    chosen = tracked_shards(home, context, options.shard_ids)
    if not options.shard_ids and (left_out := [shard.shard_uid for shard in context.shards if shard not in chosen.shards]):
        structlog.get_logger().info("shards that the node does not track are left out", shards=", ".join(map(str, left_out)))
    limit = None if options.read_limit is None else max(1, parse_byte_count(options.read_limit, "--read-limit") // max(1, options.readers))
    node = NodeSource(str(home.resolve()), chosen, limit)
    return EpochInput(chosen, _shard_ids(context), choose_node_source(node, options.state_walk))


def _dataset_input(
    url: str,
    given: tuple[GivenContextSource, ...],
    endpoints: tuple[RpcContextSource, ...],
    selector: str,
    shard_ids: tuple[int, ...],
) -> EpochInput:
    own, datasets = select_epoch(list_shards(url.removeprefix(DATASET_SCHEME)), selector)
    for context in (source.epoch_context(selector) for source in given):
        _check_same_epoch(context, own, url)
        own = own if own.shard_layout is not None else replace(own, shard_layout=context.shard_layout)
    if endpoints:
        own = agreed_context((GivenContextSource(own, url),), str(own.epoch_id), endpoints)
    chosen = own.only(shard_ids)
    kept = {shard.shard_uid for shard in chosen.shards}
    return EpochInput(chosen, _shard_ids(own), None, tuple(dataset for dataset in datasets if dataset.summary.shard.shard_uid in kept))


def _check_same_epoch(given: EpochContext, own: EpochContext, where: str) -> None:
    """Refuse a context that says of the dataset what its own summary does not."""
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


def _file_input(url: str, context: EpochContext | None, selector: str, shard_ids: tuple[int, ...]) -> EpochInput:
    source, own = source_from_url(url)
    if context is None:
        _check_selected(own, selector, url)
        return EpochInput(own.only(shard_ids), _shard_ids(own), source)
    chosen = context.only(shard_ids)
    if url.startswith("records:"):
        if len(chosen.shards) != 1:
            raise InvalidInputError(
                problem="a records file holds one shard, the context has several", where=url, remedy="Name it with --shard-id."
            )
    else:
        _check_layout(chosen, own, url)
    return EpochInput(chosen, _shard_ids(context), source)


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


def _shard_ids(context: EpochContext) -> tuple[int, ...]:
    return tuple(shard.shard_id for shard in context.shards)
