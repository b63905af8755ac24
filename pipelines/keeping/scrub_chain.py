"""Drives scrubs of some epochs of a chain: chooses each one's sample, scrubs, repairs, and remembers where the next sample begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipelines.bucket.lease_keeper import EpochLease, held_epoch
from pipelines.bucket.read_latest import read_latest
from pipelines.execution.stage_runner import StageRunner
from pipelines.fetching.epoch_location import parse_epoch_url
from pipelines.fetching.source import Source
from pipelines.fetching.source_from_url import open_source, unique_urls
from pipelines.fetching.throttle import Throttle
from pipelines.keeping.findings import Finding, FindingKind
from pipelines.keeping.remaking import Remaker
from pipelines.keeping.repair_epoch import EpochRepair, Repair
from pipelines.keeping.scrub_epoch import EpochScrub, ScrubbedEpoch
from pipelines.keeping.scrub_pointers import repair_pointers, scrub_pointers
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.signatures import TrustRule
from schemas.errors import EpochNotReadyError, ManifestError, ObjectNotFoundError, SignatureError, StatecastError
from schemas.published.object_layout import EpochLayout, ObjectKind, chain_folder, latest_name, parse_object_name
from schemas.published.scrub_state import SCRUB_STATE_BYTES_MAX, WHOLE_PPM, ScrubState


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """What is scrubbed and how."""

    store_url: str
    layouts: tuple[EpochLayout, ...]
    sample_ppm: int
    """How much of each epoch is read, in millionths; all of it with `WHOLE_PPM`."""
    trust: TrustRule | None
    seed: int = 0
    repair: bool = False
    """Put right what can be put right from the store itself and from mirrors."""
    mirror_urls: tuple[str, ...] = ()
    """Folders that hold the chain's folder, in the order in which they are asked; with any of them ``repair`` is meant."""
    tables_url: str | None = None
    """Where the epochs' decoded tables are; None for what the manifests say."""
    chain_id: str | None = None
    """Also look at this chain's latest pointer and catalogue."""


@dataclass(frozen=True, slots=True)
class ScrubOutcome:
    """What became of one epoch."""

    scrubbed: ScrubbedEpoch
    repairs: tuple[Repair, ...]
    """One a harmful finding where a repair was wanted."""

    @property
    def repaired(self) -> int:
        """How many findings are right now."""
        return sum(repair.is_done for repair in self.repairs)


@dataclass(frozen=True, slots=True)
class ScrubResult:
    """The result of a scrub."""

    epochs: tuple[ScrubOutcome, ...]
    pointers: tuple[Finding, ...]
    """What is wrong with the chain's latest pointer and catalogue."""
    pointer_repairs: tuple[Repair, ...]

    @property
    def harmful(self) -> tuple[Finding, ...]:
        """All that is not as it should be."""
        return (*self.pointers, *(finding for epoch in self.epochs for finding in epoch.scrubbed.harmful))

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """One a harmful finding where a repair was wanted."""
        return (*self.pointer_repairs, *(repair for epoch in self.epochs for repair in epoch.repairs))

    @property
    def repaired(self) -> int:
        """How many findings are right now."""
        return sum(repair.is_done for repair in self.repairs)


