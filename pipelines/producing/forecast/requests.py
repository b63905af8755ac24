"""Objects that an epoch leaves in its store, and requests that making it takes, stage by stage.

Objects and writes are counted out: a production that writes as many dataset files as are forecast here makes exactly these. Reads are
an estimate, since they depend on which record batches a part's rows and values happen to lie in; ``python -m benchmarks.scale`` holds
both against a real production's. A request is a call of a store: a ``get`` or ``info`` reads, a ``put``, ``swap`` or ``list`` writes (providers bill
a listing as a write), deleting is free. What a store's client does beside is not in it: looking at what was put, several
requests for one large object, retries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET, RECORD_BATCH_BYTES_MAX
from pipelines.dataset.record_files import RECORDS_FILE_BYTES_TARGET
from pipelines.producing.build.boundary_nodes import BOUNDARIES_PER_FILE
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.stage_costs import FLAT_STATE_RATIO, StageCosts
from pipelines.producing.forecast.value_reads import VALUES_SHARE, DatasetValues, ValueReads, value_reads

SHARD_OBJECTS = 2
"""Statement and torrent; the state header comes on top where the source has it."""

EPOCH_OBJECTS = 2
"""Manifest, and its revision."""

EPOCH_WRITES = 4
"""Latest pointer and catalogue; the claim: made, and renewed before the manifest. A long run renews it more often; removing it is free."""

EPOCH_READS = 13
"""Manifest: looked for at first, looked for and read back in the end, with its revision; latest pointer and catalogue: looked at and read;
the claim: looked at three times and read twice."""

SHARD_READS = 5
"""Statement: looked at and read back; torrent and header: read back (or an earlier header looked for); manifest of another form: looked for."""

BATCH_READS = 2
"""Of a record batch above the read-ahead: whole multiples of it, and the rest. A batch that was read ahead with the one before it takes one less."""

OPEN_READS = 3
"""Of a file that is read by ranges: its size, and twice its footer."""

SMALL_FILE_READS = 4
"""Of a file of some kilobytes that is read by ranges: opened, and its record batch."""


@dataclass(frozen=True, slots=True)
class EpochRequests:
    """Requests to all stores together."""

    writes: int
    reads: float
    read_bytes: float

    def __add__(self, other: EpochRequests) -> EpochRequests:
        return EpochRequests(self.writes + other.writes, self.reads + other.reads, self.read_bytes + other.read_bytes)


def published_objects(shape: EpochShape, *, headers: bool) -> int:
    """Return how many objects an epoch leaves in its folder; a shard without parts has no torrent."""
    per_shard = SHARD_OBJECTS + headers
    return sum(shape.num_parts) + sum(per_shard - (not parts) for parts in shape.num_parts) + EPOCH_OBJECTS


def epoch_requests(shape: EpochShape, costs: StageCosts, *, early: bool, headers: bool, direct: bool = False) -> EpochRequests:
    """Return the requests of one epoch, made in one go with nothing of it there before.

    Args:
        early: parts are published before their shard is complete.
        headers: the source has each shard's state header.
        direct: no dataset is written.
    """
    total = EpochRequests(published_objects(shape, headers=headers) + EPOCH_WRITES, EPOCH_READS, 0.0)
    for memory_usage, num_parts in zip(shape.memory_usages, shape.num_parts, strict=True):
        if not memory_usage:
            continue
        shard = _ShardFiles.of(memory_usage, num_parts, costs)
        total += _direct(shard, early=early) if direct else _export(shard, headers) + _plan(shard) + _parts(shard, early=early)
    return total


@dataclass(frozen=True, slots=True)
class _ShardFiles:
    """What one shard's dataset consists of."""

    memory_usage: int
    parts: int
    ranges: int
    files: int
    batches: int
    values: DatasetValues
    value_reads: ValueReads
    records_bytes: float
    interiors_bytes: float
    stored_bytes: float

    @classmethod
    def of(cls, memory_usage: int, num_parts: int, costs: StageCosts) -> _ShardFiles:
        records = memory_usage * costs.dataset_ratio * (1 - VALUES_SHARE)
        ranges = max(1, math.ceil(memory_usage * FLAT_STATE_RATIO / RANGE_BYTES_TARGET))
        # Each range ends its last file, full or not.
        files = ranges * max(1, math.ceil(records / ranges / RECORDS_FILE_BYTES_TARGET))
        return cls(
            memory_usage=memory_usage,
            parts=num_parts,
            ranges=ranges,
            files=files,
            batches=max(files, math.ceil(records / RECORD_BATCH_BYTES_MAX)),
            values=DatasetValues.of(memory_usage, ranges, costs),
            value_reads=value_reads(memory_usage, num_parts, costs),
            records_bytes=records,
            interiors_bytes=memory_usage * costs.decoded_ratio,
            stored_bytes=memory_usage * costs.stored_ratio,
        )


