"""A folder of fetched or published parts: which epoch, shards, roots and encoding, and that every part is there.

With a manifest the folder speaks for itself; without one the epoch comes from the folder's name and from a context that the caller
gives. Where a state header and the headers of the sync block and its parent are there, the state root is proved by the sync hash;
else it is the manifest's or the context's word. Signatures are not judged here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from pipelines.bucket.published_epoch import read_envelope, read_manifest
from pipelines.restoring.part_object import PartObject
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.errors import (
    EpochNotReadyError,
    InvalidInputError,
    ManifestError,
    ObjectMismatchError,
    ObjectNotFoundError,
    StateRootMismatchError,
)
from schemas.ids import ZERO_HASH, CryptoHash, PartId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_storage import FlatBlock
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX, decode_state_header, prove_state_root
from schemas.nearcore.state_part import Encoding, default_encoding
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout, ObjectKind, parse_epoch_folder, parse_object_name, split_chain_url
from schemas.published.shard_statement import ShardStatement
from schemas.shown_text import shown_url

MISSING_SHOWN_MAX = 5
"""Most missing parts that an error names."""


@dataclass(frozen=True, slots=True)
class ShardParts:
    """All parts of one shard."""

    context: ShardContext
    """Its state root is known."""
    parts: tuple[PartObject, ...]
    """Ascending; none for an empty trie."""
    header_name: str | None
    """Object name of the state header, where it is there."""
    memory_usage: int | None
    """Of the state root, where a statement or the state header says it."""
    flat_head: FlatBlock | None
    """The block whose post-state this is; height 0 and a zero prev_hash where they are not known. None: no block is known."""
    root_proved: bool
    """The state header and the block headers lead from the sync hash to the state root."""

    @property
    def state_root(self) -> CryptoHash:
        """The state root that the parts are of."""
        assert self.context.state_root is not None, "a shard of parts has a state root"
        return self.context.state_root


@dataclass(frozen=True, slots=True)
class EpochParts:
    """The parts of an epoch's shards in a store."""

    store_url: str
    layout: EpochLayout
    context: EpochContext
    """Of these shards alone."""
    encoding: Encoding
    shards: tuple[ShardParts, ...]
    absent_shard_ids: tuple[int, ...]
    """Shards that the manifest or context lists and of which nothing is in the folder."""

    @property
    def url(self) -> str:
        """The epoch's folder."""
        return f"{self.store_url}/{self.layout.folder}"


def find_epoch(url: str, selector: str = "latest") -> tuple[str, EpochLayout]:
    """Return the store's URL and the one epoch in it that is meant.

    Args:
        url: an epoch's folder, or a folder above it.
        selector: ``latest`` (the greatest epoch height), a height, or an epoch id.
    Raises:
        InvalidInputError: not such a folder, or several epochs fit.
        EpochNotReadyError: no such epoch is there.
    """
    root, prefix = split_chain_url(url)
    if "/" in prefix and (layout := parse_epoch_folder(prefix)) is not None:
        return root, layout
    epochs = {name.epoch for info in open_store(root).list(prefix) if (name := parse_object_name(info.name)) and name.epoch}
    fitting = [epoch for epoch in epochs if selector in ("latest", str(epoch.epoch_height), str(epoch.epoch_id))]
    if selector == "latest" and fitting:
        newest = max(epoch.epoch_height for epoch in fitting)
        fitting = [epoch for epoch in fitting if epoch.epoch_height == newest]
    if not fitting:
        known = ", ".join(sorted(epoch.folder for epoch in epochs)[:MISSING_SHOWN_MAX])
        raise EpochNotReadyError(
            problem=f"there is no epoch {selector}" if epochs else "there are no state parts under nearcore's object names",
            where=shown_url(url),
            remedy=f"There is {known}." if known else "Give the folder that holds chain_id=…, or the epoch's own folder.",
        )
    if len(fitting) > 1:
        raise InvalidInputError(
            problem="several epochs fit", where=shown_url(url), remedy=f"Name one: {', '.join(sorted(epoch.folder for epoch in fitting))}."
        )
    return root, fitting[0]