@dataclass(slots=True)
class ChainScrub:
    """A scrub of some epochs."""

    runner: StageRunner
    settings: ScrubSettings
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    remaker: Remaker | None = None
    """Makes parts and deltas again that no mirror has, in a repair; None to leave them."""
    _refusal: SignatureError | None = None

    def run(self) -> ScrubResult:
        """Scrub one epoch after another, then what lies beside them.

        An epoch that is deleted meanwhile is skipped where there are others, and one whose manifest no trusted key has signed
        counts as wrong.

        Raises:
            EpochNotReadyError: the only epoch is not published.
            SignatureError: none of the trusted keys has signed the manifest of any epoch.
            StoreError: the store can't be read; in a repair, written.
            InvalidInputError: a mirror's URL that is none.
        """
        settings, store = self.settings, open_store(self.settings.store_url)
        sources = [open_source(parse_epoch_url(url).root, Throttle([])) for url in unique_urls(settings.mirror_urls)]
        with ExitStack() as stack:
            for source in sources:
                stack.callback(source.close)
            outcomes = [outcome for layout in settings.layouts if (outcome := self._scrub(store, layout, sources)) is not None]
        if self._refusal is not None and all(outcome.scrubbed.stored is None for outcome in outcomes):
            raise self._refusal
        pointers = () if settings.chain_id is None else scrub_pointers(store, settings.chain_id)
        repairs: tuple[Repair, ...] = ()
        if settings.chain_id is not None and (settings.repair or sources):
            repairs = repair_pointers(store, settings.chain_id, pointers)
        return ScrubResult(tuple(outcomes), pointers, repairs)

    def _scrub(self, store: Store, layout: EpochLayout, sources: Sequence[Source]) -> ScrubOutcome | None:
        settings, window = self.settings, self._window(store, layout)
        with held_epoch([EpochLease(store, layout, "scrub")]):
            self.runner.progress.note(f"epoch {layout.epoch_height} ({layout.epoch_id}): reading {window.description}")
            try:
                scrubbed = EpochScrub(self.runner, settings.store_url, layout, window, settings.trust, settings.tables_url).run()
            except SignatureError as error:
                self._refusal = self._refusal or error
                finding = Finding(FindingKind.WRONG, layout.manifest, error.problem)
                return ScrubOutcome(ScrubbedEpoch(layout, window, None, 0, 0, 0, (finding,)), ())
            except EpochNotReadyError:
                if len(settings.layouts) == 1:
                    raise
                self.runner.progress.note(f"epoch {layout.epoch_height} ({layout.epoch_id}) was deleted in the meantime")
                return None
            repairs: tuple[Repair, ...] = ()
            if settings.repair or sources:
                repair = EpochRepair(self.runner, settings.store_url, settings.trust, sources, remaker=self.remaker)
                repairs = repair.run(scrubbed)
            self._remember(store, layout, window)
        return ScrubOutcome(scrubbed, repairs)

    def _window(self, store: Store, layout: EpochLayout) -> SampleWindow:
        """Return the stretch that follows the last one; without a memory of that, the first."""
        if self.settings.sample_ppm == WHOLE_PPM:
            return SampleWindow(WHOLE_PPM)
        start_ppm = 0
        try:
            state = ScrubState.parse(store.get(layout.scrub, 0, SCRUB_STATE_BYTES_MAX + 1), layout.scrub)
            start_ppm = state.next_ppm if state.seed == self.settings.seed else 0
        except ObjectNotFoundError:
            pass
        except ManifestError as error:
            self.runner.progress.note(f"where the last sample ended can't be read, so sampling starts over: {error.problem}")
        return SampleWindow(self.settings.sample_ppm, start_ppm, self.settings.seed)

    def _remember(self, store: Store, layout: EpochLayout, window: SampleWindow) -> None:
        if window.is_full:
            return
        try:
            store.put(layout.scrub, ScrubState(window.seed, window.next_ppm, self.now().replace(microsecond=0)).to_bytes())
        except StatecastError as error:
            self.runner.progress.note(f"where this sample ended can't be remembered, so the next one reads the same parts: {error.problem}")


def published_epochs(store: Store, chain_id: str, selectors: Sequence[str]) -> tuple[EpochLayout, ...]:
    """Return the epochs of a chain that have a manifest, newest first.

    Args:
        selectors: ``latest``, heights or ids; empty for all.
    Raises:
        EpochNotReadyError: a selector names none of them, or there is none.
        StoreError: the store can't be listed.
    """
    found = (parse_object_name(info.name) for info in store.list(chain_folder(chain_id)))
    layouts = [name.epoch for name in found if name is not None and name.kind is ObjectKind.MANIFEST and name.epoch is not None]
    layouts.sort(key=lambda layout: (layout.epoch_height, str(layout.epoch_id)), reverse=True)
    if not layouts:
        raise EpochNotReadyError(problem="no epoch is published there", where=f"{store.url}/{chain_folder(chain_id)}")
    chosen: list[EpochLayout] = []
    for selector in selectors:
        named = _latest(store, chain_id) if selector == "latest" else None
        wanted = [
            layout
            for layout in layouts
            if layout == named or (named is None and selector in (str(layout.epoch_height), str(layout.epoch_id)))
        ]
        if not wanted:
            raise EpochNotReadyError(problem=f"epoch {selector[:80]} is not published there", where=f"{store.url}/{chain_folder(chain_id)}")
        chosen += [layout for layout in wanted if layout not in chosen]
    return tuple(chosen if selectors else layouts)


def _latest(store: Store, chain_id: str) -> EpochLayout:
    pointer = read_latest(store, chain_id)
    if pointer is None:
        raise EpochNotReadyError(problem="no complete epoch is published there", where=f"{store.url}/{latest_name(chain_id)}")
    return pointer.layout
