"""Drives the difference between two states of a shard as decoded rows: what is read is only what the wanted kinds can lie in.

Each part that is read is validated against its manifest's state root. A published delta, whose word is not proved before a whole shard is
rebuilt, is only taken where it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.dataset_files import naming_damage
from pipelines.dataset.delta.decoded_changes import (
    ChangeTotals,
    Movement,
    change_schema,
    decode_changes,
    largest_movements,
    merge_movements,
    ranges_of_kinds,
    sum_totals,
    total_changes,
)
from pipelines.dataset.delta.record_changes import find_changes, within_ranges
from pipelines.dataset.delta.shard_records import ShardRecords, pieces_of
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.stores.open_store import open_store
from schemas.nearcore.trie_key import TrieKeyKind
from schemas.published.delta_statement import WHOLE_BASE, BaseRange

DIFF_TASK_MEMORY_BYTES = 900 << 20
"""Most memory of a process that compares and decodes: two pieces of each state, and the rows that changed."""

PIECES_PER_DIFF_TASK = 4


@dataclass(frozen=True, slots=True)
class DiffPiece:
    """The result of some adjacent key ranges."""

    rows: int
    totals: ChangeTotals
    movements: tuple[Movement, ...]


@dataclass(frozen=True, slots=True)
class DiffTask:
    """Compares some key ranges and leaves the decoded changes."""

    older: ShardRecords
    newer: ShardRecords | StoredDelta
    ranges: tuple[BaseRange, ...]
    """What is taken of the older state."""
    shard_uid: str
    kinds: tuple[TrieKeyKind, ...]
    key_ranges: tuple[KeyRange, ...]
    url: str
    name: str

    def run(self) -> DiffPiece:
        """Leave the changes; return what there is to be told.

        Raises:
            SourceError, StoreError, IntegrityError: passed on.
        """
        tables = [self._changes(key_range) for key_range in self.key_ranges]
        table = pa.concat_tables([change_schema(self.kinds).empty_table(), *tables]).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        open_store(self.url, durable=False).put(self.name, sink.getvalue())
        return DiffPiece(table.num_rows, total_changes(table), tuple(largest_movements(table)))

    def _changes(self, key_range: KeyRange) -> pa.Table:
        older = [batch.replace_schema_metadata(None) for batch in self.older.read(key_range).records]
        if self.ranges != WHOLE_BASE:
            older = within_ranges(older, self.ranges)
        if isinstance(self.newer, StoredDelta):
            changed = list(self.newer.changes(key_range).records)
        else:
            changed = [find_changes(older, self.newer.read(key_range).records)]
        keys = pa.concat_arrays([pa.array([], pa.binary()), *(batch["key"] for batch in changed)])
        before = [batch.filter(pc.is_in(batch["key"], value_set=keys)) for batch in older]
        after = [batch.filter(pc.or_(pc.is_valid(batch["value"]), pc.is_valid(batch["value_hash"]))) for batch in changed]
        return decode_changes(before, after, self.shard_uid, self.kinds)


@dataclass(frozen=True, slots=True)
class ShardDiff:
    """What changed in one shard: rows in the work folder, and what there is to be told."""

    shard_uid: str
    rows: int
    totals: ChangeTotals
    movements: tuple[Movement, ...]
    url: str
    names: tuple[str, ...]

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, ascending by key.

        Raises:
            DatasetError, StoreError: they can't be read back.
        """
        store = open_store(self.url)
        for name in self.names:
            with naming_damage(f"{store.url}/{name}"), store.open(name) as source:
                yield pa.ipc.open_file(source).read_all()


@dataclass(frozen=True, slots=True)
class ShardStates:
    """A shard at two epochs."""

    shard_uid: str
    older: ShardRecords
    newer: ShardRecords | StoredDelta
    ranges: tuple[BaseRange, ...] = WHOLE_BASE


def diff_shard(runner: StageRunner, states: ShardStates, kinds: Sequence[TrieKeyKind], url: str, folder: str) -> ShardDiff:
    """Compare two states of a shard.

    Args:
        url, folder: where the rows are left; the caller removes them.
    Raises:
        SourceError, StoreError, IntegrityError: passed on from the tasks.
    """
    wanted = [cut for piece in pieces_of(states.older) for one in ranges_of_kinds(kinds) if (cut := _common(piece, one)) is not None]
    tasks = [
        DiffTask(
            older=states.older,
            newer=states.newer,
            ranges=states.ranges,
            shard_uid=states.shard_uid,
            kinds=tuple(kinds),
            key_ranges=tuple(wanted[first : first + PIECES_PER_DIFF_TASK]),
            url=url,
            name=f"{folder}/{states.shard_uid}-{first:06d}.arrow",
        )
        for first in range(0, len(wanted), PIECES_PER_DIFF_TASK)
    ]
    needs = TaskNeeds(DIFF_TASK_MEMORY_BYTES)
    pieces = runner.run("compare", states.shard_uid, tasks, needs, lambda piece: Amount(records=piece.rows))
    return ShardDiff(
        states.shard_uid,
        sum(piece.rows for piece in pieces),
        sum_totals([piece.totals for piece in pieces]),
        tuple(merge_movements([piece.movements for piece in pieces])),
        url,
        tuple(task.name for task in tasks),
    )


def _common(piece: KeyRange, wanted: BaseRange) -> KeyRange | None:
    begin = max(piece.begin, wanted.begin)
    ends = [end for end in (piece.end, wanted.end) if end is not None]
    end = min(ends, default=None)
    return KeyRange(begin, end) if end is None or begin < end else None
