"""Whole productions in this process, with all their progress events kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET, ExportSettings
from pipelines.execution.executor import Executor
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.progress import StageProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.flat_state_source import FlatStateSource
from pipelines.producing.produce_epoch import EpochProduction, EpochResult, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import Encoding


@dataclass(slots=True)
class Told:
    """Progress that remembers everything."""

    stages: list[StageProgress] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def stage(self, progress: StageProgress) -> None:
        """Remember a step."""
        self.stages.append(progress)

    def note(self, message: str) -> None:
        """Remember a line."""
        self.notes.append(message)

    def stage_names(self, shard: str) -> list[str]:
        """Return the stages of a shard, in order, each once."""
        return list(dict.fromkeys(step.stage for step in self.stages if step.shard == shard))


@dataclass(slots=True)
class WholeProduction:
    """A production into a folder of its own: ``published``, ``dataset`` and ``work``."""

    folder: Path
    context: EpochContext
    source: FlatStateSource | None
    datasets: tuple[ShardDataset, ...] = ()
    num_parts: int | None = None
    publish_early: bool = True
    write_dataset: bool = True
    keep: bool = True
    """Leave work folder and dataset."""
    validate: bool = True
    kernel_name: str = "auto"
    file_bytes_target: int = 1 << 20
    range_bytes_target: int = RANGE_BYTES_TARGET
    executor: Executor = field(default_factory=InProcessExecutor)
    told: Told = field(default_factory=Told)

    def run(self) -> EpochResult:
        """Produce unsigned V0 objects; work folder and dataset are kept, if that is wanted."""
        return EpochProduction(
            runner=StageRunner(self.executor, self.told),
            kernel=choose_kernel(self.kernel_name),
            context=self.context,
            source=self.source,
            datasets=self.datasets,
            publisher=EpochPublisher(str(self.published), None, Encoding.V0, 1),
            settings=ProductionSettings(
                export=ExportSettings(
                    str(self.folder / "dataset"),
                    range_bytes_target=self.range_bytes_target,
                    file_bytes_target=self.file_bytes_target,
                    durable=False,
                ),
                work_url=str(self.folder / "work"),
                num_parts=self.num_parts,
                validate=self.validate,
                keep_work=self.keep,
                keep_dataset=self.keep,
                publish_early=self.publish_early,
                write_dataset=self.write_dataset,
            ),
            described="a test",
            epoch_shard_ids=tuple(shard.shard_id for shard in self.context.shards),
        ).run()

    @property
    def published(self) -> Path:
        """Where objects go."""
        return self.folder / "published"

    def parts(self) -> dict[str, bytes]:
        """Return every part's bytes by its name below the epoch's folder."""
        return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in self.published.rglob("state_part_*")}

    def statements(self) -> dict[str, bytes]:
        """Return every shard statement's bytes by its name."""
        return {path.name: path.read_bytes() for path in self.published.rglob("statements/*.json")}

    def boundary_files(self) -> dict[str, bytes]:
        """Return every file of boundary nodes by its name below the work folder."""
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("boundary_nodes-*")}
