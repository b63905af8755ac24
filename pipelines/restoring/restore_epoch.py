"""Drives the way back from state parts: into an Arrow dataset, into a database, or just the judgement of every part."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_epoch import EXPORT_TASK_MEMORY_BYTES, copy_values
from pipelines.dataset.export.export_records import ExportSettings, ShardExport, finish_export, plan_export
from pipelines.dataset.verify_dataset import check_state_root, verify_dataset
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node import node_columns
from pipelines.near.node.node_columns import FLAT_STATE, FLAT_STORAGE_STATUS, STATE, STATE_HEADERS
from pipelines.restoring.merge_state import MergeStateTask
from pipelines.restoring.part_folder import EpochParts, ShardParts
from pipelines.restoring.parts_source import PartsSource
from pipelines.restoring.restore_part import RestoredPart, RestorePartTask
from pipelines.restoring.restore_work import RestoreWork, read_summary, shard_work, work_folder, write_summary
from pipelines.restoring.rocksdb_writer import create_database, writing
from pipelines.restoring.verify_database import VerifyBucketTask, VerifyRangeTask
from pipelines.stores.durable_file import sync_folder
from pipelines.stores.file_lock import take_lock
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from schemas.errors import ClaimedError, IntegrityError, ObjectExistsError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.json_document import FieldReader
from schemas.nearcore.flat_storage import encode_ready_status
from schemas.nearcore.shard_layout import SHARDS_MAX
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX

APPLY_TASK_MEMORY_BYTES = 800 << 20
"""Peak memory of applying one part: both forms of it, its records, its entries by hash."""

MERGE_TASK_MEMORY_BYTES = 600 << 20
"""Peak memory of merging one bucket of State rows."""

DATABASE_COLUMNS = tuple(sorted(column for name, column in vars(node_columns).items() if name.isupper() and isinstance(column, str)))
"""Column families of a restored database: all that reading a node can ask for. Those of blocks and epochs stay empty, and so does
StateShardUIdMapping, since rows lie under their own shard's uid."""

EMPTY_STATUS = b"\x01"
"""FlatStorageStatus Empty: for a shard whose block is not known."""

RESULT_NAME = "restore.json"
"""Beside the database: what was restored, written before the folder gets its name."""


@dataclass(frozen=True, slots=True)
class RestoredShard:
    """One shard of a restored database."""

    shard_uid: str
    state_root: CryptoHash
    memory_usage: int
    num_parts: int
    records: int
    state_rows: int
    references: int
    root_proved: bool
    flat_head: CryptoHash | None


@dataclass(frozen=True, slots=True)
class RestoredDatabase:
    """A database that is there and proved."""

    home: Path
    """A folder like a node's home: ``data`` is the database, ``context.json`` the epoch."""
    shards: tuple[RestoredShard, ...]
    was_there: bool
    """An earlier run had finished it."""


def restore_dataset(runner: StageRunner, kernel: Kernel, epoch: EpochParts, settings: ExportSettings) -> list[ShardDataset]:
    """Restore all shards into an Arrow dataset, each state root recomputed from what was written.

    Raises:
        IntegrityError, StoreError: a part is not what it should be, or the dataset can't be written.
    """
    return [_restore_shard_dataset(runner, kernel, epoch, shard, settings) for shard in epoch.shards]


def _restore_shard_dataset(
    runner: StageRunner, kernel: Kernel, epoch: EpochParts, shard: ShardParts, settings: ExportSettings
) -> ShardDataset:
    source = PartsSource.of_shard(epoch, shard, settings.dataset_url, kernel.name)
    export = plan_export(source, epoch.context, shard.context, settings)
    dataset = export if isinstance(export, ShardDataset) else _export_parts(runner, source, export, settings)
    dataset = verify_dataset(runner, kernel, dataset, source)
    source.forget_values()
    return dataset


def _export_parts(runner: StageRunner, source: PartsSource, export: ShardExport, settings: ExportSettings) -> ShardDataset:
    name = str(export.context.shards[0].shard_uid)
    assert len(export.tasks) == len(source.shard.parts), "the export has a task a part"
    # A range's own values are those that its part holds whole.
    export = replace(export, tasks=tuple(replace(task, source=source.of_part(index)) for index, task in enumerate(export.tasks)))
    summaries = runner.run(
        "apply",
        name,
        export.tasks,
        TaskNeeds(APPLY_TASK_MEMORY_BYTES),
        lambda one: Amount(sum(file.records for file in one.files), sum(file.size for file in one.files), 1),
    )
    values = copy_values(runner, export, summaries, TaskNeeds(EXPORT_TASK_MEMORY_BYTES))
    return finish_export(export, settings, summaries, values)


