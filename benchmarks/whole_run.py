"""One whole run over a synthetic state: export, plan, build, seal, and every part assembled, encoded, stored, read back, validated.

All the work that grows with a state; the few objects of the epoch as a whole (statements, manifest) are left out.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.synthetic_state import SyntheticState
from pipelines.execution.build_shard import build_shard
from pipelines.execution.executor import Executor, TaskNeeds
from pipelines.execution.export_epoch import export_epoch
from pipelines.execution.progress import SilentProgress
from pipelines.execution.stage_runner import Amount, StageRunner, StageTiming
from pipelines.kernel.native import NativeKernel
from pipelines.publishing.publish_part import PublishPartTask
from pipelines.sources.node_store import NodeSource
from pipelines.stages.assemble import part_inputs
from pipelines.stages.export import ExportSettings
from pipelines.stages.work_folder import work_folder_for
from schemas.state_part import ZSTD_LEVEL_DEFAULT, Encoding
from schemas.torrent import piece_length_for

PUBLISH_TASK_MEMORY_BYTES = 400 << 20
"""Peak memory of publishing one part, about."""


def run_whole(executor: Executor, state: SyntheticState, folder: Path, export_range_bytes: int) -> list[StageTiming]:
    """Produce all parts of a state into an empty folder.

    Args:
        export_range_bytes: stored bytes that one export task reads, about.
    Returns:
        A timing a stage, in order.
    """
    runner, kernel = StageRunner(executor, SilentProgress()), NativeKernel()
    settings = ExportSettings(f"file://{folder}/dataset", range_bytes_target=export_range_bytes)
    (dataset,) = export_epoch(runner, NodeSource(str(state.home), state.context), state.context, settings)
    built = build_shard(runner, kernel, dataset, work_folder_for(f"file://{folder}/work", dataset), None, ours=True)
    piece_length = piece_length_for(built.memory_usage, len(built.plans))
    tasks = [
        PublishPartTask(
            inputs=part_inputs(built.work, plan.part_id, built.built),
            plan=plan,
            state_root=built.state_root,
            store_url=f"file://{folder}/published",
            object_name=f"state_part_{plan.part_id.idx:06d}_of_{plan.part_id.total:06d}",
            encoding=Encoding.V1,
            zstd_level=ZSTD_LEVEL_DEFAULT,
            kernel_name=kernel.name,
            piece_length=piece_length,
        )
        for plan in built.plans
    ]
    needs = TaskNeeds(PUBLISH_TASK_MEMORY_BYTES)
    runner.run("publish", str(dataset.summary.shard.shard_uid), tasks, needs, lambda part: Amount(size=part.digests.stored_size, parts=1))
    return runner.timings
