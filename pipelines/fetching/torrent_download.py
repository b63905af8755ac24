"""One shard's torrent while parts of it are downloaded: which pieces are wanted, which are on the disk, what went wrong.

Not thread-safe but where it says so: `pipelines.fetching.torrent_source` holds its lock.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from pipelines.bittorrent.published_torrent import PublishedTorrent, check_torrent, named_torrent
from pipelines.stores.regular_file import open_regular
from schemas.address import Address
from schemas.errors import IntegrityError, ManifestError, StatecastError, StoreError, StoreFullError
from schemas.ids import PartId
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import part_file_name, shard_folder_name

READS_MAX: Final = 8
"""Times that a piece is read and found not to be on the disk yet, although the library said so, before that is an error."""

LIES_MAX: Final = 100
"""Times that pieces of peers may stop a torrent, and it goes on; an honest one sends pieces between them."""

_INCONSISTENT_HASHES: Final = 217
"""Source: libtorrent 2.1, error_code.hpp (`torrent_inconsistent_hashes`)."""

_WANTED, _UNWANTED = 4, 0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Download:
    """A torrent in a session."""

    def __init__(self, lt: Any, shard: ManifestShard, where: str, torrent: PublishedTorrent | None, refusal: str) -> None:
        self.where = where
        self.torrent = torrent
        """None until peers have sent it."""
        self.refusal = refusal
        """Why no other source had the torrent file."""
        self.received = 0
        """Bytes of parts that came in so far."""
        self.on_disk: set[int] = set()
        """Pieces that the library says it has written."""
        self._lt = lt
        self._shard = shard
        self._handle: Any = None
        self._wants: Counter[int] = Counter()
        self._wants_lock = Lock()
        self._finished: set[int] = set()
        self._flushing: set[int] | None = None
        self._failed_reads: Counter[int] = Counter()
        self._lies_left = LIES_MAX
        self._error: StatecastError | None = None

    def join(self, session: Any, folder: Path, web_seeds: Sequence[str], trackers: Sequence[str]) -> None:
        """Enter the swarm, wanting nothing yet."""
        lt = self._lt
        if self.torrent is not None:
            parameters = self.torrent.parameters()
            parameters.piece_priorities = [_UNWANTED] * self.torrent.num_pieces
        else:
            parameters = lt.add_torrent_params()
            named = named_torrent(self._shard, self.where)
            parameters.info_hashes = lt.info_hash_t(
                lt.sha1_hash(bytes.fromhex(named.info_hash_v1)), lt.sha256_hash(bytes.fromhex(named.info_hash_v2))
            )
            # Nothing is downloaded before the parts that are wanted can be named.
            parameters.flags |= lt.torrent_flags.upload_mode
        parameters.save_path = str(folder)
        parameters.url_seeds = list(web_seeds)
        parameters.trackers = list(trackers)
        parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        self._handle = session.add_torrent(parameters)

    def call(self, peers: Sequence[Address]) -> None:
        """Connect to peers that are not connected."""
        for peer in peers:
            self._handle.connect_peer((peer.host, peer.port))

    def check(self) -> None:
        """Raise what went wrong with the whole torrent, if anything did."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def wanting(self, pieces: Sequence[int]) -> Iterator[None]:
        """Want pieces for a while. Safe in any thread."""
        self._count_wants(pieces, 1)
        try:
            yield
        finally:
            self._count_wants(pieces, -1)

    def take(self, alerts: Sequence[Any]) -> None:
        """Take in what the library says."""
        lt = self._lt
        for alert in alerts:
            if getattr(alert, "handle", None) != self._handle:
                continue
            if isinstance(alert, lt.piece_finished_alert):
                self._finished.add(alert.piece_index)
            elif isinstance(alert, lt.cache_flushed_alert):
                self.on_disk |= self._flushing or set()
                self._flushing = None
            elif isinstance(alert, lt.metadata_received_alert):
                self._take_metadata()
            elif isinstance(alert, lt.torrent_error_alert) and _is_of_peers(alert.error) and self._lies_left > 0:
                # The library stops the torrent. The peer that sent it is found out by itself; the honest ones go on.
                self._lies_left -= 1
                self._handle.clear_error()
                self._handle.resume()
            elif isinstance(alert, (lt.file_error_alert, lt.torrent_error_alert)):
                self._error = _disk_error(alert.error, self.where)
        if self._flushing is None and self._finished:
            self._flushing, self._finished = self._finished, set()
            self._handle.flush_cache()
        self.received = self._handle.status(0).total_payload_download

    def read(self, folder: Path, torrent: PublishedTorrent, part_id: int, piece: int) -> bytes | None:
        """Return a piece's bytes from the disk; None when they are not all there yet. Safe in one thread a piece.

        Raises:
            StoreError: the disk gave other bytes again and again.
        """
        start, stop = torrent.piece_bytes(part_id, piece)
        path = folder / shard_folder_name(torrent.shard_id) / part_file_name(PartId(part_id, self._shard.num_parts))
        try:
            with open_regular(path) as file:
                file.seek(start)
                data = file.read(stop - start)
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise StoreError(problem=f"the scratch folder can't be read: {error.strerror}", where=str(path)) from error
        if len(data) == stop - start and torrent.is_piece(piece, data):
            return data
        self._failed_reads[piece] += 1
        if self._failed_reads[piece] > READS_MAX:
            raise StoreError(problem="the disk does not give back what the library wrote", where=str(path), remedy="Check the disk.")
        self.on_disk.discard(piece)
        self._finished.add(piece)
        return None

    def _count_wants(self, pieces: Sequence[int], change: int) -> None:
        with self._wants_lock:
            changed = []
            for piece in pieces:
                before = self._wants[piece] > 0
                self._wants[piece] += change
                if before != (self._wants[piece] > 0):
                    changed.append((piece, _UNWANTED if before else _WANTED))
            # The binding takes the whole change as one call, so that the picker is rebuilt once.
            self._handle.prioritize_pieces(changed)

    def _take_metadata(self) -> None:
        try:
            self.torrent = check_torrent(self._handle.torrent_file(), self._shard, f"{self.where}, sent by peers")
        except ManifestError as error:
            # Peers can't send another info dictionary than the hashed one: it is the manifest that contradicts itself.
            self._error = IntegrityError(problem=error.problem, where=error.where, remedy=error.remedy)
            return
        self._handle.prioritize_pieces([_UNWANTED] * self.torrent.num_pieces)
        self._handle.unset_flags(self._lt.torrent_flags.upload_mode)


def _is_of_peers(error: Any) -> bool:
    """Tell whether an error is of what peers sent: without a torrent file its hashes come from them as well, and a wrong piece contradicts them."""
    return bool(error.value() == _INCONSISTENT_HASHES and error.category().name() == "libtorrent")


def _disk_error(error: Any, where: str) -> StoreError:
    if error.value() in _FULL:
        return StoreFullError(problem=f"the scratch folder is full: {error.message()}", where=where, remedy="Free space, then run again.")
    return StoreError(problem=f"the torrent stopped: {error.message()}", where=where)
