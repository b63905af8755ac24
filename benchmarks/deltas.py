"""Times deltas: making one of two tries, and rebuilding parts of a base and one, beside a production and a fetch of the same parts.

    python -m benchmarks.deltas --records 20000,200000 --shares 0.01,0.05,0.3
    python -m benchmarks.deltas --records 20000,200000,2000000 --changes 1500

Everything runs in this process on one core and is timed in processor seconds. Bytes are those of stored objects: what a reader moves. A
delta should cost what changed, whatever the state's size: at most 1.5 times as much for as many changes in ten times the state, in which
a trie's paths are longer by what the rows say. A rebuilding should cost at most 1.3 times a production from a dataset; every rebuilt
part has the published one's bytes, or the run ends with an error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.backfill import _export, _runner
from benchmarks.command_line import BenchmarkParser, listed, number_from, print_as_json, require_native_kernel
from benchmarks.folder import benchmark_folder
from benchmarks.measure import CPU, seconds_of
from benchmarks.synthetic_state import synthetic_state
from benchmarks.synthetic_trie import TRIE_RECORDS_MAX, ChangedSource, TrieState, trie_state
from pipelines.bucket.published_deltas import read_delta_statement
from pipelines.bucket.published_epoch import read_manifest, read_statement
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.fetching.fetch_part import parts_to_fetch
from pipelines.fetching.verifier import VerifyPartTask
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.native import NativeKernel
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.near.node.state_column import StateColumn
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction, published_records
from pipelines.producing.produce_epoch import EpochProduction, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.rebuild.rebuild_shard import RebuildTarget, ShardRebuild
from pipelines.stores.open_store import open_store
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout


@dataclass(frozen=True, slots=True)
class DeltaFigure:
    """A delta, and what is done with it."""

    records: int
    changes: int
    share: float
    spread: bool
    parts: int
    delta_bytes: int
    whole_bytes: int
    """Of the later state's parts."""
    rows_read: int
    """Nodes of both tries and values that the delta was made of."""
    make_s: float
    """Out of the two tries."""
    rebuild_s: float
    """Of the base's parts on disk and the delta: read, build, compare, put."""
    produce_s: float
    """A production of the same parts from a dataset."""
    verify_s: float
    """Verifying the same parts, as a fetch of them whole does."""


@dataclass(frozen=True, slots=True)
class DeltaRuns:
    """What figures are to be taken of."""

    sizes: tuple[int, ...]
    """Records of the states."""
    shares: tuple[float, ...]
    """Of their records, how many change."""
    changes: tuple[int, ...]
    """Further numbers of changes, the same for each size."""
    seed: int
    num_parts: int | None
    kernel: Kernel
    """What rebuilds."""

    def changes_of(self, records: int) -> list[int]:
        """Return how many records of a state are to change."""
        return [*(max(1, round(records * share)) for share in self.shares), *self.changes]


def run_benchmark(folder: Path, runs: DeltaRuns) -> Iterator[DeltaFigure]:
    """Make the states and take all figures; what is made beside the synthetic states is removed."""
    for records in runs.sizes:
        state = synthetic_state(folder, records, runs.seed)
        work = folder / f"deltas-{records}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            counts = [(changes, spread) for changes in runs.changes_of(records) for spread in (False, True)]
            tries = trie_state(state, work / "home", counts)
            yield from _figures(tries, work, runs)
        finally:
            forget_readers()
            shutil.rmtree(work, ignore_errors=True)


def _figures(tries: TrieState, work: Path, runs: DeltaRuns) -> Iterator[DeltaFigure]:
    bucket, num_parts = str(work / "bucket"), runs.num_parts
    base = _epoch(tries.context, 1)
    _produce(base, _export(NodeSource(str(tries.home), base), base, work / "base"), bucket, work, num_parts)
    shutil.rmtree(work / "base")
    for number, changed in enumerate(tries.changed):
        context = _epoch(changed.context, number + 2)
        dataset = _export(ChangedSource(str(tries.home), context, changed_keys=changed.keys), context, work / f"target-{number}")
        produce_s = seconds_of(lambda: _produce(context, dataset, bucket, work, num_parts), CPU)  # noqa: B023 - called at once
        forget_readers()
        made: list[StoredDelta] = []
        with _counted_rows() as counted:
            make_s = seconds_of(lambda: made.append(_make(tries, base, context, bucket, work)), CPU)  # noqa: B023 - called at once
        rebuild = _rebuild(base, context, made[0], work, runs.kernel)
        rebuild_s = seconds_of(rebuild.run, CPU)
        manifest = _manifest(bucket, context)
        yield DeltaFigure(
            records=tries.records,
            changes=changed.changes,
            share=changed.changes / tries.records,
            spread=changed.spread,
            parts=manifest.shards[0].num_parts,
            delta_bytes=made[0].statement.size,
            whole_bytes=sum(part.size for part in manifest.shards[0].parts),
            rows_read=sum(counted),
            make_s=make_s,
            rebuild_s=rebuild_s,
            produce_s=produce_s,
            verify_s=_verify(manifest, bucket),
        )
        shutil.rmtree(work / f"target-{number}")
        open_store(bucket).delete_folder(EpochLayout.of(context).folder)


def _epoch(context: EpochContext, height: int) -> EpochContext:
    return replace(context, epoch_height=height, epoch_id=CryptoHash(height.to_bytes(32, "big")))


def _publisher(bucket: str) -> EpochPublisher:
    return EpochPublisher(bucket, None, Encoding.V1, 1)


