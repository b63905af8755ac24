"""From options to what a job works on: a source, the epoch's context, or datasets that are there already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.options import epoch_selector, parse_byte_count
from pipelines.epochs.node_context import check_context_against_node, epoch_context_from_node
from pipelines.sources.arrow_dataset import ShardDataset, list_shards, select_epoch
from pipelines.sources.node_store import NodeSource
from pipelines.sources.open_source import source_from_url
from pipelines.sources.protocol import FlatStateSource
from pipelines.sources.state_walk_source import StateWalk, choose_node_source
from schemas.epoch_context import EpochContext, parse_epoch_context
from schemas.errors import EpochNotReadyError, InvalidInputError

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
    context = _context_from_file(options)
    if options.node_home is not None:
        return _node_input(options, options.node_home, context, selector)
    assert options.source_url is not None, "one of the two is given"
    if options.source_url.startswith(DATASET_SCHEME):
        return _dataset_input(options.source_url, context, selector, options.shard_ids)
    if options.read_limit is not None:
        raise InvalidInputError(problem="--read-limit is for --node-home")
    return _file_input(options.source_url, context, selector, options.shard_ids)


def _context_from_file(options: InputOptions) -> EpochContext | None:
    if options.context_file is None:
        return None
    try:
        text = options.context_file.expanduser().read_bytes()
    except OSError as error:
        raise InvalidInputError(problem=f"the epoch context can't be read: {error.strerror}", where=str(options.context_file)) from error
    context = parse_epoch_context(text, str(options.context_file))
    _check_selected(context, epoch_selector(options.epoch, options.epoch_id), str(options.context_file))
    return context


def _check_selected(context: EpochContext, selector: str, where: str) -> None:
    if selector not in ("latest", str(context.epoch_height), str(context.epoch_id)):
        raise EpochNotReadyError(
            problem=f"epoch {selector} was asked for, the context is of epoch {context.epoch_height} ({context.epoch_id})", where=where
        )


def _node_input(options: InputOptions, node_home: Path, context: EpochContext | None, selector: str) -> EpochInput:
    home = node_home.expanduser()
    if context is None:
        context = epoch_context_from_node(home, selector)
    else:
        check_context_against_node(context, home)
    chosen = context.only(options.shard_ids)
    limit = None if options.read_limit is None else max(1, parse_byte_count(options.read_limit, "--read-limit") // max(1, options.readers))
    node = NodeSource(str(home.resolve()), chosen, limit)
    return EpochInput(chosen, _shard_ids(context), choose_node_source(node, options.state_walk))


def _dataset_input(url: str, context: EpochContext | None, selector: str, shard_ids: tuple[int, ...]) -> EpochInput:
    own, datasets = select_epoch(list_shards(url.removeprefix(DATASET_SCHEME)), selector)
    if context is not None:
        _check_same_epoch(context, own, url)
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