def restore_database(runner: StageRunner, kernel: Kernel, epoch: EpochParts, target: Path) -> RestoredDatabase:
    """Restore all shards into a fresh database, read it back, and only then give its folder its name.

    Args:
        target: a folder that is not there yet, on a disk that every worker sees at this path.
    Raises:
        ObjectExistsError: the folder is there and is another thing than this would make.
        ClaimedError: another process is restoring to it.
        IntegrityError, StoreError, SourceError: a part is not what it should be, or what was written is not what was meant.
    """
    target = Path(os.path.abspath(target))
    earlier = _earlier_result(epoch, target)
    if earlier is not None:
        # A run that was killed between its last two steps has left its work folder.
        if work_folder(target).exists():
            with _locked(target) as work:
                shutil.rmtree(work)
        return earlier
    with _locked(target) as work:
        for left in work.glob("home-*"):
            shutil.rmtree(left)
        # A name of its own, so that no reader of an earlier run's database is taken for this one's.
        home = work / f"home-{uuid.uuid4().hex[:8]}"
        restored = [_restore_rows(runner, kernel, shard, shard_work(target, shard)) for shard in epoch.shards]
        rows = {FLAT_STORAGE_STATUS: _statuses(epoch), STATE_HEADERS: _headers(epoch)}
        create_database(home / "data", DATABASE_COLUMNS, _files(epoch, target, restored), rows)
        shards = tuple(
            _verify(runner, kernel, shard, shard_work(target, shard), parts, database=home / "data")
            for shard, parts in zip(epoch.shards, restored, strict=True)
        )
        write_summary(home / "context.json", epoch.context.to_json())
        write_summary(home / RESULT_NAME, _result_json(epoch, shards))
        with writing(target):
            home.rename(target)
            sync_folder(target.parent)
            shutil.rmtree(work)
    return RestoredDatabase(target, shards, was_there=False)


def _earlier_result(epoch: EpochParts, target: Path) -> RestoredDatabase | None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    shards = read_summary(target / RESULT_NAME, restored_shards)
    wanted = {str(shard.context.shard_uid): shard.state_root for shard in epoch.shards}
    if shards is None or {shard.shard_uid: shard.state_root for shard in shards} != wanted:
        raise ObjectExistsError(
            problem="the folder is there and does not hold this state", where=str(target), remedy="Name a folder that is not there yet."
        )
    return RestoredDatabase(target, shards, was_there=True)


def restored_shards(document: dict[str, Any]) -> tuple[RestoredShard, ...]:
    """Return the shards that the note of a finished restoration lists.

    Raises:
        ManifestError: a field is missing or not what it can be.
    """
    return tuple(
        RestoredShard(
            shard_uid=reader.text("shard_uid", 24),
            state_root=reader.hash("state_root"),
            **{name: reader.number(name, 0, 2**64) for name in ("memory_usage", "num_parts", "records", "state_rows", "references")},
            root_proved=reader.flag("root_proved"),
            flat_head=None if reader.is_null("flat_head") else reader.hash("flat_head"),
        )
        for reader in FieldReader(document, RESULT_NAME).inners("shards", SHARDS_MAX)
    )


@contextmanager
def _locked(target: Path) -> Iterator[Path]:
    """Hold the work folder of a target for this process."""
    work = work_folder(target)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
        try:
            lock = take_lock(work / "lock")
        except BlockingIOError:
            lock = None
    if lock is None:
        raise ClaimedError(problem="another process is restoring to this folder", where=str(target))
    with lock:
        yield work


def _restore_rows(runner: StageRunner, kernel: Kernel, shard: ShardParts, work: RestoreWork) -> list[RestoredPart]:
    name = str(shard.context.shard_uid)
    applying = [RestorePartTask(part, shard.context.shard_uid, work, kernel.name) for part in shard.parts]
    parts = runner.run("apply", name, applying, TaskNeeds(APPLY_TASK_MEMORY_BYTES), lambda one: Amount(one.records, one.size, 1))
    if parts:
        merging = [MergeStateTask(work, shard.context.shard_uid, len(parts), bucket) for bucket in range(work.bucket_count)]
        merged = runner.run("merge", name, merging, TaskNeeds(MERGE_TASK_MEMORY_BYTES), lambda one: Amount(one.rows, one.size))
        assert sum(one.references for one in merged) == sum(one.references for one in parts), "merging loses no reference"
    return parts


