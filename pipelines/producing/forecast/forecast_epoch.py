"""When an epoch's first and last part are out: a run's stages, put through a cluster task by task.

The order is that of `pipelines.producing.produce_epoch`; a stage begins when the one before it ended. Where the source has a State column
the largest shard is exported and its parts go out one by one, then the other shards are exported and their parts go out. Else all shards are
exported first, and a shard's parts are all built before the first is published. Where no dataset is written there is no export: every stage that
reads records runs beside the node's disk, which is read for the structure and again for the parts. Within a stage each task takes the first free core. What many tasks share,
a disk, a network, the driver, is a pipe: a stage takes at least as long as its bytes need through it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET
from pipelines.dataset.record_files import RECORDS_FILE_BYTES_TARGET
from pipelines.producing.build.boundary_nodes import BOUNDARIES_PER_FILE
from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.stage_costs import FLAT_STATE_RATIO, GIB, StageCosts
from pipelines.producing.forecast.value_reads import VALUES_SHARE, ValueReads, value_reads

TASK_SPREAD = 0.2
"""Tasks of a stage differ from their mean by up to this part of it, drawn evenly."""


class Limit(StrEnum):
    """What a stage waits for most."""

    CORES = "cores"
    TASKS = "fewer tasks than cores"
    LAST_WAVE = "the last wave of tasks"
    NODE_CORES = "cores beside the node's disk"
    NODE_DISK = "the node's disk"
    NODE_NETWORK = "the network of the node's machine"
    WORKER_NETWORK = "the workers' network"
    DRIVER = "the driver"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines that an epoch is made on."""

    worker_cores: int
    cores_per_worker: int = 8
    worker_network_bytes_per_s: float = 1.25e9
    """Of one worker machine."""
    node_cores: int = 16
    """Cores beside the node's disk that the export may use."""
    node_disk_bytes_per_s: float = 1e9
    node_network_bytes_per_s: float = 2e9
    request_s: float = 0.05
    """What a request to the store takes before its first byte."""
    request_bytes_per_s: float = 100e6
    """What one connection to the store carries."""
    driver_task_s: float = 0.001
    """The driver's own time a task."""
    folders_mapped: bool = False
    """Dataset and work folder are on a file system that all machines map, not in a bucket."""
    start_s: float = 10.0
    """From the trigger to the first task, on machines that run already."""

    @property
    def workers(self) -> int:
        """Worker machines."""
        return -(-self.worker_cores // self.cores_per_worker)

    @property
    def worker_network(self) -> float:
        """Bytes a second of all worker machines together."""
        return self.workers * self.worker_network_bytes_per_s


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage of one shard, or of the epoch."""

    stage: str
    shard: int | None
    """Its place among the shards, the largest being 0."""
    began_s: float
    ended_s: float
    first_task_s: float
    """When the first task ended."""
    tasks: int
    limit: Limit

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class EpochForecast:
    """A run, from the trigger on, in seconds."""

    stages: tuple[StageForecast, ...]
    exported_s: float
    """When the snapshot is no longer needed."""
    first_part_s: float
    last_part_s: float
    core_s: float
    """Core seconds of all tasks, waiting for the store included."""
    busy: float
    """Part of the worker cores' time, while no shard is exported, in which they work."""

    @property
    def limits(self) -> tuple[tuple[Limit, float], ...]:
        """Seconds that each limit accounts for, the longest first."""
        found: dict[Limit, float] = {}
        for stage in self.stages:
            found[stage.limit] = found.get(stage.limit, 0.0) + stage.seconds
        return tuple(sorted(found.items(), key=lambda one: -one[1]))


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a stage is made of."""

    name: str
    tasks: int
    core_s: float
    """Of all its tasks together."""
    reads: float = 0.0
    """Bytes that all its tasks read from the store."""
    writes: float = 0.0
    requests: float = 0
    """Requests of one task, one after another."""
    side_reads: float = 0.0
    """Bytes that all its tasks read beside, through several connections at once."""
    side_waits: float = 0.0
    """Of them those that one connection brings after another."""
    on_node: bool = False
    disk_bytes: float = 0.0
    """Bytes that all its tasks read from the node's disk."""


def forecast_epoch(
    shape: EpochShape, costs: StageCosts, cluster: Cluster, seed: int = 0, *, early: bool = True, direct: bool = False
) -> EpochForecast:
    """Put a run through a cluster.

    Args:
        early: whether parts are published before their shard is complete.
        direct: no dataset is written.
        seed: of the tasks' spread; the same seed gives the same forecast.
    """
    spread = random.Random(seed)
    clock = cluster.start_s
    stages: list[StageForecast] = []
    core_s = work_s = part_s = exported_s = 0.0
    in_order = _direct_stages(shape, costs, early) if direct else _stages_in_order(shape, costs, cluster, early)
    for index, stage in in_order:
        forecast, used_s = _run(stage, index, clock, cluster, spread)
        stages.append(forecast)
        clock, core_s = forecast.ended_s, core_s + used_s
        if stage.disk_bytes or stage.name in _EXPORTING:
            exported_s = clock
        if stage.name not in _EXPORTING:
            work_s, part_s = work_s + used_s, part_s + forecast.seconds
    published = [stage for stage in stages if stage.stage == "publish"]
    return EpochForecast(
        stages=tuple(stages),
        exported_s=exported_s,
        first_part_s=min(stage.first_task_s for stage in published),
        last_part_s=max(stage.ended_s for stage in published),
        core_s=core_s,
        busy=min(1.0, work_s / max(part_s * cluster.worker_cores, 1e-9)),
    )


_EXPORTING = ("export", "values")


def _stages_in_order(shape: EpochShape, costs: StageCosts, cluster: Cluster, early: bool) -> Iterator[tuple[int, _Stage]]:
    """Yield every stage with its shard's place, in the order in which they run."""
    groups = (range(1), range(1, len(shape.memory_usages))) if early else (range(len(shape.memory_usages)),)
    for group in groups:
        for index in group:
            yield from ((index, stage) for stage in _export_stages(shape.memory_usages[index], costs))
        for index in group:
            memory_usage, num_parts = shape.memory_usages[index], shape.num_parts[index]
            values = ValueReads(0.0, 0.0) if cluster.folders_mapped else value_reads(memory_usage, num_parts, costs)
            yield from ((index, stage) for stage in _part_stages(memory_usage, num_parts, costs, values, early))


def _direct_stages(shape: EpochShape, costs: StageCosts, early: bool) -> Iterator[tuple[int, _Stage]]:
    """Yield every stage of a run without a dataset, in order: each shard's one after another, the largest first."""
    for index, (memory_usage, num_parts) in enumerate(zip(shape.memory_usages, shape.num_parts, strict=True)):
        gib, size, stored = memory_usage / GIB, memory_usage * costs.dataset_ratio, memory_usage * costs.stored_ratio
        rows = size * (1 - VALUES_SHARE)
        ranges = max(1, -(-int(memory_usage * FLAT_STATE_RATIO) // RANGE_BYTES_TARGET))
        yield index, _Stage("structure", ranges, costs.scan_s * gib, requests=3, on_node=True, disk_bytes=rows)
        yield index, _Stage("boundaries", ranges, costs.boundaries_s * gib, requests=2, on_node=True)
        publishing = _Stage(
            "publish",
            num_parts,
            (costs.read_s + costs.build_s + costs.publish_s) * gib,
            reads=stored,
            writes=stored,
            requests=7,
            on_node=True,
            disk_bytes=size,
        )
        sealing = _Stage("seal", 1, costs.seal_s * gib, requests=2)
        if early:
            groups = -(-num_parts // BOUNDARIES_PER_FILE)
            yield index, _Stage("boundary nodes", groups, costs.boundary_nodes_s * num_parts, requests=1, on_node=True)
            yield index, publishing
            yield index, sealing
        else:
            yield index, _Stage("build", num_parts, (costs.read_s + costs.hash_s) * gib, requests=2, on_node=True, disk_bytes=rows)
            yield index, sealing
            yield index, publishing


def node_disk_bytes(shape: EpochShape, costs: StageCosts, *, early: bool, direct: bool) -> int:
    """Return how much a run reads from the node's disk: table files of flat state, and values.

    Args:
        early: parts are published before their shard is complete.
        direct: no dataset is written, so that flat state is read twice, and three times where parts wait for their shard's root.
    """
    readings = 1 if not direct else 2 if early else 3
    return int(shape.memory_usage * (FLAT_STATE_RATIO * readings + costs.dataset_ratio * VALUES_SHARE))


def _export_stages(memory_usage: int, costs: StageCosts) -> tuple[_Stage, ...]:
    gib, size = memory_usage / GIB, memory_usage * costs.dataset_ratio
    files = max(1, -(-int(size) // RECORDS_FILE_BYTES_TARGET))
    return (
        _Stage("export", files, costs.export_s * gib, writes=size, requests=1, on_node=True, disk_bytes=size),
        _Stage("values", files, costs.values_s * gib, requests=1, on_node=True),
    )


def _part_stages(memory_usage: int, num_parts: int, costs: StageCosts, values: ValueReads, early: bool) -> tuple[_Stage, ...]:
    gib, size = memory_usage / GIB, memory_usage * costs.dataset_ratio
    files = max(1, -(-int(size) // RECORDS_FILE_BYTES_TARGET))
    stored, interiors = memory_usage * costs.stored_ratio, memory_usage * costs.decoded_ratio
    planning = (
        _Stage("structure", files, costs.structure_s * gib, reads=memory_usage * costs.key_ratio, requests=2),
        _Stage("boundaries", files, costs.boundaries_s * gib, reads=memory_usage * costs.key_ratio, requests=2),
    )
    waits = values.waits / max(num_parts, 1)
    sealing = _Stage("seal", 1, costs.seal_s * gib, requests=2)
    # A stored part is put and read back.
    if early:
        groups = -(-num_parts // BOUNDARIES_PER_FILE)
        return (
            *planning,
            _Stage("boundary nodes", groups, costs.boundary_nodes_s * num_parts, requests=1, on_node=True),
            _Stage(
                "publish",
                num_parts,
                (costs.build_s + costs.publish_s) * gib,
                reads=size + stored,
                writes=stored,
                requests=7 + waits,
                side_reads=values.size,
                side_waits=values.wait_bytes,
            ),
            sealing,
        )
    return (
        *planning,
        _Stage(
            "build",
            num_parts,
            costs.build_s * gib,
            reads=size,
            writes=interiors,
            requests=4 + waits,
            side_reads=values.size,
            side_waits=values.wait_bytes,
        ),
        sealing,
        _Stage("publish", num_parts, costs.publish_s * gib, reads=interiors + stored, writes=stored, requests=5),
    )


def _run(stage: _Stage, shard: int, began_s: float, cluster: Cluster, spread: random.Random) -> tuple[StageForecast, float]:
    """Return the stage's forecast and the core seconds that its tasks take."""
    cores = cluster.node_cores if stage.on_node else cluster.worker_cores
    mean_s = stage.core_s / stage.tasks + stage.requests * cluster.request_s
    mean_s += (stage.reads + stage.writes + stage.side_waits) / stage.tasks / cluster.request_bytes_per_s
    durations = [mean_s * (1 + TASK_SPREAD * (2 * spread.random() - 1)) for _ in range(stage.tasks)]
    scheduled_s, first_s = _schedule(durations, cores, cluster.driver_task_s)
    if stage.on_node:
        pipes = {
            Limit.NODE_DISK: stage.disk_bytes / cluster.node_disk_bytes_per_s,
            Limit.NODE_NETWORK: (stage.reads + stage.writes) / cluster.node_network_bytes_per_s,
        }
    else:
        pipes = {Limit.WORKER_NETWORK: (stage.reads + stage.writes + stage.side_reads) / cluster.worker_network}
    pipe, pipe_s = max(pipes.items(), key=lambda one: one[1])
    seconds = max(scheduled_s, pipe_s)
    limit = pipe if pipe_s > scheduled_s else _limit(stage, sum(durations), scheduled_s, cores, cluster)
    return StageForecast(
        stage=stage.name,
        shard=shard,
        began_s=began_s,
        ended_s=began_s + seconds,
        # A pipe that is full slows every task alike.
        first_task_s=began_s + first_s * seconds / scheduled_s,
        tasks=stage.tasks,
        limit=limit,
    ), sum(durations)


def _limit(stage: _Stage, work_s: float, scheduled_s: float, cores: int, cluster: Cluster) -> Limit:
    if stage.tasks * cluster.driver_task_s > 0.5 * scheduled_s:
        return Limit.DRIVER
    if stage.on_node:
        return Limit.NODE_CORES
    if stage.tasks < cores:
        return Limit.TASKS
    return Limit.CORES if work_s / cores > 0.7 * scheduled_s else Limit.LAST_WAVE


def _schedule(durations: list[float], cores: int, driver_task_s: float) -> tuple[float, float]:
    """Return when the last and when the first task ends: each takes the first free core, none before the driver has sent it."""
    free = [0.0] * min(cores, len(durations))
    ends = []
    for index, duration in enumerate(durations):
        began = max(heapq.heappop(free), (index + 1) * driver_task_s)
        heapq.heappush(free, began + duration)
        ends.append(began + duration)
    return max(ends), min(ends)
