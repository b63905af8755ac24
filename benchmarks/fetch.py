"""Fetches a synthetic epoch from rate-limited sources, and verifies its parts beside their floor.

    python -m benchmarks.fetch --records 400000 --limit 3000000

Two claims: a fetch from n sources moves the sum of their limits (target: at least `SUM_SHARE_MIN` of it), and what verifying a part
takes on one core, as a ratio to SHA-256 and zstd decoding of the same bytes in the same run. A missed target is reported, not an error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.folder import benchmark_folder
from benchmarks.limited_server import limited_server
from benchmarks.measure import CPU, interleaved_medians, usable_cores
from benchmarks.synthetic_state import SEED_DEFAULT, synthetic_state
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.execution.stage_runner import silent_runner
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_part import parts_to_fetch
from pipelines.fetching.fetch_progress import FetchProgress
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.verifier import VerifyPartTask
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.node_store import NodeSource
from pipelines.producing.produce_epoch import EpochProduction, ProductionSettings
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.trust.policy import TrustPolicy
from schemas.nearcore.state_part import ZSTD_LEVEL_DEFAULT, Encoding, decode_state_part
from schemas.published.dsse import parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement

SUM_SHARE_MIN = 0.9
"""Share of the sum of the sources' limits that a fetch reaches at least."""

NUM_PARTS = 64
SOURCE_COUNTS = (1, 2, 4)
PARTS_VERIFIED_MAX = 12


@dataclass(frozen=True, slots=True)
class SumFigure:
    """One fetch from rate-limited sources."""

    sources: int
    limit_bytes_per_s: float
    """Of each source."""
    bytes_per_s: float
    share_of_sum: float


@dataclass(frozen=True, slots=True)
class VerificationFigure:
    """Verifying on one core."""

    decoded_bytes: int
    stored_bytes: int
    mb_per_s: float
    """Decoded bytes, verified."""
    floor_mb_per_s: float
    """Decoded bytes through zstd and SHA-256 alone."""
    ratio: float
    """Times the floor's time."""


class _LastProgress:
    def __init__(self) -> None:
        self.last: FetchProgress | None = None

    def progress(self, progress: FetchProgress) -> None:
        self.last = progress

    def event(self, name: str, facts: dict[str, object]) -> None:
        pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fetch", description="Fetch from rate-limited sources; verify beside the floor."
    )
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--limit", type=float, default=3e6, help="bytes a second of each source; default %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with benchmark_folder(None) as folder:
        root = publish(folder, options.records)
        sums = [measure_sum(root, folder / f"into-{count}", count, options.limit) for count in SOURCE_COUNTS]
        verification = measure_verification(root, options.repeats)
    if options.json:
        print(json.dumps({"sums": [asdict(figure) for figure in sums], "verification": asdict(verification)}))
        return
    for figure in sums:
        met = "met" if figure.share_of_sum >= SUM_SHARE_MIN else "MISSED"
        print(
            f"{figure.sources} sources of {figure.limit_bytes_per_s / 1e6:g} MB/s each: {figure.bytes_per_s / 1e6:.2f} MB/s, "
            f"{figure.share_of_sum:.2f} of the sum (at least {SUM_SHARE_MIN}: {met})"
        )
    print(
        f"verify, one core: {verification.mb_per_s:.0f} MB/s decoded, {verification.ratio:.2f} times zstd and SHA-256 of the same bytes "
        f"({verification.floor_mb_per_s:.0f} MB/s); {verification.decoded_bytes / 1e6:.1f} MB decoded, {verification.stored_bytes / 1e6:.1f} MB stored"
    )


def publish(folder: Path, records: int) -> Path:
    """Publish a synthetic state in `NUM_PARTS` parts; return the bucket's folder."""
    state = synthetic_state(folder, records, SEED_DEFAULT)
    source = NodeSource(str(state.home), state.context)
    EpochProduction(
        runner=silent_runner(),
        kernel=choose_kernel("auto"),
        context=state.context,
        source=source,
        datasets=(),
        publisher=EpochPublisher(f"file://{folder}/bucket", signer=None, encoding=Encoding.V1, zstd_level=ZSTD_LEVEL_DEFAULT),
        settings=ProductionSettings(
            export=ExportSettings(f"file://{folder}/dataset"),
            work_url=f"file://{folder}/work",
            num_parts=NUM_PARTS,
        ),
        described=source.describe(),
        epoch_shard_ids=tuple(shard.shard_id for shard in state.context.shards),
    ).run()
    return folder / "bucket"


def measure_sum(root: Path, into: Path, sources: int, limit: float) -> SumFigure:
    """Fetch from some servers with a limit each; the time is that of the parts, from the first request to the last verified part."""
    watcher = _LastProgress()
    manifest, _ = _manifest(root)
    with ExitStack() as stack:
        urls = [stack.enter_context(limited_server(root, limit)) for _ in range(sources)]
        settings = FetchSettings(
            url=urls[0],
            source_urls=tuple(urls[1:]),
            chain_id=manifest.chain_id,
            epoch="latest",
            shard_ids=(),
            into=into,
            policy=TrustPolicy(insecure=True),
            limits=FetchLimits(),
            kernel_name="auto",
            verify_workers=usable_cores(),
        )
        EpochFetch(settings, watcher).run()
    assert watcher.last is not None and watcher.last.parts_done == watcher.last.parts_total
    rate = watcher.last.bytes_total / watcher.last.elapsed_s
    shutil.rmtree(into)
    return SumFigure(sources, limit, rate, rate / (sources * limit))


def measure_verification(root: Path, repeats: int) -> VerificationFigure:
    """Verify parts on one core, and hash and decode the same bytes beside it."""
    tasks = _tasks(root)
    stored = [(root / task.part.object_name).read_bytes() for task in tasks]

    def verify() -> None:
        for task in tasks:
            problem = task.run()
            assert problem is None, problem

    def floor() -> None:
        for data in stored:
            hashlib.sha256(decode_state_part(data, Encoding.V1)).digest()

    verify_s, floor_s = interleaved_medians(repeats, verify, floor, clock=CPU)
    decoded = sum(task.part.decoded_size for task in tasks)
    return VerificationFigure(decoded, sum(map(len, stored)), decoded / verify_s / 1e6, decoded / floor_s / 1e6, verify_s / floor_s)


def _tasks(root: Path) -> list[VerifyPartTask]:
    manifest, layout = _manifest(root)
    (shard,) = manifest.shards
    statement = ShardStatement.from_payload(
        parse_envelope((root / layout.shard_statement(shard.shard_id)).read_bytes(), "benchmark").payload, "benchmark"
    )
    parts = parts_to_fetch(manifest, shard, statement)
    chosen = parts[:: max(1, len(parts) // PARTS_VERIFIED_MAX)]
    return [VerifyPartTask(held=root / part.object_name, part=part, kernel_name="auto", check_stored=True) for part in chosen]


def _manifest(root: Path) -> tuple[Manifest, EpochLayout]:
    (path,) = root.glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json")
    manifest = Manifest.from_payload(parse_envelope(path.read_bytes(), "benchmark").payload, "benchmark")
    return manifest, manifest.layout


if __name__ == "__main__":
    main()
