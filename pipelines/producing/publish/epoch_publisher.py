"""Publishes an epoch: its shards, then the manifest, then the latest pointer and the catalogue.

The order is what makes it safe: a shard's statement is written when all its parts were read back and validated, the manifest when
all statements are there, pointer and catalogue last. A producer that dies leaves no manifest, or the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import zstandard

from pipelines.bucket.chain_catalogue import record_published
from pipelines.bucket.published_epoch import (
    StoredManifest,
    listed_statement,
    read_manifest,
    read_manifest_revision,
    read_tables_statement,
)
from pipelines.bucket.read_latest import read_latest
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.producing.publish.publish_part import PartPlace
from pipelines.producing.publish.put_statement import put_statement
from pipelines.producing.publish.shard_publisher import ProducedShard, PublishedShard, ShardPublisher, refuse_unlisting
from pipelines.producing.publish.signing import Signer, add_signatures, sign_payload
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.open_store import open_store
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import EpochNotReadyError, IntegrityError, InvalidInputError, ManifestError, ObjectExistsError
from schemas.ids import CryptoHash, PartId, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.state_part import Encoding, num_parts_for
from schemas.published.dsse import Envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest, MissingKind, MissingObject, ZstdSettings, check_urls
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.manifest_tables import ManifestTables
from schemas.published.object_layout import EpochLayout, latest_name
from schemas.published.tables_statement import TablesStatement

REVISIONS_TRIED_MAX = 8
"""How many revisions are tried when other producers take them."""


@dataclass(frozen=True, slots=True)
class PublishedEpoch:
    """An epoch with its manifest stored."""

    revision: int
    signed_by: str | None
    """Our public key where we signed."""
    notes: tuple[str, ...]
    """What is missing or out of the ordinary, for people."""


@dataclass(frozen=True, slots=True)
class EpochPublisher:
    """Where an epoch is published, in which form, and who signs."""

    store_url: str
    signer: Signer | None
    encoding: Encoding
    zstd_level: int
    """Counts where the encoding is V1."""
    web_seeds: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    upload_limit_bytes_per_s: int | None = None
    """Most bytes of parts that each process puts a second; None for no limit."""
    tables_url: str | None = None
    """Where decoded tables of the epoch go; None for none."""

    def __post_init__(self) -> None:
        check_urls(web_seeds=self.web_seeds, trackers=self.trackers)

    def layout(self, context: EpochContext) -> EpochLayout:
        """Return the names of the epoch's objects."""
        return EpochLayout.of(context)

    def part_place(self, context: EpochContext, shard_id: int, part_id: PartId) -> PartPlace:
        """Return where a part goes."""
        return PartPlace(self.store_url, self.layout(context).state_part(shard_id, part_id), self.upload_limit_bytes_per_s)

    def epoch_url(self, context: EpochContext) -> str:
        """Return the epoch's folder, for people."""
        return f"{open_store(self.store_url).url}/{self.layout(context).folder}"

    def find_published(self, context: EpochContext, num_parts: int | None) -> PublishedEpoch | None:
        """Return the published epoch when nothing is missing of what a production would make; else None.

        Sizes are looked up, bytes are not read: that is what a check is for. The latest pointer is moved forward, and the catalogue
        brought up to date, where a killed run did not do it.

        Raises:
            ManifestError: there is a manifest that can't be parsed.
            InvalidInputError: it is published in another encoding or another number of parts.
        """
        stored = self.whole_manifest(context, num_parts)
        return None if stored is None else self._finished(open_store(self.store_url), stored.manifest, stored.envelope.payload_sha256)

    def whole_manifest(self, context: EpochContext, num_parts: int | None) -> StoredManifest | None:
        """Return the manifest of a published epoch of which nothing is missing, as `find_published`; nothing is written.

        Raises:
            ManifestError, InvalidInputError: as `find_published`.
        """
        store, layout = open_store(self.store_url), self.layout(context)
        stored = read_manifest(store, layout)
        if stored is None:
            return None
        self._check_same_form(stored.manifest, context, num_parts, f"{store.url}/{layout.manifest}")
        if self.signer is not None and self.signer.public_key.key_id not in {found.key_id for found in stored.envelope.signatures}:
            return None
        sizes = {info.name: info.size for info in store.list(layout.folder)}
        for shard in context.shards:
            listed = stored.manifest.shard(shard.shard_id)
            if listed is None or shard.state_root is None or len(listed.parts) != listed.num_parts:
                return None
            if listed.header is not None and sizes.get(layout.state_header(shard.shard_id)) != listed.header.size:
                return None
            parts = ((layout.state_part(shard.shard_id, PartId(part.part_id, listed.num_parts)), part.size) for part in listed.parts)
            # Parts that a collection let go, since they can be rebuilt, are not missing.
            if any(sizes.get(name) != size for name, size in parts) and not thin_steps(store, stored.manifest):
                return None
            if listed.torrent is not None and layout.torrent(shard.shard_id) not in sizes:
                return None
            found = listed_statement(store, layout, listed)
            if found is None:
                return None
            if self.tables_url is not None and not _has_tables(store, layout, stored.manifest, shard.shard_id):
                return None
            if num_parts is None and listed.num_parts != num_parts_for(found[0].memory_usage):
                return None
        return stored

    def _check_same_form(self, manifest: Manifest, context: EpochContext, num_parts: int | None, where: str) -> None:
        """Refuse to add to an epoch that is published in another form: its readers hold the manifest to be one thing."""
        if manifest.encoding != self.encoding:
            raise InvalidInputError(
                problem=f"the epoch is published in encoding {manifest.encoding}, not {self.encoding}",
                where=where,
                remedy=f"Pass --encoding {manifest.encoding}, or publish to another place.",
            )
        if manifest.sync_hash != context.sync_hash:
            raise ManifestError(
                problem=f"the epoch is published with sync hash {manifest.sync_hash}, the source says {context.sync_hash}", where=where
            )
        _agreed_layout(context, [shard.shard_id for shard in context.shards], manifest, where)
        for shard in context.shards:
            _check_same_shard(manifest, shard.shard_uid, shard.state_root, num_parts, where)

    def refuse_other_shard(self, context: EpochContext, shard_uid: ShardUId, state_root: CryptoHash, num_parts: int) -> None:
        """Refuse to write parts over published ones of another state root or number: what a manifest lists never changes.

        Raises:
            ManifestError: it is published with another state root, or the epoch with another shard layout.
            InvalidInputError: it is published in another number of parts.
        """
        store, layout = open_store(self.store_url), self.layout(context)
        stored = read_manifest(store, layout)
        if stored is not None:
            where = f"{store.url}/{layout.manifest}"
            _agreed_layout(context, [shard_uid.shard_id], stored.manifest, where)
            _check_same_shard(stored.manifest, shard_uid, state_root, num_parts, where)

    def put_shard(self, context: EpochContext, shard: ProducedShard) -> PublishedShard:
        """Store a shard's header, statement and torrent; see `ShardPublisher.put`."""
        publisher = ShardPublisher(open_store(self.store_url), self.layout(context), self._signers(), self.web_seeds, self.trackers)
        return publisher.put(context, shard)

    def put_tables(self, context: EpochContext, statement: TablesStatement) -> ManifestTables:
        """Store the statement of the epoch's decoded tables; signatures of others over the same payload stay.

        Raises:
            ObjectExistsError: other producers replaced it each time.
        """
        assert self.tables_url is not None, "there are tables"
        put_statement(open_store(self.store_url), self.layout(context).tables_statement, statement.to_payload(), self._signers())
        return ManifestTables.at(statement.payload_sha256, open_store(self.tables_url).url)

    def finish(
        self,
        context: EpochContext,
        shards: Sequence[PublishedShard],
        epoch_shard_ids: Sequence[int],
        tables: ManifestTables | None = None,
    ) -> PublishedEpoch:
        """Write the manifest, then move the latest pointer forward and enter the epoch in the catalogue.

        Shards that an earlier revision lists and this run did not make stay listed, and so do its shard layout, the shards that it misses
        and its block headers where the context has none.

        Args:
            epoch_shard_ids: all shards that the epoch is known to have, but for those that a shard layout or an earlier revision names.
            tables: of the epoch; None for those that an earlier revision names.
        Raises:
            ManifestError: the epoch was published in another form meanwhile, or a shard with a state header that is one of ours
                without; or the shards do not fit the shard layout.
            InvalidInputError: it is published in another encoding or another number of parts meanwhile.
            ObjectExistsError: other producers were faster each time.
        """
        store, layout = open_store(self.store_url), self.layout(context)
        where = f"{store.url}/{layout.manifest}"

        def revised(info: ObjectInfo | None) -> tuple[bytes | None, tuple[Manifest, Envelope]]:
            stored = None if info is None else read_manifest(store, layout)
            if stored is not None:
                self._check_same_form(stored.manifest, context, None, where)
                for shard in shards:
                    _check_same_shard(stored.manifest, shard.listing.shard_uid, shard.listing.state_root, shard.listing.num_parts, where)
                _refuse_lost_headers(stored.manifest, shards, where)
            manifest = self._manifest(context, shards, epoch_shard_ids, stored, where)
            manifest = replace(manifest, tables=tables or (None if stored is None else stored.manifest.tables))
            if stored is not None and _takes_up(stored, manifest):
                # Nothing new to say; perhaps our signature.
                manifest = stored.manifest
            if stored is not None and stored.envelope.payload == manifest.to_payload():
                envelope = add_signatures(stored.envelope, self._signers(), layout.manifest)
                return None if envelope == stored.envelope else envelope.to_bytes(), (manifest, envelope)
            manifest, envelope = _claim_revision(store, layout, manifest, self._signers())
            return envelope.to_bytes(), (manifest, envelope)

        manifest, envelope = swapped(store, layout.manifest, revised, read_back=True)
        return self._finished(store, manifest, envelope.payload_sha256, [note for shard in shards for note in shard.notes])

    def list_deltas(self, layout: EpochLayout, deltas: Sequence[ManifestDelta]) -> PublishedEpoch:
        """Write a revision of a published epoch's manifest that lists deltas too, whose statements are stored.

        Raises:
            EpochNotReadyError: the epoch is not published.
            ManifestError: its manifest can't be parsed.
            ObjectExistsError: other producers were faster each time.
        """
        store = open_store(self.store_url)

        def revised(info: ObjectInfo | None) -> tuple[bytes | None, tuple[Manifest, Envelope]]:
            stored = None if info is None else read_manifest(store, layout)
            if stored is None:
                raise EpochNotReadyError(problem="the epoch is not published", where=f"{store.url}/{layout.manifest}")
            listed = {found.key: found for found in (*stored.manifest.deltas, *deltas)}
            following = replace(
                stored.manifest,
                revision=stored.manifest.revision + 1,
                created=datetime.now(UTC).replace(microsecond=0),
                producer_version=f"statecast {_own_version()}",
                deltas=tuple(listed[key] for key in sorted(listed)),
            )
            if _takes_up(stored, following):
                envelope = add_signatures(stored.envelope, self._signers(), layout.manifest)
                return None if envelope == stored.envelope else envelope.to_bytes(), (stored.manifest, envelope)
            manifest, envelope = _claim_revision(store, layout, following, self._signers())
            return envelope.to_bytes(), (manifest, envelope)

        manifest, envelope = swapped(store, layout.manifest, revised, read_back=True)
        return self._finished(store, manifest, envelope.payload_sha256)

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Who signs: nobody where the epoch is published unsigned."""
        return self._signers()

    def _finished(self, store: Store, manifest: Manifest, payload_sha256: str, said: Sequence[str] = ()) -> PublishedEpoch:
        notes = [
            *said,
            *(
                f"{found.kind.replace('_', ' ')} missing"
                + ("" if found.shard_id is None else f", shard {found.shard_id}")
                + f": {found.reason}"
                for found in manifest.missing
            ),
        ]
        if manifest.is_complete:
            move_latest(
                store, LatestPointer(manifest.chain_id, manifest.epoch_height, manifest.epoch_id, manifest.revision, payload_sha256), notes
            )
        note = record_published(store, manifest, payload_sha256)
        return PublishedEpoch(manifest.revision, self._signed_by(), (*notes, note) if note else tuple(notes))

    def _manifest(
        self,
        context: EpochContext,
        shards: Sequence[PublishedShard],
        epoch_shard_ids: Sequence[int],
        stored: StoredManifest | None,
        where: str,
    ) -> Manifest:
        shard_layout = _agreed_layout(context, epoch_shard_ids, None if stored is None else stored.manifest, where)
        listings = {shard.listing.shard_id: shard.listing for shard in shards}
        missing = [found for shard in shards for found in shard.missing]
        if stored is not None:
            for kept in stored.manifest.shards:
                if kept.shard_id not in listings:
                    listings[kept.shard_id] = kept
                    missing += [found for found in stored.manifest.missing if found.shard_id == kept.shard_id]
        if shard_layout is not None:
            known = set(shard_layout.shard_ids)
        else:
            known = {*epoch_shard_ids, *(() if stored is None else stored.manifest.missing_shard_ids)}
        absent = sorted(known - set(listings))
        missing += [MissingObject(MissingKind.SHARD, "not produced here so far", shard_id) for shard_id in absent]
        block_headers = context.block_headers or (() if stored is None else _kept_block_headers(stored.manifest))
        if not block_headers:
            missing.append(MissingObject(MissingKind.BLOCK_HEADERS, "the source has none"))
        return Manifest(
            chain_id=context.chain_id,
            epoch_height=context.epoch_height,
            epoch_id=context.epoch_id,
            sync_hash=context.sync_hash,
            protocol_version=context.protocol_version,
            revision=1 if stored is None else stored.manifest.revision + 1,
            created=datetime.now(UTC).replace(microsecond=0),
            expires=None,
            producer_version=f"statecast {_own_version()}",
            encoding=self.encoding,
            zstd=ZstdSettings(".".join(map(str, zstandard.ZSTD_VERSION)), self.zstd_level) if self.encoding is Encoding.V1 else None,
            shards=tuple(listings[shard_id] for shard_id in sorted(listings)),
            web_seeds=self.web_seeds,
            trackers=self.trackers,
            block_headers=block_headers,
            missing=tuple(sorted(missing, key=lambda found: (-1 if found.shard_id is None else found.shard_id, found.kind))),
            shard_layout=shard_layout,
            deltas=() if stored is None else tuple(found for found in stored.manifest.deltas if found.shard_id in listings),
        )

    def _signers(self) -> tuple[Signer, ...]:
        return () if self.signer is None else (self.signer,)

    def _signed_by(self) -> str | None:
        return None if self.signer is None else str(self.signer.public_key)


def _tables_envelope(store: Store, layout: EpochLayout) -> Envelope | None:
    """Return the envelope of the tables statement in place; None where there is none, or one that is damaged: it is made again."""
    try:
        found = read_tables_statement(store, layout)
    except ManifestError:
        return None
    return None if found is None else found[1]


def _has_tables(store: Store, layout: EpochLayout, manifest: Manifest, shard_id: int) -> bool:
    """Tell whether a manifest names the statement in place, and that states a shard's tables."""
    envelope = None if manifest.tables is None else _tables_envelope(store, layout)
    if envelope is None or manifest.tables is None or envelope.payload_sha256 != manifest.tables.statement_sha256:
        return False
    return TablesStatement.from_payload(envelope.payload, layout.tables_statement).shard(shard_id) is not None


