"""The states that are at hand to rebuild later ones of: parts in a folder or bucket, or datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.bucket.published_epoch import read_manifest
from pipelines.dataset.arrow_dataset import DATASET_SCHEME, list_shards
from pipelines.dataset.delta.shard_records import RecordsInDataset, ShardRecords
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.producing.deltas.make_deltas import published_records
from pipelines.producing.rebuild.rebuild_published import published_state
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.errors import InvalidInputError, ManifestError
from schemas.ids import ZERO_HASH
from schemas.published.delta_statement import DeltaEnd
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name, split_chain_url
from schemas.shown_text import shown_url


@dataclass(frozen=True, slots=True)
class BaseState:
    """One shard's records at one epoch."""

    chain_id: str
    end: DeltaEnd
    records: ShardRecords
    where: str
    """For people."""
    remote_size: int
    """Bytes that have to be moved to read it: 0 where it is on this machine."""


def find_base_states(url: str, kernel_name: str) -> tuple[BaseState, ...]:
    """Return the states in a place, of all chains and epochs. Of parts, only documents are read: whether they are right shows when used.

    Args:
        url: a folder or bucket of published or fetched epochs, or one epoch's folder in it, or ``dataset://…``.
    Raises:
        InvalidInputError: nothing is there that a part could be rebuilt of.
        DatasetError, StoreError: it can't be read.
    """
    found = _of_datasets(url.removeprefix(DATASET_SCHEME)) if url.startswith(DATASET_SCHEME) else _of_parts(url, kernel_name)
    if not found:
        raise InvalidInputError(
            problem="no state to begin from is there",
            where=shown_url(url),
            remedy="Give a folder that statecast fetch or produce has filled, with its manifests and statements, or dataset://URL.",
        )
    return tuple(found)


def _of_datasets(url: str) -> Sequence[BaseState]:
    states = []
    for dataset in list_shards(url):
        context, shard = dataset.summary.context, dataset.summary.shard
        if shard.state_root is not None:
            end = DeltaEnd(context.epoch_height, context.epoch_id, shard.shard_uid, shard.state_root)
            remote_size = 0 if open_store(dataset.url).local_root() is not None else dataset.summary.size
            where = f"{dataset.url}/{dataset.folder}"
            states.append(BaseState(context.chain_id, end, RecordsInDataset(dataset.reference), where, remote_size))
    return states


def _of_parts(url: str, kernel_name: str) -> Sequence[BaseState]:
    root, prefix = split_chain_url(url)
    store = open_store(root)
    names = [parse_object_name(info.name) for info in store.list(prefix)]
    layouts = {name.epoch for name in names if name is not None and name.kind is ObjectKind.MANIFEST and name.epoch is not None}
    parts = Counter((name.epoch, name.shard_id) for name in names if name is not None and name.kind is ObjectKind.STATE_PART)
    states = published_states(store, sorted(layouts, key=lambda one: (one.epoch_height, one.folder)), kernel_name)
    # Of an epoch whose parts a collection let go nothing can be rebuilt.
    return [one for one in states if parts[_layout(one), one.end.shard_uid.shard_id] or one.end.state_root == ZERO_HASH]


def with_thin_states(states: Sequence[BaseState], url: str, selectors: Iterable[str], kernel_name: str) -> tuple[BaseState, ...]:
    """Return some states, and those of wanted epochs in the same place that are kept as deltas: read out of an earlier epoch's parts and those.

    Args:
        selectors: heights or ids of the wanted epochs.
    Raises:
        EpochNotReadyError, IntegrityError, ManifestError, StoreError: a way to one of them is not right.
    """
    root, prefix = split_chain_url(url)
    store, wanted = open_store(root), set(selectors)
    known = {(_layout(state), state.end.shard_uid) for state in states}
    names = (parse_object_name(info.name) for info in store.list(prefix))
    layouts = {name.epoch for name in names if name is not None and name.kind is ObjectKind.MANIFEST and name.epoch is not None}
    found = list(states)
    for layout in sorted(layouts, key=lambda one: one.folder):
        stored = read_manifest(store, layout) if wanted & {str(layout.epoch_height), str(layout.epoch_id)} else None
        if stored is None or not thin_steps(store, stored.manifest):
            continue
        for shard in stored.manifest.shards:
            if (layout, shard.shard_uid) not in known:
                end = DeltaEnd(layout.epoch_height, layout.epoch_id, shard.shard_uid, shard.state_root)
                records = published_state(store, stored.manifest, shard.shard_id, kernel_name)
                where = f"{store.url}/{layout.shard_folder(shard.shard_id)}"
                found.append(BaseState(layout.chain_id, end, records, where, sum(part.size for part in shard.parts)))
    return tuple(found)


def _layout(state: BaseState) -> EpochLayout:
    return EpochLayout(state.chain_id, state.end.epoch_height, state.end.epoch_id)


def published_states(store: Store, layouts: Iterable[EpochLayout], kernel_name: str) -> list[BaseState]:
    """Return the states of some published epochs, in their order; those whose documents can't be read are left out.

    Raises:
        StoreError: the store can't be read.
    """
    states = []
    for layout in layouts:
        try:
            stored = read_manifest(store, layout)
        except ManifestError:
            continue
        if stored is None:
            continue
        for shard in stored.manifest.shards:
            try:
                records = published_records(store, stored.manifest, shard.shard_id, kernel_name)
            except ManifestError:
                continue
            if records is not None:
                end = DeltaEnd(layout.epoch_height, layout.epoch_id, shard.shard_uid, shard.state_root)
                remote_size = 0 if store.local_root() is not None else sum(part.size for part in shard.parts)
                where = f"{store.url}/{layout.shard_folder(shard.shard_id)}"
                states.append(BaseState(layout.chain_id, end, records, where, remote_size))
    return states
