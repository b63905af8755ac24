"""Torrents from piece hashes alone: the same bytes that libtorrent makes of the files, and real transfers."""

from __future__ import annotations

import functools
import http.server
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pipelines.bittorrent.torrents import CREATED_BY, TorrentFile, build_torrent
from schemas.errors import InvalidInputError
from schemas.ids import PartId
from schemas.published.object_layout import part_file_name, shard_folder_name
from schemas.published.torrent import LEAF_BYTES, PartPieces, piece_hashes

lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")

PIECE = 2 * LEAF_BYTES
TRANSFER_TIMEOUT_S = 300
NAME = shard_folder_name(3)

SIZES = [
    [1],
    [LEAF_BYTES - 1],
    [LEAF_BYTES],
    [LEAF_BYTES + 1],
    [PIECE - 1],
    [PIECE],
    [PIECE + 1],
    [3 * PIECE],
    [33 * LEAF_BYTES],
    [PIECE, PIECE],
    [1, PIECE],
    [PIECE, 1],
    [0, 5, 0],
    [5, 0],
    [1, LEAF_BYTES, 40_000],
    [200_000, LEAF_BYTES - 1, 3 * PIECE, PIECE + 100, 7 * PIECE - 16_383],
]
"""Sizes of the files of a torrent: around leaves and pieces, odd and even numbers of both, empty ones, one and several."""

Files = list[tuple[str, int, PartPieces]]


def _write_files(folder: Path, sizes: list[int], seed: int = 0) -> Files:
    """Write random files under a shard's name, and hash each alone."""
    random = Random(seed)
    (folder / NAME).mkdir(parents=True)
    files = []
    for idx, size in enumerate(sizes):
        data = random.randbytes(size)
        name = part_file_name(PartId(idx, len(sizes)))
        (folder / NAME / name).write_bytes(data)
        files.append((name, size, piece_hashes(data, PIECE)))
    return files


def _info_dictionary(torrent: TorrentFile) -> Any:
    return lt.bdecode(torrent.data)[b"info"]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("extras", [0, 1, 2])
def test_libtorrent_makes_the_same_torrent_of_the_files(tmp_path: Path, sizes: list[int], extras: int) -> None:
    """Byte for byte, info hashes of both versions included, with none, one and two web seeds and trackers."""
    files = _write_files(tmp_path, sizes)
    web_seeds = [f"http://host/{number}/" for number in range(extras)]
    trackers = [f"http://host:{number}/announce" for number in range(extras)]
    creation = lt.create_torrent(lt.list_files(str(tmp_path / NAME)), PIECE, 0)
    creation.set_creation_date(0)
    creation.set_creator(CREATED_BY)
    for tier, (web_seed, tracker) in enumerate(zip(web_seeds, trackers, strict=True)):
        creation.add_url_seed(web_seed)
        creation.add_tracker(tracker, tier)
    lt.set_piece_hashes(creation, str(tmp_path))
    expected = lt.bencode(creation.generate())

    torrent = build_torrent(NAME, files, PIECE, web_seeds, trackers)
    assert torrent.data == expected
    hashes = lt.torrent_info(lt.bdecode(expected)).info_hashes()
    assert (torrent.info_hash_v1, torrent.info_hash_v2) == (hashes.v1.to_bytes(), hashes.v2.to_bytes())


def test_the_info_dictionary_depends_on_the_objects_alone(tmp_path: Path) -> None:
    """Web seeds and trackers change the file and not the hashes; other bytes change both hashes."""
    files = _write_files(tmp_path / "a", [PIECE, 100])
    plain = build_torrent(NAME, files, PIECE)
    seeded = build_torrent(NAME, files, PIECE, ["https://host/x/"], ["udp://host:1"])
    assert plain.data != seeded.data
    assert _info_dictionary(plain) == _info_dictionary(seeded)
    assert (plain.info_hash_v1, plain.info_hash_v2) == (seeded.info_hash_v1, seeded.info_hash_v2)
    other = build_torrent(NAME, _write_files(tmp_path / "b", [PIECE, 100], seed=1), PIECE)
    assert plain.info_hash_v1 != other.info_hash_v1
    assert plain.info_hash_v2 != other.info_hash_v2


def test_files_are_in_the_order_of_part_ids() -> None:
    """Part names sort as their numbers do, so version 1's list and version 2's tree agree; another order is our own mistake."""
    names = [part_file_name(PartId(idx, 1200)) for idx in range(1200)]
    assert names == sorted(names)
    files = [(name, 1, piece_hashes(b"x", PIECE)) for name in names[:3]]
    with pytest.raises(AssertionError):
        build_torrent(NAME, files[::-1], PIECE)
    with pytest.raises(AssertionError):
        build_torrent(NAME, [(names[0], 1, piece_hashes(b"x", LEAF_BYTES))], PIECE)
    with pytest.raises(AssertionError):
        build_torrent(NAME, [(names[0], 0, piece_hashes(b"", PIECE))], PIECE)


