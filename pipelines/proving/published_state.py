"""The state of a published epoch, read part by part: manifest, statements and parts are judged and verified before anything is looked up.

A part holds all nodes on the way to every key of its interval, also to keys that are not there: such a way ends in a node under which a
key of the interval lies, or the interval's first or next key, and a part has the nodes on the ways to these two as well.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock

from pipelines.bucket.chain_catalogue import steps_to
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import decode_stated_part
from pipelines.stores.store import Store
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import BelievedManifest, Offer, TrustPolicy, acceptable_manifests, check_state_header, choose_statement
from schemas.errors import EpochNotReadyError, IntegrityError, ObjectMismatchError, ObjectNotFoundError
from schemas.ids import PartId, ShardUId
from schemas.nearcore.state_part import decode_partial_state
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement, StatementPart


def believe_manifest(store: Store, layout: EpochLayout, policy: TrustPolicy) -> BelievedManifest:
    """Read the manifest of an epoch, and judge it.

    Raises:
        EpochNotReadyError: the epoch is not published.
        ManifestError: it is not believed; its subclasses say why.
        StoreError: the store can't be read.
    """
    try:
        offers = [Offer(store.url, store.get(layout.manifest, 0, ENVELOPE_BYTES_MAX + 1))]
    except ObjectNotFoundError:
        raise EpochNotReadyError(problem="the epoch is not published, or not yet", where=f"{store.url}/{layout.folder}") from None
    accepted = AcceptedManifests(layout.chain_id)
    return acceptable_manifests(policy, offers, layout, datetime.now(UTC), accepted, must_be_newest=False).first


@dataclass(frozen=True, slots=True)
class JudgedShard:
    """A shard's statement that the policy has judged."""

    statement: ShardStatement
    signers: tuple[str, ...]
    """Pinned keys behind it."""
    state_header: bytes | None


@dataclass(slots=True)
class PublishedState:
    """One epoch. Several threads may read parts at once."""

    store: Store
    layout: EpochLayout
    policy: TrustPolicy
    believed: BelievedManifest
    kernel_name: str = "auto"
    parts_read: list[str] = field(default_factory=list)
    """Object names, in the order in which they were verified."""
    bytes_read: int = 0
    """Of parts, as they are stored."""
    _shards: dict[ShardUId, JudgedShard] = field(default_factory=dict)
    _counting: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, store: Store, layout: EpochLayout, policy: TrustPolicy, kernel_name: str = "auto") -> PublishedState:
        """Read the manifest and judge it.

        Raises:
            As `believe_manifest`.
        """
        return cls(store, layout, policy, believe_manifest(store, layout, policy), kernel_name)

    def listed(self, shard_uid: ShardUId) -> ManifestShard:
        """Return what the manifest says of one of its shards."""
        return next(shard for shard in self.believed.manifest.shards if shard.shard_uid == shard_uid)

    def shard(self, shard_uid: ShardUId) -> JudgedShard:
        """Return a shard's statement, once the policy has judged it and the state header.

        Raises:
            ManifestError, ObjectMismatchError: it is not believed, or the state header is not what was published.
            StoreError: the store can't be read.
        """
        if shard_uid not in self._shards:
            listed = self.listed(shard_uid)
            name = self.layout.shard_statement(listed.shard_id)
            offers = [Offer(self.store.url, self.store.get(name, 0, ENVELOPE_BYTES_MAX + 1))]
            chosen = choose_statement(self.policy, offers, self.believed.manifest, listed)
            header, header_name = None, self.layout.state_header(listed.shard_id)
            if listed.header is not None:
                header = self._object(header_name, listed.header.size, listed.header.sha256)
            check_state_header(self.believed.blocks, chosen.statement, header, header_name)
            self._shards[shard_uid] = JudgedShard(chosen.statement, tuple(map(str, chosen.signers)), header)
        return self._shards[shard_uid]

    def part_name(self, shard_uid: ShardUId, part_id: int) -> str:
        """Return a part's object name."""
        listed = self.listed(shard_uid)
        return self.layout.state_part(listed.shard_id, PartId(part_id, listed.num_parts))

    def read_part(self, shard_uid: ShardUId, stated: StatementPart) -> list[bytes]:
        """Read a part whole, check its bytes and its trie, and return its nodes and values.

        Raises:
            EpochNotReadyError: it is not published, or the epoch is kept as deltas alone.
            ObjectMismatchError, IntegrityError: it is not what was published, or no part of the state root.
            StoreError: the store can't be read.
        """
        listed, name = self.listed(shard_uid), self.part_name(shard_uid, stated.part_id)
        stored = listed.part(stated.part_id)
        if stored is None:
            raise EpochNotReadyError(problem="the part that is needed is not published", where=f"{self.store.url}/{name}")
        try:
            data = self._object(name, stored.size, stored.sha256)
        except ObjectNotFoundError:
            steps = steps_to(self.store, self.layout)
            if not steps:
                raise
            raise EpochNotReadyError(
                problem=f"epoch {self.layout.epoch_height} is kept there as deltas alone, and a part of it is needed",
                where=f"{self.store.url}/{name}",
                remedy=f"It is rebuilt of epoch {steps[0].epoch_height}: statecast fetch {self.store.url}/{self.layout.folder} "
                f"--base {self.store.url} --into FOLDER; then ask the folder.",
            ) from None
        try:
            decoded = decode_stated_part(data, self.believed.manifest.encoding, stated.sha256, stated.decoded_size)
        except IntegrityError as error:
            raise error.at(f"{self.store.url}/{name}") from None
        choose_kernel(self.kernel_name).validate(decoded, listed.state_root, PartId(stated.part_id, listed.num_parts))
        with self._counting:
            self.parts_read.append(name)
            self.bytes_read += len(data)
        return decode_partial_state(decoded)

    def _object(self, name: str, size: int, sha256: str) -> bytes:
        data = self.store.get(name, 0, size + 1)
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectMismatchError(problem="an object does not have the manifest's size and sha256", where=f"{self.store.url}/{name}")
        return data


def part_of_key(statement: ShardStatement, trie_key: bytes) -> StatementPart:
    """Return the one part whose interval has a key; of a shard that is not empty."""
    # Parts without keys begin where they end: the last that begins at or before the key is the one.
    return statement.parts[bisect_right(statement.parts, trie_key, key=lambda part: part.key_begin) - 1]
