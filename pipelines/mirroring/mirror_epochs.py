"""Drives a mirror: finds the wanted epochs, lowest first, and brings one after the other into the destination.

What is wrong with one epoch leaves the others alone. An epoch that another writer holds is tried again at the end. Where later epochs are
wanted too, the sources are looked at again and again, and only what is wrong with the options ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any, Final

from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.believed_epoch import EpochBeliever, FetchSources
from pipelines.fetching.epoch_location import find_epochs_between, parse_epoch_url
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_folder import FetchFolder
from pipelines.fetching.fetch_progress import FetchWatcher
from pipelines.fetching.fetch_result import FetchPlan, FetchResult, SourceReport
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.source_from_url import TORRENT
from pipelines.kernel.choice import choose_kernel
from pipelines.mirroring.destination_rebuilder import DestinationRebuilder
from pipelines.mirroring.epoch_choice import LATEST, EpochChoice
from pipelines.mirroring.store_target import MirrorState, StoreTarget, StoreTerms
from pipelines.producing.rebuild.base_states import BaseState
from pipelines.restoring.part_records import RecordsInParts
from pipelines.stores.open_store import open_store
from schemas.errors import (
    ClaimedError,
    EpochNotReadyError,
    FetchError,
    IntegrityError,
    InvalidInputError,
    ManifestError,
    StatecastError,
)
from schemas.published.delta_statement import DeltaEnd
from schemas.published.object_layout import EpochLayout

POLL_INTERVAL_S: Final = 60.0
"""Time between two looks for later epochs."""


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """What is mirrored, from where to where."""

    fetch: FetchSettings
    """Sources, trust, limits; ``into`` is the work folder, ``epoch`` and ``shard_ids`` do not count: an epoch is mirrored as its manifest is."""
    destination: str
    choice: EpochChoice
    terms: StoreTerms
    poll_interval_s: float = POLL_INTERVAL_S
    once: bool = False
    """End when all that is published is there, also where later epochs are wanted."""


@dataclass(frozen=True, slots=True)
class MirroredEpoch:
    """What became of one epoch."""

    epoch: str
    """Its folder; ``latest`` where it was not found out which that is."""
    state: MirrorState | None
    """None where it failed."""
    sources: tuple[SourceReport, ...]
    seconds: float
    error: StatecastError | None = None
    layout: EpochLayout | None = None
    """None where it was not found out."""
    revision: int | None = None
    manifest_signers: tuple[str, ...] = ()
    parts_copied: int = 0
    """Parts that were brought whole, and put."""
    parts_rebuilt: int = 0
    """Parts that were put after they were rebuilt of an earlier epoch there and deltas."""
    parts_there: int = 0
    """Parts that were at the destination."""
    bytes_copied: int = 0
    """Stored bytes of the parts that were brought whole."""
    delta_bytes: int = 0
    """Of the deltas that parts were rebuilt with."""
    warnings: tuple[str, ...] = ()

    @property
    def bytes_received(self) -> int:
        """All bytes that came from sources, those of no use too."""
        return sum(source.bytes_received for source in self.sources)

    @classmethod
    def of(cls, result: FetchResult, state: MirrorState) -> MirroredEpoch:
        """Return the outcome of a fetch that ended well."""
        return cls(
            epoch=result.layout.folder,
            state=state,
            sources=result.sources,
            seconds=result.seconds,
            layout=result.layout,
            revision=result.revision,
            manifest_signers=result.manifest_signers,
            parts_copied=sum(len(shard.fetched) for shard in result.shards),
            parts_rebuilt=sum(len(shard.rebuilt) for shard in result.shards),
            parts_there=sum(len(shard.here) for shard in result.shards),
            bytes_copied=sum(part.size for shard in result.shards for part in shard.fetched),
            delta_bytes=sum(shard.way.size for shard in result.shards if shard.way is not None),
            warnings=result.warnings,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        error = self.error
        return {
            "epoch": self.epoch,
            "state": "failed" if self.state is None else str(self.state),
            "revision": self.revision,
            "manifest_signers": list(self.manifest_signers),
            "parts_copied": self.parts_copied,
            "parts_rebuilt": self.parts_rebuilt,
            "parts_there": self.parts_there,
            "bytes_copied": self.bytes_copied,
            "delta_bytes": self.delta_bytes,
            "bytes_received": self.bytes_received,
            "seconds": round(self.seconds, 3),
            "sources": [asdict(source) for source in self.sources],
            "warnings": list(self.warnings),
            "error": None if error is None else {**error.to_json(), "message": str(error)},
        }


@dataclass(slots=True)
class MirrorRun:
    """One run of a mirror."""

    settings: MirrorSettings
    watcher: FetchWatcher
    random: Random = field(default_factory=Random)
    sleep: Callable[[float], None] = time.sleep
    runner: StageRunner | None = None
    """Where parts are rebuilt of earlier epochs at the destination and deltas; None for whole parts alone."""
    outcomes: dict[str, MirroredEpoch] = field(default_factory=dict)
    """The last one of each epoch so far; also after an error."""
    absent: tuple[int, ...] = ()
    """Heights of the range that no source has an epoch of."""
    _done: dict[str, int | None] = field(default_factory=dict)
    """Epochs that are there, with the revision that was known of each."""
    _first_height: int | None = None
    """Of the epoch that was the latest when the run began."""
    _banned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        destination = open_store(self.settings.destination).url
        for url in self._urls():
            if url != TORRENT and not url.startswith(("http://", "https://")) and open_store(parse_epoch_url(url).root).url == destination:
                raise InvalidInputError(problem="source and destination are the same store", where=destination)

    def plan(self) -> list[FetchPlan]:
        """Say what would be copied: nothing is written. What is at the destination counts by name and size.

        Raises:
            As `EpochFetch.plan`: of the first epoch that can't be mirrored.
        """
        wanted = self._find()
        if not wanted:
            raise self._nothing()
        planned: list[FetchPlan] = []
        for name in wanted:
            # What comes first will be there for what comes after.
            coming = tuple(state for plan in planned for state in self._states_of(plan))
            planned.append(EpochFetch(self._fetch_of(name, coming), self.watcher, self.random, self._target()).plan())
        return planned

    def _states_of(self, plan: FetchPlan) -> Iterator[BaseState]:
        layout = plan.layout
        for shard in plan.shards:
            listed = shard.believed.listed
            end = DeltaEnd(layout.epoch_height, layout.epoch_id, listed.shard_uid, listed.state_root)
            where = f"{self.settings.destination}/{layout.shard_folder(listed.shard_id)}"
            yield BaseState(layout.chain_id, end, RecordsInParts((), (), self.settings.fetch.kernel_name), where, 0)

    def run(self) -> list[MirroredEpoch]:
        """Mirror the wanted epochs; return what became of each. Where later epochs are wanted it does not return, unless ``once``.

        Raises:
            StoreError: the destination can't be written, or the work folder.
            EpochNotReadyError: no source has any of the epochs.
            InvalidInputError, FetchError: what is wanted is not said, or no source answers.
        """
        choice = self.settings.choice
        while True:
            try:
                self._mirror_missing()
            except InvalidInputError:
                raise
            except StatecastError as error:
                if not choice.follows or self.settings.once:
                    raise
                self._note(f"tried again in {self.settings.poll_interval_s:g} s: {error}")
            if not choice.follows or self.settings.once:
                return list(self.outcomes.values())
            self.sleep(self.settings.poll_interval_s)

    def _mirror_missing(self) -> None:
        """Mirror what is published and was not mirrored in this run."""
        wanted = self._find()
        if not wanted and not self._done:
            raise self._nothing()
        left = [name for name, revision in wanted.items() if name not in self._done or (revision or 0) > (self._done[name] or 0)]
        held = [name for number, name in enumerate(left, start=1) if not self._take(name, wanted[name], number=number, epochs=len(left))]
        # What another writer held is tried once more when all others are done.
        for name in held if len(left) > 1 else ():
            self._take(name, wanted[name], number=len(left), epochs=len(left))

    def _take(self, name: str, revision: int | None, *, number: int, epochs: int) -> bool:
        """Mirror one epoch; return False where another writer holds it."""
        self.watcher.event("epoch", {"epoch": name, "number": number, "epochs": epochs})
        outcome = self._mirrored(name)
        self.outcomes[outcome.epoch] = outcome
        self.watcher.event("epoch_done", outcome.to_json())
        if outcome.layout is not None:
            self._done[outcome.epoch] = revision
            if self._first_height is None:
                self._first_height = outcome.layout.epoch_height
        return not isinstance(outcome.error, ClaimedError)

    def _mirrored(self, name: str) -> MirroredEpoch:
        target = self._target()
        fetch = EpochFetch(self._fetch_of(name), self.watcher, self.random, target)
        began_s = time.monotonic()
        try:
            return MirroredEpoch.of(fetch.run(), target.state)
        except (ClaimedError, EpochNotReadyError, FetchError, IntegrityError, ManifestError) as error:
            return MirroredEpoch(name, None, fetch.source_reports(), time.monotonic() - began_s, error)
        finally:
            self._banned |= {report.source_id for report in fetch.source_reports() if report.banned is not None}

    def _target(self) -> StoreTarget:
        settings = self.settings
        return StoreTarget(open_store(settings.destination), FetchFolder(settings.fetch.into), settings.terms, self._note)

    def _note(self, text: str) -> None:
        self.watcher.event("note", {"text": text})

    def _find(self) -> dict[str, int | None]:
        """Return the wanted epochs that are published, lowest first: by folder, or `LATEST`, the revision that is known of each.

        Raises:
            InvalidInputError, FetchError: as `run`.
        """
        choice, fetch = self.settings.choice, self._without_banned()
        named = parse_epoch_url(fetch.url)
        if named.layout is not None:
            return {named.layout.folder: None}
        lowest = choice.lowest if choice.lowest is not None else self._first_height
        if lowest is None or choice.is_latest_alone:
            return {LATEST: None}
        sources = FetchSources(fetch, self.watcher, self.random)
        try:
            located = sources.open()
            chain_id = EpochBeliever(fetch, sources, self._target()).chain_id(located)
            found = find_epochs_between(lowest, choice.highest, chain_id, sources.sources, sources.reader)
        finally:
            sources.close()
        if choice.highest is not None:
            heights = {layout.epoch_height for layout in found}
            self.absent = tuple(height for height in range(lowest, choice.highest + 1) if height not in heights)
        return {layout.folder: revision for layout, revision in found.items()}

    def _fetch_of(self, name: str, coming: tuple[BaseState, ...] = ()) -> FetchSettings:
        """Return the settings of one epoch's fetch.

        Args:
            coming: as in `DestinationRebuilder`.
        """
        fetch, runner = self._without_banned(), self.runner
        if runner is not None:
            kernel = choose_kernel(fetch.kernel_name)
            fetch = replace(
                fetch,
                rebuilder=DestinationRebuilder(open_store(self.settings.destination).url, runner, kernel, fetch.policy, coming=coming),
            )
        if name == LATEST:
            # The one case in which an older epoch than was accepted before is refused.
            return replace(fetch, epoch=LATEST)
        return replace(fetch, url=f"{parse_epoch_url(fetch.url).root}/{name}", epoch=LATEST)

    def _without_banned(self) -> FetchSettings:
        """Return the settings without sources that served a wrong byte in this run, unless none is left."""
        fetch = self.settings.fetch
        urls = [url for url in self._urls() if url == TORRENT or parse_epoch_url(url).root.rstrip("/") not in self._banned]
        if not urls or urls[0] == TORRENT:
            return fetch
        return replace(fetch, url=urls[0], source_urls=tuple(urls[1:]))

    def _urls(self) -> Iterator[str]:
        yield self.settings.fetch.url
        yield from self.settings.fetch.source_urls

    def _nothing(self) -> EpochNotReadyError:
        return EpochNotReadyError(
            problem="no source has an epoch of the range",
            where=f"--epochs, {self.settings.fetch.url}",
            remedy="Web servers can't be searched: they need a catalogue.json, or name an epoch's URL.",
        )
