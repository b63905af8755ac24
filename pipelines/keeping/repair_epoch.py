"""Puts right what a scrub found wrong or missing, with bytes from mirrors, from the store itself, and made again out of what else it has.

Only bytes that the signed manifest vouches for are put: by their digest, a torrent by its info hashes, a revision by a trusted key's
signature. Each is read back. What a mirror says otherwise is refused, and the mirror is asked for the next object anyway: it may
be rotten in one place only. Objects that do not belong are never deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from pipelines.bittorrent.published_torrent import TORRENT_BYTES_MAX, read_torrent
from pipelines.bittorrent.torrents import build_torrent, recompose_torrent
from pipelines.bucket.published_deltas import judged_delta_statement, read_delta_statement
from pipelines.bucket.published_epoch import StoredManifest
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.source import Source
from pipelines.fetching.source_account import open_account
from pipelines.keeping.check_epoch import CHECK_TASK_MEMORY_BYTES
from pipelines.keeping.check_part import part_tasks
from pipelines.keeping.findings import Finding, FindingKind, check_named, statement_problem
from pipelines.keeping.remaking import Remade, Remaker
from pipelines.keeping.scrub_epoch import ScrubbedEpoch
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from pipelines.trust.signatures import TrustRule, agreed_signers, verified_signers
from schemas.errors import (
    FetchError,
    InvalidInputError,
    ManifestError,
    ObjectExistsError,
    ObjectMismatchError,
    ObjectNotFoundError,
    StatecastError,
)
from schemas.ids import PartId
from schemas.published.delta_statement import DeltaObject
from schemas.published.dsse import ENVELOPE_BYTES_MAX, parse_envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.manifest_shard import ManifestPart, ManifestShard
from schemas.published.object_layout import (
    REVISION_MAX,
    EpochLayout,
    ObjectKind,
    ObjectName,
    parse_object_name,
    part_file_name,
    shard_folder_name,
)
from schemas.published.shard_statement import ShardStatement

OWN_STORE: Final = "the store itself"

_ORDER: Final[dict[ObjectKind | None, int]] = {ObjectKind.STATE_PART: 1, ObjectKind.DELTA: 2, ObjectKind.TORRENT: 3}
"""Documents come first, which say what the others must be; deltas and torrents may be made of parts that were repaired before."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of one finding."""

    finding: Finding
    source_id: str = ""
    """Where the bytes came from; empty where it was not repaired."""
    problem: str = ""
    """Why it was not repaired."""

    @property
    def is_done(self) -> bool:
        """Whether the object is right now."""
        return bool(self.source_id)


