"""The check of an epoch's deltas: their statements against the manifest, every object against its statement, and what comes of applying them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipelines.bucket.published_deltas import read_delta_statement
from pipelines.bucket.published_epoch import Judge
from pipelines.dataset.delta.stored_delta import StoredDelta, read_delta_object
from pipelines.dataset.tables.verify_tables import WrongFile
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.keeping.stored_ladder import SizeOf
from pipelines.stores.store import Store
from schemas.errors import IntegrityError, ManifestError, ObjectNotFoundError
from schemas.published.delta_statement import DeltaObject, DeltaStatement
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout

CHECK_DELTA_TASK_MEMORY_BYTES = 300 << 20
"""Peak memory of checking one object: its bytes and its rows."""


@dataclass(frozen=True, slots=True)
class ReadDeltas:
    """What reading an epoch's deltas back came to."""

    statements: Mapping[tuple[int, int, str], DeltaStatement]
    """Those that are right, by `ManifestDelta.key`."""
    objects: int
    """Of those deltas; each was looked up by name and size."""
    objects_read: int
    size: int
    """Stored bytes that were read."""
    wrong: tuple[WrongFile, ...]


@dataclass(frozen=True, slots=True)
class CheckDeltaObjectTask:
    """Reads one object of a delta and compares it with what the delta's statement says of it."""

    store_url: str
    name: str
    listed: DeltaObject

    def run(self) -> WrongFile | None:
        """Check the object; return what is wrong with it.

        Raises:
            StoreError: the store can't be read.
        """
        try:
            read_delta_object(self.store_url, self.name, self.listed)
        except ObjectNotFoundError:
            return WrongFile(self.name, True, "it is missing")
        except IntegrityError as error:
            return WrongFile(self.name, False, error.problem)
        return None


@dataclass(frozen=True, slots=True)
class DeltaReading:
    """How an epoch's deltas are read back."""

    runner: StageRunner
    store: Store
    layout: EpochLayout
    window: SampleWindow
    """Which objects are read; the others are looked up by name and size."""
    judge: Judge
    """Raises ManifestError where no trusted key has signed a statement."""
    size_of: SizeOf

    def read(self, deltas: Sequence[ManifestDelta], stage: str) -> ReadDeltas:
        """Read the statements of some listed deltas, and the objects of the sample.

        Raises:
            StoreError: the store can't be read.
        """
        statements: dict[tuple[int, int, str], DeltaStatement] = {}
        wrong: list[WrongFile] = []
        tasks: list[CheckDeltaObjectTask] = []
        for listed in deltas:
            name = self.layout.delta_statement(listed.base_epoch_id, listed.shard_id)
            try:
                statement, envelope = read_delta_statement(self.store, self.layout, listed)
                self.judge(envelope)
            except ObjectNotFoundError:
                wrong.append(WrongFile(name, True, "it is missing"))
                continue
            except ManifestError as error:
                wrong.append(WrongFile(name, False, error.problem))
                continue
            statements[listed.key] = statement
            delta = StoredDelta(self.store.url, statement)
            tasks += [CheckDeltaObjectTask(self.store.url, delta.object_name(index), one) for index, one in enumerate(statement.objects)]
        chosen = self.window.choose(map(self._relative, tasks))
        to_read = []
        for task in tasks:
            size = self.size_of(task.name)
            if size is None:
                wrong.append(WrongFile(task.name, True, "it is missing"))
            elif size != task.listed.size:
                wrong.append(WrongFile(task.name, False, f"it has {size} bytes, the delta's statement says {task.listed.size}"))
            elif self._relative(task) in chosen:
                to_read.append(task)
        found = self.runner.run(stage, "deltas", to_read, TaskNeeds(CHECK_DELTA_TASK_MEMORY_BYTES), lambda _: Amount(parts=1))
        wrong += [one for one in found if one is not None]
        return ReadDeltas(statements, len(tasks), len(to_read), sum(task.listed.size for task in to_read), tuple(wrong))

    def _relative(self, task: CheckDeltaObjectTask) -> str:
        return task.name.removeprefix(f"{self.layout.folder}/")


class DeltaTrial(Protocol):
    """Applies published deltas to what they lead from. That is a producer's work, so it is done elsewhere and given to the check."""

    def run(self, target: Manifest, statement: DeltaStatement, part_ids: Collection[int]) -> TriedDelta:
        """Compare the records that a delta makes of its base with those of some parts of the target.

        Raises:
            StoreError: a store can't be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class TriedDelta:
    """What came of applying a delta."""

    differs: str = ""
    """Where it leads to other records than the target has; empty where it does not."""
    untried: str = ""
    """Why it could not be applied; empty where it was."""


@dataclass(frozen=True, slots=True)
class CheckedDeltas:
    """The result of the check of an epoch's deltas."""

    listed: int
    """Deltas that the manifest lists of the shards that were checked."""
    objects: int
    objects_read: int
    size: int
    """Stored bytes of objects that were read."""
    applied: int
    """Deltas that make of their base the records of the parts that were compared."""
    untried: tuple[str, ...]
    """Why the others were not applied, each reason once."""
    wrong: tuple[WrongFile, ...]


@dataclass(frozen=True, slots=True)
class DeltasCheck:
    """A check of the deltas to one epoch."""

    reading: DeltaReading
    manifest: Manifest
    trial: DeltaTrial | None
    """None to apply none."""
    compared: Mapping[int, Collection[int]]
    """By shard id, the parts that are right, with which what a delta makes is compared."""

    def run(self) -> CheckedDeltas | None:
        """Check the deltas to the shards that were compared; None where the manifest lists none.

        Raises:
            StoreError: a store can't be read.
        """
        reading = self.reading
        listed = [one for one in self.manifest.deltas if one.shard_id in self.compared]
        if not listed:
            return None
        read = reading.read(listed, "check")
        wrong, untried, applied = list(read.wrong), [], 0
        damaged = {one.name for one in read.wrong}
        for one in listed:
            statement = read.statements.get(one.key)
            if statement is None or damaged & set(map(StoredDelta(reading.store.url, statement).object_name, range(one.objects))):
                continue
            tried = self._tried(one, statement)
            if tried.differs:
                wrong.append(WrongFile(reading.layout.delta_statement(one.base_epoch_id, one.shard_id), False, tried.differs))
            elif tried.untried:
                untried.append(tried.untried)
            else:
                applied += 1
        return CheckedDeltas(len(listed), read.objects, read.objects_read, read.size, applied, tuple(dict.fromkeys(untried)), tuple(wrong))

    def _tried(self, listed: ManifestDelta, statement: DeltaStatement) -> TriedDelta:
        ends = ((statement.target.shard_uid, statement.target.state_root), self._listed_end(listed.shard_id))
        if ends[0] != ends[1]:
            return TriedDelta(differs="it leads to another shard or state root than the manifest's")
        part_ids = self.compared[listed.shard_id]
        if self.trial is None:
            return TriedDelta(untried="deltas are not applied here")
        if not part_ids and listed.objects:
            return TriedDelta(untried=f"no part of shard {listed.shard_id} is there to compare with")
        return self.trial.run(self.manifest, statement, part_ids)

    def _listed_end(self, shard_id: int) -> object:
        shard = self.manifest.shard(shard_id)
        assert shard is not None, "deltas are of checked shards"
        return shard.shard_uid, shard.state_root
