"""Rebuilds the missing parts of a fetch: finds the cheapest ladder of deltas from a base, brings it, and builds.

The manifests of the epochs between are read from the fetch's sources. Where keys are pinned, one that none of them signed is not looked
into; else what several sources say is tried, one way after the other. Either way what they lead to is compared with the wanted epoch's own
statement.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipelines.bucket.published_deltas import judged_delta_statement
from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.epoch_target import HeldPart
from pipelines.fetching.part_rebuilding import RebuildStep, RebuildWay, WantedShard
from pipelines.fetching.source import Cancellation
from pipelines.fetching.throttle import Throttle
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.rebuild.base_states import BaseState, find_base_states
from pipelines.producing.rebuild.rebuild_shard import RebuildTarget, ShardRebuild
from pipelines.stores.open_store import open_store
from pipelines.stores.pace import Pace
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import verified_signers
from schemas.errors import FetchError, ManifestError, SignatureError
from schemas.ids import ShardUId
from schemas.published.delta_statement import DeltaEnd, DeltaStatement
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.in_toto import parse_statement_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout

MANIFESTS_READ_MAX: Final = 64
"""Most epochs between whose manifests are read on the way to a base."""

UNSIGNED_MANIFESTS_MAX: Final = 4
"""Most manifests of one epoch between that are looked into where no keys are pinned: what different sources say."""

DELTAS_OF_SHARD_MAX: Final = 64
"""Most deltas to one shard that are taken of a manifest, those of fewest bytes."""

WAYS_MAX: Final = 4
"""Most ways to one shard that are tried."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """A delta of a way, as its epoch's manifest lists it."""

    layout: EpochLayout
    listed: ManifestDelta


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a manifest says of the ways to its shards."""

    deltas: Mapping[int, tuple[ManifestDelta, ...]]
    """By shard id."""
    parents: Mapping[int, ShardUId | None]

    @classmethod
    def of(cls, manifest: Manifest) -> _Listing:
        by_shard: dict[int, list[ManifestDelta]] = {}
        for listed in sorted(manifest.deltas, key=lambda one: one.size):
            of_shard = by_shard.setdefault(listed.shard_id, [])
            if len(of_shard) < DELTAS_OF_SHARD_MAX:
                of_shard.append(listed)
        deltas = {shard_id: tuple(sorted(found, key=lambda one: one.key)) for shard_id, found in by_shard.items()}
        return cls(deltas, {shard.shard_id: shard.parent_shard_uid for shard in manifest.shards})


@dataclass(frozen=True, slots=True)
class _Ladder:
    base: BaseState
    rungs: tuple[_Rung, ...]
    """From the base to the wanted epoch."""

    @property
    def way(self) -> RebuildWay:
        steps = (RebuildStep(rung.listed.base_epoch_height, rung.layout.epoch_height, rung.listed.size) for rung in self.rungs)
        return RebuildWay(self.base.where, tuple(steps))


@dataclass(slots=True)
class BaseRebuilder:
    """A `pipelines.fetching.part_rebuilding.PartRebuilder` over one base."""

    base_url: str
    runner: StageRunner
    kernel: Kernel
    policy: TrustPolicy
    """Of the fetch."""
    bytes_per_s: float | None = None
    """Most bytes of deltas a second; None for no limit."""
    states: tuple[BaseState, ...] | None = None
    """Those of the base; None where they are still to be found in it."""
    _listings: dict[EpochLayout, tuple[_Listing, ...]] = field(default_factory=dict)
    _ladders: dict[tuple[EpochLayout, ShardUId], _Ladder] = field(default_factory=dict)
    _misleading: set[_Rung] = field(default_factory=set)
    """Nobody's signed word, and of a way that led nowhere."""
    _tried: Counter[tuple[EpochLayout, ShardUId]] = field(default_factory=Counter)

    def find_way(self, wanted: WantedShard, reader: DocumentReader) -> tuple[RebuildWay | None, str]:
        """See `PartRebuilder.find_way`."""
        target = wanted.statement
        of_chain = [base for base in self._base_states() if base.chain_id == target.chain_id]
        if not of_chain:
            return None, f"the base {self.base_url} is not of chain {target.chain_id}: whole parts are fetched"
        ladder = self._find_ladder(wanted, reader, of_chain)
        if ladder is None:
            heights = ", ".join(map(str, sorted({base.end.epoch_height for base in of_chain})[-5:]))
            what = f"shard {target.shard_uid} of epoch {target.epoch_height}"
            return None, f"no deltas of fewer bytes than whole parts lead from the base (epoch {heights}) to {what}"
        self._ladders[wanted.layout, target.shard_uid] = ladder
        return ladder.way, ""

    def find_other_way(self, wanted: WantedShard, reader: DocumentReader) -> RebuildWay | None:
        """See `PartRebuilder.find_other_way`."""
        place = wanted.layout, wanted.statement.shard_uid
        self._tried[place] += 1
        doubtful = {rung for rung in self._ladders[place].rungs if rung.layout != wanted.layout}
        if self.policy.keys is not None or not doubtful or self._tried[place] >= WAYS_MAX:
            return None
        self._misleading |= doubtful
        return self.find_way(wanted, reader)[0]

    def open(self, wanted: WantedShard, reader: DocumentReader, scratch: Path) -> FetchedRebuild:
        """See `PartRebuilder.open`."""
        ladder = self._ladders[wanted.layout, wanted.statement.shard_uid]
        store_url = str(scratch / "deltas")
        steps = []
        for rung in ladder.rungs:
            name = rung.layout.delta_statement(rung.listed.base_epoch_id, rung.listed.shard_id)

            def judge(data: bytes, rung: _Rung = rung, name: str = name) -> DeltaStatement:
                return judged_delta_statement(data, rung.layout, rung.listed, name)[0]

            steps.append(StoredDelta(store_url, reader.read_judged(name, ENVELOPE_BYTES_MAX, judge)[1]))
        statement = wanted.statement
        target = DeltaEnd(statement.epoch_height, statement.epoch_id, statement.shard_uid, statement.state_root)
        records = AppliedRecords.of(ladder.base.records, ladder.base.end, steps, target, statement.chain_id)
        self._bring(steps, reader)
        rebuild = ShardRebuild(
            runner=self.runner,
            kernel=self.kernel,
            target=RebuildTarget.of(wanted.manifest, statement),
            records=records,
            work_url=str(scratch / "work"),
            into_url=str(scratch / "rebuilt"),
        )
        return FetchedRebuild(rebuild, wanted, scratch / "rebuilt")

    def _bring(self, steps: Sequence[StoredDelta], reader: DocumentReader) -> None:
        """Bring the objects of some deltas; one that can't be had is missed by the parts that need it."""
        throttle = Throttle([] if self.bytes_per_s is None else [Pace(self.bytes_per_s)])
        for step in steps:
            store = open_store(step.store_url, durable=False)
            for index, listed in enumerate(step.statement.objects):
                throttle.wait_for(listed.size, Cancellation())
                try:
                    found = reader.read_verified(step.object_name(index), listed.size, listed.sha256)
                except FetchError as error:
                    self.runner.progress.note(f"an object of a delta can't be had: {error}")
                else:
                    store.put(step.object_name(index), found.data)

    def _base_states(self) -> tuple[BaseState, ...]:
        if self.states is None:
            self.states = find_base_states(self.base_url, self.kernel.name)
        return self.states

    def _find_ladder(self, wanted: WantedShard, reader: DocumentReader, bases: Sequence[BaseState]) -> _Ladder | None:
        """Return the ladder of fewest bytes, and of these of fewest steps; None where whole parts are no more.

        A base that is not on this machine costs its own bytes too, so that it hardly ever pays.
        """
        at_hand = {(base.end.epoch_id, base.end.shard_uid): base for base in bases}
        lowest = min(base.end.epoch_height for base in bases)
        self._listings[wanted.layout] = (_Listing.of(wanted.manifest),)
        # By cost: bytes, steps, a number that decides between equals, epoch, shard, and the way from there.
        waiting: list[tuple[int, int, int, EpochLayout, ShardUId, tuple[_Rung, ...]]] = [
            (0, 0, 0, wanted.layout, wanted.statement.shard_uid, ())
        ]
        done: set[tuple[EpochLayout, ShardUId]] = set()
        number = read = 0
        while waiting and read < MANIFESTS_READ_MAX:
            size, count, _, layout, shard_uid, rungs = heapq.heappop(waiting)
            if rungs and size >= wanted.missing_size:
                return None
            if (layout, shard_uid) in done:
                continue
            done.add((layout, shard_uid))
            base = at_hand.get((layout.epoch_id, shard_uid))
            if base is not None and size + base.remote_size < wanted.missing_size:
                return _Ladder(base, rungs)
            if layout.epoch_height <= lowest:
                continue
            read += layout not in self._listings
            for listing in self._listings_of(layout, reader):
                for listed in listing.deltas.get(shard_uid.shard_id, ()) if shard_uid.shard_id in listing.parents else ():
                    before = EpochLayout(layout.chain_id, listed.base_epoch_height, listed.base_epoch_id)
                    rung = _Rung(layout, listed)
                    for uid in (shard_uid, listing.parents[shard_uid.shard_id]):
                        if uid is not None and listed.base_epoch_height >= lowest and rung not in self._misleading:
                            number += 1
                            heapq.heappush(waiting, (size + listed.size, count + 1, number, before, uid, (rung, *rungs)))
        return None

    def _listings_of(self, layout: EpochLayout, reader: DocumentReader) -> tuple[_Listing, ...]:
        """Return what is believed of an epoch's deltas, or what sources say where nobody's word counts; nothing where no source has it."""
        if layout not in self._listings:
            try:
                self._listings[layout] = self._read_listings(layout, reader)
            except FetchError:
                self._listings[layout] = ()
        return self._listings[layout]

    def _read_listings(self, layout: EpochLayout, reader: DocumentReader) -> tuple[_Listing, ...]:
        if self.policy.keys is not None:
            return (reader.read_judged(layout.manifest, ENVELOPE_BYTES_MAX, lambda data: self._judged(data, layout), is_needed=False)[1],)
        found: dict[str, _Listing] = {}
        with closing(reader.read_all(layout.manifest, ENVELOPE_BYTES_MAX)) as offers:
            for offer in offers:
                with suppress(ManifestError):
                    sha256 = parse_statement_envelope(offer.data, layout.manifest).payload_sha256
                    if sha256 not in found:
                        found[sha256] = self._judged(offer.data, layout)
                if len(found) >= UNSIGNED_MANIFESTS_MAX:
                    break
        return tuple(found.values())

    def _judged(self, data: bytes, layout: EpochLayout) -> _Listing:
        envelope = parse_statement_envelope(data, layout.manifest)
        if self.policy.keys is not None and not verified_signers(envelope, self.policy.keys.keys):
            raise SignatureError(problem="none of the pinned keys has signed it", where=layout.manifest)
        return _Listing.of(Manifest.of_epoch(layout, envelope.payload, layout.manifest))


