"""The BitTorrent side of a seeder: verified shards in a session that only gives.

Torrents are entered as complete, since their parts were verified by digest. The library hashes each piece once more when it is first
asked for; a piece that has changed on the disk meanwhile is never sent, and is reported as damage. What was checked and how much was
given is kept as resume data.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipelines.bittorrent.library import import_libtorrent
from pipelines.bittorrent.published_torrent import PublishedTorrent
from pipelines.bittorrent.session import SessionSettings, close_session, open_session
from pipelines.seeding.data_folder import DataFolder
from pipelines.seeding.status import ShardKey
from pipelines.stores.regular_file import read_regular
from schemas.address import Address
from schemas.errors import StoreError

RESUME_INTERVAL_S: Final = 60.0
"""Resume data is saved this often; what a killed process loses of it are counts and a second hashing of pieces."""

RESUME_TIMEOUT_S: Final = 10.0
"""How long a stopping seeder waits for resume data."""

RESUME_BYTES_MAX: Final = 64 << 20
"""Largest resume data that is read: a few bits a piece."""

CALL_INTERVAL_S: Final = 5.0
"""Named peers are called again this often."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a shard's torrent does."""

    peers: int
    upload_bytes_per_s: int
    bytes_uploaded: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A shard that can't be seeded as it lies on the disk; it was taken out of the session."""

    key: ShardKey
    problem: str


@dataclass(slots=True)
class _Seeded:
    torrent: PublishedTorrent
    folder: Path
    trackers: tuple[str, ...]
    handle: Any = None
    """None while another epoch's shard with the very same parts is in the session: a session has a torrent once."""

    @property
    def resume_name(self) -> str:
        return f"resume/{self.torrent.info_hash_v1}.resume"


