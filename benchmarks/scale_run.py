"""One production of a synthetic state of several shards, as ``statecast produce`` makes it, with everything about its size measured.

The production has a process of its own, so that the driver's memory is that of the driver alone.
"""

from __future__ import annotations

import cProfile
import pstats
import shutil
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.counting_store import READS, WRITES, Calls, count_calls, counted_calls, requests, stop_counting, transferred
from benchmarks.measure import forget_peak_memory, peak_memory_bytes
from benchmarks.synthetic_state import SyntheticState
from benchmarks.watched_tasks import WatchingExecutor
from pipelines.execution.executor import Executor
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.progress import SilentProgress, StageProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.check_epoch import EpochCheck
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.node_store import NodeSource
from pipelines.producing.claimed_production import ClaimTerms, claimed
from pipelines.producing.produce_epoch import EpochProduction, EpochResult, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.publish.key_file import generate_key, load_signer
from pipelines.producing.publish.signing import Signer
from pipelines.stores.open_store import open_store
from pipelines.trust.signatures import TrustRule
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT, Encoding
from schemas.published.object_layout import EpochLayout

SAMPLE_PPM = 50_000
"""Of all parts, in millionths, that a check reads back and compares with their digests."""

FUNCTIONS_SHOWN = 15
"""Of the driver's, in a profiled run."""

DRIVER_LOOK_S = 0.2
"""How often the driver's memory is looked at."""


@dataclass(frozen=True, slots=True)
class ScaleFigure:
    """One production."""

    records: int
    cores: int
    """0 for a run in the driver's own process."""
    by_ranges: bool
    """Files were read as from a bucket, by ranges, instead of memory-mapped."""
    seconds: float
    stages: dict[str, float]
    """Seconds by the stage, of all shards."""
    stage_cpu_s: dict[str, float]
    """Processor seconds of the tasks, by the stage: what else the machine does hardly counts."""
    driver_cpu_s: float
    """Processor seconds of the driver; in a run of its own process alone, of everything."""
    stage_peaks: dict[str, int]
    """Most bytes of a worker above idle, by the stage."""
    stage_needs: dict[str, int]
    """What the stages say that a task needs, in bytes; what bounds how many run at once."""
    worker_peaks: tuple[int, ...]
    """Most bytes above idle of each worker, the largest first."""
    driver_bytes_above_idle: int
    driver_growth: tuple[tuple[int, int], ...]
    """(tasks that have ended, the driver's bytes above idle), as the run went on."""
    tasks: int
    memory_usages: tuple[int, ...]
    """Of the shards, the largest first."""
    parts: int
    objects: int
    """In the epoch's folder in the end."""
    stored_bytes: int
    """Of them."""
    write_requests: int
    read_requests: int
    read_bytes: int
    work_bytes: int
    """Put into dataset and work folder."""
    requests: dict[str, int]
    """Calls by folder and method."""
    direct: bool = False
    """No dataset was written."""
    early: bool = False
    """The home has the shards' tries, so that parts went out before their shard's root."""
    check_s: float = 0.0
    """What checking the published epoch took, with a sample of each shard's parts."""
    driver_functions: tuple[tuple[str, float], ...] = ()
    """The driver's functions that took most, with their own seconds; of a profiled run alone."""

    @property
    def memory_usage(self) -> int:
        """Of all shards."""
        return sum(self.memory_usages)

    @property
    def cpu_s(self) -> float:
        """Processor seconds of all tasks and the driver; what Ray's own processes take is not in it."""
        return sum(self.stage_cpu_s.values()) + (self.driver_cpu_s if self.cores else 0.0)

    @property
    def ns_per_record(self) -> float:
        """Nanoseconds a record, by the clock on the wall."""
        return self.seconds / self.records * 1e9


@dataclass(frozen=True, slots=True)
class RunForm:
    """How a production is made."""

    direct: bool = False
    """Write no dataset."""
    num_parts: int | None = None
    """Of each shard; None for as many as nearcore makes."""
    check: bool = False
    """Check what was published."""
    profile: bool = False
    """Note which of the driver's functions take most; of a run with other processes for its tasks."""


