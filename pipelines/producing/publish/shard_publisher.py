"""Publishes what surrounds one shard's parts: its state header, its statement, its torrent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipelines.bittorrent.torrents import TorrentFile, build_torrent
from pipelines.bucket.published_epoch import read_manifest, read_statement, readable_statement
from pipelines.dataset.dataset_header import VerifyStateHeader, why_unverified
from pipelines.near.node.flat_state_source import FoundStateHeader
from pipelines.producing.build.shard_state import Kinds, ShardState
from pipelines.producing.publish.publish_part import PublishedPart, put_replacing
from pipelines.producing.publish.signing import Signer, add_signatures, sign_payload
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.ranges import read_object
from pipelines.stores.store import ObjectInfo, Store
from pipelines.trust.equivocation import differing_fields
from pipelines.trust.signatures import verified_signers
from schemas.errors import IntegrityError, InvalidInputError, ManifestError, ObjectMismatchError, ObjectNotFoundError
from schemas.ids import ShardUId
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX, HeaderOrigin, prove_state_root
from schemas.published.manifest import REASON_CHARACTERS_MAX, Manifest, MissingKind, MissingObject
from schemas.published.manifest_shard import ManifestHeader, ManifestPart, ManifestShard, ManifestTorrent
from schemas.published.object_layout import EpochLayout, part_file_name, shard_folder_name
from schemas.published.shard_statement import ShardStatement, StatementPart

_UNFIT_HEADER = "the source's own does not fit the state root or the blocks"


@dataclass(frozen=True, slots=True)
class ProducedShard:
    """A shard whose parts are all stored and validated."""

    state: ShardState
    parts: tuple[PublishedPart, ...]
    header: FoundStateHeader
    """Verified in full, where there is one; the publisher only looks whether it is of this state."""
    verify_header: VerifyStateHeader | None = None
    """Verifies one that lies in the store; None where this run reads nothing that could."""

    @property
    def shard_uid(self) -> ShardUId:
        """The shard."""
        return self.state.shard_uid


@dataclass(frozen=True, slots=True)
class PublishedShard:
    """A produced shard with its statement and torrent stored."""

    produced: ProducedShard
    listing: ManifestShard
    missing: tuple[MissingObject, ...]
    header_origin: HeaderOrigin | None
    """Where the published state header is from; None where there is none."""
    notes: tuple[str, ...] = ()
    """What people should know of it, besides what is missing."""

    @property
    def has_header(self) -> bool:
        """Whether the state header is published."""
        return self.listing.header is not None

    @property
    def root_was_known(self) -> bool:
        """Whether the state root is the chain's word; else it is what the records hash to."""
        return self.produced.state.root_was_known

    @property
    def memory_usage(self) -> int:
        """Of the state root."""
        return self.produced.state.memory_usage

    @property
    def parts(self) -> tuple[PublishedPart, ...]:
        """All parts, ascending."""
        return self.produced.parts

    @property
    def records(self) -> int:
        """Records of all parts."""
        return sum(part.records for part in self.parts)

    @property
    def record_bytes(self) -> int:
        """Keys and values."""
        return sum(size for _, _, size in self.kinds)

    @property
    def kinds(self) -> Kinds:
        """Of all parts."""
        return self.produced.state.kinds

    @property
    def stored_size(self) -> int:
        """Bytes of all its parts' objects."""
        return sum(part.digests.stored_size for part in self.parts)

    @property
    def decoded_size(self) -> int:
        """Bytes of all its parts decoded."""
        return sum(part.digests.decoded_size for part in self.parts)

    @property
    def compression_ratio(self) -> float:
        """Decoded bytes to stored bytes; 1 for an empty shard."""
        return self.decoded_size / self.stored_size if self.stored_size else 1.0


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
            ManifestError: the manifest lists a state header that this run can't stand behind. Nothing is changed.
            StoreError: passed on.
        """
        store, layout = self.store, self.layout
        shard_id = shard.shard_uid.shard_id
        missing: list[MissingObject] = []
        found = self._header(context, shard)
        header = found.data
        if header is None:
            stored = read_manifest(store, layout)
            if stored is not None:
                refuse_unlisting(stored.manifest, shard_id, found.reason, f"{store.url}/{layout.manifest}")
            missing.append(MissingObject(MissingKind.STATE_HEADER, found.reason, shard_id))
        else:
            _put_read_back(store, layout.state_header(shard_id), header)
        statement = _statement(context, shard, header)
        note = self._put_statement(statement)
        torrent = self._put_torrent(shard, missing)
        listing = ManifestShard(
            shard_uid=shard.shard_uid,
            state_root=shard.state.state_root,
            num_parts=len(shard.parts),
            statement_sha256=statement.payload_sha256,
            parts=tuple(
                ManifestPart(
                    part.interval.part_id.idx,
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
        return PublishedShard(shard, listing, tuple(missing), found.origin, (note,) if note else ())

    def _header(self, context: EpochContext, shard: ProducedShard) -> FoundStateHeader:
        """Return the header that a statement of ours may name: the source's, or the one in place if it is known to be right; else why none."""
        own = shard.header
        if own.data is not None and _fits(context, shard, own.data):
            return FoundStateHeader(own.data, own.origin, is_verified=True)
        reason = (own.reason or "the source has none") if own.data is None else _UNFIT_HEADER
        try:
            in_place = read_object(self.store, self.layout.state_header(shard.shard_uid.shard_id), STATE_HEADER_BYTES_MAX)
        except ObjectNotFoundError:
            return FoundStateHeader(None, reason=_for_manifest(reason))
        except ObjectMismatchError as error:
            return FoundStateHeader(None, reason=_for_manifest(f"{reason}; the one in place is not kept: {error.problem}"))
        problem = self._disbelief(context, shard, in_place)
        if problem is not None:
            return FoundStateHeader(None, reason=_for_manifest(f"{reason}; the one in place is not kept: {problem}"))
        return FoundStateHeader(in_place, HeaderOrigin.KEPT)

    def _disbelief(self, context: EpochContext, shard: ProducedShard, header: bytes) -> str | None:
        """Return why a header that lies in the store is not believed; None where it is.

        What a statement there says of it counts only with a signature of ours over all that we would say now: then we have stood
        behind this header before. Anything else may be of any origin.
        """
        if not _fits(context, shard, header):
            return "it does not fit the state root or the blocks"
        stated = readable_statement(self.store, self.layout, shard.shard_uid.shard_id)
        if (
            stated is not None
            and stated[0] == _statement(context, shard, header)
            and verified_signers(stated[1], [signer.public_key for signer in self.signers])
        ):
            return None
        problem = why_unverified(header, shard.verify_header)
        return None if problem is None else f"{problem}, and no signature of ours is on a statement that names it"

    def _put_statement(self, statement: ShardStatement) -> str:
        """Store a statement; signatures of others over the same payload stay, a contradicting one is kept as evidence.

        Returns:
            What is to be said of one in place that says nothing and is replaced; else nothing.
        Raises:
            ObjectExistsError: other producers replaced it each time.
        """
        store, layout = self.store, self.layout
        name = layout.shard_statement(statement.shard_id)

        def signed(info: ObjectInfo | None) -> tuple[bytes, str]:
            note = ""
            try:
                found = None if info is None else read_statement(store, layout, statement.shard_id)
            except ManifestError as error:
                found, note = None, f"the statement in place of shard {statement.shard_id} was replaced: {error.problem}"
            if found is not None and found[1].payload == statement.to_payload():
                return add_signatures(found[1], self.signers, name).to_bytes(), ""
            if found is not None and differing_fields(found[0], statement):
                theirs = found[1]
                _put_read_back(store, layout.evidence(statement.shard_id, bytes.fromhex(theirs.payload_sha256)), theirs.to_bytes())
            return sign_payload(statement.to_payload(), self.signers).to_bytes(), note

        return swapped(store, name, signed, read_back=True)

    def _put_torrent(self, shard: ProducedShard, missing: list[MissingObject]) -> TorrentFile | None:
        shard_id = shard.shard_uid.shard_id
        if not shard.parts:
            return None
        files = [(part_file_name(part.interval.part_id), part.digests.stored_size, part.pieces) for part in shard.parts]
        try:
            torrent = build_torrent(shard_folder_name(shard_id), files, shard.state.piece_length, self.web_seeds, self.trackers)
        except InvalidInputError as error:
            missing.append(MissingObject(MissingKind.TORRENT, error.problem, shard_id))
            return None
        _put_read_back(self.store, self.layout.torrent(shard_id), torrent.data)
        return torrent


