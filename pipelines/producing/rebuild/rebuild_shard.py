"""Drives the rebuilding of one shard's parts: of base records and deltas, compared with the target's statement.

Nothing of base or deltas is believed. The records of each part are built, the edges of all parts must merge into the target's state root,
and each part must decode to the statement's digest. Parts whose records can't be had are given whole by the caller, from wherever it has
them: one such part costs that part alone. Without them, or where the root comes out otherwise, nothing is put.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.shard_records import ShardRecords
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.build.build_part import SealTask
from pipelines.producing.build.plan_parts import PartInterval
from pipelines.producing.build.work_folder import WorkFolder
from pipelines.producing.build_shard import SEAL_TASK_MEMORY_BYTES
from pipelines.producing.rebuild.rebuild_part import (
    BuiltOf,
    FinishPartTask,
    RebuildPartsTask,
    RebuiltInterval,
    RebuiltPart,
    leave_built,
)
from pipelines.restoring.part_object import PartObject
from pipelines.restoring.part_records import applied_part
from schemas.errors import IntegrityError, StatecastError, StateRootMismatchError
from schemas.ids import ZERO_HASH, CryptoHash, PartId
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT, Encoding
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement

PARTS_PER_TASK = 8
"""Adjacent parts that one task builds: the base's parts, which end elsewhere, are read once for all of them."""

REBUILD_TASK_MEMORY_BYTES = 900 << 20
"""Most memory of a process that rebuilds parts: two parts of the base, the records of one of the target, and its interior."""

FINISH_TASK_MEMORY_BYTES = 400 << 20
"""Most memory of a process that assembles and encodes a part."""


@dataclass(frozen=True, slots=True)
class RebuildTarget:
    """A published shard that is to be made again, as its statement and manifest describe it."""

    layout: EpochLayout
    statement: ShardStatement
    encoding: Encoding
    zstd_level: int
    stored_sha256: Mapping[int, str]
    """Of each part's object, by part id."""

    @classmethod
    def of(cls, manifest: Manifest, statement: ShardStatement) -> RebuildTarget:
        """Return a shard that a manifest lists."""
        listed = manifest.shard(statement.shard_id)
        assert listed is not None, "the statement is of a listed shard"
        layout = manifest.layout
        level = ZSTD_LEVEL_DEFAULT if manifest.zstd is None else manifest.zstd.level
        return cls(layout, statement, manifest.encoding, level, {part.part_id: part.sha256 for part in listed.parts})

    @property
    def intervals(self) -> tuple[PartInterval, ...]:
        """All parts' records."""
        total = self.statement.num_parts
        return tuple(PartInterval(PartId(part.part_id, total), part.key_begin, part.key_end) for part in self.statement.parts)

    def part(self, idx: int, store_url: str, name: str = "") -> PartObject:
        """Return one part as an object of a store.

        Args:
            name: where it does not have its own there.
        """
        statement, part_id = self.statement, PartId(idx, self.statement.num_parts)
        return PartObject(
            store_url=store_url,
            name=name or self.layout.state_part(statement.shard_id, part_id),
            part_id=part_id,
            state_root=statement.state_root,
            encoding=self.encoding,
            stored_sha256=self.stored_sha256.get(idx),
            decoded_sha256=statement.parts[idx].sha256,
        )