class Swarm:
    """A session and the shards in it. `pump` belongs to one thread; the other methods may be called from another one."""

    def __init__(self, settings: SessionSettings, data: DataFolder, peers: Sequence[Address], trackers: Sequence[str]) -> None:
        """Open the session.

        Raises:
            InvalidInputError: libtorrent is not installed, or the address can't be listened on.
        """
        self._lt = import_libtorrent()
        self._session = open_session(settings)
        self.listen_port = int(self._session.listen_port())
        """The port that peers call."""
        self._data = data
        self._peers = tuple(peers)
        self._trackers = tuple(trackers)
        self._seeded: dict[ShardKey, _Seeded] = {}
        self._saved_at_s = self._called_at_s = time.monotonic()
        self.pieces_refused = 0
        """Pieces whose bytes on the disk turned out wrong."""

    def add(self, key: ShardKey, torrent: PublishedTorrent, folder: Path, trackers: Sequence[str]) -> None:
        """Seed a shard whose parts were verified; ``folder`` is the epoch's."""
        seeded = _Seeded(torrent, folder, tuple(dict.fromkeys([*trackers, *self._trackers])))
        if not any(other.handle is not None for other in self._same_as(torrent)):
            self._enter(seeded)
        self._seeded[key] = seeded

    def remove(self, key: ShardKey, *, forget: bool) -> None:
        """Seed a shard no longer; with ``forget`` its resume data goes too."""
        seeded = self._seeded.pop(key, None)
        if seeded is None:
            return
        if forget:
            self._data.own(seeded.resume_name).unlink(missing_ok=True)
        if seeded.handle is not None:
            self._session.remove_torrent(seeded.handle)
            for successor in self._same_as(seeded.torrent)[:1]:
                self._enter(successor)

    def _same_as(self, torrent: PublishedTorrent) -> list[_Seeded]:
        return [seeded for seeded in list(self._seeded.values()) if seeded.torrent.info_hash_v1 == torrent.info_hash_v1]

    def _enter(self, seeded: _Seeded) -> None:
        lt = self._lt
        parameters = seeded.torrent.parameters()
        self._resume(parameters, seeded)
        parameters.save_path = str(seeded.folder)
        parameters.trackers = list(seeded.trackers)
        parameters.flags |= lt.torrent_flags.seed_mode | lt.torrent_flags.upload_mode
        parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        seeded.handle = self._session.add_torrent(parameters)
        self._call(seeded.handle)

    def traffic(self, key: ShardKey) -> Traffic | None:
        """Return what a shard's torrent does; None when it is not seeded."""
        seeded = self._seeded.get(key)
        if seeded is None:
            return None
        if seeded.handle is None:
            return Traffic(0, 0, 0)
        status = seeded.handle.status(0)
        return Traffic(status.num_peers, status.upload_payload_rate, status.all_time_upload)

    def pump(self, timeout_s: float) -> list[Damage]:
        """Wait for the library to say something; return the shards that turned out damaged."""
        self._session.wait_for_alert(round(timeout_s * 1000))
        damage = self._take(self._session.pop_alerts())
        now_s = time.monotonic()
        if now_s - self._called_at_s > CALL_INTERVAL_S:
            self._called_at_s = now_s
            for handle in self._handles():
                self._call(handle)
        if now_s - self._saved_at_s > RESUME_INTERVAL_S:
            self._saved_at_s = now_s
            for handle in self._handles():
                handle.save_resume_data(self._lt.save_resume_flags_t.only_if_modified)
        return damage

    def close(self) -> None:
        """Save resume data and leave."""
        handles = self._handles()
        for handle in handles:
            handle.save_resume_data()
        waiting = len(handles)
        deadline = time.monotonic() + RESUME_TIMEOUT_S
        while waiting > 0 and time.monotonic() < deadline:
            self._session.wait_for_alert(100)
            alerts = self._session.pop_alerts()
            self._take(alerts)
            answers = (self._lt.save_resume_data_alert, self._lt.save_resume_data_failed_alert)
            waiting -= sum(isinstance(alert, answers) for alert in alerts)
        close_session(self._session)
        # Its destructor waits for what is under way.
        self._session = None

    def _handles(self) -> list[Any]:
        return [seeded.handle for seeded in list(self._seeded.values()) if seeded.handle is not None]

    def _call(self, handle: Any) -> None:
        for peer in self._peers:
            handle.connect_peer((peer.host, peer.port))

    def _resume(self, parameters: Any, seeded: _Seeded) -> None:
        """Add what was remembered of a torrent; damaged resume data counts as none."""
        lt = self._lt
        try:
            found = lt.read_resume_data(read_regular(self._data.own(seeded.resume_name), RESUME_BYTES_MAX))
        except (OSError, RuntimeError):
            return
        if found.info_hashes.v1.to_bytes().hex() != seeded.torrent.info_hash_v1:
            return
        # When each piece was hashed once, the library leaves its seed mode, and all that it has is verified.
        parameters.verified_pieces = found.verified_pieces if found.flags & lt.torrent_flags.seed_mode else found.have_pieces
        for name in ("total_uploaded", "total_downloaded", "active_time", "seeding_time", "finished_time", "added_time"):
            setattr(parameters, name, getattr(found, name))

    def _take(self, alerts: Sequence[Any]) -> list[Damage]:
        lt = self._lt
        by_handle = {seeded.handle: key for key, seeded in list(self._seeded.items()) if seeded.handle is not None}
        damaged: dict[ShardKey, str] = {}
        for alert in alerts:
            key = by_handle.get(getattr(alert, "handle", None))
            if key is None:
                continue
            if isinstance(alert, lt.save_resume_data_alert):
                with suppress(StoreError):
                    self._data.write(self._data.own(self._seeded[key].resume_name), lt.write_resume_data_buf(alert.params))
            elif isinstance(alert, lt.hash_failed_alert):
                self.pieces_refused += 1
                damaged[key] = f"piece {alert.piece_index} has other bytes on the disk than were verified"
            elif isinstance(alert, (lt.file_error_alert, lt.torrent_error_alert)):
                damaged[key] = alert.error.message()
            elif isinstance(alert, lt.state_changed_alert) and str(alert.state) in ("checking_files", "downloading"):
                # The library leaves seed mode when a piece is not what it should be, and reads everything again.
                damaged.setdefault(key, "a piece has other bytes on the disk than were verified")
        for key in damaged:
            self.remove(key, forget=True)
        return [Damage(key, problem) for key, problem in damaged.items()]