@dataclass(frozen=True, slots=True)
class FetchedRebuild:
    """A `pipelines.fetching.part_rebuilding.RebuildingShard`."""

    rebuild: ShardRebuild
    wanted: WantedShard
    rebuilt: Path
    """Folder that the parts are put into."""

    def build(self) -> Collection[int]:
        """See `RebuildingShard.build`."""
        failed = self.rebuild.build()
        for error in list(failed.values())[:1]:
            self._note(f"{len(failed)} parts of shard {self.rebuild.name} can't be rebuilt and are fetched whole: {error}")
        if len(failed) == self.wanted.statement.num_parts:
            raise next(iter(failed.values()))
        return tuple(failed)

    def finish(self, whole: Mapping[int, HeldPart]) -> Mapping[int, Path]:
        """See `RebuildingShard.finish`."""
        given = {
            idx: self.rebuild.target.part(idx, str(held.parent) if isinstance(held, Path) else held.store_url, held.name)
            for idx, held in whole.items()
        }
        parts = self.rebuild.finish(given, {part.part_id.idx for part in self.wanted.missing})
        reencoded = [part for part in parts if part.is_reencoded]
        if reencoded:
            self._note(
                f"{len(reencoded)} rebuilt parts of shard {self.rebuild.name} are right, but this machine's zstd would store them in other "
                "bytes than the publisher's: they are fetched whole"
            )
        return {part.part_id.idx: self.rebuilt / part.object_name for part in parts if not part.is_reencoded}

    def _note(self, text: str) -> None:
        self.rebuild.runner.progress.note(text)