@dataclass(slots=True)
class EpochRepair:
    """The repair of one epoch."""

    runner: StageRunner
    store_url: str
    trust: TrustRule | None
    sources: Sequence[Source]
    """Mirrors, in the order in which they are asked."""
    limits: FetchLimits = field(default_factory=FetchLimits)
    random: Random = field(default_factory=Random)
    remaker: Remaker | None = None
    """Makes parts and deltas again that no mirror has; None to leave them."""
    _lost: dict[int, set[int]] = field(default_factory=dict)
    """By shard id, the parts that are missing or wrong, as far as the scrub has found."""
    _remade: dict[tuple[str, int], Remade | StatecastError] = field(default_factory=dict)

    def run(self, scrubbed: ScrubbedEpoch) -> tuple[Repair, ...]:
        """Repair what can be repaired; return what became of each harmful finding.

        Raises:
            StoreError: the store can't be written.
        """
        store = open_store(self.store_url)
        self._remade.clear()
        self._lost.clear()
        names = [parse_object_name(finding.object_name) for finding in scrubbed.harmful]
        for name in names:
            if name is not None and name.kind is ObjectKind.STATE_PART and name.shard_id is not None and name.part_id is not None:
                self._lost.setdefault(name.shard_id, set()).add(name.part_id.idx)
        ordered = sorted(scrubbed.harmful, key=lambda finding: _ORDER.get(_kind(finding), 0))
        repairs = []
        for finding in ordered:
            repair = self._repair(store, scrubbed.layout, scrubbed.stored, finding)
            outcome = f"repaired from {repair.source_id}" if repair.is_done else f"not repaired: {repair.problem}"
            self.runner.progress.note(f"{finding.object_name}: {outcome}")
            repairs.append(repair)
        return tuple(repairs)

    def _repair(self, store: Store, layout: EpochLayout, stored: StoredManifest | None, finding: Finding) -> Repair:
        name = parse_object_name(finding.object_name)
        if finding.kind is FindingKind.FOREIGN:
            return Repair(finding, problem="it does not belong here; delete it by hand")
        if name is None:
            return Repair(finding, problem="tables are not repaired here; statecast produce --tables --repair makes them again")
        try:
            source_id, data = self._right_bytes(store, layout, stored, name, finding.object_name)
        except FetchError as error:
            return Repair(finding, problem=_attempts(error))
        except (ManifestError, InvalidInputError, ObjectNotFoundError) as error:
            return Repair(finding, problem=error.problem)
        if name.kind is ObjectKind.MANIFEST:
            try:
                store.swap(finding.object_name, data, store.info(finding.object_name))
            except ObjectExistsError:
                return Repair(finding, problem="another writer replaced it in the meantime")
        else:
            store.put(finding.object_name, data)
        if store.get(finding.object_name, 0, len(data) + 1) != data:
            raise ObjectMismatchError(problem="the store gives back other bytes than it took", where=f"{store.url}/{finding.object_name}")
        return Repair(finding, source_id)

    def _right_bytes(
        self, store: Store, layout: EpochLayout, stored: StoredManifest | None, name: ObjectName, object_name: str
    ) -> tuple[str, bytes]:
        if name.kind is ObjectKind.MANIFEST:
            return self._manifest(layout, stored, object_name)
        if stored is None:
            raise ManifestError(problem="there is no manifest to go by")
        manifest = stored.manifest
        shard = None if name.shard_id is None else manifest.shard(name.shard_id)
        match name.kind:
            case ObjectKind.MANIFEST_REVISION:
                assert name.revision is not None
                return self._revision(layout, stored, name.revision, object_name)
            case ObjectKind.SHARD_STATEMENT:
                assert shard is not None
                return self._asked(object_name, ENVELOPE_BYTES_MAX, lambda data: self._statement(data, shard, manifest))
            case ObjectKind.TORRENT:
                assert shard is not None
                return self._torrent(layout, manifest, shard, object_name)
            case ObjectKind.STATE_HEADER:
                assert shard is not None and shard.header is not None
                return self._verified(object_name, shard.header.size, shard.header.sha256)
            case ObjectKind.TABLES_STATEMENT:
                assert manifest.tables is not None
                return self._asked(object_name, ENVELOPE_BYTES_MAX, _with_payload(manifest.tables.statement_sha256))
            case ObjectKind.DELTA_STATEMENT:
                listed, where = _listed_delta(manifest, name), object_name
                return self._asked(where, ENVELOPE_BYTES_MAX, lambda data: self._delta_statement(data, layout, listed))
            case ObjectKind.DELTA:
                return self._delta(store, manifest, name, object_name)
        assert shard is not None and name.part_id is not None
        part = shard.part(name.part_id.idx)
        assert part is not None
        try:
            return self._verified(object_name, part.size, part.sha256)
        except FetchError as error:
            return self._made_again(
                error,
                object_name,
                part,
                ("parts", shard.shard_id),
                lambda remaker: remaker.remake_parts(manifest, shard.shard_id, self._lost[shard.shard_id]),
            )

    def _delta(self, store: Store, manifest: Manifest, name: ObjectName, object_name: str) -> tuple[str, bytes]:
        listed = _listed_delta(manifest, name)
        statement, _ = read_delta_statement(store, manifest.layout, listed)
        assert name.delta_index is not None
        one = statement.objects[name.delta_index]
        try:
            return self._verified(object_name, one.size, one.sha256)
        except FetchError as error:
            key = (str(listed.base_epoch_id), listed.shard_id)
            return self._made_again(error, object_name, one, key, lambda remaker: remaker.remake_delta(manifest, listed))

    def _made_again(
        self,
        refused: FetchError,
        name: str,
        wanted: ManifestPart | DeltaObject,
        key: tuple[str, int],
        remake: Callable[[Remaker], Remade],
    ) -> tuple[str, bytes]:
        """Return an object that no mirror has, made again.

        Args:
            key: of what is made at once.
        Raises:
            FetchError: it can't be made, or comes out otherwise.
        """
        if self.remaker is None:
            raise refused
        if key not in self._remade:
            try:
                self._remade[key] = remake(self.remaker)
            except StatecastError as error:
                self._remade[key] = error
        remade = self._remade[key]
        if isinstance(remade, StatecastError):
            raise FetchError(
                problem=f"{refused.problem}, and it can't be made again: {remade}", where=name, attempts=refused.attempts
            ) from remade
        try:
            data = read_object(open_store(remade.store_url), name, wanted.size)
        except (ObjectNotFoundError, ObjectMismatchError):
            data = b""
        if len(data) != wanted.size or hashlib.sha256(data).hexdigest() != wanted.sha256:
            problem = f"{refused.problem}, and made again of {remade.source} it has other bytes or none"
            raise FetchError(problem=problem, where=name, attempts=refused.attempts)
        return remade.source, data

    def _delta_statement(self, data: bytes, layout: EpochLayout, listed: ManifestDelta) -> bytes:
        _, envelope = judged_delta_statement(data, layout, listed, "offer")
        if self.trust is not None:
            agreed_signers([envelope], TrustRule(self.trust.keys), "offer")
        return envelope.to_bytes()

    def _verified(self, name: str, size: int, sha256: str) -> tuple[str, bytes]:
        def judge(data: bytes) -> bytes:
            if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
                raise ManifestError(problem="its bytes do not have the size and sha256 that the manifest says")
            return data

        return self._asked(name, size, judge)

    def _manifest(self, layout: EpochLayout, stored: StoredManifest | None, name: str) -> tuple[str, bytes]:
        """Return a mirror's manifest that a trusted key has signed if it is newer than the newest revision here, else that."""
        try:
            if self.trust is None and stored is not None:
                return OWN_STORE, stored.envelope.to_bytes()
            least = 1 if stored is None else stored.manifest.revision + 1
            return self._asked(name, ENVELOPE_BYTES_MAX, lambda data: self._signed_manifest(data, layout, range(least, REVISION_MAX + 1)))
        except FetchError:
            if stored is None:
                raise
            return OWN_STORE, stored.envelope.to_bytes()

    def _revision(self, layout: EpochLayout, stored: StoredManifest, revision: int, name: str) -> tuple[str, bytes]:
        if revision == stored.manifest.revision:
            return OWN_STORE, stored.envelope.to_bytes()
        return self._asked(name, ENVELOPE_BYTES_MAX, lambda data: self._signed_manifest(data, layout, range(revision, revision + 1)))

    def _signed_manifest(self, data: bytes, layout: EpochLayout, revisions: range) -> bytes:
        """Return the envelope if a trusted key has signed it: no digest says what an older revision was."""
        if self.trust is None:
            raise ManifestError(problem="only a trusted key's signature could tell a right one: give --trust-key")
        envelope = parse_envelope(data, "offer")
        if not verified_signers(envelope, self.trust.keys):
            raise ManifestError(problem="no trusted key has signed it")
        manifest = Manifest.of_epoch(layout, envelope.payload, "offer")
        if manifest.revision not in revisions:
            raise ManifestError(problem=f"it is revision {manifest.revision}")
        return envelope.to_bytes()

    def _statement(self, data: bytes, shard: ManifestShard, manifest: Manifest) -> bytes:
        envelope = parse_envelope(data, "offer")
        check_named(envelope, shard.statement_sha256)
        problem = statement_problem(ShardStatement.from_payload(envelope.payload, "offer"), shard, manifest)
        if problem is not None:
            raise ManifestError(problem=problem)
        if self.trust is not None:
            agreed_signers([envelope], self.trust, "offer")
        return envelope.to_bytes()

    def _torrent(self, layout: EpochLayout, manifest: Manifest, shard: ManifestShard, name: str) -> tuple[str, bytes]:
        """Return the torrent with a mirror's piece hashes, which the info hashes prove, or made of the parts in the store."""

        def judge(data: bytes) -> bytes:
            # Web seeds and trackers are the manifest's, whatever a mirror has there.
            return recompose_torrent(read_torrent(data, shard, name), manifest.web_seeds, manifest.trackers)

        try:
            return self._asked(name, TORRENT_BYTES_MAX, judge)
        except FetchError as error:
            made = self._made_torrent(layout, manifest, shard)
            if made is None:
                raise FetchError(problem="parts are wrong or missing, so that it can't be made of them", attempts=error.attempts) from error
            return f"the parts in {OWN_STORE}", made

    def _made_torrent(self, layout: EpochLayout, manifest: Manifest, shard: ManifestShard) -> bytes | None:
        tasks = part_tasks(self.store_url, layout, manifest, shard)
        checked = self.runner.run("scrub", str(shard.shard_uid), tasks, TaskNeeds(CHECK_TASK_MEMORY_BYTES), lambda part: Amount(parts=1))
        pieces = [part.pieces for part in checked if part.pieces is not None]
        if len(pieces) != shard.num_parts:
            return None
        assert shard.torrent is not None
        files = [(part_file_name(PartId(idx, shard.num_parts)), one.size, one) for idx, one in enumerate(pieces)]
        folder = shard_folder_name(shard.shard_id)
        made = build_torrent(folder, files, shard.torrent.piece_length, manifest.web_seeds, manifest.trackers)
        found = (made.info_hash_v1.hex(), made.info_hash_v2.hex())
        return made.data if found == (shard.torrent.info_hash_v1, shard.torrent.info_hash_v2) else None

    def _asked(self, name: str, bytes_max: int, judge: Callable[[bytes], bytes]) -> tuple[str, bytes]:
        """Return the first offer that is judged right, as judged.

        Raises:
            FetchError: no mirror has it, or what they have is not right.
        """
        if not self.sources:
            raise FetchError(problem="no mirror was named", where=name)
        # New accounts an object: what is wrong with one says nothing of the others.
        accounts = {source.source_id: open_account(source.source_id, source.traits, self.limits) for source in self.sources}
        try:
            return DocumentReader(self.sources, accounts, self.limits, self.random).read_judged(name, bytes_max, judge)
        except FetchError as error:
            raise FetchError(problem="no mirror has it", where=name, attempts=error.attempts) from None


def _listed_delta(manifest: Manifest, name: ObjectName) -> ManifestDelta:
    return next(one for one in manifest.deltas if (one.shard_id, one.base_epoch_id) == (name.shard_id, name.base_epoch_id))


def _with_payload(sha256: str) -> Callable[[bytes], bytes]:
    def judge(data: bytes) -> bytes:
        envelope = parse_envelope(data, "offer")
        if envelope.payload_sha256 != sha256:
            raise ManifestError(problem="it is not the statement that the manifest names by its sha256")
        return envelope.to_bytes()

    return judge


def _kind(finding: Finding) -> ObjectKind | None:
    name = parse_object_name(finding.object_name)
    return None if name is None else name.kind


def _attempts(error: FetchError) -> str:
    tried = "; ".join(f"{source}: {', then '.join(problems)}" for source, problems in error.attempts.items())
    return f"{error.problem} ({tried})" if tried else error.problem
