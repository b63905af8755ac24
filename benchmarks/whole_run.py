"""One whole production of a synthetic state, as ``statecast produce`` does it: from the node's database to the epoch's manifest."""

from __future__ import annotations

from pathlib import Path

from benchmarks.synthetic_state import SyntheticState
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.executor import Executor
from pipelines.execution.progress import Progress, SilentProgress
from pipelines.execution.stage_runner import StageRunner, StageTiming
from pipelines.kernel.native import NativeKernel
from pipelines.near.node.node_store import NodeSource
from pipelines.producing.produce_epoch import EpochProduction, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT, Encoding


def run_whole(
    executor: Executor,
    state: SyntheticState,
    folder: Path,
    export_range_bytes: int,
    *,
    num_parts: int | None = None,
    publish_early: bool = True,
    write_dataset: bool = True,
    keep_work: bool = False,
    progress: Progress | None = None,
) -> list[StageTiming]:
    """Produce an unsigned epoch into an empty folder.

    Args:
        export_range_bytes: stored bytes that one export task reads, about.
        num_parts: None for as many as nearcore makes.
        publish_early: False lets all parts wait for the shard's root, where a State column would make that needless.
        write_dataset: False reads each part's records from the node, and writes no dataset.
        keep_work: leave ``work`` in the folder.
        progress: an observer of the run, or None.
    Returns:
        A timing a stage, in order.
    """
    runner, source = StageRunner(executor, progress or SilentProgress()), NodeSource(str(state.home), state.context)
    EpochProduction(
        runner=runner,
        kernel=NativeKernel(),
        context=state.context,
        source=source,
        datasets=(),
        publisher=EpochPublisher(f"file://{folder}/published", signer=None, encoding=Encoding.V1, zstd_level=ZSTD_LEVEL_DEFAULT),
        settings=ProductionSettings(
            export=ExportSettings(f"file://{folder}/dataset", range_bytes_target=export_range_bytes, durable=False),
            work_url=f"file://{folder}/work",
            num_parts=num_parts,
            keep_work=keep_work,
            publish_early=publish_early,
            write_dataset=write_dataset,
        ),
        described=source.describe(),
        epoch_shard_ids=tuple(shard.shard_id for shard in state.context.shards),
    ).run()
    return runner.timings
