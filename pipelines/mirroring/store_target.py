"""A store as the target of a fetch: what is verified here is put there, each object whole, the manifest last.

The store is written like a producer writes it: the epoch's claim is held, what a manifest there lists never changes, every object is read
back, latest pointer and catalogue move forward only. Nothing is signed: envelopes go over as they are, and signatures that are there stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipelines.bucket.chain_catalogue import record_published
from pipelines.bucket.published_epoch import (
    StoredManifest,
    listed_statement,
    read_manifest,
    read_manifest_revision,
    readable_envelope,
)
from pipelines.fetching.believed_epoch import BelievedEpoch
from pipelines.fetching.epoch_target import HeldPart, Landed, StoredObject
from pipelines.fetching.fetch_folder import FetchFolder
from pipelines.fetching.fetch_part import FetchPart
from pipelines.keeping.check_epoch import find_foreign
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.producing.claimed_production import ClaimedRun, ClaimTerms, claimed_shards
from pipelines.producing.publish.epoch_publisher import move_latest
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.durable_file import disk_errors
from pipelines.stores.ranges import COMPARE_RANGE_BYTES, as_view, find_document
from pipelines.stores.store import Data, ObjectInfo, Store
from pipelines.stores.upload_limit import keep_upload_limit
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import verified_signers
from schemas.errors import ManifestError, ObjectExistsError, ObjectMismatchError, ObjectNotFoundError
from schemas.published.dsse import SIGNATURES_MAX, Envelope, parse_envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_object_name

REVISIONS_KEPT_MAX: Final = 100
"""Most earlier revisions of a manifest that are brought: a revision is only a number that somebody wrote."""

FOREIGN_TOLD_MAX: Final = 5
"""Most objects in the way of nodes that are named."""

UPLOADS: Final = 4
"""Objects that are put at once, by default."""


class MirrorState(StrEnum):
    """What became of an epoch at its destination."""

    COPIED = "copied"
    """Something was put."""
    WHOLE = "whole"
    """It was there, whole."""
    NEWER = "newer"
    """A later revision of its manifest is there, and stays."""


@dataclass(frozen=True, slots=True)
class StoreTerms:
    """How a store is written."""

    policy: TrustPolicy
    claim: ClaimTerms = field(default_factory=ClaimTerms)
    uploads: int = UPLOADS
    """Objects that are put at once; each is in memory by at most one upload request."""
    upload_limit_bytes_per_s: int | None = None


class StoreTarget:
    """A store of nearcore's object names: an `EpochTarget`.

    Args:
        folder: of this machine: temporary files, and the memory of what was accepted.
        note: told what was out of the ordinary, in any thread.
    """

    def __init__(self, store: Store, folder: FetchFolder, terms: StoreTerms, note: Callable[[str], None]) -> None:
        self.state = MirrorState.COPIED
        """Of the epoch that was looked at last."""
        self._store = store
        self._folder = folder
        self._terms = terms
        self._note = note
        self._infos: dict[str, ObjectInfo] = {}
        self._stored: StoredManifest | None = None
        self._statements: dict[str, bytes] = {}
        self._claim: ClaimedRun | None = None
        self._uploads: ThreadPoolExecutor | None = None

    @property
    def scratch(self) -> Path:
        """See `EpochTarget.scratch`."""
        return self._folder.scratch

    @contextmanager
    def opened(self) -> Iterator[None]:
        """See `EpochTarget.opened`: of the folder. What is being put is put to its end."""
        with self._folder.opened(), ThreadPoolExecutor(self._terms.uploads, thread_name_prefix="upload") as self._uploads:
            try:
                yield
            finally:
                self._uploads.shutdown(wait=True, cancel_futures=True)

    def accepted(self, chain_id: str) -> AcceptedManifests:
        """See `EpochTarget.accepted`."""
        return self._folder.accepted(chain_id)

    def remember(self, accepted: AcceptedManifests) -> None:
        """See `EpochTarget.remember`."""
        self._folder.remember(accepted)

    def look(self, epoch: BelievedEpoch) -> bool:
        """See `EpochTarget.look`: by names, sizes and documents."""
        store, layout = self._store, epoch.layout
        self._statements = {}
        try:
            self._stored = read_manifest(store, layout)
        except ManifestError as error:
            self._note(f"the manifest at the destination can't be read, and is replaced: {error.problem}")
            self._stored = None
        self._infos = {info.name: info for info in store.list(layout.folder)}
        self.state = MirrorState.COPIED
        if self._stored is not None:
            self._refuse_other(self._stored, epoch)
            if self._stored.manifest.revision > epoch.manifest.manifest.revision:
                self.state = MirrorState.NEWER
            elif self._is_whole(epoch):
                self.state = MirrorState.WHOLE
        return self.state is not MirrorState.COPIED

    @contextmanager
    def entered(self, epoch: BelievedEpoch) -> Iterator[None]:
        """See `EpochTarget.entered`: under the epoch's claim."""
        shard_ids = tuple(shard.shard_id for shard in epoch.shards)
        with claimed_shards(self._store.url, epoch.layout, shard_ids, self._terms.claim, note=self._note) as self._claim:
            # What was there before the claim may be another's by now.
            self.look(epoch)
            yield

    def has(self, part: FetchPart) -> bool:
        """See `EpochTarget.has`: by the size."""
        info = self._infos.get(part.object_name)
        return info is not None and info.size == part.size

    def held(self, name: str, size: int, sha256: str) -> bytes | None:
        """See `EpochTarget.held`."""
        data = find_document(self._store, name, size)
        return data if data is not None and len(data) == size and hashlib.sha256(data).hexdigest() == sha256 else None

    def present(self, parts: Sequence[FetchPart]) -> Iterator[tuple[FetchPart, HeldPart | None]]:
        """See `EpochTarget.present`: what the manifest there lists was judged before that was written; a scrub looks after it."""
        for part in parts:
            if self.has(part):
                listed = self._listed_sha256(part)
                yield part, None if listed == part.sha256 else StoredObject(self._store.url, part.object_name)

    def placed(self, part: FetchPart) -> HeldPart:
        """See `EpochTarget.placed`."""
        return StoredObject(self._store.url, part.object_name)

    def temporary(self) -> Path:
        """See `EpochTarget.temporary`."""
        return self._folder.temporary()

    def land_part(self, temporary: Path, part: FetchPart, landed: Landed) -> None:
        """See `EpochTarget.land_part`: in a thread."""
        assert self._uploads is not None, "the target is open"
        assert self._claim is not None, "the epoch is entered"
        self._claim.keep_going()
        future = self._uploads.submit(self._upload, temporary, part)
        future.add_done_callback(lambda done: None if done.cancelled() else landed(done.exception()))

    def write(self, name: str, data: bytes) -> None:
        """See `EpochTarget.write`: statements wait for the manifest that names them."""
        parsed = parse_object_name(name)
        if parsed is not None and parsed.kind is ObjectKind.SHARD_STATEMENT:
            self._statements[name] = data
        elif parsed is not None and parsed.kind in (ObjectKind.DELTA_STATEMENT, ObjectKind.TABLES_STATEMENT):
            self._put_signed(name, parse_envelope(data, name))
        elif parsed is not None and parsed.kind is ObjectKind.MANIFEST_REVISION:
            # Another writer may have been faster; a revision never changes.
            with suppress(ObjectExistsError):
                self._store.put(name, data, create_only=True)
        else:
            self._put(name, data, hashlib.sha256(data).hexdigest())

    def remove(self, name: str) -> None:
        """See `EpochTarget.remove`: nothing is misled by what no manifest lists, and the right object takes its place."""

    def missing_revisions(self, epoch: BelievedEpoch) -> Sequence[int]:
        """See `EpochTarget.missing_revisions`."""
        newest = epoch.manifest.manifest.revision
        return [
            revision
            for revision in range(max(1, newest - REVISIONS_KEPT_MAX), newest)
            if epoch.layout.manifest_revision(revision) not in self._infos
        ]

    def lacks_tables_statement(self, epoch: BelievedEpoch) -> bool:
        """See `EpochTarget.lacks_tables_statement`."""
        named = epoch.manifest.manifest.tables
        found = None if named is None else readable_envelope(self._store, epoch.layout.tables_statement)
        return named is not None and (found is None or found.payload_sha256 != named.statement_sha256)

    def missing_deltas(self, epoch: BelievedEpoch) -> Sequence[ManifestDelta]:
        """See `EpochTarget.missing_deltas`: by names and sizes."""
        return [listed for listed in epoch.manifest.manifest.deltas if not self._has_delta(epoch.layout, listed)]

    def _has_delta(self, layout: EpochLayout, listed: ManifestDelta) -> bool:
        if layout.delta_statement(listed.base_epoch_id, listed.shard_id) not in self._infos:
            return False
        names = (layout.delta(listed.base_epoch_id, listed.shard_id, index) for index in range(listed.objects))
        infos = [self._infos[name] for name in names if name in self._infos]
        return len(infos) == listed.objects and sum(info.size for info in infos) == listed.size

    def publish(self, epoch: BelievedEpoch) -> None:
        """See `EpochTarget.publish`: statements, the revision, the manifest."""
        store, layout, ours = self._store, epoch.layout, epoch.manifest
        assert self._claim is not None, "the epoch is entered"
        self._claim.confirm()
        for shard in epoch.shards:
            name = layout.shard_statement(shard.shard_id)
            if name in self._statements:
                self._put_signed(name, parse_envelope(self._statements[name], name))
        self._put_revision(epoch)

        def replaced(info: ObjectInfo | None) -> tuple[bytes | None, StoredManifest]:
            stored = None if info is None else self._readable_manifest(epoch)
            given = StoredManifest(ours.manifest, ours.envelope)
            if stored is None:
                return ours.envelope.to_bytes(), given
            self._refuse_other(stored, epoch)
            if stored.manifest.revision > ours.manifest.revision:
                return None, stored
            if stored.envelope.payload_sha256 != ours.envelope.payload_sha256:
                return ours.envelope.to_bytes(), given
            merged = self._merged(stored.envelope, ours.envelope)
            return None if merged == stored.envelope else merged.to_bytes(), StoredManifest(ours.manifest, merged)

        self._stored = swapped(store, layout.manifest, replaced, read_back=True)

    def point_at(self, epoch: BelievedEpoch, stays: Callable[[LatestPointer], bool], warn: Callable[[str], None]) -> None:
        """See `EpochTarget.point_at`: never back, whatever was asked for; the catalogue too."""
        assert self._stored is not None, "the manifest is there"
        manifest, sha256 = self._stored.manifest, self._stored.envelope.payload_sha256
        notes: list[str] = []
        if manifest.is_complete:
            pointer = LatestPointer(manifest.chain_id, manifest.epoch_height, manifest.epoch_id, manifest.revision, sha256)
            move_latest(self._store, pointer, notes)
        notes.append(record_published(self._store, manifest, sha256))
        in_the_way = [found for found in find_foreign(epoch.layout, manifest, self._infos) if not found.harmless]
        notes += [
            f"{found.object_name} at the destination is not of the epoch, and nodes count it: delete it"
            for found in in_the_way[:FOREIGN_TOLD_MAX]
        ]
        if len(in_the_way) > FOREIGN_TOLD_MAX:
            notes.append(f"{len(in_the_way) - FOREIGN_TOLD_MAX} more objects in the shards' folders there are not of the epoch")
        for note in filter(None, notes):
            warn(note)

    def _listed_sha256(self, part: FetchPart) -> str | None:
        """Return the digest of a part by the manifest that is there; None where it lists none."""
        shard = None if self._stored is None else self._stored.manifest.shard(part.shard_id)
        listed = None if shard is None or shard.num_parts != part.part_id.total else shard.part(part.part_id.idx)
        return None if listed is None else listed.sha256

    def _is_whole(self, epoch: BelievedEpoch) -> bool:
        assert self._stored is not None
        stored, ours, layout = self._stored, epoch.manifest, epoch.layout
        if (
            stored.envelope.payload_sha256 != ours.envelope.payload_sha256
            or self._merged(stored.envelope, ours.envelope) != stored.envelope
        ):
            return False
        if layout.manifest_revision(ours.manifest.revision) not in self._infos or self.missing_deltas(epoch):
            return False
        if self.lacks_tables_statement(epoch):
            return False
        # Parts that a collection there let go, since they can be rebuilt, are not missing.
        if not all(map(self.has, epoch.parts)) and not thin_steps(self._store, stored.manifest):
            return False
        for shard in epoch.shards:
            listed = shard.listed
            header = self._infos.get(layout.state_header(shard.shard_id))
            if listed.header is not None and (header is None or header.size != listed.header.size):
                return False
            if listed.torrent is not None and layout.torrent(shard.shard_id) not in self._infos:
                return False
            if listed_statement(self._store, layout, listed) is None:
                return False
        return True

    def _refuse_other(self, stored: StoredManifest, epoch: BelievedEpoch) -> None:
        """Refuse to write over what readers of the destination rely on.

        Raises:
            ManifestError: its manifest is another one of the same revision, or lists other bytes under the same names.
        """
        ours = epoch.manifest
        problem = _difference(stored.manifest, ours.manifest)
        is_same = stored.envelope.payload_sha256 == ours.envelope.payload_sha256
        if problem is None and stored.manifest.revision == ours.manifest.revision and not is_same:
            problem = f"there is another manifest of revision {ours.manifest.revision}"
        if problem is not None:
            raise ManifestError(
                problem=f"the destination has another publication of the epoch: {problem}",
                where=f"{self._store.url}/{epoch.layout.manifest}",
                remedy="Mirror to another place, or delete the epoch there first.",
            )

    def _readable_manifest(self, epoch: BelievedEpoch) -> StoredManifest | None:
        try:
            return read_manifest(self._store, epoch.layout)
        except ManifestError:
            return None

    def _upload(self, temporary: Path, part: FetchPart) -> None:
        keep_upload_limit(self._terms.upload_limit_bytes_per_s, part.size)
        with disk_errors(temporary):
            # An empty file can't be mapped.
            data: Data = pa.memory_map(str(temporary)).read_buffer() if part.size else b""
        self._put(part.object_name, data, part.sha256, part)
        with disk_errors(temporary):
            temporary.unlink()

    def _put(self, name: str, data: Data, sha256: str, part: FetchPart | None = None) -> None:
        """Put an object where nothing right is there, and read it back.

        Args:
            part: what it is, where it is a part.
        Raises:
            ManifestError: another writer's manifest lists other bytes of the part by now.
            ObjectMismatchError: the store gives back other bytes than it was given.
        """
        store, size = self._store, as_view(data).nbytes

        def needed(info: ObjectInfo | None) -> tuple[Data | None, bool]:
            if info is None:
                return data, True
            if _stored_digest(store, name, size) == sha256:
                return None, False
            if part is not None:
                self._refuse_listed(part)
            return data, True

        if swapped(store, name, needed) and _stored_digest(store, name, size) != sha256:
            raise ObjectMismatchError(
                problem="the store gave back other bytes than it was given",
                where=f"{store.url}/{name}",
                remedy="Run again; if it stays so, distrust the store.",
            )

    def _refuse_listed(self, part: FetchPart) -> None:
        parsed = parse_object_name(part.object_name)
        assert parsed is not None
        assert parsed.epoch is not None
        stored = read_manifest(self._store, parsed.epoch)
        shard = None if stored is None else stored.manifest.shard(part.shard_id)
        listed = None if shard is None or shard.num_parts != part.part_id.total else shard.part(part.part_id.idx)
        if listed is not None and listed.sha256 != part.sha256:
            raise ManifestError(
                problem="the destination's manifest lists other bytes of the part by now",
                where=f"{self._store.url}/{part.object_name}",
                remedy="Another producer publishes there: mirror to another place.",
            )

    def _put_signed(self, name: str, ours: Envelope) -> None:
        """Put a statement; signatures of others over the same payload stay."""

        def replaced(info: ObjectInfo | None) -> tuple[bytes | None, None]:
            found = None if info is None else readable_envelope(self._store, name)
            if found is None or found.payload_sha256 != ours.payload_sha256:
                return ours.to_bytes(), None
            merged = self._merged(found, ours)
            return None if merged == found else merged.to_bytes(), None

        swapped(self._store, name, replaced, read_back=True)

    def _put_revision(self, epoch: BelievedEpoch) -> None:
        """Store the manifest under its revision; what is there of it stays, for a revision never changes."""
        revision, ours = epoch.manifest.manifest.revision, epoch.manifest.envelope
        name = epoch.layout.manifest_revision(revision)
        there = read_manifest_revision(self._store, epoch.layout, revision)
        if there is None:
            with suppress(ObjectExistsError):
                self._store.put(name, ours.to_bytes(), create_only=True)
            there = read_manifest_revision(self._store, epoch.layout, revision)
        if there is None or there.envelope.payload_sha256 != ours.payload_sha256:
            raise ManifestError(
                problem=f"there is another manifest of revision {revision} at the destination",
                where=f"{self._store.url}/{name}",
                remedy="Mirror to another place, or delete the epoch there first.",
            )

    def _merged(self, stored: Envelope, ours: Envelope) -> Envelope:
        """Return a stored envelope with our signatures: of keys that it lacks, and of pinned keys where ours hold."""
        pinned = () if self._terms.policy.keys is None else self._terms.policy.keys.keys
        known = {found.key_id for found in stored.signatures}
        holding = {key.key_id for key in verified_signers(ours, pinned)}
        if holding <= {key.key_id for key in verified_signers(stored, pinned)}:
            holding = set()
        added = tuple(found for found in ours.signatures if found.key_id in holding or found.key_id not in known)
        merged = stored.with_signatures(added)
        return merged if len(merged.signatures) <= SIGNATURES_MAX else stored


