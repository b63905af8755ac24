"""What a run will need of disk, memory and store, worked out from the sizes of its shards. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pipelines.dataset.export.export_epoch import EXPORT_TASK_MEMORY_BYTES
from pipelines.producing.build_shard import BUILD_TASK_MEMORY_BYTES, SEAL_TASK_MEMORY_BYTES
from pipelines.producing.early_parts import PRODUCE_TASK_MEMORY_BYTES
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.forecast_epoch import Cluster, EpochForecast, forecast_epoch
from pipelines.producing.forecast.requests import published_objects
from pipelines.producing.forecast.stage_costs import StageCosts
from pipelines.producing.produce_epoch import PUBLISH_TASK_MEMORY_BYTES

WORKER_MEMORY_BYTES_MAX: Final = max(
    EXPORT_TASK_MEMORY_BYTES, BUILD_TASK_MEMORY_BYTES, SEAL_TASK_MEMORY_BYTES, PRODUCE_TASK_MEMORY_BYTES, PUBLISH_TASK_MEMORY_BYTES
)
"""Most memory of a worker's whole process, whatever stage it works on."""

WORKER_MEMORY_BYTES_MIN: Final = 250 << 20
"""What a worker's process takes before it holds any record: interpreter and libraries."""

WORK_BYTES_PER_SIZE: Final = 4
"""A small shard's worker holds at most so many times the shard's memory usage: records, nodes, a part in two forms."""

RUN_START_S: Final = 10.0
"""What a run takes before its first task."""


@dataclass(frozen=True, slots=True)
class RunNeeds:
    """What making one epoch needs, about."""

    dataset_bytes: int
    """The exported dataset; 0 where it is there already."""
    interiors_bytes: int
    """What stages leave each other where parts wait for their shard's root."""
    edges_bytes: int
    """What stages leave each other where no dataset is written: neither a dataset nor interiors."""
    changes_bytes: int
    """What changed since the epoch before, where records are rolled forward from it: once sorted and once as files."""
    destination_bytes: int
    """All stored objects."""
    destination_objects: int
    tables_bytes: int
    """Decoded tables with all columns, where there are to be any."""
    worker_memory_bytes: int
    """Most of one worker's process."""

    @classmethod
    def of(cls, shape: EpochShape, costs: StageCosts, *, exported: bool, compressed: bool = True) -> RunNeeds:
        """Return the needs of an epoch.

        Args:
            compressed: parts are stored as zstd.
            exported: the dataset is there already.
        """
        total, largest = shape.memory_usage, max(shape.memory_usages, default=0)
        return cls(
            dataset_bytes=0 if exported else int(total * costs.dataset_ratio),
            interiors_bytes=int(total * costs.decoded_ratio),
            edges_bytes=int(total * costs.edges_ratio),
            changes_bytes=2 * int(total * costs.changes_ratio),
            destination_bytes=int(total * (costs.stored_ratio if compressed else costs.decoded_ratio)),
            destination_objects=published_objects(shape, headers=True),
            tables_bytes=int(total * costs.tables_ratio),
            worker_memory_bytes=min(WORKER_MEMORY_BYTES_MAX, WORKER_MEMORY_BYTES_MIN + WORK_BYTES_PER_SIZE * largest),
        )


def run_forecast(
    shape: EpochShape, costs: StageCosts, workers: int, read_bytes_per_s: float | None, *, early: bool, direct: bool = False
) -> EpochForecast:
    """Return how a run on one machine goes, about.

    Args:
        workers: processes that work at once.
        read_bytes_per_s: most that is read from the node's disk; None for as much as it gives.
        early: parts go out before their shard is complete.
        direct: no dataset is written.
    """
    cluster = Cluster(worker_cores=workers, cores_per_worker=workers, node_cores=workers, folders_mapped=True, start_s=RUN_START_S)
    if read_bytes_per_s is not None:
        cluster = replace(cluster, node_disk_bytes_per_s=read_bytes_per_s)
    return forecast_epoch(shape, costs, cluster, early=early, direct=direct)
