"""Publishes what surrounds one shard's parts: its state header, its statement, its torrent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from pipelines.publishing.publish_part import PublishedPart, put_replacing
from pipelines.publishing.published_epoch import readable_statement
from pipelines.publishing.signing import Signer, merge_signatures, sign_payload
from pipelines.publishing.torrents import TorrentFile, build_torrent
from pipelines.stores.protocol import Store
from pipelines.trust.equivocation import differing_fields
from schemas.epoch_context import EpochContext
from schemas.errors import IntegrityError, InvalidInputError, ObjectExistsError, ObjectMismatchError, ObjectNotFoundError
from schemas.ids import CryptoHash, ShardUId
from schemas.manifest import MissingKind, MissingObject
from schemas.manifest_shard import ManifestHeader, ManifestPart, ManifestShard, ManifestTorrent
from schemas.object_layout import EpochLayout, part_file_name, shard_folder_name
from schemas.shard_statement import ShardStatement, StatementPart
from schemas.state_header import HeaderOrigin, prove_state_root

_UNFIT_HEADER = "the source's own does not fit the state root or the blocks"

SWAP_ATTEMPTS_MAX = 8
"""How often a statement is tried again when another producer was faster."""


@dataclass(frozen=True, slots=True)
class ProducedShard:
    """A shard whose state root came out right and whose parts are all stored and validated."""

    shard_uid: ShardUId
    state_root: CryptoHash
    memory_usage: int
    root_node: bytes
    """Node bytes of the state root; empty for an empty trie."""
    parts: tuple[PublishedPart, ...]
    piece_length: int
    state_header: bytes | None
    header_origin: HeaderOrigin | None = HeaderOrigin.COPIED
    """Where the state header is from, if there is one."""
    header_reason: str = ""
    """Why there is none."""


@dataclass(frozen=True, slots=True)
class PublishedShard:
    """A shard with its statement and torrent stored."""

    parts: tuple[PublishedPart, ...]
    listing: ManifestShard
    missing: tuple[MissingObject, ...]
    header_origin: HeaderOrigin | None
    """Where the published state header is from; None where there is none."""

    @property
    def has_header(self) -> bool:
        """Whether the state header is published."""
        return self.listing.header is not None


@dataclass(frozen=True, slots=True)
class ShardPublisher:
    """Where the shards of an epoch are published, and who signs."""

    store: Store
    layout: EpochLayout
    signers: tuple[Signer, ...]
    web_seeds: tuple[str, ...]
    trackers: tuple[str, ...]

    def put(self, context: EpochContext, shard: ProducedShard) -> PublishedShard:
        """Store a shard's header, statement and torrent.

        Raises:
            StoreError: as it says.
        """
        store, layout = self.store, self.layout
        shard_id = shard.shard_uid.shard_id
        missing: list[MissingObject] = []
        header, origin = _checked_header(context, shard), shard.header_origin
        if header is None:
            header, origin = self._published_header(context, shard), HeaderOrigin.KEPT
        if header is None:
            origin = None
            reason = (shard.header_reason or "the source has none") if shard.state_header is None else _UNFIT_HEADER
            missing.append(MissingObject(MissingKind.STATE_HEADER, reason, shard_id))
        else:
            _put_read_back(store, layout.state_header(shard_id), header)
        statement = _statement(context, shard, header)
        self._put_statement(statement)
        torrent = self._put_torrent(shard, missing)
        listing = ManifestShard(
            shard_uid=shard.shard_uid,
            state_root=shard.state_root,
            num_parts=len(shard.parts),
            statement_sha256=statement.payload_sha256,
            parts=tuple(
                ManifestPart(
                    part.plan.part_id.idx,
                    part.digests.stored_size,
                    part.digests.stored_sha256,
                    part.pieces.v2_root.hex() if torrent is not None and part.pieces.v2_root else None,
                )
                for part in shard.parts
            ),
            header=None if header is None else ManifestHeader(len(header), hashlib.sha256(header).hexdigest()),
            torrent=None
            if torrent is None
            else ManifestTorrent(torrent.info_hash_v1.hex(), torrent.info_hash_v2.hex(), torrent.piece_length),
            parent_shard_uid=next((known.parent_shard_uid for known in context.shards if known.shard_uid == shard.shard_uid), None),
        )
        return PublishedShard(shard.parts, listing, tuple(missing), origin)

    def _published_header(self, context: EpochContext, shard: ProducedShard) -> bytes | None:
        """Return the header that another producer's statement names: what is published does not get poorer for a source without one."""
        shard_id = shard.shard_uid.shard_id
        found = readable_statement(self.store, self.layout, shard_id)
        if found is None or found[0].state_root != shard.state_root:
            return None
        try:
            header = self.store.get(self.layout.state_header(shard_id))
        except ObjectNotFoundError:
            return None
        is_theirs = hashlib.sha256(header).hexdigest() == found[0].header_sha256
        return _checked_header(context, replace(shard, state_header=header)) if is_theirs else None

    def _put_statement(self, statement: ShardStatement) -> None:
        """Store a statement; signatures of others over the same payload stay, a contradicting one is kept as evidence.

        Raises:
            ObjectExistsError: other producers replaced it each time.
        """
        store, layout = self.store, self.layout
        name = layout.shard_statement(statement.shard_id)
        for _ in range(SWAP_ATTEMPTS_MAX):
            info = store.info(name)
            found = None if info is None else readable_statement(store, layout, statement.shard_id)
            envelope = sign_payload(statement.to_payload(), self.signers)
            if found is not None:
                other, theirs = found
                if theirs.payload == envelope.payload:
                    envelope = merge_signatures(envelope, theirs, name)
                elif differing_fields(other, statement):
                    _put_read_back(store, layout.evidence(statement.shard_id, bytes.fromhex(theirs.payload_sha256)), theirs.to_bytes())
            try:
                store.swap(name, envelope.to_bytes(), info)
            except ObjectExistsError:
                continue
            if store.get(name) == envelope.to_bytes():
                return
        raise ObjectExistsError(
            problem="other producers replaced the shard statement again and again",
            where=f"{store.url}/{name}",
            remedy="Let one of them finish, then rerun.",
        )

    def _put_torrent(self, shard: ProducedShard, missing: list[MissingObject]) -> TorrentFile | None:
        shard_id = shard.shard_uid.shard_id
        if not shard.parts:
            return None
        files = [(part_file_name(part.plan.part_id), part.digests.stored_size, part.pieces) for part in shard.parts]
        try:
            torrent = build_torrent(shard_folder_name(shard_id), files, shard.piece_length, self.web_seeds, self.trackers)
        except InvalidInputError as error:
            missing.append(MissingObject(MissingKind.TORRENT, error.problem, shard_id))
            return None
        _put_read_back(self.store, self.layout.torrent(shard_id), torrent.data)
        return torrent


