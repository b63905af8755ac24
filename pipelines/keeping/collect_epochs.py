"""Deletes epochs that are no longer kept, and what killed producers and killed deletions left.

The order makes it safe for readers and for a deletion that is killed: an epoch is marked in the catalogue, then leases, claim and pointer
are looked at again, then the manifest goes, which makes the epoch invisible, then everything else, the mark last: in the write that marks the next
epoch. A reader writes its lease first and looks for the mark after that, so of the two at least one sees the other. A rerun ends what a killed run began.

Objects that are not of this layout are reported and left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from pipelines.bucket.chain_catalogue import MARK_STALE_S, CatalogueWriter, read_catalogue, read_entry
from pipelines.bucket.holders import Holders, find_holders, judge_holders
from pipelines.bucket.published_epoch import read_manifest
from pipelines.bucket.read_latest import read_latest
from pipelines.keeping.retention import Decision, EpochPhase, RetentionRule, StoredEpoch, Verdict, plan_retention
from pipelines.keeping.stored_ladder import StoredLadder, bases_there, has_all_parts, part_sizes, sizes_in
from pipelines.stores.open_store import open_store
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import ManifestError, StatecastError
from schemas.published.catalogue import Catalogue, epoch_key
from schemas.published.object_layout import PROBE_FOLDER, EpochLayout, ObjectKind, chain_folder, parse_epoch_folder, parse_object_name

DELETIONS_AT_ONCE: Final = 8
"""Objects that are deleted at once."""

_LAST: Final = (ObjectKind.LEASE, ObjectKind.CLAIM)
"""Deleted after everything else: they say which readers and producers are there."""

_NOT_CONTENT: Final = (ObjectKind.LEASE, ObjectKind.CLAIM, ObjectKind.SCRUB)
"""Objects whose age says nothing of a production."""


@dataclass(frozen=True, slots=True)
class CollectedEpoch:
    """What became of one epoch."""

    decision: Decision
    deleted_objects: int = 0
    """In a plan: how many would be."""
    deleted_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        layout = self.decision.layout
        return {
            "epoch": layout.folder,
            "epoch_height": layout.epoch_height,
            "epoch_id": str(layout.epoch_id),
            "phase": str(self.decision.phase),
            "verdict": str(self.decision.verdict),
            "reason": self.decision.reason,
            "rebuilt_from": [step.epoch_height for step in self.decision.steps],
            "objects": self.deleted_objects,
            "size": self.deleted_bytes,
        }


@dataclass(frozen=True, slots=True)
class CollectionResult:
    """The result of a collection, or of its plan."""

    epochs: tuple[CollectedEpoch, ...]
    """All that the store has, lowest first."""
    foreign: tuple[str, ...]
    """Objects under epochs that are not of this layout; left alone."""
    notes: tuple[str, ...]
    """What was out of the ordinary, for people."""
    plan_only: bool

    @property
    def collected(self) -> tuple[CollectedEpoch, ...]:
        """Those that are gone, or would be."""
        return tuple(epoch for epoch in self.epochs if epoch.decision.verdict is Verdict.COLLECT)

    @property
    def deleted_bytes(self) -> int:
        """Stored bytes of what is gone, or would be."""
        return sum(epoch.deleted_bytes for epoch in self.epochs)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "plan_only": self.plan_only,
            "epochs": [epoch.to_json() for epoch in self.epochs],
            "collected": len(self.collected),
            "deleted_objects": sum(epoch.deleted_objects for epoch in self.epochs),
            "deleted_bytes": self.deleted_bytes,
            "foreign": list(self.foreign),
            "notes": list(self.notes),
        }


def collect_epochs(
    store_url: str,
    chain_id: str,
    rule: RetentionRule,
    plan_only: bool = False,
    *,
    prove: ProveSteps | None = None,
    on_note: Callable[[str], None] = lambda _: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    deletions_at_once: int = DELETIONS_AT_ONCE,
) -> CollectionResult:
    """Delete the epochs of a chain that are no longer kept; see `pipelines.keeping.retention` for which.

    Args:
        plan_only: decide, delete nothing.
        prove: rebuilds an epoch before its parts go; needed with the rule's ``full_every`` unless it is a plan.
        on_note: told what happens, a line at a time.
        now: the clock, in UTC.
        deletions_at_once: requests to the store that are under way at a time.
    Raises:
        StoreError: the store can't be read or written. What was begun is ended by the next run.
    """
    return _Collection(open_store(store_url), chain_id, rule, prove, on_note, now, deletions_at_once).run(plan_only)


def thin_epoch(
    store_url: str,
    layout: EpochLayout,
    full_every: int,
    prove: ProveSteps,
    on_note: Callable[[str], None] = lambda _: None,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> bool:
    """Let one epoch's parts go, as `collect_epochs` with ``full_every`` would, and look at no other epoch than those that lead to it.

    For a command that publishes many epochs one after the other: lowest first, and each only when nothing will be made of its parts any more.

    Returns:
        Whether they went; they stay where the height is a multiple of ``full_every``, where no deltas lead to the epoch, or something needs them.
    Raises:
        StoreError: as `collect_epochs`.
    """
    rule = RetentionRule(keep_epochs=1, full_every=full_every)
    collection = _Collection(open_store(store_url), layout.chain_id, rule, prove, on_note, now, DELETIONS_AT_ONCE)
    return collection.thin_one(layout)


ProveSteps: TypeAlias = Callable[[EpochLayout, Sequence[EpochLayout]], str]
"""Rebuilds an epoch by some steps, into nothing that stays; returns why it can't be had so, or nothing. It may raise a StoreError."""

