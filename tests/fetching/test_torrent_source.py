"""The torrent source against real peers: a stock client or the seeder in a process of its own, and the mirror as web seed."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.bittorrent.magnet import magnet_link, parse_magnet
from pipelines.bittorrent.session import SessionSettings
from pipelines.fetching.source import Cancellation, EpochOnOffer, WantedObject
from pipelines.fetching.torrent_source import TorrentSettings, TorrentSource, magnet_peers
from schemas.address import Address
from schemas.errors import FetchError, InvalidInputError, ObjectNotFoundError, TransientStoreError
from schemas.ids import PartId
from tests.support.hostile_peer import PEER_KINDS, hostile_peers
from tests.support.json_process import WAIT_S, JsonProcess, running_client, running_mirror
from tests.support.random_epochs import PART_SIZES, RandomEpoch, publish_random_epoch

lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")

SESSION = SessionSettings()
NUM_PARTS = len(PART_SIZES)


@pytest.fixture(scope="module")
def epoch(tmp_path_factory: pytest.TempPathFactory) -> RandomEpoch:
    """An epoch of one shard."""
    return publish_random_epoch(tmp_path_factory.mktemp("bucket"))


@pytest.fixture(scope="module")
def peer(epoch: RandomEpoch) -> Iterator[Address]:
    """A stock client that seeds the epoch's own files."""
    with seeding(epoch, epoch.folder) as address:
        yield address


@contextmanager
def seeding(epoch: RandomEpoch, folder: Path) -> Iterator[Address]:
    """Seed a shard's files with a stock client."""
    with running_client(folder, "--torrent", epoch.bucket / epoch.layout.torrent(0), "--seed") as client:
        client.event("done")
        yield address_of(client)


def address_of(client: JsonProcess) -> Address:
    """Return where a client listens."""
    return Address("127.0.0.1", client.event("listening")["port"])


def nobody_has_it(name: str, bytes_max: int) -> bytes:
    """Read a document that no source has."""
    raise FetchError(problem="no source has it", where=name)


@contextmanager
def source_over(epoch: RandomEpoch, scratch: Path, *, with_torrent_file: bool = True, **settings: Any) -> Iterator[TorrentSource]:
    """Open a source, and see that it leaves nothing behind."""
    read = (lambda name, bytes_max: (epoch.bucket / name).read_bytes()) if with_torrent_file else nobody_has_it
    offer = EpochOnOffer(epoch.layout, epoch.manifest, (0,), scratch, read)
    source = TorrentSource(offer, TorrentSettings(session=SESSION, **settings))
    try:
        yield source
    finally:
        source.close()
    assert list(scratch.iterdir()) == []


def wanted(epoch: RandomEpoch, part_id: int, num_parts: int = NUM_PARTS, shard_id: int = 0) -> WantedObject:
    """A part that is asked for."""
    part = PartId(part_id, num_parts)
    size = PART_SIZES[part_id % NUM_PARTS]
    return WantedObject(epoch.layout.state_part(shard_id, part), size, size, shard_id, part)


def read(source: TorrentSource, asked: WantedObject, start: int = 0) -> bytes:
    """Read a part to its end."""
    return b"".join(bytes(buffer) for buffer in source.stream(asked, start, Cancellation()))


def part(epoch: RandomEpoch, part_id: int) -> bytes:
    """A part as published."""
    return list(epoch.parts().values())[part_id]


@pytest.mark.parametrize("with_torrent_file", [True, False])
def test_parts_come_from_a_peer(tmp_path: Path, epoch: RandomEpoch, peer: Address, with_torrent_file: bool) -> None:
    """With the torrent file of another source, and without it, as with a magnet link: from the first byte and from later ones."""
    with source_over(epoch, tmp_path, with_torrent_file=with_torrent_file, peers=(peer,)) as source:
        for part_id in (4, 0, 1):
            assert read(source, wanted(epoch, part_id)) == part(epoch, part_id)
        for start in (1, 32_768, 100_000):
            assert read(source, wanted(epoch, 4), start) == part(epoch, 4)[start:]