def _own_version() -> str:
    try:
        return version("statecast")
    except PackageNotFoundError:
        return "0"


def _agreed_layout(context: EpochContext, shard_ids: Sequence[int], manifest: Manifest | None, where: str) -> ShardLayout | None:
    """Return the epoch's shard layout, the context's or the published manifest's, once every shard that is known is one of it.

    Args:
        shard_ids: of the epoch, besides those of the context and the manifest.
    Raises:
        ManifestError: two layouts, or a shard that the layout does not have.
    """
    published = None if manifest is None else manifest.shard_layout
    layout = published if context.shard_layout is None else context.shard_layout
    if layout is None:
        return None
    if published not in (None, layout):
        raise ManifestError(
            problem="the epoch is published with another shard layout than the source's",
            where=where,
            remedy="One of them is of another chain or epoch: find out which, or publish to another place.",
        )
    known = {shard.shard_uid for shard in context.shards} | {shard.shard_uid for shard in (manifest.shards if manifest else ())}
    foreign = [*map(str, sorted(known - set(layout.shard_uids))), *map(str, sorted(set(shard_ids) - set(layout.shard_ids)))]
    if foreign:
        raise ManifestError(
            problem=f"the epoch's shard layout has no shard {foreign[0]}",
            where=where,
            remedy="The shard or the layout is of another chain or epoch: correct the context, or publish to another place.",
        )
    return layout


