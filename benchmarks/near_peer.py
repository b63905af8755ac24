"""The same state parts from a peer of nearcore's network and from the HTTP mirror, over loopback: rates, waits, and processor time.

    python -m benchmarks.near_peer --parts 8 --part-megabytes 5

Peer and mirror are processes of their own, asked in turn, and the askers of both are in this one: what they cost is in the seconds of
either. The floor, in the same run, reads the files in one process. The peer's limits for strangers are off. What is compared is the median of
the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import psutil
import urllib3
from rich.console import Console
from rich.table import Table

from benchmarks.folder import benchmark_folder
from benchmarks.measure import seconds_of
from benchmarks.random_epoch import publish_random_epoch
from pipelines.nearpeer.announcing import HostedEpoch
from pipelines.nearpeer.handshake import UNUSED_PORT, OwnSide
from pipelines.nearpeer.node_key import NodeKey
from pipelines.nearpeer.peer_url import PeerUrl
from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.state_client import StateClient
from pipelines.nearpeer.state_host import HostSettings, StateHost, StateObject
from pipelines.nearpeer.state_requester import StateRequester
from schemas.ids import CryptoHash
from schemas.nearcore.peer.peer_message import GenesisId
from schemas.nearcore.peer.state_response import RESPONSE_V3

ASKERS: Final = (1, 10, 100)
AT_ONCE: Final = 4
"""Parts that one asker awaits at once while rates are measured."""
START_TIMEOUT_S: Final = 60.0
_CHAIN: Final = GenesisId("benchmark", CryptoHash(bytes(32)))
_SYNC_HASH: Final = CryptoHash(b"\x01" * 32)
_LIMITS: Final = RequestLimits(under_way_max=10_000, per_s_max=1_000_000, private_addresses=True, queued_bytes_max=1 << 40)


@dataclass(frozen=True, slots=True)
class Figure:
    """What one way of serving does."""

    way: str
    parts_per_s: float
    mb_per_s: float
    cpu_s_per_gb: float
    """Of the serving process, while rates are measured."""
    asker_cpu_s_per_gb: float
    """Of the asking process, while rates are measured."""
    times_mirror: float
    """Rate of this to that of the mirror in the same round, the median of all rounds; parts are asked for a few at once."""
    wait_s: dict[int, tuple[float, float]]
    """By the number of askers of one part each: seconds from the question to the last byte, median and longest."""


@dataclass(frozen=True, slots=True)
class _Folder:
    parts: tuple[Path, ...]

    def find(self, epoch: HostedEpoch, shard_id: int, part_id: int | None) -> StateObject | None:
        """Return a part; see `HostedState`."""
        if part_id is None or part_id >= len(self.parts):
            return None
        return StateObject(self.parts[part_id], self.parts[part_id].stat().st_size, 0, RESPONSE_V3)


def measure(parts: int, part_megabytes: int, rounds: int, folder: Path) -> tuple[float, list[Figure]]:
    """Return the floor in MB a second, and both ways."""
    bucket = folder / "bucket"
    layout, _ = publish_random_epoch(bucket, [part_megabytes * 1_000_000] * parts)
    files = tuple(sorted((bucket / layout.shard_folder(0)).iterdir()))
    size = sum(file.stat().st_size for file in files)
    floor_s = seconds_of(lambda: [file.read_bytes() for _ in range(rounds) for file in files])
    with _mirror(bucket, [f"{layout.shard_folder(0)}/{file.name}" for file in files]) as mirror, _peer(files) as peer:
        ways = (mirror, peer)
        for _ in range(rounds):
            # One after the other, so that what else the machine does is in both.
            for way in ways:
                way.take_round()
        for askers in ASKERS:
            for way in ways:
                way.waits[askers] = _waits(way.ask_once(askers))
        figures = [_figure(way, mirror, size, len(files)) for way in ways]
    return rounds * size / floor_s / 1e6, figures


@dataclass(slots=True)
class _Way:
    """A way of serving that runs, and what it took so far."""

    name: str
    server: subprocess.Popen[str]
    take_all: Callable[[], None]
    """Gets all parts, a few at once."""
    ask_once: Callable[[int], list[float]]
    """Lets so many askers get a part each; returns what each waited."""
    seconds: list[float] = field(default_factory=list)
    served_cpu_s: float = 0.0
    asked_cpu_s: float = 0.0
    waits: dict[int, tuple[float, float]] = field(default_factory=dict)

    def take_round(self) -> None:
        """Get all parts once."""
        served_s, asked_s = _cpu_s(self.server), time.process_time()
        self.seconds.append(seconds_of(self.take_all))
        self.served_cpu_s += _cpu_s(self.server) - served_s
        self.asked_cpu_s += time.process_time() - asked_s


def _figure(way: _Way, mirror: _Way, size: int, parts: int) -> Figure:
    rounds = len(way.seconds)
    seconds = statistics.median(way.seconds)
    return Figure(
        way=way.name,
        parts_per_s=parts / seconds,
        mb_per_s=size / seconds / 1e6,
        cpu_s_per_gb=way.served_cpu_s / (rounds * size) * 1e9,
        asker_cpu_s_per_gb=way.asked_cpu_s / (rounds * size) * 1e9,
        times_mirror=statistics.median(other / own for own, other in zip(way.seconds, mirror.seconds, strict=True)),
        wait_s=way.waits,
    )


@contextmanager
def _mirror(bucket: Path, names: list[str]) -> Iterator[_Way]:
    limits = ("--requests-per-client", 1000, "--connections", 1000)
    with _process(
        "-c", "from jobs.cli import main; main()", "serve", bucket, "--listen", "127.0.0.1:0", "--events", "-", *limits
    ) as server:
        url = f"http://127.0.0.1:{_line(server, lambda line: line.get('event') == 'listening')['port']}"
        with (
            urllib3.PoolManager(num_pools=1, maxsize=max(ASKERS)) as pool,
            ThreadPoolExecutor(max(ASKERS)) as threads,
            ThreadPoolExecutor(AT_ONCE) as few,
        ):

            def get(name: str) -> float:
                began_s = time.perf_counter()
                answer = pool.request("GET", f"{url}/{name}")
                assert answer.status == 200 and len(answer.data) > 0, answer.status
                return time.perf_counter() - began_s

            def get_all() -> None:
                for _ in few.map(get, names):
                    pass

            get(names[0])
            yield _Way(
                "HTTP mirror",
                server,
                get_all,
                lambda askers: list(threads.map(get, [names[number % len(names)] for number in range(askers)])),
            )


@contextmanager
def _peer(files: tuple[Path, ...]) -> Iterator[_Way]:
    with _process("-m", "benchmarks.near_peer", "--serve", *files) as server, asyncio.Runner() as loop:
        url = PeerUrl.parse(_line(server, lambda line: "url" in line)["url"])

        async def connect() -> list[StateClient]:
            return [await _client(url) for _ in range(max(ASKERS))]

        clients = loop.run(connect())

        async def get(client: StateClient, part_id: int) -> float:
            began_s = time.perf_counter()
            answer = await client.ask(0, _SYNC_HASH, part_id)
            assert answer.part is not None and len(answer.part) == files[part_id].stat().st_size
            return time.perf_counter() - began_s

        async def take_all() -> None:
            free = asyncio.Semaphore(AT_ONCE)

            async def in_turn(part_id: int) -> None:
                async with free:
                    await get(clients[part_id % AT_ONCE], part_id)

            await asyncio.gather(*map(in_turn, range(len(files))))

        async def ask_once(askers: int) -> list[float]:
            return await asyncio.gather(*(get(clients[number], number % len(files)) for number in range(askers)))

        async def leave() -> None:
            for client in clients:
                await client.close()

        loop.run(get(clients[0], 0))
        try:
            yield _Way("peer of nearcore's network", server, lambda: loop.run(take_all()), lambda askers: loop.run(ask_once(askers)))
        finally:
            loop.run(leave())


async def _client(url: PeerUrl) -> StateClient:
    client = await StateClient.open(OwnSide(NodeKey.generate(), _CHAIN, UNUSED_PORT), url.peer_id, await url.resolve())
    client.requester = StateRequester(str(url), per_s=1e9, outstanding_max=1_000)
    return client


async def _serve(files: list[Path]) -> None:
    """Serve files as the parts of shard 0, until this process is ended."""
    key = NodeKey.generate()
    host = StateHost(
        [OwnSide(key, _CHAIN, UNUSED_PORT)],
        _Folder(tuple(files)),
        HostSettings(_LIMITS, handshakes_per_address_per_minute_max=1_000, neighbours_per_address_max=1_000),
        lambda *_: None,
    )
    (port,) = await host.start([("127.0.0.1", 0)])
    await host.announce(HostedEpoch(1, CryptoHash(b"\x02" * 32), _SYNC_HASH, (0,)))
    print(json.dumps({"url": f"near://{key.peer_id}@127.0.0.1:{port}"}), flush=True)
    await asyncio.Event().wait()


def _waits(seconds: list[float]) -> tuple[float, float]:
    return statistics.median(seconds), max(seconds)


def _cpu_s(process: subprocess.Popen[str]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


@contextmanager
def _process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


def _read_to_its_end(lines: IO[str]) -> None:
    with lines:
        lines.read()


def _line(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        document = json.loads(line)
        if isinstance(document, dict) and wanted(document):
            # A mirror writes a line a request, and waits where no one reads them.
            threading.Thread(target=_read_to_its_end, args=(process.stdout,), daemon=True).start()
            return document
    raise AssertionError("the process ended")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--part-megabytes", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--serve", nargs="+", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve(options.serve))
        return
    with benchmark_folder(None) as folder:
        floor, figures = measure(options.parts, options.part_megabytes, options.rounds, folder)
    if options.json:
        print(json.dumps({"floor_mb_per_s": floor, "figures": [asdict(figure) for figure in figures]}))
        return
    title = f"{options.parts} parts of {options.part_megabytes} MB, {options.rounds} times; reading the files: {floor:.0f} MB/s"
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for heading in (
        "parts/s",
        "MB/s",
        "times the mirror's rate",
        "CPU s/GB",
        "asker's CPU s/GB",
        *(f"wait of {askers}: median, longest s" for askers in ASKERS),
    ):
        table.add_column(heading, justify="right")
    for figure in figures:
        waits = (f"{median:.3f}, {longest:.3f}" for median, longest in figure.wait_s.values())
        cpu = (f"{figure.cpu_s_per_gb:.2f}", f"{figure.asker_cpu_s_per_gb:.2f}")
        row = (f"{figure.parts_per_s:.0f}", f"{figure.mb_per_s:.0f}", f"{figure.times_mirror:.2f}", *cpu, *waits)
        table.add_row(figure.way, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
