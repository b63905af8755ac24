"""Deletes tables of epochs that are no longer kept, and what killed runs and killed deletions left.

The order makes it safe for readers and for a deletion that is killed: one write of the catalogue takes the epochs out and marks them, then
pointer and views follow, then the Parquet files go, then the summaries, an epoch's own last, then the marks. A process that makes tables of an epoch
that is marked is refused, and what is marked is not finished, so that no deletion meets a writer. A rerun ends what a killed run began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from pipelines.dataset.tables.survey_tables import survey_tables
from pipelines.dataset.tables.tables_place import follow_catalogue, no_tables, read_tables_catalogue, refuse_old_layout
from pipelines.keeping.collect_epochs import DELETIONS_AT_ONCE, CollectedEpoch, CollectionResult
from pipelines.keeping.retention import Decision, EpochPhase, RetentionRule, Verdict
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.open_store import open_store
from pipelines.stores.store import ObjectInfo, Store
from schemas.dataset.tables_summary import CATALOGUE_NAME, EpochEntry, TablesCatalogue, epoch_side_folder, epoch_tables_name, tables_height
from schemas.ids import ZERO_HASH
from schemas.published.object_layout import EpochLayout

_UNFINISHED: Final = "it is not in the catalogue of finished epochs"


def collect_tables(
    url: str,
    rule: RetentionRule,
    plan_only: bool = False,
    *,
    on_note: Callable[[str], None] = lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> tuple[str, CollectionResult]:
    """Delete the tables of epochs that are no longer kept; a catalogue that is gone is made again first.

    Args:
        url: of the tables.
        rule: of it ``keep_epochs`` (the newest complete epochs, and all that are among them), ``keep_days`` (by the time at which an
            epoch was finished) and ``orphans_after_s`` (of epochs that were begun and not finished).
        plan_only: decide, write and delete nothing.
        on_note: told what happens, a line at a time.
        now: the clock, in UTC.
    Returns:
        The chain, and what became of each epoch; an unfinished one whose id is not known has one of zero bytes.
    Raises:
        DatasetError: no tables are there, or of another version.
        StoreError: the place can't be read or written. What was begun is ended by the next run.
    """
    store = open_store(url)
    catalogue = _mended(store, plan_only, on_note)
    return catalogue.chain_id, _Collection(store, catalogue, rule, on_note, now()).run(plan_only)


def _mended(store: Store, plan_only: bool, on_note: Callable[[str], None]) -> TablesCatalogue:
    found = read_tables_catalogue(store)
    if found is not None:
        return found
    refuse_old_layout(store)
    made = survey_tables(store)
    if made is None:
        raise no_tables(store)
    if not plan_only:
        store.put(CATALOGUE_NAME, made.to_bytes(), create_only=True)
        follow_catalogue(store)
    heights = ", ".join(str(entry.epoch_height) for entry in made.epochs)
    on_note(f"the catalogue of the tables {'would be' if plan_only else 'is'} made again out of the summaries: epochs {heights}")
    return made


@dataclass(slots=True)
class _Collection:
    store: Store
    catalogue: TablesCatalogue
    rule: RetentionRule
    on_note: Callable[[str], None]
    now: datetime
    _notes: list[str] = field(default_factory=list)

    def run(self, plan_only: bool) -> CollectionResult:
        objects = self._list()
        decisions = self._decide(objects)
        going = [one for one in decisions if one.verdict is Verdict.COLLECT]
        if going and not plan_only:
            going = self._mark(going)
            # Listed again: what was put since must go too.
            objects = self._list()
            for decision in going:
                self._delete(decision.layout.epoch_height, objects.get(decision.layout.epoch_height, []))
            self._unmark(going)
        collected = []
        for decision in decisions:
            if decision in going:
                gone = objects.get(decision.layout.epoch_height, [])
                collected.append(CollectedEpoch(decision, len(gone), sum(info.size for info in gone)))
            elif decision.verdict is Verdict.COLLECT:
                kept = Decision(decision.layout, decision.phase, Verdict.KEEP, "it was rebuilt meanwhile")
                collected.append(CollectedEpoch(kept))
            else:
                collected.append(CollectedEpoch(decision))
        return CollectionResult(tuple(collected), (), tuple(self._notes), plan_only)

    def _list(self) -> dict[int, list[ObjectInfo]]:
        found: dict[int, list[ObjectInfo]] = {}
        for info in self.store.list():
            height = tables_height(info.name)
            if height is not None:
                found.setdefault(height, []).append(info)
        return found

    def _decide(self, objects: dict[int, list[ObjectInfo]]) -> tuple[Decision, ...]:
        """Decide about every epoch; lowest first."""
        finished = {entry.epoch_height: entry for entry in self.catalogue.epochs}
        decisions, complete_above = [], 0
        for height in sorted({*objects, *finished, *self.catalogue.leaving}, reverse=True):
            entry = finished.get(height)
            if entry is None:
                decisions.append(self._unfinished(height, objects.get(height, [])))
            else:
                decisions.append(self._finished(entry, complete_above, objects.get(height, [])))
                complete_above += entry.complete
        return tuple(reversed(decisions))

    def _finished(self, entry: EpochEntry, complete_above: int, objects: Sequence[ObjectInfo]) -> Decision:
        layout = EpochLayout(self.catalogue.chain_id, entry.epoch_height, entry.epoch_id)
        made = next((info.modified for info in objects if info.name == epoch_tables_name(entry.epoch_height)), None)
        verdict, reason = Verdict.KEEP, f"newer complete epochs: {complete_above}, kept: {self.rule.keep_epochs}"
        if entry.complete and not complete_above:
            reason = "it is the newest complete epoch"
        elif complete_above >= self.rule.keep_epochs:
            if self.rule.keep_days is None:
                verdict = Verdict.COLLECT
            elif made is None:
                reason = "its age is not known"
            elif self.now - made < timedelta(days=self.rule.keep_days):
                reason = f"it was finished less than {self.rule.keep_days:g} days ago"
            else:
                verdict = Verdict.COLLECT
        return Decision(layout, EpochPhase.PUBLISHED, verdict, reason)

    def _unfinished(self, height: int, objects: Sequence[ObjectInfo]) -> Decision:
        layout = EpochLayout(self.catalogue.chain_id, height, ZERO_HASH)
        if height in self.catalogue.leaving:
            return Decision(layout, EpochPhase.LEAVING, Verdict.COLLECT, "an earlier deletion of it was not finished")
        times = [info.modified for info in objects]
        known = [time for time in times if time is not None]
        if len(known) < len(times):
            reason = f"{_UNFINISHED}, and the store does not say how old its objects are"
            return Decision(layout, EpochPhase.UNPUBLISHED, Verdict.KEEP, reason)
        if self.now - max(known) < timedelta(seconds=self.rule.orphans_after_s):
            return Decision(layout, EpochPhase.UNPUBLISHED, Verdict.KEEP, f"{_UNFINISHED} yet")
        reason = f"{_UNFINISHED}, and nothing changed in it since {max(known):%Y-%m-%d %H:%M} UTC"
        return Decision(layout, EpochPhase.UNPUBLISHED, Verdict.COLLECT, reason)

    def _mark(self, going: Sequence[Decision]) -> list[Decision]:
        """Take epochs out of the catalogue; return those that are still as they were when it was decided."""
        known = {entry.epoch_height: entry for entry in self.catalogue.epochs}

        def marked(info: ObjectInfo | None) -> tuple[bytes | None, list[Decision]]:
            catalogue = read_tables_catalogue(self.store)
            if catalogue is None:
                raise no_tables(self.store)
            there = {entry.epoch_height: entry for entry in catalogue.epochs}
            same = [one for one in going if there.get(one.layout.epoch_height) == known.get(one.layout.epoch_height)]
            changed = catalogue.marked(one.layout.epoch_height for one in same)
            return None if changed == catalogue else changed.to_bytes(), same

        same = swapped(self.store, CATALOGUE_NAME, marked)
        follow_catalogue(self.store)
        return same

    def _delete(self, height: int, objects: Sequence[ObjectInfo]) -> None:
        side, last = f"{epoch_side_folder(height)}/", epoch_tables_name(height)
        names = [info.name for info in objects]
        with ThreadPoolExecutor(DELETIONS_AT_ONCE, thread_name_prefix="delete") as executor:
            for group in (
                [name for name in names if not name.startswith(side)],
                [name for name in names if name.startswith(side) and name != last],
                [name for name in names if name == last],
            ):
                for _ in executor.map(self.store.delete, group):
                    pass
        note = f"tables of epoch {height} are deleted: {len(objects)} objects, {sum(info.size for info in objects)} bytes"
        self._notes.append(note)
        self.on_note(note)

    def _unmark(self, gone: Sequence[Decision]) -> None:
        def unmarked(info: ObjectInfo | None) -> tuple[bytes | None, None]:
            catalogue = read_tables_catalogue(self.store)
            if catalogue is None:
                return None, None
            changed = catalogue.unmarked(one.layout.epoch_height for one in gone)
            return None if changed == catalogue else changed.to_bytes(), None

        swapped(self.store, CATALOGUE_NAME, unmarked)
