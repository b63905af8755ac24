"""The seeder: looks at a bucket, brings its newest epochs here, seeds them, lets old ones go, and says how it stands.

Two threads of its own: `run` serves the BitTorrent session; the other one, which may wait long for a bucket, keeps up with it. What a
look or a shard fails with is reported and retried at the next look; seeding goes on.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipelines.bittorrent.magnet import magnet_link
from pipelines.bittorrent.published_torrent import TORRENT_BYTES_MAX, PublishedTorrent, named_torrent, read_torrent
from pipelines.bittorrent.session import SessionSettings
from pipelines.bucket.lease_keeper import EpochLease, held_epoch
from pipelines.bucket.published_deltas import deltas_in_words
from pipelines.fetching.part_rebuilding import PartRebuilder
from pipelines.nearpeer.node_key_file import read_or_make_node_key
from pipelines.nearpeer.peer_url import SCHEME, PeerUrl
from pipelines.seeding.data_folder import DataFolder
from pipelines.seeding.epoch_feed import EpochFeed, EpochToSeed
from pipelines.seeding.kept_epochs import HeldEpoch, epochs_to_drop
from pipelines.seeding.peer_service import PeerService, PeerServiceSettings
from pipelines.seeding.rebuilt_parts import PartBringing
from pipelines.seeding.shard_parts import ShardFiles
from pipelines.seeding.status import OnEvent, SeedEvent, SeedStatus, ShardKey, ShardPhase, ShardStatus
from pipelines.seeding.swarm import Damage, Swarm, Traffic
from pipelines.stores.durable_file import disk_errors
from pipelines.stores.http_client import leads_to_public
from pipelines.stores.pace import Pace
from pipelines.stores.regular_file import read_regular
from pipelines.stores.store import Store
from pipelines.trust.freshness import MEMORY_BYTES_MAX, AcceptedManifests
from pipelines.trust.policy import TrustPolicy
from schemas.address import Address
from schemas.errors import InvalidInputError, ManifestError, ObjectMismatchError, StatecastError
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout, shard_folder_name

TICK_S: Final = 0.25
"""Longest wait of the thread that serves the session."""

STOP_WAIT_S: Final = 10.0
"""How long a stop waits for downloads to end."""

EPOCHS_KEPT_MAX: Final = 256

DOWNLOADS_MAX: Final = 64

_ACCEPTED = "accepted.json"


@dataclass(frozen=True, slots=True)
class SeedSettings:
    """What a seeder keeps and how it behaves."""

    chain_id: str
    epochs: int
    trust: TrustPolicy
    session: SessionSettings | None
    """None for no BitTorrent: the epochs are then served in nearcore's network alone, and need no torrents."""
    shard_ids: tuple[int, ...] = ()
    """Empty for all."""
    local: Path | None = None
    """A folder with epochs in nearcore's layout, seeded in place where a shard is whole; never written to."""
    peers: tuple[Address, ...] = ()
    trackers: tuple[str, ...] = ()
    """Besides those of the manifests."""
    downloads: int = 4
    """Parts that are downloaded at once."""
    download_bytes_per_s: float | None = None
    """Most bytes of parts a second from the bucket; None for no limit."""
    poll_interval_s: float = 60.0
    near: PeerServiceSettings | None = None
    """How the epochs are served in nearcore's own network; None for not at all."""
    newest_alone_at_first: bool = False
    """Leave epochs alone that are older than the newest of the first look; those that come later are kept as `epochs` says."""
    rebuilder: PartRebuilder | None = None
    """Rebuilds parts out of an older epoch in the data folder and deltas, where that is fewer bytes; None for whole parts alone."""
    hold_lease: bool = True
    """Write a lease of an epoch into the bucket while parts of it are brought from there, where it can be written."""

    def __post_init__(self) -> None:
        for name, value, most in (("epochs", self.epochs, EPOCHS_KEPT_MAX), ("downloads", self.downloads, DOWNLOADS_MAX)):
            if not 1 <= value <= most:
                raise InvalidInputError(problem=f"{name} lie between 1 and {most}", where=str(value))
        if self.download_bytes_per_s is not None and not self.download_bytes_per_s > 0:
            raise InvalidInputError(problem="a rate limit must be above 0 bytes a second", where=str(self.download_bytes_per_s))
        if not self.poll_interval_s > 0:
            raise InvalidInputError(problem="the poll interval must be above 0 s", where=str(self.poll_interval_s))