def open_epoch_parts(
    store_url: str, layout: EpochLayout, given: EpochContext | None, encoding: Encoding | None, shard_ids: Sequence[int]
) -> EpochParts:
    """Read the folder's own manifest, and check that every part of the wanted shards is there.

    Args:
        given: what the caller knows; needed where there is no manifest, else it must agree with it.
        encoding: of the parts, where there is no manifest; None for what the protocol version writes.
        shard_ids: shards to take; none means all that have anything in the folder.
    Raises:
        InvalidInputError: no manifest and no context, or the two disagree; an encoding that is not the manifest's.
        ObjectNotFoundError: parts are missing; some are named.
        ManifestError: manifest or statement can't be parsed or don't fit each other.
        StateRootMismatchError, IntegrityError: a state header is not this shard's.
    """
    store = open_store(store_url)
    stored = read_manifest(store, layout)
    manifest = None if stored is None else stored.manifest
    context = _context(layout, manifest, given, f"{store.url}/{layout.folder}")
    if manifest is not None and encoding not in (None, manifest.encoding):
        raise InvalidInputError(problem=f"the manifest says encoding {manifest.encoding}", where=f"--encoding {encoding}")
    chosen = manifest.encoding if manifest else encoding or default_encoding(context.protocol_version)
    reader = _ShardReader(store_url, store, layout, context, manifest, chosen)
    shards, absent = [], []
    for shard in context.only(tuple(shard_ids)).shards:
        found = reader.read(shard, wanted=bool(shard_ids))
        if found is None:
            absent.append(shard.shard_id)
        else:
            shards.append(found)
    if not shards:
        raise ObjectNotFoundError(problem="no shard of this epoch has parts here", where=f"{store.url}/{layout.folder}")
    return EpochParts(
        store_url=store_url,
        layout=layout,
        context=replace(context, shards=tuple(shard.context for shard in shards)),
        encoding=chosen,
        shards=tuple(shards),
        absent_shard_ids=tuple(absent),
    )


def _context(layout: EpochLayout, manifest: Manifest | None, given: EpochContext | None, where: str) -> EpochContext:
    if manifest is None and given is None:
        raise InvalidInputError(
            problem="there is no manifest, so the shards' state roots are not known",
            where=where,
            remedy="Give --context FILE, or --state-root, --shard-uid, --sync-hash and --protocol-version.",
        )
    if given is not None and EpochLayout.of(given) != layout:
        raise InvalidInputError(problem=f"the context is of {EpochLayout.of(given).folder}", where=where)
    if manifest is None:
        assert given is not None
        return given
    own = EpochContext(
        chain_id=manifest.chain_id,
        epoch_height=manifest.epoch_height,
        epoch_id=manifest.epoch_id,
        sync_hash=manifest.sync_hash,
        protocol_version=manifest.protocol_version,
        shards=tuple(ShardContext(shard.shard_uid, shard.state_root, parent_shard_uid=shard.parent_shard_uid) for shard in manifest.shards),
        block_headers=manifest.block_headers,
        shard_layout=manifest.shard_layout,
    )
    return own if given is None else _agreed(own, given, where)


def _agreed(own: EpochContext, given: EpochContext, where: str) -> EpochContext:
    """Unite the manifest's context with the caller's, which may know less; what both know must be the same."""
    for name in ("sync_hash", "protocol_version"):
        if getattr(own, name) != getattr(given, name):
            raise InvalidInputError(
                problem=f"{name} is {getattr(own, name)} in the manifest, {getattr(given, name)} in the context", where=where
            )
    known = {shard.shard_id: shard for shard in given.shards}
    shards = []
    for shard in own.shards:
        other = known.get(shard.shard_id, shard)
        if other.shard_uid != shard.shard_uid:
            raise InvalidInputError(problem=f"the manifest has shard {shard.shard_uid}, the context {other.shard_uid}", where=where)
        if other.state_root not in (None, shard.state_root):
            raise StateRootMismatchError(
                problem=f"the manifest's state root of shard {shard.shard_uid} is not the context's",
                where=where,
                expected=str(other.state_root),
                actual=str(shard.state_root),
            )
        shards.append(replace(shard, flat_head_target=other.flat_head_target))
    if own.shard_layout is not None and given.shard_layout not in (None, own.shard_layout):
        raise InvalidInputError(problem="the manifest's shard layout is not the context's", where=where)
    return replace(own, shards=tuple(shards))