@pytest.mark.slow
@pytest.mark.parametrize("with_torrent_file", [True, False])
def test_peers_that_lie_or_flood_keep_no_part_from_coming(
    tmp_path: Path, epoch: RandomEpoch, peer: Address, with_torrent_file: bool
) -> None:
    """Wrong pieces, wrong metadata, floods: the one honest peer's bytes come, in bounded memory.

    Without a torrent file a wrong piece contradicts the hashes that peers sent, which stops the library's torrent: it goes on.
    """
    hostile_kinds = (*PEER_KINDS, "wrong-pieces", "wrong-pieces")
    with (
        hostile_peers(hostile_kinds) as hostile,
        source_over(epoch, tmp_path, with_torrent_file=with_torrent_file, peers=(*hostile, peer)) as source,
    ):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for part_id in range(NUM_PARTS):
            assert _read_again(source, wanted(epoch, part_id)) == part(epoch, part_id)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def _read_again(source: TorrentSource, asked: WantedObject) -> bytes:
    """Read a part as a fetch does: again after a transient fault."""
    for attempt in range(5):
        try:
            return read(source, asked)
        except TransientStoreError:
            if attempt == 4:
                raise
    raise AssertionError("unreachable")


def test_only_what_is_asked_for_is_downloaded(tmp_path: Path, epoch: RandomEpoch, peer: Address) -> None:
    """The other parts' files are not even made, and of the part only the pieces from the start on."""
    with source_over(epoch, tmp_path, peers=(peer,)) as source:
        read(source, wanted(epoch, 3))
        assert [path.name for path in (tmp_path / "shard_id=0").iterdir()] == ["state_part_000003_of_000005"]
        assert read(source, wanted(epoch, 4), 200_000) == part(epoch, 4)[200_000:]
        written = (tmp_path / "shard_id=0" / "state_part_000004_of_000005").read_bytes()
        assert written[:100_000] == bytes(100_000)