class Seeder:
    """One chain's seeder over one data folder."""

    def __init__(self, store: Store, data: DataFolder, settings: SeedSettings, on_event: OnEvent) -> None:
        """Open the session; nothing is seeded before `run`.

        Raises:
            InvalidInputError: libtorrent is not installed, or the address can't be listened on.
        """
        self._store = store
        self._data = data
        self._settings = settings
        self._on_event = on_event
        session = settings.session
        self._swarm = None if session is None else Swarm(session, data, settings.peers, settings.trackers)
        self._oldest_height: int | None = None
        self._peer: PeerService | None = None
        if settings.near is not None:
            keys = [read_or_make_node_key(file) for file in near_key_files(data, len(settings.near.listen))]
            try:
                self._peer = PeerService(settings.chain_id, keys, settings.near, on_event)
            except BaseException:
                if self._swarm is not None:
                    self._swarm.close()
                raise
        self._feed = EpochFeed(store, settings.chain_id, settings.epochs, settings.trust, self._read_accepted())
        self._download_pace = None if settings.download_bytes_per_s is None else Pace(settings.download_bytes_per_s)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._epochs: dict[EpochLayout, EpochToSeed] = {}
        self._shards: dict[ShardKey, ShardStatus] = {}
        self._damaged: deque[ShardKey] = deque()
        self._polled_at: float | None = None
        self._poll_problem = ""
        self._failure: BaseException | None = None
        self._served_at_s = time.monotonic()
        self._latest_status = self._status()

    def run(self, on_status: Callable[[SeedStatus], None], *, once: bool = False) -> SeedStatus:
        """Seed until `stop`; return how it stood at the end.

        Args:
            on_status: called some times a second.
            once: return as soon as the bucket has been looked at and all that can be brought from it is here.
        """
        keeper = threading.Thread(target=self._keep_up, args=(once,), name="keep-up", daemon=True)
        keeper.start()
        try:
            while not self._stop.is_set() and (keeper.is_alive() or not once):
                for damage in self._pump():
                    self._change(damage.key, phase=ShardPhase.FAILED, problem=damage.problem, parts_complete=0, bytes_complete=0)
                    self._tell("shard_failed", damage.key, damage.problem)
                    self._damaged.append(damage.key)
                    self._forget_hosted(damage.key)
                    self._wake.set()
                self._served_at_s = time.monotonic()
                if self._failure is not None:
                    raise self._failure
                self._latest_status = self._status()
                on_status(self._latest_status)
        finally:
            self.stop()
            # A bucket that does not answer must not cost the resume data.
            keeper.join(STOP_WAIT_S)
            self._latest_status = self._status()
            if self._peer is not None:
                self._peer.close()
            if self._swarm is not None:
                self._swarm.close()
        if self._failure is not None:
            raise self._failure
        on_status(self._latest_status)
        return self._latest_status

    def _pump(self) -> list[Damage]:
        if self._swarm is not None:
            return self._swarm.pump(TICK_S)
        self._stop.wait(TICK_S)
        return []

    def stop(self) -> None:
        """Make `run` return; safe in a signal handler."""
        self._stop.set()
        self._wake.set()

    @property
    def latest_status(self) -> SeedStatus:
        """How it stood some fraction of a second ago. Safe in any thread, at any time."""
        return self._latest_status

    def near_peers(self) -> list[PeerUrl]:
        """Return this peer's names in nearcore's network, one a key."""
        return [PeerUrl.parse(f"{SCHEME}{url}") for url in self.near_urls()]

    def near_urls(self) -> list[str]:
        """Return this peer's names in nearcore's network, with the host left for the reader to fill in."""
        return [] if self._peer is None else self._peer.urls()

    def seconds_since_served(self) -> float:
        """Return how long ago the session was last served: more than a few seconds mean that this process is stuck."""
        return time.monotonic() - self._served_at_s

    def _status(self) -> SeedStatus:
        with self._lock:
            shards = sorted(self._shards.values(), key=lambda shard: (-shard.key.epoch_height, shard.key.shard_id))
        return SeedStatus(
            chain_id=self._settings.chain_id,
            listen_port=0 if self._swarm is None else self._swarm.listen_port,
            shards=tuple(shards)
            if self._swarm is None
            else tuple(_with_traffic(shard, self._swarm.traffic(shard.key)) for shard in shards),
            polled_at=self._polled_at,
            poll_problem=self._poll_problem,
            pieces_refused=0 if self._swarm is None else self._swarm.pieces_refused,
            near_peer=None if self._peer is None else self._peer.status(),
        )

    def _keep_up(self, once: bool) -> None:
        """Follow the bucket until the stop; an unexpected error is raised in `run`."""
        try:
            with ThreadPoolExecutor(self._settings.downloads, thread_name_prefix="download") as executor:
                self._take_held()
                self._bring_all(executor)
                while not self._stop.is_set():
                    self._look()
                    self._bring_all(executor)
                    if self._stop.is_set():
                        return
                    self._drop_old()
                    if once:
                        return
                    self._wake.wait(self._settings.poll_interval_s)
                    self._wake.clear()
        except BaseException as error:
            self._failure = error

    def _take_held(self) -> None:
        """Take up the epochs that an earlier process brought here, so that they are seeded before the bucket answers."""
        for layout in self._data.epochs():
            path = self._data.path(layout.manifest)
            if layout.chain_id != self._settings.chain_id:
                continue
            try:
                self._accept(self._feed.believe(layout, read_regular(path, ENVELOPE_BYTES_MAX), str(path)))
            except (StatecastError, OSError) as error:
                self._on_event(SeedEvent("manifest_refused", f"{path}: {error}", {"where": str(path), "problem": str(error)}))

    def _look(self) -> None:
        try:
            look = self._feed.look()
            if self._settings.newest_alone_at_first and self._oldest_height is None and look.epochs:
                self._oldest_height = look.epochs[0].layout.epoch_height
            for epoch in look.epochs:
                if self._oldest_height is None or epoch.layout.epoch_height >= self._oldest_height:
                    self._accept(epoch)
            self._data.write(self._data.own(_ACCEPTED), self._feed.accepted.to_bytes())
        except StatecastError as error:
            self._poll_problem = str(error)
            self._on_event(SeedEvent("poll_failed", f"the bucket can't be followed now: {error}", {"problem": str(error)}))
            return
        self._polled_at = time.time()
        self._poll_problem = "; ".join(error.problem for _, error in look.refused[:3])
        for name, refusal in look.refused:
            self._on_event(SeedEvent("manifest_refused", f"{name}: {refusal}", {"where": name, "problem": refusal.problem}))

    def _accept(self, epoch: EpochToSeed) -> None:
        """Take up an epoch, or a new revision of one."""
        known = self._epochs.get(epoch.layout)
        if known is not None and known.envelope == epoch.envelope:
            return
        path = self._data.path(epoch.layout.manifest)
        if not path.exists() or read_regular(path, ENVELOPE_BYTES_MAX) != epoch.envelope:
            self._data.write(path, epoch.envelope)
        self._epochs[epoch.layout] = epoch
        wanted = {ShardKey(epoch.layout, shard.shard_id): shard for shard in self._wanted(epoch)}
        before = {} if known is None else {shard.shard_id: shard for shard in known.manifest.shards}
        with self._lock:
            stale = [
                key for key in self._shards if key.layout == epoch.layout and (key not in wanted or before.get(key.shard_id) != wanted[key])
            ]
            for key in stale:
                del self._shards[key]
            for key, shard in wanted.items():
                size = sum(part.size for part in shard.parts)
                self._shards.setdefault(key, ShardStatus(key, ShardPhase.WAITING, len(shard.parts), size))
        for key in stale:
            self._remove(key, forget=False)
        manifest = epoch.manifest
        facts = {"epoch_height": manifest.epoch_height, "epoch_id": str(manifest.epoch_id), "revision": manifest.revision}
        self._on_event(
            SeedEvent("epoch_found", f"epoch {manifest.epoch_height}, revision {manifest.revision}, {len(wanted)} shards", facts)
        )

    def _wanted(self, epoch: EpochToSeed) -> list[ManifestShard]:
        """Return the shards of an epoch that are seeded: an empty shard has no torrent, and needs none."""
        chosen = self._settings.shard_ids
        return [shard for shard in epoch.manifest.shards if shard.num_parts and (not chosen or shard.shard_id in chosen)]

    def _bring_all(self, executor: ThreadPoolExecutor) -> None:
        """Seed whatever is wanted and is not seeded yet: first what is here already, then the newest epoch."""
        while self._damaged:
            key = self._damaged.popleft()
            with suppress(KeyError):
                self._parts(key).forget()
        with self._lock:
            waiting = [key for key, shard in self._shards.items() if shard.phase is not ShardPhase.SEEDING]
        # What is here needs no bucket, which may be away.
        for key in sorted(waiting, key=lambda key: (not self._parts(key).are_here(), -key.epoch_height, key.shard_id)):
            if self._stop.is_set():
                return
            try:
                self._bring(key, executor)
            except StatecastError as error:
                if not self._stop.is_set():
                    self._change(key, phase=ShardPhase.FAILED, problem=str(error))
                    self._tell("shard_failed", key, str(error))

    def _bring(self, key: ShardKey, executor: ThreadPoolExecutor) -> None:
        epoch = self._epochs[key.layout]
        shard = self._shard(key)
        torrent = None if self._swarm is None else self._torrent(key, shard)
        self._change(key, phase=ShardPhase.VERIFYING, problem="", parts_complete=0, bytes_complete=0)
        parts = self._parts(key)
        folder = parts.find_in_place()
        if folder is None:
            self._change(key, phase=ShardPhase.DOWNLOADING)
            leases = [EpochLease(self._store, key.layout, "seed")] if self._settings.hold_lease else []
            with held_epoch(leases):
                self._rebuild(key, epoch, parts, executor)
                folder = parts.bring(
                    self._store, executor, lambda size, downloaded: self._count_part(key, size, downloaded), self._download_pace
                )
        if self._stop.is_set():
            return
        self._change(key, parts_complete=len(shard.parts), bytes_complete=sum(part.size for part in shard.parts))
        if self._swarm is not None and torrent is not None:
            self._swarm.add(key, torrent, folder, self._published_trackers(epoch.manifest))
        self._change(key, phase=ShardPhase.SEEDING)
        self._tell(
            "shard_seeding",
            key,
            f"{len(shard.parts)} parts",
            in_place=folder != self._data.path(key.layout.folder),
            magnet=None if torrent is None else self._magnet(torrent),
        )
        self._host(key, epoch, shard, folder)

    def _rebuild(self, key: ShardKey, epoch: EpochToSeed, parts: ShardFiles, executor: ThreadPoolExecutor) -> None:
        """Put in place what is had for fewer bytes out of an older epoch here and deltas; whatever is left comes whole."""
        bringing = PartBringing(
            self._store,
            self._data,
            self._settings.rebuilder,
            lambda problem: self._tell("rebuild_failed", key, f"parts come whole: {problem}"),
        )
        planned = bringing.plan(epoch.manifest, self._shard(key), parts.missing() if bringing.rebuilder is not None else ())
        if planned.way is None:
            return
        rebuilt = bringing.rebuild(planned, parts, executor, lambda _, downloaded: self._count_bytes(key, downloaded), self._download_pace)
        self._count_bytes(key, planned.way.size)
        if rebuilt:
            saved = planned.whole_size - planned.way.size
            facts = {"parts": rebuilt, "delta_bytes": planned.way.size, "bytes_saved": saved}
            self._tell("shard_rebuilt", key, f"{rebuilt} parts out of {deltas_in_words(len(planned.way.steps))}", **facts)

    def _host(self, key: ShardKey, epoch: EpochToSeed, shard: ManifestShard, folder: Path) -> None:
        """Serve a shard in nearcore's network too, and announce its epoch once all of it is here; a fault there leaves the torrent alone."""
        if self._peer is None:
            return
        try:
            self._peer.host_shard(key, epoch.manifest, folder, self._header(key, shard))
            with self._lock:
                phases = {one.key.shard_id: one.phase for one in self._shards.values() if one.key.layout == key.layout}
            if all(phase is ShardPhase.SEEDING for phase in phases.values()):
                self._peer.announce(epoch.manifest, sorted(phases))
        except StatecastError as error:
            self._tell("shard_failed", key, f"not served in nearcore's network: {error}")

    def _header(self, key: ShardKey, shard: ManifestShard) -> Path:
        """Return where a shard's state header lies; it is brought from the bucket where it is not here.

        Raises:
            ManifestError: the epoch was published without one.
            StoreError: the bucket can't be read, or has other bytes than were published.
        """
        name = key.layout.state_header(key.shard_id)
        path = self._data.path(name)
        listed = shard.header
        if listed is None:
            raise ManifestError(problem="the shard is published without a state header", where=name)
        with suppress(OSError):
            if hashlib.sha256(path.read_bytes()).hexdigest() == listed.sha256:
                return path
        data = self._store.get(name, 0, listed.size + 1)
        if len(data) != listed.size or hashlib.sha256(data).hexdigest() != listed.sha256:
            raise ObjectMismatchError(problem="the state header has other bytes than were published", where=f"{self._store.url}/{name}")
        self._data.write(path, data)
        return path

    def _remove(self, key: ShardKey, *, forget: bool) -> None:
        if self._swarm is not None:
            self._swarm.remove(key, forget=forget)
        self._forget_hosted(key)

    def _forget_hosted(self, key: ShardKey) -> None:
        if self._peer is not None:
            self._peer.forget(key)

    def _published_trackers(self, manifest: Manifest) -> tuple[str, ...]:
        """Return the trackers of a manifest that may be told of this machine: none where no pinned key has signed it."""
        if self._settings.trust.keys is None:
            return ()
        is_local = self._store.local_root() is not None
        return tuple(url for url in manifest.trackers if is_local or leads_to_public(url))

    def _torrent(self, key: ShardKey, shard: ManifestShard) -> PublishedTorrent:
        """Return the shard's torrent, kept here or from the bucket.

        Raises:
            ManifestError: it is not the one that the manifest names.
            StoreError: the bucket can't be read.
        """
        name = key.layout.torrent(key.shard_id)
        path = self._data.path(name)
        named_torrent(shard, name)
        with suppress(OSError, ManifestError):
            return read_torrent(read_regular(path, TORRENT_BYTES_MAX), shard, str(path))
        data = self._store.get(name, 0, TORRENT_BYTES_MAX + 1)
        torrent = read_torrent(data, shard, f"{self._store.url}/{name}")
        self._data.write(path, data)
        return torrent

    def _drop_old(self) -> None:
        with self._lock:
            statuses = list(self._shards.values())
        held = [
            HeldEpoch(layout, all(shard.phase is ShardPhase.SEEDING for shard in statuses if shard.key.layout == layout))
            for layout in self._epochs
        ]
        for layout in epochs_to_drop(held, self._settings.epochs):
            with self._lock:
                keys = [key for key in self._shards if key.layout == layout]
                for key in keys:
                    del self._shards[key]
            for key in keys:
                self._remove(key, forget=True)
                self._parts(key).forget()
            self._epochs.pop(layout)
            self._data.drop(layout)
            facts = {"epoch_height": layout.epoch_height, "epoch_id": str(layout.epoch_id)}
            self._on_event(SeedEvent("epoch_dropped", f"epoch {layout.epoch_height}: enough newer ones are complete", facts))

    def _parts(self, key: ShardKey) -> ShardFiles:
        return ShardFiles(key, self._shard(key), self._data, self._settings.local, self._stop)

    def _shard(self, key: ShardKey) -> ManifestShard:
        shard = self._epochs[key.layout].manifest.shard(key.shard_id)
        assert shard is not None, "keys are made of listed shards"
        return shard

    def _magnet(self, torrent: PublishedTorrent) -> str:
        listen = None if self._settings.session is None else self._settings.session.listen
        host = "" if listen is None else listen.host
        peers = () if host in ("", "0.0.0.0", "::") or self._swarm is None else (Address(host, self._swarm.listen_port),)
        return magnet_link(torrent.info_hash_v1, torrent.info_hash_v2, shard_folder_name(torrent.shard_id), peers, self._settings.trackers)

    def _count_part(self, key: ShardKey, size: int, downloaded: int) -> None:
        with self._lock:
            shard = self._shards[key]
            self._shards[key] = replace(
                shard,
                parts_complete=shard.parts_complete + 1,
                bytes_complete=shard.bytes_complete + size,
                bytes_downloaded=shard.bytes_downloaded + downloaded,
            )

    def _count_bytes(self, key: ShardKey, downloaded: int) -> None:
        with self._lock:
            shard = self._shards[key]
            self._shards[key] = replace(shard, bytes_downloaded=shard.bytes_downloaded + downloaded)

    def _change(self, key: ShardKey, **changes: Any) -> None:
        with self._lock:
            if key in self._shards:
                self._shards[key] = replace(self._shards[key], **changes)

    def _tell(self, kind: str, key: ShardKey, what: str, **facts: Any) -> None:
        where = {"epoch_height": key.epoch_height, "epoch_id": str(key.layout.epoch_id), "shard_id": key.shard_id}
        self._on_event(SeedEvent(kind, f"shard {key.shard_id} of epoch {key.epoch_height}: {what}", {**where, "what": what, **facts}))

    def _read_accepted(self) -> AcceptedManifests:
        """Return what earlier processes accepted.

        Raises:
            ManifestError: the memory is damaged: without it an old manifest would pass for a new one.
        """
        path, chain_id = self._data.own(_ACCEPTED), self._settings.chain_id
        with disk_errors(path):
            data = read_regular(path, MEMORY_BYTES_MAX) if path.exists() else None
        accepted = AcceptedManifests(chain_id) if data is None else AcceptedManifests.parse(data, chain_id, str(path))
        if accepted.is_older_format:
            note = "the memory of accepted manifests does not say who had signed them: it is not used, and starts over"
            self._on_event(SeedEvent("memory_ignored", note, {"where": str(path), "problem": note}))
        return accepted


def near_key_files(data: DataFolder, keys: int) -> list[Path]:
    """Return where the keys lie that a seeder has in nearcore's network."""
    return [data.own(f"node_key_{number}.json") for number in range(keys)]


def _with_traffic(shard: ShardStatus, traffic: Traffic | None) -> ShardStatus:
    if traffic is None:
        return shard
    return replace(shard, peers=traffic.peers, upload_bytes_per_s=traffic.upload_bytes_per_s, bytes_uploaded=traffic.bytes_uploaded)