def _check_same_shard(manifest: Manifest, shard_uid: ShardUId, state_root: CryptoHash | None, num_parts: int | None, where: str) -> None:
    listed = manifest.shard(shard_uid.shard_id)
    if listed is None:
        return
    if state_root is not None and listed.state_root != state_root:
        raise ManifestError(
            problem=f"shard {shard_uid.shard_id} is published with state root {listed.state_root}, the source says {state_root}",
            where=where,
            remedy="One of them is of another chain or block: find out which, or publish to another place.",
        )
    if num_parts is not None and listed.num_parts != num_parts:
        raise InvalidInputError(
            problem=f"shard {shard_uid.shard_id} is published in {listed.num_parts} parts, not {num_parts}",
            where=where,
            remedy="Publish to another place.",
        )


def _refuse_lost_headers(manifest: Manifest, shards: Sequence[PublishedShard], where: str) -> None:
    for shard in shards:
        if not shard.has_header:
            reason = next((found.reason for found in shard.missing if found.kind is MissingKind.STATE_HEADER), "")
            refuse_unlisting(manifest, shard.listing.shard_id, reason, where)


def _same_content(left: Manifest, right: Manifest) -> bool:
    """Return whether two manifests say the same but for their revision, time and producer."""
    return replace(left, revision=1, created=right.created, producer_version="") == replace(right, revision=1, producer_version="")