def _produce(context: EpochContext, dataset: ShardDataset, bucket: str, work: Path, num_parts: int | None) -> None:
    EpochProduction(
        runner=_runner(),
        kernel=NativeKernel(),
        context=context,
        source=None,
        datasets=(dataset,),
        publisher=_publisher(bucket),
        settings=ProductionSettings.in_folder(str(work / "produce"), num_parts=num_parts),
        described="a benchmark",
        epoch_shard_ids=tuple(shard.shard_id for shard in context.shards),
    ).run()


def _make(tries: TrieState, base: EpochContext, context: EpochContext, bucket: str, work: Path) -> StoredDelta:
    inputs = DeltaInputs(node_home=str(tries.home))
    production = DeltaProduction(_runner(), _publisher(bucket), inputs, "native", str(work / "make"))
    (listed,) = production.run(EpochLayout.of(context), [EpochLayout.of(base)])

    store = open_store(bucket)
    return StoredDelta(store.url, read_delta_statement(store, EpochLayout.of(context), listed)[0])


def _manifest(bucket: str, context: EpochContext) -> Manifest:
    stored = read_manifest(open_store(bucket), EpochLayout.of(context))
    assert stored is not None
    return stored.manifest


@contextmanager
def _counted_rows() -> Iterator[list[int]]:
    """Note how many rows of the State column each read asks for."""
    counted: list[int] = []

    def read(column: StateColumn, hashes: Sequence[bytes]) -> list[bytes | None]:
        counted.append(len(hashes))
        return unpatched(column, hashes)

    unpatched = StateColumn.read
    with patch.object(StateColumn, "read", read):
        yield counted


def _rebuild(base: EpochContext, context: EpochContext, delta: StoredDelta, work: Path, kernel: Kernel) -> ShardRebuild:
    bucket = str(work / "bucket")
    store = open_store(bucket)
    shard_id = context.shards[0].shard_id
    records = published_records(store, _manifest(bucket, base), shard_id, kernel.name)
    found = read_statement(store, EpochLayout.of(context), shard_id)
    assert records is not None
    assert found is not None
    shutil.rmtree(work / "rebuilt", ignore_errors=True)
    target = RebuildTarget.of(_manifest(bucket, context), found[0])
    applied = AppliedRecords(records, (delta,))
    return ShardRebuild(_runner(), kernel, target, applied, str(work / "rebuild"), str(work / "rebuilt"))


def _verify(manifest: Manifest, bucket: str) -> float:
    shard = manifest.shards[0]
    found = read_statement(open_store(bucket), manifest.layout, shard.shard_id)
    assert found is not None
    parts = parts_to_fetch(manifest, shard, found[0])
    return seconds_of(
        lambda: [VerifyPartTask(Path(bucket, part.object_name), part, "native", check_stored=True).run() for part in parts], CPU
    )


def print_figures(figures: Sequence[DeltaFigure]) -> None:
    """Print the figures for people."""
    table = Table(title="one core, processor seconds", title_justify="left")
    for name in (
        "records",
        "parts",
        "changed",
        "where",
        "delta",
        "whole",
        "of whole",
        "rows read",
        "make",
        "a row, us",
        "rebuild",
        "verify",
        "produce",
        "rebuild to produce",
    ):
        table.add_column(name, justify="left" if name == "where" else "right")
    for one in figures:
        table.add_row(
            f"{one.records:,}",
            str(one.parts),
            f"{one.share:.2%}",
            "spread" if one.spread else "together",
            f"{one.delta_bytes / 1e6:.1f} MB",
            f"{one.whole_bytes / 1e6:.1f} MB",
            f"{one.delta_bytes / one.whole_bytes:.1%}",
            f"{one.rows_read:,}",
            f"{one.make_s:.2f}",
            f"{one.make_s / one.rows_read * 1e6:.1f}",
            f"{one.rebuild_s:.2f}",
            f"{one.verify_s:.2f}",
            f"{one.produce_s:.2f}",
            f"{one.rebuild_s / one.produce_s:.2f}",
        )
    Console(width=150).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = BenchmarkParser("deltas", "Time deltas beside whole parts.")
    parser.add_state([20_000, 200_000], TRIE_RECORDS_MAX)
    parser.add_argument(
        "--shares", type=listed(_share), help="shares of records that change; default 0.01,0.05,0.3 where no --changes are given"
    )
    parser.add_argument(
        "--changes", type=listed(number_from(1)), default=[], help="numbers of records that change, the same for each size, as 1500"
    )
    parser.add_argument("--kernel", choices=["native", "reference"], default="native", help="what rebuilds")
    parser.add_argument("--num-parts", type=int, help="parts of a state; default as nearcore computes it")
    options = parser.parse_args(arguments)
    require_native_kernel()
    shares = options.shares if options.shares or options.changes else [0.01, 0.05, 0.3]
    runs = DeltaRuns(
        sizes=tuple(options.records),
        shares=tuple(shares or ()),
        changes=tuple(options.changes),
        seed=options.seed,
        num_parts=options.num_parts,
        kernel=choose_kernel(options.kernel),
    )
    figures = []
    with benchmark_folder(options.folder) as folder:
        for figure in run_benchmark(folder, runs):
            figures.append(figure)
            # A run of a million records takes an hour: what it has is there if it is stopped.
            print(json.dumps(asdict(figure)), file=sys.stderr, flush=True)
    if options.json:
        print_as_json([asdict(figure) for figure in figures])
    else:
        print_figures(figures)


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 0.5:
        raise argparse.ArgumentTypeError("above 0 and at most 0.5")
    return share


if __name__ == "__main__":
    main()