AS_THE_COMMAND: Final = RunForm()


@dataclass(slots=True)
class _DriverMemory(SilentProgress):
    """Looks at the driver's memory as tasks end."""

    idle: int
    tasks: int = 0
    growth: list[tuple[int, int]] = field(default_factory=list)
    _looked_at_s: float = 0.0

    def stage(self, progress: StageProgress) -> None:
        """Look, if it was not done just now."""
        self.tasks += progress.done > 0
        if time.monotonic() - self._looked_at_s > DRIVER_LOOK_S:
            self._looked_at_s = time.monotonic()
            self.growth.append((self.tasks, resident_bytes() - self.idle))


def figure_from_json(document: dict[str, Any]) -> ScaleFigure:
    """Return a figure that was printed as JSON."""
    lists = {name: tuple(document[name]) for name in ("worker_peaks", "memory_usages")}
    lists["driver_functions"] = tuple((name, seconds) for name, seconds in document.get("driver_functions", ()))
    return ScaleFigure(**{**document, **lists, "driver_growth": tuple((tasks, size) for tasks, size in document["driver_growth"])})


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:"))


def measure_run(state: SyntheticState, folder: Path, cores: int, *, by_ranges: bool = False, form: RunForm = AS_THE_COMMAND) -> ScaleFigure:
    """Produce once, in a process of its own.

    Args:
        folder: removed before and after.
        cores: of an embedded Ray; 0 for none.
        by_ranges: read files as from a bucket.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(run_in_driver, state, folder, cores, by_ranges=by_ranges, form=form).result()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_in_driver(state: SyntheticState, folder: Path, cores: int, *, by_ranges: bool, form: RunForm = AS_THE_COMMAND) -> ScaleFigure:
    """Produce once in this process, which is the driver; Ray's start and the loading of libraries are not counted."""
    inner: Executor
    if cores:
        from benchmarks.scaling import WarmUpTask
        from pipelines.execution.executor import TaskNeeds
        from pipelines.execution.on_ray import RayExecutor

        inner = RayExecutor(cpus=cores)
        list(inner.run([WarmUpTask()] * cores, TaskNeeds(0)))
    else:
        inner = InProcessExecutor()
    watching = WatchingExecutor(inner, by_ranges)
    try:
        with TemporaryDirectory() as keys:
            generate_key(Path(keys) / "key.json")
            signer = load_signer(Path(keys) / "key.json")
        figure = _measured(state, folder, cores, watching, form=form, signer=signer)
        return replace(figure, check_s=_check(state, folder, inner, signer)) if form.check else figure
    finally:
        stop_counting()
        watching.close()


def _check(state: SyntheticState, folder: Path, executor: Executor, signer: Signer) -> float:
    """Check what is published, a sample of each shard's parts applied to its state root; return the seconds."""
    began, url, layout = time.monotonic(), _published(folder), EpochLayout.of(state.context)
    rule, runner = TrustRule((signer.public_key,)), StageRunner(executor, SilentProgress())
    checked = EpochCheck(runner, choose_kernel("auto").name, url, layout, (), rule, window=SampleWindow(SAMPLE_PPM)).run()
    assert checked.is_good, "what was published is right"
    return time.monotonic() - began