def refuse_unlisting(manifest: Manifest, shard_id: int, reason: str, where: str) -> None:
    """Refuse to publish a shard without a state header where the manifest lists one: what is published does not get poorer.

    Args:
        reason: why there is none to publish.
    Raises:
        ManifestError: the manifest lists one.
    """
    listed = manifest.shard(shard_id)
    if listed is not None and listed.header is not None:
        raise ManifestError(
            problem=f"shard {shard_id} is published with a state header that this run can't stand behind: {reason}",
            where=where,
            remedy="Produce from a node that still has the blocks, with the native wheel, or publish to another place. "
            "A header that was lost or damaged there comes back by statecast scrub --repair-from.",
        )


def _for_manifest(reason: str) -> str:
    """Return a reason as a manifest can hold it."""
    return "".join(char if " " <= char <= "~" else "?" for char in reason)[:REASON_CHARACTERS_MAX]


def _fits(context: EpochContext, shard: ProducedShard, header: bytes) -> bool:
    """Return whether a state header ends in this shard's state root node, and its chunk is in the block before the sync block.

    That is only a part of it: the header's source has verified the rest, or `ShardPublisher` has it verified.

    Source: nearcore core/primitives/src/state_sync.rs, ShardStateSyncResponseHeaderV2: state_root_node (node bytes, memory usage) is last.
    """
    state = shard.state
    ending = len(state.root_node).to_bytes(4, "little") + state.root_node + state.memory_usage.to_bytes(8, "little")
    if not header.endswith(ending):
        return False
    if context.block_headers:
        try:
            proven = prove_state_root(header, context.sync_hash, context.block_headers, f"state header of shard {shard.shard_uid}")
        except IntegrityError:
            return False
        return proven.chunk.shard_id == shard.shard_uid.shard_id and proven.state_root == state.state_root
    return True


def _statement(context: EpochContext, shard: ProducedShard, header: bytes | None) -> ShardStatement:
    return ShardStatement(
        chain_id=context.chain_id,
        epoch_height=context.epoch_height,
        epoch_id=context.epoch_id,
        sync_hash=context.sync_hash,
        shard_uid=shard.shard_uid,
        state_root=shard.state.state_root,
        memory_usage=shard.state.memory_usage,
        num_parts=len(shard.parts),
        header_sha256=None if header is None else hashlib.sha256(header).hexdigest(),
        parts=tuple(
            StatementPart(
                part.interval.part_id.idx,
                part.interval.key_begin,
                part.interval.key_end,
                part.digests.decoded_size,
                part.digests.decoded_sha256,
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
    if store.get(name, 0, len(data) + 1) != data:
        raise ObjectMismatchError(problem="the store gave back other bytes than it was given", where=f"{store.url}/{name}")
