"""A fetch of the same bytes through BitTorrent alone, through a web seed alone, and through both; seeder and mirror are processes of their own.

    python -m benchmarks.torrent --megabytes 200

Everything runs on loopback on this machine, so the figures are those of the code and the disk, not of a network. The floor, in the same
run, is one process that reads the same files, hashes them with SHA-256 and writes them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.folder import benchmark_folder
from benchmarks.measure import seconds_of
from benchmarks.random_epoch import publish_random_epoch
from pipelines.bittorrent.session import SessionSettings
from pipelines.fetching.source import Cancellation, EpochOnOffer, WantedObject
from pipelines.fetching.torrent_source import PARTS_AT_ONCE_MAX, TorrentSettings, TorrentSource
from schemas.address import Address
from schemas.ids import PartId

PART_BYTES: Final = 25_000_000
"""About what nearcore's state parts have."""

START_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One way of fetching."""

    way: str
    seconds: float
    mb_per_s: float
    times_floor: float
    """Seconds of this to those of the floor."""


def measure(megabytes: int, folder: Path) -> list[Figure]:
    """Return the floor and the three ways."""
    size = megabytes * 1_000_000
    bucket = folder / "bucket"
    layout, manifest = publish_random_epoch(
        bucket, [PART_BYTES] * (size // PART_BYTES) + ([size % PART_BYTES] if size % PART_BYTES else [])
    )
    floor_s = seconds_of(lambda: _copy(bucket / layout.shard_folder(0), folder / "copy"))
    figures = [Figure("floor: read, SHA-256, write", floor_s, size / floor_s / 1e6, 1.0)]
    listen = ("--listen", "127.0.0.1:0", "--events", "-")
    with ExitStack() as stack:
        seeder = stack.enter_context(_statecast("seed", bucket, "--data", folder / "seed", "--local", bucket, "--insecure", *listen))
        mirror = stack.enter_context(_statecast("serve", bucket, *listen))
        peer = Address("127.0.0.1", _wait_for(seeder, "listening")["port"])
        _wait_for(seeder, "shard_seeding")
        web_seed = f"http://127.0.0.1:{_wait_for(mirror, 'listening')['port']}/{layout.folder}/"
        ways = {"BitTorrent alone": ((peer,), ()), "web seed alone": ((), (web_seed,)), "both": ((peer,), (web_seed,))}
        for way, (peers, web_seeds) in ways.items():
            settings = TorrentSettings(peers=peers, web_seeds=web_seeds, session=SessionSettings(Address("127.0.0.1", 0)))
            offer = EpochOnOffer(layout, manifest, (0,), folder / "scratch", _reader(bucket))
            seconds = _fetch(offer, settings)
            figures.append(Figure(way, seconds, size / seconds / 1e6, seconds / floor_s))
    return figures


def _fetch(offer: EpochOnOffer, settings: TorrentSettings) -> float:
    """Fetch every part, hash it as a fetch does, and return the seconds that it took."""
    (shard,) = offer.manifest.shards
    source = TorrentSource(offer, settings)

    def fetch_part(part_id: int) -> None:
        part = shard.parts[part_id]
        name = offer.layout.state_part(0, PartId(part_id, shard.num_parts))
        digest = hashlib.sha256()
        for buffer in source.stream(WantedObject(name, part.size, part.size, 0, PartId(part_id, shard.num_parts)), 0, Cancellation()):
            digest.update(buffer)
        assert digest.hexdigest() == part.sha256, name

    try:
        began_s = time.perf_counter()
        with ThreadPoolExecutor(PARTS_AT_ONCE_MAX) as executor:
            list(executor.map(fetch_part, range(shard.num_parts)))
        return time.perf_counter() - began_s
    finally:
        source.close()


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        hashlib.sha256(data).digest()
        (target / path.name).write_bytes(data)


def _reader(bucket: Path) -> Callable[[str, int], bytes]:
    return lambda name, bytes_max: (bucket / name).read_bytes()


@contextmanager
def _statecast(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from jobs.cli import main; main()", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=START_TIMEOUT_S)


def _wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        document = json.loads(line)
        if document.get("event") == event:
            assert isinstance(document, dict)
            return document
    raise AssertionError(f"the process ended without the event {event}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with benchmark_folder(None) as folder:
        figures = measure(options.megabytes, folder)
    if options.json:
        print(json.dumps({"megabytes": options.megabytes, "figures": [asdict(figure) for figure in figures]}))
        return
    table = Table(title=f"{options.megabytes} MB in parts of {PART_BYTES // 1_000_000} MB, on loopback", title_justify="left")
    table.add_column("way")
    for heading in ("seconds", "MB/s", "times the floor"):
        table.add_column(heading, justify="right")
    for figure in figures:
        table.add_row(figure.way, f"{figure.seconds:.2f}", f"{figure.mb_per_s:.0f}", f"{figure.times_floor:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
