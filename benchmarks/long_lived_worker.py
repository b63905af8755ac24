"""The memory of one worker that lives through whole productions of several sizes: what each stage takes, and what is left of it afterwards.

    python -m benchmarks.long_lived_worker --records 300000,3000000 --folder DIR

Each state is produced twice in a new process: once with what `pipelines.execution.released_memory` does after each stage, and once without, so that
allocators keep what they like. Judges nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from benchmarks.command_line import BenchmarkParser, require_native_kernel
from benchmarks.measure import anonymous_bytes, forget_peak_memory, peak_memory_bytes
from benchmarks.synthetic_state import SyntheticState, synthetic_state
from benchmarks.whole_run import run_whole
from benchmarks.worker_memory import load_and_measure_idle
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET
from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.released_memory import release_memory

R = TypeVar("R")

LOOK_S = 0.005
"""How often the worker's anonymous memory is looked at; its peak resident memory is the system's own figure."""

MIB = 1 << 20

WHOLE_RUN = "whole run"
"""Instead of a stage: the largest of all stages' figures."""


@dataclass(frozen=True, slots=True)
class StageMemory:
    """One stage in a worker that ran the stages before it too."""

    stage: str
    records: int
    released: bool
    """Memory was given back after each stage."""
    declared_bytes: int
    """What the stage says that a process takes for a task."""
    peak_bytes: int
    """Most resident memory, libraries and pages of memory-mapped files included."""
    above_idle_bytes: int
    """The same, less what the process had before its first task."""
    anonymous_bytes: int
    """Most anonymous memory above idle: without pages of files. Seen at intervals, so it may miss a short peak."""
    left_bytes: int
    """Anonymous memory above idle after the stage's last task."""
    cpu_s: float
    """Processor seconds of the stage's tasks."""


@dataclass(slots=True)
class OneWorkerExecutor:
    """Runs the tasks of all stages one after another in one other process, and looks at its memory."""

    process: ProcessPoolExecutor
    records: int
    released: bool
    description: str = "one other process"
    stages: list[StageMemory] = field(default_factory=list)
    """Of stages that had tasks and of those that had none, in the stages' order; still without their names."""
    _idle: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        """Load in the process what a worker has loaded."""
        self._idle = self.process.submit(_idle).result()

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """Run the tasks in order; see `Executor.run`."""
        pid, idle, idle_anonymous = self._idle
        began_s = self.process.submit(_begin_stage).result()
        with _AnonymousPeak(pid) as looking:
            for index, task in enumerate(tasks):
                yield index, self.process.submit(task.run).result()
            if self.released:
                self.process.submit(release_memory).result()
        peak, left, ended_s = self.process.submit(_end_stage).result()
        anonymous = max(looking.peak_bytes, left) - idle_anonymous
        self.stages.append(
            StageMemory(
                "",
                self.records,
                self.released,
                needs.memory_bytes,
                peak,
                peak - idle,
                anonymous,
                left - idle_anonymous,
                ended_s - began_s,
            )
        )

    def close(self) -> None:
        """Do nothing: the process is its maker's."""


class _AnonymousPeak:
    """Looks at a process' anonymous memory, from another process."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes(self._pid))


def _idle() -> tuple[int, int, int]:
    return os.getpid(), load_and_measure_idle(), anonymous_bytes()


def _begin_stage() -> float:
    forget_peak_memory()
    return time.process_time()


def _end_stage() -> tuple[int, int, float]:
    return peak_memory_bytes(), anonymous_bytes(), time.process_time()


def measure_worker(state: SyntheticState, folder: Path, *, released: bool) -> list[StageMemory]:
    """Produce once with all tasks in one new process; return a figure a stage that had tasks, and the whole run's.

    Args:
        folder: removed before and after.
        released: give memory back after each stage.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            executor = OneWorkerExecutor(process, state.records, released)
            timings = run_whole(executor, state, folder, RANGE_BYTES_TARGET)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    stages = [replace(figure, stage=timing.stage) for timing, figure in zip(timings, executor.stages, strict=True) if timing.tasks]
    return [*stages, _largest(stages)]


def _largest(stages: Sequence[StageMemory]) -> StageMemory:
    return StageMemory(
        WHOLE_RUN,
        stages[0].records,
        stages[0].released,
        max(one.declared_bytes for one in stages),
        max(one.peak_bytes for one in stages),
        max(one.above_idle_bytes for one in stages),
        max(one.anonymous_bytes for one in stages),
        stages[-1].left_bytes,
        sum(one.cpu_s for one in stages),
    )


def print_tables(figures: Sequence[StageMemory]) -> None:
    """Print a table for memory that is given back and one for memory that is kept, with the largest state's ratio to the smallest."""
    sizes = sorted({figure.records for figure in figures})
    for released in (False, True):
        found = {(one.stage, one.records): one for one in figures if one.released is released}
        if not found:
            continue
        print(f"\nMiB above idle, memory {'given back after each stage' if released else 'kept'}\n")
        heads = [f"{size:,} records: peak | of it anonymous | left after" for size in sizes]
        print(f"| stage | {' | '.join(heads)} | peak, ratio | whole process | declared | processor s |")
        print("|---|" + "---:|---:|---:|" * len(sizes) + "---:|---:|---:|---:|")
        for stage in dict.fromkeys(stage for stage, _ in found):
            row = [found[stage, size] for size in sizes]
            cells = [f"{_mib(one.above_idle_bytes)} | {_mib(one.anonymous_bytes)} | {_mib(one.left_bytes)}" for one in row]
            ratio = row[-1].above_idle_bytes / max(row[0].above_idle_bytes, 1)
            spent = " ".join(f"{one.cpu_s:.2f}" for one in row)
            declared = "" if stage == WHOLE_RUN else _mib(row[0].declared_bytes)
            whole = " ".join(_mib(one.peak_bytes) for one in row)
            print(f"| {stage} | {' | '.join(cells)} | {ratio:.2f} | {whole} | {declared} | {spent} |")


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("long_lived_worker", "Measure a worker's memory.")
    parser.add_state([300_000, 3_000_000])
    options = parser.parse_args(arguments)
    require_native_kernel()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="statecast-bench-"))).absolute()
    figures: list[StageMemory] = []
    try:
        for records in sorted(options.records):
            state = synthetic_state(folder, records, options.seed)
            for released in (False, True):
                print(f"producing {records:,} records, memory {'given back' if released else 'kept'}", file=sys.stderr, flush=True)
                measured = measure_worker(state, folder / "run", released=released)
                if options.json:
                    print("\n".join(json.dumps(asdict(figure)) for figure in measured), flush=True)
                figures += measured
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    if not options.json:
        print_tables(figures)


if __name__ == "__main__":
    main()
