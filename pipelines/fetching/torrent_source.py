"""A source over BitTorrent: the torrents that the manifest names by both info hashes, from named peers, trackers and web seeds.

Only the pieces of parts that are being asked for are wanted from the swarm. A piece is handed out when it has been read back from the
disk and is what the torrent says: libtorrent counts pieces before they are written. The torrent file comes from the other sources, or
where none has it from the peers, as a client with a magnet link gets it; either way its info hashes must be the manifest's.

Downloaded pieces stay in the scratch folder until `close`, since other peers may be given them meanwhile.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pipelines.bittorrent.library import import_libtorrent
from pipelines.bittorrent.magnet import MagnetLink
from pipelines.bittorrent.published_torrent import TORRENT_BYTES_MAX, PublishedTorrent, named_torrent, read_torrent
from pipelines.bittorrent.session import SessionSettings, close_session, open_session
from pipelines.fetching.source import BUFFER_BYTES_MAX, SOURCE_TIMEOUT_S, Buffer, Cancellation, EpochOnOffer, SourceTraits, WantedObject
from pipelines.fetching.torrent_download import Download
from schemas.address import Address
from schemas.errors import FetchError, InvalidInputError, ManifestError, ObjectNotFoundError, StoreError, TransientStoreError
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard

PARTS_AT_ONCE_MAX: Final = 8
"""Parts that the swarm is asked for at once: enough pieces for many peers, few enough that parts get finished."""

TICK_S: Final = 0.25
"""Longest that a waiting transfer sleeps before it looks again."""

RECONNECT_INTERVAL_S: Final = 5.0
"""Named peers are called again this often."""

_SOURCE_ID = "torrent"


@dataclass(frozen=True, slots=True)
class TorrentSettings:
    """Peers, trackers and limits of a torrent source."""

    peers: tuple[Address, ...] = ()
    trackers: tuple[str, ...] = ()
    """Besides those of the manifest."""
    web_seeds: tuple[str, ...] = ()
    """URLs of the epoch's folder, ending in a slash, besides those of the manifest."""
    use_published: bool = True
    """Also ask the trackers and web seeds that the manifest names."""
    session: SessionSettings = field(default_factory=SessionSettings)
    timeout_s: float = SOURCE_TIMEOUT_S
    """Longest wait for the torrent, or for anything of a piece."""


def magnet_peers(link: MagnetLink, manifest: Manifest) -> tuple[Address, ...]:
    """Return the peers that a magnet link names, once it is the link of a published shard.

    Raises:
        InvalidInputError: its info hashes are of no torrent of the manifest.
    """
    for shard in manifest.shards:
        torrent = shard.torrent
        if torrent is not None and link.info_hash_v1 in (None, torrent.info_hash_v1) and link.info_hash_v2 in (None, torrent.info_hash_v2):
            return link.peers
    raise InvalidInputError(
        problem="the magnet link is of no torrent of this epoch",
        where=f"{link.info_hash_v1 or link.info_hash_v2}",
        remedy="Check the epoch.",
    )