def _export(shard: _ShardFiles, headers: bool) -> EpochRequests:
    values, sharing = shard.values, shard.values.sharing_tasks
    # A range leaves its files, its references and its summary; a shard its summary, again with its root, and its header.
    # Looking for shared values leaves two files, if there are any. The dataset is listed for what another plan has left; in the end it is
    # listed again and removed.
    writes = shard.files + 2 * shard.ranges + values.own_files + values.shared_files + 2 + headers + 2
    writes += 2 * sharing if values.shared_files else 0
    # Earlier summaries are looked for, the shard's and each range's. Looking for shared values reads all ranges' references; each task
    # of own values those of its range and which of them are shared; one of shared values what was found.
    small_files = sharing * shard.ranges + values.own_files * (1 + bool(values.shared_files)) + values.shared_files
    return EpochRequests(writes, 1 + shard.ranges + small_files * SMALL_FILE_READS + headers, 0.0)


def _plan(shard: _ShardFiles) -> EpochRequests:
    writes = 2 * shard.files
    boundaries = max(shard.parts - 1, 0)
    located = min(shard.files, boundaries)
    in_files = shard.batches / shard.files * located
    reads: float = shard.files * (1 + OPEN_READS) + shard.batches * BATCH_READS
    # The rows before and at a boundary are read by themselves; a file with a boundary is read again for what was merged into it.
    reads += boundaries * 2 * (OPEN_READS + BATCH_READS) + located * (SMALL_FILE_READS + OPEN_READS) + in_files * BATCH_READS
    batch_bytes = shard.records_bytes / shard.batches
    return EpochRequests(writes, reads, shard.records_bytes + (boundaries * 2 + in_files) * batch_bytes)


def _parts(shard: _ShardFiles, *, early: bool) -> EpochRequests:
    parts, boundaries = shard.parts, max(shard.parts - 1, 0)
    groups = math.ceil(parts / BOUNDARIES_PER_FILE)
    # Edge and summary of each part; its interior where it waits; the work folder is listed and removed in the end.
    writes = (2 if early else 3) * parts + groups + 1
    reads = SHARD_READS + (parts + shard.files - 1) * OPEN_READS + (shard.batches + boundaries) * BATCH_READS + shard.value_reads.reads
    # Looked for, read back, sealed; the nodes of both its ends. What waits is looked for before it is built, and read.
    reads += parts * (3 if early else 5) + 2 * boundaries * SMALL_FILE_READS
    batch_bytes = shard.records_bytes / shard.batches
    size = shard.records_bytes + boundaries * batch_bytes + shard.value_reads.size + shard.stored_bytes
    return EpochRequests(writes, reads, size + (0 if early else shard.interiors_bytes))


def _direct(shard: _ShardFiles, *, early: bool) -> EpochRequests:
    parts, boundaries = shard.parts, max(shard.parts - 1, 0)
    groups = math.ceil(parts / BOUNDARIES_PER_FILE)
    # A range leaves its charges, its index and its summary; a part its edge and summary, again where it was hashed for its edge first. In the end
    # the work folder is listed and removed, and so is what an earlier run may have exported.
    writes = 3 * shard.ranges + (2 if early else 4) * parts + groups + 2
    # What is there is looked for; a range with a boundary is read, its charges and its index.
    reads: float = shard.ranges + min(shard.ranges, boundaries) * 2 * SMALL_FILE_READS + SHARD_READS
    reads += parts * (3 if early else 4) + 2 * boundaries * SMALL_FILE_READS
    return EpochRequests(writes, reads, shard.stored_bytes)