def _measured(state: SyntheticState, folder: Path, cores: int, watching: WatchingExecutor, *, form: RunForm, signer: Signer) -> ScaleFigure:
    count_calls(by_ranges=watching.by_ranges)
    before = counted_calls()
    forget_peak_memory()
    memory = _DriverMemory(idle=peak_memory_bytes())
    runner = StageRunner(watching, memory)
    began, began_cpu = time.monotonic(), time.process_time()
    # Of the driver's own thread: while it waits for workers it takes none.
    profiler = cProfile.Profile(time.thread_time) if form.profile else None
    with profiler or nullcontext():
        result = _produce(state, folder, runner, form, signer)
    seconds, driver_cpu_s = time.monotonic() - began, time.process_time() - began_cpu
    driver_peak = peak_memory_bytes() - memory.idle
    memory.growth.append((memory.tasks, resident_bytes() - memory.idle))
    calls: Calls = watching.calls + (counted_calls() - before)
    stop_counting()
    stages: dict[str, float] = defaultdict(float)
    peaks: dict[str, int] = defaultdict(int)
    cpu_s: dict[str, float] = defaultdict(float)
    for timing, peak, spent_s in zip(runner.timings, watching.stage_peaks, watching.stage_cpu_s, strict=True):
        stages[timing.stage] += timing.seconds
        cpu_s[timing.stage] += spent_s
        peaks[timing.stage] = max(peaks[timing.stage], peak)
    objects = list(open_store(_published(folder)).list(EpochLayout.of(state.context).folder))
    return ScaleFigure(
        records=state.records,
        cores=cores,
        by_ranges=watching.by_ranges,
        seconds=seconds,
        stages=dict(stages),
        stage_cpu_s=dict(cpu_s),
        driver_cpu_s=driver_cpu_s,
        stage_peaks=dict(peaks),
        stage_needs={timing.stage: need for timing, need in zip(runner.timings, watching.stage_needs, strict=True)},
        worker_peaks=tuple(sorted(watching.worker_peaks.values(), reverse=True)),
        driver_bytes_above_idle=driver_peak,
        driver_growth=tuple(memory.growth),
        tasks=watching.tasks,
        memory_usages=tuple(sorted((shard.memory_usage for shard in result.shards), reverse=True)),
        parts=result.part_count,
        objects=len(objects),
        stored_bytes=sum(found.size for found in objects),
        write_requests=requests(calls, WRITES),
        read_requests=requests(calls, READS),
        read_bytes=transferred(calls, READS),
        work_bytes=transferred(calls, WRITES, "dataset") + transferred(calls, WRITES, "build"),
        direct=form.direct,
        early=all(shard.state_root is not None for shard in state.context.shards),
        driver_functions=() if profiler is None else _most_time(profiler),
        requests={f"{where} {method}": number for (where, method, what), number in sorted(calls.items()) if what == "calls"},
    )


def _most_time(profiler: cProfile.Profile) -> tuple[tuple[str, float], ...]:
    """Return the functions that took most, without those that they called."""
    profiler.create_stats()
    rows = [(f"{Path(file).name}:{name}", own) for (file, _, name), (_, _, own, _, _) in pstats.Stats(profiler).stats.items()]  # type: ignore[attr-defined]
    return tuple(sorted(rows, key=lambda row: -row[1])[:FUNCTIONS_SHOWN])


def _published(folder: Path) -> str:
    return f"file://{folder}/published"


def _produce(state: SyntheticState, folder: Path, runner: StageRunner, form: RunForm, signer: Signer) -> EpochResult:
    """Produce a signed epoch under a claim; dataset and work folder are removed in the end, as the command does."""
    source = NodeSource(str(state.home), state.context)
    publisher = EpochPublisher(_published(folder), signer, encoding=Encoding.V1, zstd_level=ZSTD_LEVEL_DEFAULT)
    assert publisher.find_published(state.context, None) is None, "the folder is empty"
    with claimed(_published(folder), state.context, ClaimTerms(), runner.progress) as run:
        runner.keep_going = run.keep_going
        return EpochProduction(
            runner=runner,
            kernel=choose_kernel("auto"),
            context=state.context,
            source=source,
            datasets=(),
            publisher=publisher,
            settings=ProductionSettings.in_folder(f"file://{folder}", num_parts=form.num_parts, write_dataset=not form.direct),
            described=source.describe(),
            epoch_shard_ids=tuple(shard.shard_id for shard in state.context.shards),
            before_manifest=run.confirm,
        ).run()