@dataclass(slots=True)
class ShardRebuild:
    """One shard's rebuilding: `build`, and then `finish` with whole parts in place of those that failed."""

    runner: StageRunner
    kernel: Kernel
    target: RebuildTarget
    records: ShardRecords
    """What is to be the target's state."""
    work_url: str
    into_url: str
    """Where the parts go, under their names."""
    put_reencoded: bool = False
    """Put objects of another zstd than the publisher's too."""
    _intervals: list[RebuiltInterval] = field(default_factory=list)

    @property
    def work(self) -> WorkFolder:
        """Where interiors and edges are, by what they are made of: another base or other deltas leave theirs elsewhere."""
        statement = self.target.statement
        steps = [step.statement.payload_sha256 for step in self.records.steps] if isinstance(self.records, AppliedRecords) else []
        inputs = [statement.payload_sha256, self.kernel.name, steps]
        return WorkFolder(self.work_url, f"rebuild-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]}")

    @property
    def name(self) -> str:
        """The shard, for people."""
        return str(self.target.statement.shard_uid)

    def run(self) -> list[RebuiltPart]:
        """Rebuild all parts of a shard of which nothing can be had whole.

        Raises:
            StateRootMismatchError, IntegrityError, SourceError, StoreError: it can't be rebuilt, and nothing was put.
        """
        self.build()
        parts = self.finish({})
        reencoded = sum(part.is_reencoded for part in parts)
        if reencoded:
            what = "put re-encoded" if self.put_reencoded else "not put"
            self.runner.progress.note(
                f"shard {self.name}: this machine's zstd makes other bytes of {reencoded} right parts, which are {what}"
            )
        self.work.remove()
        return parts

    def build(self) -> dict[int, StatecastError]:
        """Build what lies inside each part; return the parts whose records can't be had, and why.

        Raises:
            StoreError: the work folder can't be written.
        """
        intervals = self.target.intervals
        tasks = [
            RebuildPartsTask(self.records, self.work, self.kernel.name, intervals[first : first + PARTS_PER_TASK])
            for first in range(0, len(intervals), PARTS_PER_TASK)
        ]
        needs = TaskNeeds(REBUILD_TASK_MEMORY_BYTES)
        try:
            built = self.runner.run("rebuild", self.name, tasks, needs, _amount)
        finally:
            applied_part.cache_clear()
        self._intervals = [one for group in built for one in group]
        self._note_gaps()
        return {one.interval.part_id.idx: one.error for one in self._intervals if one.error is not None}

    def finish(self, whole: Mapping[int, PartObject], wanted: Collection[int] | None = None) -> list[RebuiltPart]:
        """Seal the shard, then assemble and put the parts.

        Args:
            whole: verified parts of the target, by part id, in place of those that failed; they are read and not put.
            wanted: parts to put; None for all that were not given whole.
        Raises:
            StateRootMismatchError: base and deltas do not lead to the target's state root. Nothing was put.
            IntegrityError, SourceError, StoreError: a part failed and was not given, or passed on.
        """
        self._take_whole(whole)
        for one in self._intervals:
            if one.error is not None:
                raise one.error
        self._check_root()
        tasks = [
            task for task in self._finishing() if task.part.part_id.idx not in whole and (wanted is None or task.part.part_id.idx in wanted)
        ]
        needs = TaskNeeds(FINISH_TASK_MEMORY_BYTES)
        return self.runner.run("assemble", self.name, tasks, needs, lambda part: Amount(size=part.size, parts=1))

    def _take_whole(self, whole: Mapping[int, PartObject]) -> None:
        """Build the edges of whole parts; where a neighbour does not fit to what they say, it fails in its turn."""
        last_key: bytes | None = None
        for place, one in enumerate(self._intervals):
            part = whole.get(one.interval.part_id.idx)
            taken = one if part is None or one.error is None else self._taken(one.interval, part, last_key)
            self._intervals[place] = taken
            last_key = taken.last_key if taken.records else last_key
        applied_part.cache_clear()
        self._note_gaps()

    def _taken(self, interval: PartInterval, part: PartObject, left_key: bytes | None) -> RebuiltInterval:
        applied = applied_part(part, self.kernel.name)
        records = tuple(batch for batch in applied.records if batch.num_rows)
        if not records:
            return RebuiltInterval(interval, 0)
        return leave_built(self.work, self.kernel.name, interval, BuiltOf(left_key, records, applied.values))

    def _note_gaps(self) -> None:
        """Note where records do not follow one another as the statement says: edges of such ranges can't be merged."""
        is_empty = self.target.statement.state_root == ZERO_HASH
        last_key: bytes | None = None
        after_failed = False
        for place, one in enumerate(self._intervals):
            if one.error is not None:
                after_failed = True
                continue
            interval, is_first = one.interval, one.interval.part_id.idx == 0
            if one.records:
                fits = not is_empty and (is_first or one.first_key == interval.key_begin) and (after_failed or one.left_key == last_key)
            else:
                fits = is_empty or is_first or interval.key_begin == interval.key_end
            if not fits:
                error = IntegrityError(
                    problem=f"the records of part {interval.part_id} do not begin or end where the shard's statement says",
                    where=self._where(),
                    remedy="The base or a delta is of another state: take whole parts.",
                )
                self._intervals[place] = replace(one, records=0, error=error)
                after_failed = True
            elif one.records:
                last_key, after_failed = one.last_key, False

    def _check_root(self) -> None:
        statement = self.target.statement
        built = tuple(one.interval.part_id.idx for one in self._intervals if one.records)
        root = ZERO_HASH
        if built:
            sealing = [SealTask(self.work, self.kernel.name, statement.num_parts, built)]
            (sealed,) = self.runner.run("seal", self.name, sealing, TaskNeeds(SEAL_TASK_MEMORY_BYTES), lambda _: Amount())
            root = sealed.state_root
        if root != statement.state_root:
            raise StateRootMismatchError(
                problem=f"base and deltas make state root {CryptoHash(root)} of shard {self.name}, not the published one",
                where=self._where(),
                remedy="The base or a delta is of another state, or lies: take whole parts.",
                expected=str(statement.state_root),
                actual=str(CryptoHash(root)),
            )

    def _where(self) -> str:
        steps: Sequence[str] = [step.where for step in self.records.steps] if isinstance(self.records, AppliedRecords) else ()
        return ", ".join(steps) or self.target.layout.folder

    def _finishing(self) -> list[FinishPartTask]:
        tasks = []
        # A boundary is the first key of the next part that has records, and its row is that part's place among those.
        row, last = 0, len(self._intervals) - 1
        for one in self._intervals:
            part_id = one.interval.part_id
            next_row = row + bool(one.records)
            rows = {*((row,) if part_id.idx else ()), *((next_row,) if part_id.idx < last else ())}
            tasks.append(
                FinishPartTask(
                    work=self.work,
                    kernel_name=self.kernel.name,
                    part=self.target.part(part_id.idx, self.into_url),
                    has_records=bool(one.records),
                    boundary_rows=tuple(sorted(rows)) if self.target.statement.state_root != ZERO_HASH else (),
                    zstd_level=self.target.zstd_level,
                    put_reencoded=self.put_reencoded,
                )
            )
            row = next_row
        return tasks


def _amount(built: Sequence[RebuiltInterval]) -> Amount:
    return Amount(records=sum(one.records for one in built), parts=len(built))