@dataclass(frozen=True, slots=True)
class _ShardReader:
    store_url: str
    store: Store
    layout: EpochLayout
    context: EpochContext
    manifest: Manifest | None
    encoding: Encoding

    def read(self, shard: ShardContext, *, wanted: bool) -> ShardParts | None:
        """Return a shard's parts; None when nothing of it is here and it was not asked for by name."""
        listed = None if self.manifest is None else self.manifest.shard(shard.shard_id)
        where = f"{self.store.url}/{self.layout.shard_folder(shard.shard_id)}"
        if shard.state_root is None:
            raise InvalidInputError(problem=f"the state root of shard {shard.shard_uid} is not known", where=where)
        found = self._part_ids(shard.shard_id, where)
        if not found and shard.state_root != ZERO_HASH and not wanted:
            return None
        num_parts = self._num_parts(shard, listed, found, where)
        if len(found) < num_parts:
            missing = islice((idx for idx in range(num_parts) if PartId(idx, num_parts) not in found), MISSING_SHOWN_MAX)
            raise ObjectNotFoundError(
                problem=f"{num_parts - len(found)} of the {num_parts} parts of shard {shard.shard_uid} are missing, among them "
                + ", ".join(map(str, missing)),
                where=where,
                remedy="Fetch them first.",
            )
        statement = None if listed is None else self._statement(listed)
        stored = {} if listed is None else {part.part_id: part.sha256 for part in listed.parts}
        stated = {} if statement is None else {part.part_id: part.sha256 for part in statement.parts}
        parts = tuple(
            PartObject(
                self.store_url,
                self.layout.state_part(shard.shard_id, PartId(idx, num_parts)),
                PartId(idx, num_parts),
                shard.state_root,
                self.encoding,
                stored.get(idx),
                stated.get(idx),
            )
            for idx in range(num_parts)
        )
        return self._with_header(shard, parts, listed, None if statement is None else statement.memory_usage)

    def _part_ids(self, shard_id: int, where: str) -> set[PartId]:
        found: set[PartId] = set()
        for info in self.store.list(self.layout.shard_folder(shard_id)):
            name = parse_object_name(info.name)
            if name is None or name.kind is not ObjectKind.STATE_PART or name.part_id is None:
                raise InvalidInputError(
                    problem="this is no state part, and nodes count every object of the folder as one",
                    where=f"{self.store.url}/{info.name}",
                    remedy="Move it away.",
                )
            found.add(name.part_id)
        if len({part_id.total for part_id in found}) > 1:
            raise InvalidInputError(problem="parts of several num_parts lie in one folder", where=where, remedy="Keep those of one.")
        return found

    def _num_parts(self, shard: ShardContext, listed: ManifestShard | None, found: set[PartId], where: str) -> int:
        if listed is not None:
            if any(part_id.total != listed.num_parts for part_id in found):
                raise InvalidInputError(problem=f"the manifest says {listed.num_parts} parts, the folder has another number", where=where)
            return listed.num_parts
        if found:
            return next(iter(found)).total
        if shard.state_root == ZERO_HASH:
            return 0
        raise ObjectNotFoundError(problem=f"no part of shard {shard.shard_uid} is there", where=where, remedy="Fetch the parts first.")

    def _statement(self, listed: ManifestShard) -> ShardStatement | None:
        """Read the shard's statement where it is there: a folder without one is judged by the manifest's digests and the trie."""
        name = self.layout.shard_statement(listed.shard_id)
        where = f"{self.store.url}/{name}"
        envelope = read_envelope(self.store, name)
        if envelope is None:
            return None
        statement = None if envelope.payload_sha256 != listed.statement_sha256 else ShardStatement.from_payload(envelope.payload, where)
        if statement is None or statement.state_root != listed.state_root:
            raise ManifestError(problem="it is not the statement that the manifest names", where=where)
        return statement

    def _with_header(
        self, shard: ShardContext, parts: tuple[PartObject, ...], listed: ManifestShard | None, memory_usage: int | None
    ) -> ShardParts:
        name = self.layout.state_header(shard.shard_id)
        where = f"{self.store.url}/{name}"
        listed_header = None if listed is None else listed.header
        try:
            data = read_object(self.store, name, STATE_HEADER_BYTES_MAX if listed_header is None else listed_header.size)
        except ObjectNotFoundError:
            return ShardParts(shard, parts, None, memory_usage, _flat_head(shard.flat_head_target, self.context), root_proved=False)
        if listed_header is not None and hashlib.sha256(data).hexdigest() != listed_header.sha256:
            raise ObjectMismatchError(problem="the state header does not have the manifest's sha256", where=where)
        blocks = self.context.block_headers
        header = prove_state_root(data, self.context.sync_hash, blocks, where) if blocks else decode_state_header(data, where)
        if header.state_root != shard.state_root or header.chunk.shard_id != shard.shard_id:
            raise StateRootMismatchError(
                problem=f"the state header is of shard {header.chunk.shard_id} with another state root than shard {shard.shard_uid}",
                where=where,
                expected=str(shard.state_root),
                actual=str(header.state_root),
            )
        target = shard.flat_head_target or header.chunk.prev_block_hash
        return ShardParts(
            context=replace(shard, flat_head_target=target),
            parts=parts,
            header_name=name,
            memory_usage=header.memory_usage,
            flat_head=_flat_head(target, self.context),
            root_proved=bool(blocks),
        )


def _flat_head(target: CryptoHash | None, context: EpochContext) -> FlatBlock | None:
    if target is None:
        return None
    for encoded in context.block_headers:
        header = decode_block_header(encoded, "block_headers")
        if header.hash == target:
            return FlatBlock(header.hash, header.height, header.prev_hash)
    return FlatBlock(target, 0, ZERO_HASH)