class TorrentSource:
    """See `pipelines.fetching.source.Source`."""

    def __init__(self, offer: EpochOnOffer, settings: TorrentSettings) -> None:
        """Open a session; no peer is contacted before the first part is asked for.

        Raises:
            InvalidInputError: libtorrent is not installed, or the address can't be listened on.
        """
        self._offer = offer
        self._settings = settings
        self._lt = import_libtorrent()
        self._session: Any = open_session(replace(settings.session, trackers=bool(self._trackers())))
        self._downloads: dict[int, Download] = {}
        self._changed = threading.Condition()
        """Guards downloads; notified whenever the library said something."""
        self._opening = threading.Lock()
        """Held while a torrent file is read from another source, which may take its time."""
        self._closed = False
        _empty(offer.scratch)
        self._pump = threading.Thread(target=self._run, name="torrent-alerts", daemon=True)
        self._pump.start()

    @property
    def source_id(self) -> str:
        """``torrent``."""
        return _SOURCE_ID

    @property
    def traits(self) -> SourceTraits:
        """State parts alone, from any byte."""
        return SourceTraits(documents=False, ranges=True, connections_max=PARTS_AT_ONCE_MAX)

    def stream(self, wanted: WantedObject, start: int, cancelled: Cancellation) -> Iterator[Buffer]:
        """See `Source.stream`; an empty buffer comes when the swarm brought bytes, but none that are next."""
        shard = self._shard_of(wanted)
        assert wanted.part_id is not None
        part_id = wanted.part_id.idx
        download = self._download(shard)
        torrent = None
        for torrent in self._wait_for_torrent(download, cancelled):
            if torrent is None:
                yield b""
        if torrent is None:
            return
        file = torrent.files[part_id]
        pieces = range(file.first_piece + start // torrent.piece_length, file.first_piece + file.num_pieces)
        with download.wanting(pieces):
            for piece in pieces:
                data: bytes | None = None
                for data in self._wait_for_piece(download, torrent, part_id, piece, cancelled):
                    if data is None:
                        yield b""
                if data is None:
                    return
                piece_start, _ = torrent.piece_bytes(part_id, piece)
                view = memoryview(data)[max(0, start - piece_start) :]
                for offset in range(0, view.nbytes, BUFFER_BYTES_MAX):
                    yield view[offset : offset + BUFFER_BYTES_MAX]

    def close(self) -> None:
        """See `Source.close`; leaves the swarm and empties the scratch folder."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._pump.join()
        close_session(self._session)
        self._downloads.clear()
        # Its destructor waits until the library has let go of every file.
        self._session = None
        _empty(self._offer.scratch)

    def _shard_of(self, wanted: WantedObject) -> ManifestShard:
        """Return the shard of a part that is in a torrent.

        Raises:
            ObjectNotFoundError: it is none.
        """
        manifest = self._offer.manifest
        shard = None if wanted.shard_id is None or wanted.part_id is None else manifest.shard(wanted.shard_id)
        if shard is None or wanted.part_id is None or shard.torrent is None or wanted.part_id.total != shard.num_parts:
            raise ObjectNotFoundError(problem="it is in no torrent", where=wanted.name)
        if all(part.part_id != wanted.part_id.idx for part in shard.parts):
            raise ObjectNotFoundError(problem="it is in no torrent", where=wanted.name)
        return shard

    def _download(self, shard: ManifestShard) -> Download:
        """Return a shard's download, begun by the first caller.

        Raises:
            TransientStoreError: this source was closed.
        """
        with self._opening:
            with self._changed:
                self._check_open()
                found = self._downloads.get(shard.shard_id)
            if found is not None:
                return found
            where = f"{_SOURCE_ID} of shard {shard.shard_id}"
            torrent, refusal = self._read_torrent(shard, where)
            download = Download(self._lt, shard, where, torrent, refusal)
            with self._changed:
                self._check_open()
                download.join(self._session, self._offer.scratch, self._web_seeds(), self._trackers())
                download.call(self._settings.peers)
                self._downloads[shard.shard_id] = download
            return download

    def _read_torrent(self, shard: ManifestShard, where: str) -> tuple[PublishedTorrent | None, str]:
        """Return the torrent file that another source has, or why there is none: peers may have it then."""
        named_torrent(shard, where)
        try:
            data = self._offer.read_torrent_file(self._offer.layout.torrent(shard.shard_id), TORRENT_BYTES_MAX)
            return read_torrent(data, shard, where), ""
        except (FetchError, StoreError, ManifestError) as error:
            return None, error.problem

    def _web_seeds(self) -> Sequence[str]:
        return (*self._settings.web_seeds, *(self._offer.web_seeds if self._settings.use_published else ()))

    def _trackers(self) -> Sequence[str]:
        return (*self._settings.trackers, *(self._offer.trackers if self._settings.use_published else ()))

    def _wait_for_torrent(self, download: Download, cancelled: Cancellation) -> Iterator[PublishedTorrent | None]:
        """Yield None while peers are asked for the torrent, then the torrent; nothing more after a cancellation."""
        deadline = time.monotonic() + self._settings.timeout_s
        while not cancelled.is_cancelled:
            with self._changed:
                self._check_open()
                download.check()
                if download.torrent is None:
                    self._changed.wait(TICK_S)
                torrent = download.torrent
            yield torrent
            if torrent is not None:
                return
            if time.monotonic() > deadline:
                raise TransientStoreError(
                    problem=f"no other source had the torrent file ({download.refusal}), and no peer sent it", where=download.where
                )

    def _wait_for_piece(
        self, download: Download, torrent: PublishedTorrent, part_id: int, piece: int, cancelled: Cancellation
    ) -> Iterator[bytes | None]:
        """Yield None whenever the swarm brought some bytes, then the piece; nothing more after a cancellation."""
        received, deadline = download.received, time.monotonic() + self._settings.timeout_s
        while not cancelled.is_cancelled:
            with self._changed:
                self._check_open()
                download.check()
                on_disk = piece in download.on_disk
                if not on_disk:
                    self._changed.wait(TICK_S)
            if on_disk:
                data = download.read(self._offer.scratch, torrent, part_id, piece)
                if data is not None:
                    yield data
                    return
            if download.received != received:
                received, deadline = download.received, time.monotonic() + self._settings.timeout_s
                yield None
            elif time.monotonic() > deadline:
                raise TransientStoreError(
                    problem=f"no peer and no web seed sent anything for {self._settings.timeout_s:g} s", where=download.where
                )

    def _check_open(self) -> None:
        if self._closed:
            raise TransientStoreError(problem="the source was closed", where=_SOURCE_ID)

    def _run(self) -> None:
        """Read the library's alerts, and call named peers again, until the source is closed."""
        called_at_s = time.monotonic()
        while True:
            self._session.wait_for_alert(round(TICK_S * 1000))
            alerts = self._session.pop_alerts()
            with self._changed:
                if self._closed:
                    return
                call = time.monotonic() - called_at_s > RECONNECT_INTERVAL_S
                if call:
                    called_at_s = time.monotonic()
                for download in self._downloads.values():
                    download.take(alerts)
                    if call:
                        download.call(self._settings.peers)
                self._changed.notify_all()


def _empty(folder: Path) -> None:
    """Remove what lies in a folder; what can't be removed is left."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
