"""Rebuilds an epoch's parts out of an earlier epoch at the destination and deltas: what changed is moved, not the state."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pipelines.bucket.chain_catalogue import thin_epochs
from pipelines.bucket.published_deltas import listed_deltas
from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.object_source import ObjectStoreSource
from pipelines.fetching.part_rebuilding import RebuildingShard, RebuildWay, WantedShard
from pipelines.fetching.source_account import open_account
from pipelines.fetching.throttle import Throttle
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.deltas.ladder import published_layouts
from pipelines.producing.rebuild.base_states import BaseState, published_states
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from schemas.published.object_layout import EpochLayout

BASES_MAX: Final = 16
"""Most epochs below the wanted one that are looked at as bases, the nearest."""


@dataclass(slots=True)
class DestinationRebuilder:
    """A `PartRebuilder` of one epoch, whose deltas the destination has by then: they are read from there first."""

    store_url: str
    runner: StageRunner
    kernel: Kernel
    policy: TrustPolicy
    """Of the mirror."""
    bytes_per_s: float | None = None
    """Most bytes of deltas a second; None for no limit."""
    coming: tuple[BaseState, ...] = ()
    """States that will be at the destination by then; for a plan, which reads none of their records."""
    _rebuilders: dict[EpochLayout, BaseRebuilder] = field(default_factory=dict)

    def find_way(self, wanted: WantedShard, reader: DocumentReader) -> tuple[RebuildWay | None, str]:
        """See `PartRebuilder.find_way`; an epoch without deltas needs no words."""
        if not listed_deltas(wanted.manifest, wanted.statement.shard_id):
            return None, ""
        rebuilder = self._rebuilder(wanted.layout)
        return rebuilder.find_way(wanted, self._with_destination(reader)) if rebuilder.states else (None, "")

    def find_other_way(self, wanted: WantedShard, reader: DocumentReader) -> RebuildWay | None:
        """See `PartRebuilder.find_other_way`."""
        return self._rebuilder(wanted.layout).find_other_way(wanted, self._with_destination(reader))

    def open(self, wanted: WantedShard, reader: DocumentReader, scratch: Path) -> RebuildingShard:
        """See `PartRebuilder.open`."""
        return self._rebuilder(wanted.layout).open(wanted, self._with_destination(reader), scratch)

    def _rebuilder(self, layout: EpochLayout) -> BaseRebuilder:
        if layout not in self._rebuilders:
            store = open_store(self.store_url)
            thin = thin_epochs(store, layout.chain_id)
            lower = [one for one in published_layouts(store, layout.chain_id) if one.epoch_height < layout.epoch_height and one not in thin]
            # What counts is what the sources send: the destination is chosen to be near.
            states = tuple(replace(one, remote_size=0) for one in published_states(store, lower[-BASES_MAX:], self.kernel.name))
            states += self.coming
            # Of one epoch at a time: a mirror that follows a chain has them for as long as it runs.
            self._rebuilders = {layout: BaseRebuilder(self.store_url, self.runner, self.kernel, self.policy, self.bytes_per_s, states)}
        return self._rebuilders[layout]

    def _with_destination(self, reader: DocumentReader) -> DocumentReader:
        source = ObjectStoreSource(open_store(self.store_url, retry=None), Throttle([]))
        account = open_account(source.source_id, source.traits, reader.limits)
        return DocumentReader([source, *reader.sources], {**reader.accounts, source.source_id: account}, reader.limits, reader.random)