def _checked_header(context: EpochContext, shard: ProducedShard) -> bytes | None:
    """Return the state header if it ends in this shard's state root node, and its chunk is in the block before the sync block; else None.

    The source has verified all of it; this is for headers that have lain in a dataset or a store since.

    Source: nearcore core/primitives/src/state_sync.rs, ShardStateSyncResponseHeaderV2: state_root_node (node bytes, memory usage) is last.
    """
    header = shard.state_header
    ending = len(shard.root_node).to_bytes(4, "little") + shard.root_node + shard.memory_usage.to_bytes(8, "little")
    if header is None or not header.endswith(ending):
        return None
    if context.block_headers:
        try:
            proven = prove_state_root(header, context.sync_hash, context.block_headers, f"state header of shard {shard.shard_uid}")
        except IntegrityError:
            return None
        if proven.chunk.shard_id != shard.shard_uid.shard_id or proven.state_root != shard.state_root:
            return None
    return header


def _statement(context: EpochContext, shard: ProducedShard, header: bytes | None) -> ShardStatement:
    return ShardStatement(
        chain_id=context.chain_id,
        epoch_height=context.epoch_height,
        epoch_id=context.epoch_id,
        sync_hash=context.sync_hash,
        shard_uid=shard.shard_uid,
        state_root=shard.state_root,
        memory_usage=shard.memory_usage,
        num_parts=len(shard.parts),
        header_sha256=None if header is None else hashlib.sha256(header).hexdigest(),
        parts=tuple(
            StatementPart(
                part.plan.part_id.idx, part.plan.key_begin, part.plan.key_end, part.digests.decoded_size, part.digests.decoded_sha256
            )
            for part in shard.parts
        ),
    )


def _put_read_back(store: Store, name: str, data: bytes) -> None:
    """Put an object that may replace another, and compare what the store gives back.

    Raises:
        ObjectMismatchError: the store gave back other bytes.
    """
    put_replacing(store, name, data)
    if store.get(name) != data:
        raise ObjectMismatchError(problem="the store gave back other bytes than it was given", where=f"{store.url}/{name}")