@pytest.mark.parametrize("url", ["https://host/x", "https://host/?sig=1/", "ftp://host/", "https://host/#/"])
def test_a_web_seed_is_a_plain_folder(tmp_path: Path, url: str) -> None:
    """Clients append the path to the URL as it is."""
    with pytest.raises(InvalidInputError, match="web seed"):
        build_torrent(NAME, _write_files(tmp_path, [1]), PIECE, [url])


def test_without_libtorrent_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the line that installs what is missing."""
    monkeypatch.setitem(sys.modules, "libtorrent", None)
    with pytest.raises(InvalidInputError, match=r"statecast\[p2p\]"):
        build_torrent(NAME, _write_files(tmp_path, [1]), PIECE)


@contextmanager
def _session() -> Iterator[Any]:
    """A client that talks to loopback alone."""
    session = lt.session(
        {
            "listen_interfaces": "127.0.0.1:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "allow_multiple_connections_per_ip": True,
            "alert_mask": lt.alert.category_t.error_notification
            | lt.alert.category_t.status_notification
            | lt.alert.category_t.storage_notification,
        }
    )
    try:
        yield session
    finally:
        session.pause()
        del session


def _add(session: Any, torrent: TorrentFile, folder: Path, *, seed: bool) -> Any:
    parameters = lt.load_torrent_buffer(torrent.data)
    parameters.save_path = str(folder)
    if not seed:
        folder.mkdir()
    return session.add_torrent(parameters)


def _wait_until_seeding(session: Any, handle: Any) -> None:
    """Wait until all pieces have been checked, then until they are on disk: a client counts them before."""
    deadline = time.monotonic() + TRANSFER_TIMEOUT_S
    while not handle.status().is_seeding:
        assert time.monotonic() < deadline, (
            str(handle.status().state),
            handle.status().progress,
            [str(alert) for alert in session.pop_alerts()],
        )
        session.wait_for_alert(100)
        session.pop_alerts()
    handle.flush_cache()
    while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
        assert time.monotonic() < deadline
        session.wait_for_alert(100)


def _same_files(left: Path, right: Path, files: Files) -> bool:
    return all((left / NAME / name).read_bytes() == (right / NAME / name).read_bytes() for name, _, _ in files)


def test_a_peer_gets_every_byte_from_another(tmp_path: Path) -> None:
    """A client checks the files against our hashes and seeds; another one downloads them and checks each piece again."""
    files = _write_files(tmp_path / "seed", [200_000, LEAF_BYTES - 1, 3 * PIECE, PIECE + 100, 7 * PIECE - 16_383])
    torrent = build_torrent(NAME, files, PIECE)
    with _session() as seeding, _session() as leeching:
        seed = _add(seeding, torrent, tmp_path / "seed", seed=True)
        _wait_until_seeding(seeding, seed)
        leech = _add(leeching, torrent, tmp_path / "leech", seed=False)
        leech.connect_peer(("127.0.0.1", seeding.listen_port()))
        _wait_until_seeding(leeching, leech)
        assert _same_files(tmp_path / "seed", tmp_path / "leech", files)


def test_a_client_notices_a_changed_file(tmp_path: Path) -> None:
    """One flipped byte, and the client that checks its files lacks that piece and no other."""
    files = _write_files(tmp_path / "seed", [3 * PIECE, 100])
    torrent = build_torrent(NAME, files, PIECE)
    changed = tmp_path / "seed" / NAME / files[0][0]
    data = bytearray(changed.read_bytes())
    data[PIECE + 5] ^= 1
    changed.write_bytes(data)
    with _session() as session:
        handle = _add(session, torrent, tmp_path / "seed", seed=True)
        deadline = time.monotonic() + TRANSFER_TIMEOUT_S
        while not any(isinstance(alert, lt.torrent_checked_alert) for alert in session.pop_alerts()):
            assert time.monotonic() < deadline
            session.wait_for_alert(100)
        assert list(handle.status().pieces) == [True, False, True, True]


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, byte ranges included, as object stores do."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        start, stop = self.headers["Range"].removeprefix("bytes=").split("-")
        body = data[int(start) : int(stop) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_a_web_seed_serves_a_torrent_without_peers(tmp_path: Path) -> None:
    """The bucket over HTTP is enough, whatever the padding: the web seed is the epoch's folder."""
    epoch_folder = tmp_path / "chain_id=c" / "epoch_height=1" / "epoch_id=x"
    files = _write_files(epoch_folder, [200_000, PIECE - 100, PIECE - 16_383, 2 * PIECE])
    handler = functools.partial(_QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/chain_id=c/epoch_height=1/epoch_id=x/"
            torrent = build_torrent(NAME, files, PIECE, [url])
            with _session() as session:
                handle = _add(session, torrent, tmp_path / "leech", seed=False)
                _wait_until_seeding(session, handle)
                assert _same_files(epoch_folder, tmp_path / "leech", files)
        finally:
            server.shutdown()
            thread.join()