PROBE_AGE_S_MAX = 3600.0
"""A probe older than that belongs to no run."""


@dataclass(slots=True)
class _Folder:
    """An epoch's folder as listed."""

    layout: EpochLayout
    objects: list[tuple[ObjectInfo, ObjectKind]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def changed(self) -> datetime | None:
        times = [info.modified for info, kind in self.objects if kind not in _NOT_CONTENT]
        if not times:
            # Nothing but a lease or so: as old as that.
            times = [info.modified for info, _ in self.objects]
        known = [time for time in times if time is not None]
        return max(known) if known and len(known) == len(times) else None


@dataclass(slots=True)
class _Collection:
    store: Store
    chain_id: str
    rule: RetentionRule
    prove: ProveSteps | None
    on_note: Callable[[str], None]
    now: Callable[[], datetime]
    deletions_at_once: int
    notes: list[str] = field(default_factory=list)
    _gone: list[EpochLayout] = field(default_factory=list)
    """Deleted, and still in the catalogue."""

    def run(self, plan_only: bool) -> CollectionResult:
        folders = self._list()
        catalogue = self._catalogue()
        litter: list[str] = []
        epochs = []
        for layout in {*folders, *(catalogue.layout(entry) for entry in catalogue.epochs if entry.leaving_since is not None)}:
            epoch, holders = self._stored(folders.get(layout) or _Folder(layout), catalogue)
            if epoch is not None:
                epochs.append(epoch)
            litter += holders.litter
        decisions = plan_retention(epochs, self.rule, self._pointed_at(), self.now())
        collected = []
        try:
            for decision in decisions:
                if decision.verdict is Verdict.KEEP or plan_only:
                    objects = [] if decision.verdict is Verdict.KEEP else (folders.get(decision.layout) or _Folder(decision.layout)).objects
                    if decision.verdict is Verdict.THIN:
                        objects = [(info, kind) for info, kind in objects if kind is ObjectKind.STATE_PART]
                    collected.append(CollectedEpoch(decision, len(objects), sum(info.size for info, _ in objects)))
                elif decision.verdict is Verdict.THIN:
                    collected.append(self._thin(decision))
                else:
                    collected.append(self._collect(decision))
        except (Exception, KeyboardInterrupt):
            with suppress(StatecastError):
                self._forget_gone()
            raise
        self._forget_gone()
        if not plan_only:
            kept = {epoch.decision.layout for epoch in collected if epoch.decision.verdict is not Verdict.COLLECT}
            # Parts that were lost are missing, whatever leads to them: only a collection says that some need not be there.
            lossy = {layout for layout, folder in folders.items() if any(kind is ObjectKind.STATE_PART for _, kind in folder.objects)}
            lossy -= {epoch.layout for epoch in epochs if epoch.is_half_thin}
            decided = [epoch.decision for epoch in collected if epoch.decision.verdict is not Verdict.COLLECT]
            self._note_steps([replace(one, steps=()) if one.verdict is Verdict.KEEP and one.layout in lossy else one for one in decided])
            self._delete([name for name in litter if _layout_of(name) in kept])
            self._mend_catalogue(catalogue, kept, folders)
            self._delete(self._dead_probes())
        foreign = tuple(name for folder in folders.values() for name in folder.foreign)
        return CollectionResult(tuple(collected), foreign, tuple(self.notes), plan_only)

    def thin_one(self, layout: EpochLayout) -> bool:
        """See `thin_epoch`."""
        assert self.rule.full_every is not None
        if layout.epoch_height % self.rule.full_every == 0 or layout in self._pointed_at():
            return False
        if find_holders(self.store, layout, self.now()).live:
            return False
        stored = read_manifest(self.store, layout)
        if stored is None or not stored.manifest.is_complete:
            return False
        size_of = sizes_in(self.store, layout)
        if all(size_of(name) is None for name, _ in part_sizes(stored.manifest)):
            return False
        # What others are rebuilt of stays whole: another way would have to be proved first.
        if any(entry.steps[:1] == (epoch_key(layout),) for entry in self._catalogue().epochs):
            return False
        steps = StoredLadder(self.store).steps_to(layout)
        if steps is None:
            return False
        decision = Decision(layout, EpochPhase.PUBLISHED, Verdict.THIN, "", steps)
        return self._thin(decision).decision.verdict is Verdict.THIN

    def _list(self) -> dict[EpochLayout, _Folder]:
        folders: dict[EpochLayout, _Folder] = {}
        for info in self.store.list(chain_folder(self.chain_id)):
            layout = _layout_of(info.name)
            if layout is None:
                continue
            folder = folders.setdefault(layout, _Folder(layout))
            parsed = parse_object_name(info.name)
            if parsed is None:
                folder.foreign.append(info.name)
            else:
                folder.objects.append((info, parsed.kind))
        return folders

    def _dead_probes(self) -> list[str]:
        """Return what killed looks before a run have left; one takes seconds."""
        oldest = self.now() - timedelta(seconds=PROBE_AGE_S_MAX)
        return [info.name for info in self.store.list(PROBE_FOLDER) if info.modified is not None and info.modified < oldest]

    def _catalogue(self) -> Catalogue:
        try:
            return read_catalogue(self.store, self.chain_id) or Catalogue(self.chain_id)
        except ManifestError as error:
            self._note(f"the catalogue can't be read: {error.problem}")
            return Catalogue(self.chain_id)

    def _stored(self, folder: _Folder, catalogue: Catalogue) -> tuple[StoredEpoch | None, Holders]:
        """Return what is known of an epoch's folder; None where nothing of this layout is in it and nothing was begun."""
        entry = catalogue.find(folder.layout)
        leaving_since = None if entry is None else entry.leaving_since
        if not folder.objects and leaving_since is None:
            return None, Holders(())
        holders = judge_holders(self.store, (info for info, _ in folder.objects), self.now())
        found = None
        if any(kind is ObjectKind.MANIFEST for _, kind in folder.objects):
            found = read_entry(self.store, folder.layout)
        listing = None if found is None else found.listing
        if found is None:
            phase = EpochPhase.UNPUBLISHED if leaving_since is None else EpochPhase.LEAVING
        else:
            phase = EpochPhase.DAMAGED if listing is None else EpochPhase.PUBLISHED
        epoch = StoredEpoch(
            layout=folder.layout,
            phase=phase,
            is_complete=listing is not None and listing.is_complete,
            created=None if listing is None else listing.created,
            changed=folder.changed(),
            leaving_since=leaving_since,
            held_by=holders.description,
            is_half_thin=entry is not None and bool(entry.steps) and any(kind is ObjectKind.STATE_PART for _, kind in folder.objects),
            **self._parts_and_bases(folder, phase),
        )
        return epoch, holders

    def _parts_and_bases(self, folder: _Folder, phase: EpochPhase) -> dict[str, Any]:
        """Return whether all parts are there, and which epochs deltas of all shards lead from."""
        stored = read_manifest(self.store, folder.layout) if phase is EpochPhase.PUBLISHED else None
        if stored is None:
            return {}
        sizes = {info.name: info.size for info, _ in folder.objects}
        return {"is_whole": has_all_parts(stored.manifest, sizes.get), "bases": bases_there(stored.manifest, sizes.get)}

    def _thin(self, decision: Decision) -> CollectedEpoch:
        """Let an epoch's parts go, once they were rebuilt of what stays."""
        assert self.prove is not None, "no part goes unproved"
        layout, writer = decision.layout, CatalogueWriter(self.store, self.chain_id)
        problem = self.prove(layout, decision.steps)
        if problem:
            self._note(f"the parts of epoch {layout.epoch_height} stay: they can't be rebuilt of what would stay: {problem}")
            return CollectedEpoch(Decision(layout, decision.phase, Verdict.KEEP, f"it can't be rebuilt: {problem}"))
        marked = self.now().replace(microsecond=0)
        writer.change(lambda catalogue: catalogue.marked(layout, marked))
        kept = ""
        try:
            kept = self._kept_after_all(decision)
            if not kept:
                # Known before the first part goes: a kill must not leave an epoch that seems to be whole.
                writer.change(lambda catalogue: catalogue.with_steps(layout, decision.steps))
                objects = [
                    info
                    for info in self.store.list(layout.folder)
                    if (found := parse_object_name(info.name)) is not None and found.kind is ObjectKind.STATE_PART
                ]
                self._delete([info.name for info in objects])
        finally:
            writer.change(lambda catalogue: self._unmarked(catalogue, layout))
        if kept:
            self._note(f"epoch {layout.epoch_height} ({layout.epoch_id}) stays whole after all: {kept}")
            return CollectedEpoch(Decision(layout, decision.phase, Verdict.KEEP, kept))
        size = sum(info.size for info in objects)
        self._note(f"the parts of epoch {layout.epoch_height} ({layout.epoch_id}) are deleted: {len(objects)} objects, {size} bytes")
        return CollectedEpoch(decision, len(objects), size)

    def _note_steps(self, decisions: Sequence[Decision]) -> None:
        """Bring the catalogue's steps up to date: an epoch whose parts are back is whole, another may be had by other steps now."""

        def noted(catalogue: Catalogue) -> Catalogue:
            for decision in decisions:
                if decision.phase is EpochPhase.PUBLISHED:
                    catalogue = catalogue.with_steps(decision.layout, decision.steps)
            return catalogue

        try:
            there = read_catalogue(self.store, self.chain_id)
        except ManifestError:
            there = None
        if there is not None and noted(there) != there:
            CatalogueWriter(self.store, self.chain_id).change(noted)

    def _pointed_at(self) -> list[EpochLayout]:
        try:
            pointer = read_latest(self.store, self.chain_id)
        except ManifestError as error:
            self._note(f"the latest pointer can't be read: {error.problem}")
            return []
        return [] if pointer is None else [pointer.layout]

    def _collect(self, decision: Decision) -> CollectedEpoch:
        layout, writer = decision.layout, CatalogueWriter(self.store, self.chain_id)
        marked = self.now().replace(microsecond=0)
        gone = list(self._gone)
        change = writer.change(lambda catalogue: catalogue.without(gone).marked(layout, marked))
        self._gone.clear()
        self._note(change.note)
        try:
            kept = self._kept_after_all(decision)
        except (Exception, KeyboardInterrupt):
            # Nothing is deleted yet, unless by an earlier run; a mark without a collector would keep producers away for long.
            if decision.phase is not EpochPhase.LEAVING:
                with suppress(StatecastError):
                    writer.change(lambda catalogue: self._unmarked(catalogue, layout))
            raise
        if kept:
            writer.change(lambda catalogue: self._unmarked(catalogue, layout))
            self._note(f"epoch {layout.epoch_height} ({layout.epoch_id}) stays after all: {kept}")
            return CollectedEpoch(Decision(layout, decision.phase, Verdict.KEEP, kept))
        # Listed again: what was put since must go too, or it would never be deleted.
        objects = [(info, found.kind) for info in self.store.list(layout.folder) if (found := parse_object_name(info.name)) is not None]
        self.store.delete(layout.manifest)
        self._delete([info.name for info, kind in objects if kind not in (*_LAST, ObjectKind.MANIFEST)])
        self._delete([info.name for info, kind in objects if kind in _LAST])
        self._gone.append(layout)
        size = sum(info.size for info, _ in objects)
        self._note(f"epoch {layout.epoch_height} ({layout.epoch_id}) is deleted: {len(objects)} objects, {size} bytes")
        return CollectedEpoch(decision, len(objects), size)

    def _forget_gone(self) -> None:
        """Take what is deleted out of the catalogue."""
        if self._gone:
            CatalogueWriter(self.store, self.chain_id).change(lambda catalogue: catalogue.without(self._gone))
            self._gone.clear()

    def _kept_after_all(self, decision: Decision) -> str:
        """Return why an epoch must stay that was marked a moment ago; empty where nothing speaks against its end."""
        layout = decision.layout
        holders = find_holders(self.store, layout, self.now())
        if holders.live:
            return f"held by {holders.description}"
        if layout in self._pointed_at():
            return "the latest pointer names it"
        was_published = decision.phase in (EpochPhase.PUBLISHED, EpochPhase.DAMAGED)
        if not was_published and self.store.info(layout.manifest) is not None:
            return "it was published in the meantime"
        return ""

    def _unmarked(self, catalogue: Catalogue, layout: EpochLayout) -> Catalogue:
        """Take a mark back; an entry that was made for the mark alone goes."""
        entry = catalogue.find(layout)
        if entry is not None and entry.listing is None and self.store.info(layout.manifest) is None:
            return catalogue.without([layout])
        return catalogue.marked(layout, None)

    def _mend_catalogue(self, catalogue: Catalogue, kept: set[EpochLayout], folders: dict[EpochLayout, _Folder]) -> None:
        """Take back marks that a killed run left on epochs that stay, and drop entries of epochs that are not there at all."""
        oldest = self.now() - timedelta(seconds=MARK_STALE_S)
        stale = [
            layout
            for entry in catalogue.epochs
            if (layout := catalogue.layout(entry)) in kept and entry.leaving_since is not None and entry.leaving_since < oldest
        ]
        ghosts = [
            layout
            for entry in catalogue.epochs
            if (layout := catalogue.layout(entry)) not in folders
            and entry.leaving_since is None
            and self.store.info(layout.manifest) is None
        ]
        if not stale and not ghosts:
            return
        writer = CatalogueWriter(self.store, self.chain_id)

        def mend(found: Catalogue) -> Catalogue:
            for layout in stale:
                found = self._unmarked(found, layout)
            return found.without([layout for layout in ghosts if self.store.info(layout.manifest) is None])

        writer.change(mend)
        for layout in ghosts:
            self._note(f"the catalogue listed epoch {layout.epoch_height} ({layout.epoch_id}), which is not there")

    def _delete(self, names: list[str]) -> None:
        with ThreadPoolExecutor(self.deletions_at_once, thread_name_prefix="delete") as executor:
            for _ in executor.map(self.store.delete, names):
                pass

    def _note(self, text: str) -> None:
        if text:
            self.notes.append(text)
            self.on_note(text)


def _layout_of(name: str) -> EpochLayout | None:
    """Return the epoch in whose folder an object lies, of this layout or not; None where it lies in none."""
    levels = name.split("/")
    return parse_epoch_folder("/".join(levels[:3])) if len(levels) > 3 else None