def _difference(stored: Manifest, ours: Manifest) -> str | None:
    """Return in which thing that may not change two manifests of an epoch differ; None for none."""
    if stored.sync_hash != ours.sync_hash:
        return f"its sync hash is {stored.sync_hash}"
    if stored.encoding != ours.encoding:
        return f"its parts are {stored.encoding}"
    for listed in stored.shards:
        other = ours.shard(listed.shard_id)
        if other is None:
            if ours.revision >= stored.revision:
                return f"it has shard {listed.shard_id}"
            continue
        if (listed.shard_uid, listed.state_root, listed.num_parts) != (other.shard_uid, other.state_root, other.num_parts):
            return f"its shard {listed.shard_id} has state root {listed.state_root} in {listed.num_parts} parts"
        for part in listed.parts:
            its = other.part(part.part_id)
            if its is not None and its.sha256 != part.sha256:
                return f"part {part.part_id} of its shard {listed.shard_id} has other bytes"
    return None


def _stored_digest(store: Store, name: str, size: int) -> str | None:
    """Return the SHA-256 of an object of a size; None where it is not there, or has another size."""
    info = store.info(name)
    if info is None or info.size != size:
        return None
    digest = hashlib.sha256()
    try:
        for start in range(0, size, COMPARE_RANGE_BYTES):
            digest.update(store.get(name, start, min(start + COMPARE_RANGE_BYTES, size)))
    except ObjectNotFoundError:
        return None
    return digest.hexdigest()