def _takes_up(stored: StoredManifest, manifest: Manifest) -> bool:
    """Return whether a stored manifest says what we would, in our bytes: what a newer producer added to them is nothing that we can sign."""
    return _same_content(stored.manifest, manifest) and stored.manifest.to_payload() == stored.envelope.payload


def _kept_block_headers(manifest: Manifest) -> tuple[bytes, ...]:
    """Return a published manifest's block headers for the next revision; none where they are not those of its sync hash."""
    try:
        sync_block = decode_block_header(manifest.block_headers[0], "block_headers", manifest.sync_hash) if manifest.block_headers else None
        if sync_block is not None:
            decode_block_header(manifest.block_headers[1], "block_headers", sync_block.prev_hash)
    except IntegrityError:
        return ()
    return manifest.block_headers


def _claim_revision(store: Store, layout: EpochLayout, manifest: Manifest, signers: Sequence[Signer]) -> tuple[Manifest, Envelope]:
    """Store a manifest under the next free revision; a revision that a killed run left behind with the same content is taken up.

    Raises:
        ObjectExistsError: every revision tried was taken in the meantime.
    """
    for _ in range(REVISIONS_TRIED_MAX):
        left_behind = read_manifest_revision(store, layout, manifest.revision)
        if left_behind is not None and not _takes_up(left_behind, manifest):
            manifest = replace(manifest, revision=manifest.revision + 1)
            continue
        if left_behind is not None:
            manifest = left_behind.manifest
            return manifest, add_signatures(left_behind.envelope, signers, layout.manifest)
        envelope = sign_payload(manifest.to_payload(), signers)
        try:
            store.put(layout.manifest_revision(manifest.revision), envelope.to_bytes(), create_only=True)
        except ObjectExistsError:
            continue
        return manifest, envelope
    raise ObjectExistsError(
        problem="other producers took every revision tried", where=f"{store.url}/{layout.folder}/manifests", remedy="Run again."
    )


def move_latest(store: Store, pointer: LatestPointer, notes: list[str]) -> None:
    """Move the chain's latest pointer forward, never back; a pointer that can't be read is replaced."""

    def moved(info: ObjectInfo | None) -> tuple[bytes | None, None]:
        there = None
        try:
            there = None if info is None else read_latest(store, pointer.chain_id)
        except ManifestError as error:
            notes.append(f"the latest pointer was replaced: {error.problem}")
        return pointer.to_bytes() if there is None or pointer.supersedes(there) else None, None

    try:
        swapped(store, latest_name(pointer.chain_id), moved)
    except ObjectExistsError as error:
        notes.append(f"the latest pointer was not moved: {error.problem}")