def test_several_parts_at_once(tmp_path: Path, epoch: RandomEpoch, peer: Address) -> None:
    """Threads side by side get each its own."""
    got: dict[int, bytes] = {}
    with source_over(epoch, tmp_path, peers=(peer,)) as source:
        threads = [
            threading.Thread(target=lambda part_id=part_id: got.update({part_id: read(source, wanted(epoch, part_id))}))
            for part_id in range(NUM_PARTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert got == dict(enumerate(epoch.parts().values()))


def test_a_web_seed_is_enough(tmp_path: Path, epoch: RandomEpoch) -> None:
    """No peer at all: the mirror's URL of the epoch's folder."""
    with running_mirror(epoch.bucket) as (_, url), source_over(epoch, tmp_path, web_seeds=(f"{url}/{epoch.layout.folder}/",)) as source:
        for part_id in range(NUM_PARTS):
            assert read(source, wanted(epoch, part_id)) == part(epoch, part_id)


@pytest.mark.slow
def test_a_web_seed_that_lies_is_no_source(tmp_path: Path, epoch: RandomEpoch, peer: Address) -> None:
    """Its bytes never come out; the peer's do."""
    publish_random_epoch(tmp_path / "lies", seed=50)
    with running_mirror(tmp_path / "lies") as (_, url):
        web_seeds = (f"{url}/{epoch.layout.folder}/",)
        with source_over(epoch, tmp_path / "scratch", peers=(peer,), web_seeds=web_seeds) as source:
            for part_id in range(NUM_PARTS):
                assert read(source, wanted(epoch, part_id)) == part(epoch, part_id)


def test_another_torrent_file_is_not_used(tmp_path: Path, epoch: RandomEpoch, peer: Address) -> None:
    """A source that serves another torrent under the name is passed over: peers have the right one."""
    other = publish_random_epoch(tmp_path / "other", seed=3).torrent()
    offer = EpochOnOffer(epoch.layout, epoch.manifest, (0,), tmp_path / "scratch", lambda name, bytes_max: other)
    source = TorrentSource(offer, TorrentSettings(peers=(peer,), session=SESSION))
    try:
        assert read(source, wanted(epoch, 0)) == part(epoch, 0)
    finally:
        source.close()


def test_what_is_in_no_torrent_is_not_there(tmp_path: Path, epoch: RandomEpoch) -> None:
    """Documents, shards and parts that the manifest does not list."""
    document = WantedObject(epoch.layout.manifest, None, 1000)
    with source_over(epoch, tmp_path) as source:
        for asked in (document, wanted(epoch, 0, shard_id=1), wanted(epoch, 5, num_parts=6)):
            with pytest.raises(ObjectNotFoundError):
                read(source, asked)


@pytest.mark.parametrize("with_torrent_file", [True, False])
def test_a_silent_swarm_is_given_up(tmp_path: Path, epoch: RandomEpoch, with_torrent_file: bool) -> None:
    """No peer there: a transient error, within the time that a source has."""
    with source_over(epoch, tmp_path, with_torrent_file=with_torrent_file, timeout_s=0.5) as source, pytest.raises(TransientStoreError):
        read(source, wanted(epoch, 0))


def test_a_cancelled_transfer_ends(tmp_path: Path, epoch: RandomEpoch) -> None:
    """It comes back although nothing ever arrived."""
    cancelled = Cancellation()
    with source_over(epoch, tmp_path) as source:
        threading.Timer(0.3, cancelled.cancel).start()
        assert list(source.stream(wanted(epoch, 0), 0, cancelled)) == []


def test_a_closed_source_ends_its_transfers(tmp_path: Path, epoch: RandomEpoch) -> None:
    """With a transient error, in whatever thread they are."""
    with source_over(epoch, tmp_path) as source:
        raised: list[BaseException] = []

        def transfer() -> None:
            try:
                read(source, wanted(epoch, 0))
            except TransientStoreError as error:
                raised.append(error)

        thread = threading.Thread(target=transfer)
        thread.start()
        threading.Event().wait(0.3)
        source.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert len(raised) == 1
        with pytest.raises(TransientStoreError):
            read(source, wanted(epoch, 0))


def test_what_a_killed_run_left_is_removed(tmp_path: Path, epoch: RandomEpoch) -> None:
    """The scratch folder belongs to the source alone."""
    (tmp_path / "shard_id=0").mkdir()
    (tmp_path / "shard_id=0" / "state_part_000000_of_000005").write_bytes(b"half")
    with source_over(epoch, tmp_path):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_download_limit_holds(tmp_path: Path) -> None:
    """A source can be told how much it may take, from peers on loopback too."""
    size, rate = 3_000_000, 1_500_000
    epoch = publish_random_epoch(tmp_path / "bucket", shards={0: [size]}, piece_bytes=1 << 18)
    offer = EpochOnOffer(
        epoch.layout, epoch.manifest, (0,), tmp_path / "scratch", lambda name, bytes_max: (epoch.bucket / name).read_bytes()
    )
    with seeding(epoch, epoch.folder) as peer:
        source = TorrentSource(offer, TorrentSettings(peers=(peer,), session=replace(SESSION, download_bytes_per_s=rate)))
        try:
            asked = WantedObject(epoch.layout.state_part(0, PartId(0, 1)), size, size, 0, PartId(0, 1))
            began_s = time.monotonic()
            assert read(source, asked) == next(iter(epoch.parts().values()))
            seconds = time.monotonic() - began_s
        finally:
            source.close()
    assert size / seconds < 1.3 * rate


def test_a_magnet_link_names_peers(epoch: RandomEpoch) -> None:
    """Of a shard of this epoch, that is; another link is refused."""
    torrent = epoch.manifest.shards[0].torrent
    assert torrent is not None
    peers = (Address("127.0.0.1", 7),)
    link = parse_magnet(magnet_link(torrent.info_hash_v1, torrent.info_hash_v2, "x", peers))
    assert magnet_peers(link, epoch.manifest) == peers
    with pytest.raises(InvalidInputError, match="no torrent of this epoch"):
        magnet_peers(replace(link, info_hash_v2="00" * 32), epoch.manifest)
