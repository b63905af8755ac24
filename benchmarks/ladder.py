"""Measures what a ladder saves: a bucket that keeps deltas of all epochs and parts of every eighth, beside one that keeps all parts.

    python -m benchmarks.ladder --records 20000 --epochs 33 --plot docs/operations/ladder.svg

Epochs of one shard follow each other, in each of which a share of the records changes: half of them anywhere, half among those that change each time,
as on a chain. Each is published with its deltas; then the parts of the one before go, once they were rebuilt. What lies in the bucket is
counted after each epoch and compared with what the plot says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from benchmarks.backfill import _runner
from benchmarks.command_line import BenchmarkParser, number_from, print_as_json, require_native_kernel
from benchmarks.folder import benchmark_folder
from jobs.ladder_plot import draw_kept, draw_moved
from pipelines.keeping.collect_epochs import thin_epoch
from pipelines.kernel.native import NativeKernel
from pipelines.near.files.records_file import RecordsFileSource
from pipelines.producing.deltas.ladder import ladder_bases
from pipelines.producing.deltas.ladder_savings import LadderSavings, ladder_savings
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction
from pipelines.producing.produce_epoch import EpochProduction, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.stores.open_store import open_store
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.shard_layout import SINGLE_SHARD
from schemas.nearcore.state_part import Encoding
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name

CHAIN_ID = "ladder"


@dataclass(frozen=True, slots=True)
class LadderFigure:
    """The bucket after one more epoch."""

    epochs: int
    kept_whole: int
    """Bytes of the parts of all epochs so far."""
    kept_by_ladder: int
    """Bytes of the parts and deltas that lie in the bucket."""
    moved_whole: int
    moved_by_deltas: int


@dataclass(frozen=True, slots=True)
class MeasuredLadder:
    """What is measured."""

    records: int
    epochs: int
    share: float
    """Of the records, that change in an epoch."""
    every: int
    seed: int

    def run(self, folder: Path) -> LadderSavings:
        """Publish the epochs; return what was measured.

        Raises:
            AssertionError: the bucket holds other bytes than the figures say.
        """
        work = folder / "ladder"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        bucket = str(work / "bucket")
        store, publisher = open_store(bucket), EpochPublisher(bucket, None, Encoding.V1, 1)
        rebuild = EpochRebuild(_runner(), NativeKernel(), bucket)
        measured: list[int] = []
        for number, state in enumerate(self._states()):
            # The first is a rung, as where a bucket begins with whole parts.
            context = _context(self.every + number)
            layout = EpochLayout.of(context)
            _produce(context, state, publisher, work)
            bases = ladder_bases(store, layout, self.every)
            DeltaProduction(_runner(), publisher, DeltaInputs(), "native", str(work / "make")).run(layout, bases)
            if number:
                thin_epoch(bucket, EpochLayout.of(_context(self.every + number - 1)), self.every, rebuild.why_not)
            measured.append(_kept(bucket))
        savings = ladder_savings(store, CHAIN_ID, self.every)
        assert savings.kept_by_ladder() == measured, "what the figures say is what lies there"
        shutil.rmtree(work)
        return savings

    def _states(self) -> Iterator[dict[bytes, bytes]]:
        """Yield the records of each epoch: accounts, access keys and contract data, about as long as a chain's."""
        random = Random(self.seed)
        state = {}
        for number in range(self.records):
            kind = (0, 2, 9, 9)[number % 4]
            key = (
                bytes([kind]) + f"account-{random.randrange(10**9):09d}.near".encode() + (b"" if kind != 9 else b"," + random.randbytes(12))
            )
            state[key] = random.randbytes(random.choice((64, 96, 180, 400)))
        keys = sorted(state)
        changes = max(2, round(self.records * self.share))
        often = random.sample(keys, changes // 2)
        for number in range(self.epochs):
            if number:
                for key in (*often, *random.sample(keys, changes - len(often))):
                    state[key] = random.randbytes(len(state[key]))
            yield state


def _context(height: int) -> EpochContext:
    epoch_id = CryptoHash(height.to_bytes(32, "big"))
    return EpochContext(CHAIN_ID, height, epoch_id, epoch_id, 81, (ShardContext(ShardUId(0, 0), None),), shard_layout=SINGLE_SHARD)


def _produce(context: EpochContext, state: dict[bytes, bytes], publisher: EpochPublisher, work: Path) -> None:
    file = work / "records.jsonl"
    file.write_text("".join(json.dumps({"key": key.hex(), "value": value.hex()}) + "\n" for key, value in state.items()))
    EpochProduction(
        runner=_runner(),
        kernel=NativeKernel(),
        context=context,
        source=RecordsFileSource(str(file)),
        datasets=(),
        publisher=publisher,
        settings=ProductionSettings.in_folder(str(work / "produce")),
        described="a benchmark",
        epoch_shard_ids=(0,),
    ).run()
    shutil.rmtree(work / "produce", ignore_errors=True)


def _kept(bucket: str) -> int:
    kinds = (ObjectKind.STATE_PART, ObjectKind.DELTA)
    infos = open_store(bucket).list()
    return sum(info.size for info in infos if (name := parse_object_name(info.name)) is not None and name.kind in kinds)


def figures_of(savings: LadderSavings) -> list[LadderFigure]:
    """Return a figure for each number of epochs."""
    columns = (savings.kept_whole(), savings.kept_by_ladder(), savings.moved_whole(), savings.moved_by_deltas())
    return [LadderFigure(count, *row) for count, row in enumerate(zip(*columns, strict=True), start=1)]


def plot(savings: LadderSavings, file: Path) -> None:
    """Write the two plots side by side, in the form that the file's name says."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "statecast"
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, draw in zip(figure.subplots(1, 2), (draw_kept, draw_moved), strict=True):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        draw(axes, savings)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def print_figures(figures: Sequence[LadderFigure]) -> None:
    """Print some of the figures for people."""
    table = Table(title="bytes of parts and deltas", title_justify="left")
    for name in ("epochs", "kept whole", "kept by the ladder", "of whole", "moved whole", "moved by deltas", "of whole"):
        table.add_column(name, justify="right")
    for one in figures:
        if one.epochs in (1, 2, 4, 8, 16, 32, 64, len(figures)):
            table.add_row(
                str(one.epochs),
                f"{one.kept_whole / 1e6:.1f} MB",
                f"{one.kept_by_ladder / 1e6:.1f} MB",
                f"{one.kept_by_ladder / one.kept_whole:.1%}",
                f"{one.moved_whole / 1e6:.1f} MB",
                f"{one.moved_by_deltas / 1e6:.1f} MB",
                f"{one.moved_by_deltas / one.moved_whole:.1%}",
            )
    Console(width=120).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("ladder", "Measure what a ladder of deltas saves.")
    parser.add_state(20_000)
    parser.add_argument("--epochs", type=number_from(2, 200), default=33, help="default %(default)s")
    parser.add_argument("--share", type=float, default=0.01, help="share of records that change in an epoch; default %(default)s")
    parser.add_argument(
        "--every", type=number_from(2, 100), default=8, help="whole parts of heights that this divides; default %(default)s"
    )
    parser.add_argument("--plot", type=Path, help="file for the plots, .svg or .png")
    options = parser.parse_args(arguments)
    require_native_kernel()
    with benchmark_folder(options.folder) as folder:
        savings = MeasuredLadder(options.records, options.epochs, options.share, options.every, options.seed).run(folder)
    if options.plot is not None:
        plot(savings, options.plot)
    if options.json:
        print_as_json([asdict(figure) for figure in figures_of(savings)])
    else:
        print_figures(figures_of(savings))


if __name__ == "__main__":
    main()