def _files(epoch: EpochParts, target: Path, restored: Sequence[Sequence[RestoredPart]]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {FLAT_STATE: [], STATE: []}
    for shard, parts in zip(epoch.shards, restored, strict=True):
        work = shard_work(target, shard)
        files[FLAT_STATE] += [work.flat(index) for index, part in enumerate(parts) if part.records]
        files[STATE] += [path for bucket in range(work.bucket_count) if parts and (path := work.state(bucket)).exists()]
    return files


def _statuses(epoch: EpochParts) -> dict[bytes, bytes]:
    return {
        shard.context.shard_uid.to_bytes(): EMPTY_STATUS if shard.flat_head is None else encode_ready_status(shard.flat_head)
        for shard in epoch.shards
    }


def _headers(epoch: EpochParts) -> dict[bytes, bytes]:
    store = open_store(epoch.store_url)
    return {
        shard.context.shard_id.to_bytes(8, "little") + epoch.context.sync_hash: read_object(
            store, shard.header_name, STATE_HEADER_BYTES_MAX
        )
        for shard in epoch.shards
        if shard.header_name is not None
    }


def _verify(
    runner: StageRunner, kernel: Kernel, shard: ShardParts, work: RestoreWork, parts: Sequence[RestoredPart], *, database: Path
) -> RestoredShard:
    """Prove one shard of the database by reading it."""
    uid, name = shard.context.shard_uid, str(shard.context.shard_uid)
    ranges = [(part.first_key, part.last_key) for part in parts if part.first_key is not None and part.last_key is not None]
    tasks = [
        VerifyRangeTask(
            str(database),
            uid,
            shard.state_root,
            kernel.name,
            ranges[index - 1][1] if index else None,
            first_key,
            last_key,
            ranges[index + 1][0] if index + 1 < len(ranges) else None,
        )
        for index, (first_key, last_key) in enumerate(ranges)
    ]
    verified = runner.run("verify", name, tasks, TaskNeeds(APPLY_TASK_MEMORY_BYTES), lambda one: Amount(records=one.records))
    state_root, memory_usage = ZERO_HASH, 0
    if verified:
        sealed = kernel.seal([one.edge for one in verified])
        state_root, memory_usage = sealed.state_root, sealed.memory_usage
    check_state_root(shard.state_root, state_root, f"restored flat state of shard {uid}")
    checking = [VerifyBucketTask(str(database), uid, work, bucket) for bucket in range(work.bucket_count)]
    buckets = runner.run("verify rows", name, checking, TaskNeeds(MERGE_TASK_MEMORY_BYTES), lambda one: Amount(records=one.rows))
    references = sum(one.references for one in buckets)
    if references != sum(one.references for one in verified):
        raise IntegrityError(
            problem=f"the State rows of shard {uid} count {references} references, the trie has another number", where=str(database)
        )
    return RestoredShard(
        shard_uid=name,
        state_root=state_root,
        memory_usage=memory_usage,
        num_parts=len(parts),
        records=sum(one.records for one in verified),
        state_rows=sum(one.rows for one in buckets),
        references=references,
        root_proved=shard.root_proved,
        flat_head=None if shard.flat_head is None else shard.flat_head.hash,
    )


def _result_json(epoch: EpochParts, shards: Sequence[RestoredShard]) -> dict[str, object]:
    return {"source": epoch.url, "shards": [shard_json(shard) for shard in shards]}


def shard_json(shard: RestoredShard) -> dict[str, object]:
    """Return a restored shard as JSON values."""
    return {
        "shard_uid": shard.shard_uid,
        "state_root": str(shard.state_root),
        "memory_usage": shard.memory_usage,
        "num_parts": shard.num_parts,
        "records": shard.records,
        "state_rows": shard.state_rows,
        "references": shard.references,
        "root_proved": shard.root_proved,
        "flat_head": None if shard.flat_head is None else str(shard.flat_head),
    }
