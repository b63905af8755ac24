"""Makes a proof out of a published epoch: the one part that can hold a key is read whole, verified, and searched.

A part holds all nodes on the way to every key of its interval, also to keys that are not there: such a way ends in a node under which a
key of the interval lies, or the interval's first or next key, and a part has the nodes on the ways to these two as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import digest_part
from pipelines.proving.make_proof import has_key, make_claim
from pipelines.proving.node_readers import NodesByHash
from pipelines.proving.shard_choice import choose_shard
from pipelines.proving.verify_trie_proof import VerifiedProof, verify_trie_proof
from pipelines.proving.wanted_record import WantedRecord
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import BelievedManifest, Offer, TrustPolicy, acceptable_manifests, check_state_header, choose_statement
from schemas.errors import EpochNotReadyError, InvalidInputError, ManifestError, ObjectMismatchError, ObjectNotFoundError
from schemas.ids import ZERO_HASH, PartId, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.state_part import decode_partial_state
from schemas.nearcore.trie_key import account_key
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice, TrieProof
from schemas.published.proof_chain import ChainEvidence, evidence_from_state_header
from schemas.published.shard_statement import ShardStatement, StatementPart

PARTS_OF_PREFIX_MAX: Final = 16
"""Most parts that are read for a prefix; all their nodes are held at once."""


@dataclass(frozen=True, slots=True)
class PublishedProofRequest:
    """What is to be proven, out of which published epoch, and whom to believe."""

    store_url: str
    layout: EpochLayout
    wanted: WantedRecord
    policy: TrustPolicy
    shard_id: int | None = None
    shard_layout: ShardLayout | None = None
    """The user's own; None to take the manifest's, where it has one."""
    kernel_name: str = "auto"


@dataclass(frozen=True, slots=True)
class PublishedProof:
    """A proof, and where it is from."""

    verified: VerifiedProof
    signers: tuple[str, ...]
    """Pinned keys behind the shard's statement."""
    parts_read: tuple[str, ...]
    """Object names; also of parts in which the account was looked for to find its shard."""
    bytes_read: int
    """Of parts."""
    layout_signers: tuple[str, ...] | None
    """Pinned keys behind the manifest whose shard layout chose the shard; None where the shard was chosen in another way."""


def prove_from_published(request: PublishedProofRequest) -> PublishedProof:
    """Make and verify a proof.

    Raises:
        ManifestError: the trust policy does not hold, or the manifest's shard layout is found to be wrong.
        EpochNotReadyError: the part that is needed is not published.
        ObjectMismatchError, IntegrityError: a part or state header is not what was published, or is no part of the state root.
        InvalidInputError: the shard can't be told, or a prefix has too many keys.
        StoreError: the store can't be read.
    """
    return _Proving.open(request).prove()


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


@dataclass(slots=True)
class _Proving:
    request: PublishedProofRequest
    store: Store
    believed: BelievedManifest
    statements: dict[ShardUId, tuple[ShardStatement, tuple[str, ...], bytes | None]] = field(default_factory=dict)
    """By shard: the statement, who signed it, and the state header."""
    entries: dict[str, list[bytes]] = field(default_factory=dict)
    """Nodes and values of the parts that were read last, by object name."""
    parts_read: list[str] = field(default_factory=list)
    bytes_read: int = 0

    @classmethod
    def open(cls, request: PublishedProofRequest) -> _Proving:
        store = open_store(request.store_url)
        return cls(request, store, believe_manifest(store, request.layout, request.policy))

    def prove(self) -> PublishedProof:
        request, manifest = self.request, self.believed.manifest
        wanted = request.wanted
        shard_uid, chosen_by = choose_shard(
            offered=[shard.shard_uid for shard in manifest.shards],
            num_shards=len(manifest.shards) + len(manifest.missing_shard_ids),
            shard_id=request.shard_id,
            account_id=wanted.account_id,
            shard_layout=request.shard_layout or manifest.shard_layout,
            has_account=self._has_account,
        )
        shard = self._shard(shard_uid)
        claim, nodes = make_claim(self._reader(shard, wanted), shard.state_root, wanted)
        by_manifest = chosen_by is ShardChoice.SHARD_LAYOUT and request.shard_layout is None
        if by_manifest:
            self._doubt_layout(shard_uid, claim)
        chain = self._evidence(shard)
        proof = TrieProof(
            chain_id=manifest.chain_id,
            epoch_height=manifest.epoch_height,
            epoch_id=manifest.epoch_id,
            shard_uid=shard_uid,
            shard_chosen_by=chosen_by,
            state_root=shard.state_root,
            block_hash=None if chain is None else chain.prove(None, self.store.url).chunk.prev_block_hash,
            claim=claim,
            nodes=nodes,
            chain=chain,
        )
        verified = verify_trie_proof(proof, f"proof from {self.store.url}/{request.layout.folder}", request.policy.trusted_block)
        layout_signers = tuple(map(str, self.believed.signers)) if by_manifest else None
        return PublishedProof(verified, self._statement(shard)[1], tuple(self.parts_read), self.bytes_read, layout_signers)

    def _doubt_layout(self, shard_uid: ShardUId, claim: KeyClaim | PrefixClaim) -> None:
        """Look for the account in the other shards, if the manifest's layout is not signed by a pinned key and its state roots are the chain's.

        A layout without a pinned signature must not turn a record that is present into an absent one, and all records of an account are in
        one shard.
        """
        policy, account_id = self.request.policy, self.request.wanted.account_id
        is_absent = not claim.values if isinstance(claim, PrefixClaim) else claim.value is None
        if policy.trusted_block is None or policy.keys is not None or not is_absent or self._has_account(shard_uid):
            return
        others = (shard.shard_uid for shard in self.believed.manifest.shards if shard.shard_uid != shard_uid)
        elsewhere = next((other for other in others if self._has_account(other)), None)
        if elsewhere is not None:
            raise ManifestError(
                problem=f"the manifest's shard layout has {account_id} in shard {shard_uid}, and shard {elsewhere} has its record",
                where=f"{self.store.url}/{self.request.layout.manifest}",
                remedy="Its publisher errs or lies: read from another one, or give the layout with --shard-layout.",
            )

    def _shard(self, shard_uid: ShardUId) -> ManifestShard:
        return next(shard for shard in self.believed.manifest.shards if shard.shard_uid == shard_uid)

    def _has_account(self, shard_uid: ShardUId) -> bool:
        account_id = self.request.wanted.account_id
        if account_id is None:
            return False
        record = WantedRecord(account_id, account_key(account_id))
        shard = self._shard(shard_uid)
        return has_key(self._reader(shard, record), shard.state_root, record.trie_key)

    def _statement(self, shard: ManifestShard) -> tuple[ShardStatement, tuple[str, ...], bytes | None]:
        """Return a shard's statement, once the policy has judged it and the state header."""
        if shard.shard_uid not in self.statements:
            name = self.request.layout.shard_statement(shard.shard_id)
            offers = [Offer(self.store.url, self.store.get(name, 0, ENVELOPE_BYTES_MAX + 1))]
            believed = choose_statement(self.request.policy, offers, self.believed.manifest, shard)
            header = None
            if shard.header is not None:
                header = self._object(self.request.layout.state_header(shard.shard_id), shard.header.size, shard.header.sha256)
            check_state_header(self.believed.blocks, believed.statement, header, self.request.layout.state_header(shard.shard_id))
            self.statements[shard.shard_uid] = believed.statement, tuple(map(str, believed.signers)), header
        return self.statements[shard.shard_uid]

    def _evidence(self, shard: ManifestShard) -> ChainEvidence | None:
        header, block_headers = self._statement(shard)[2], self.believed.manifest.block_headers
        if header is None or not block_headers:
            return None
        where = f"{self.store.url}/{self.request.layout.state_header(shard.shard_id)}"
        sync_block = decode_block_header(block_headers[0], where, self.believed.manifest.sync_hash)
        parent = decode_block_header(block_headers[1], where, sync_block.prev_hash)
        return evidence_from_state_header(header, parent, sync_block.encoded, where)

    def _reader(self, shard: ManifestShard, wanted: WantedRecord) -> NodesByHash:
        """Return the nodes and values of the parts that the wanted keys' interval touches."""
        statement = self._statement(shard)[0]
        # Parts of an empty trie hold nothing, and each of them spans everything.
        parts = [] if shard.state_root == ZERO_HASH else [part for part in statement.parts if _touches(part, wanted)]
        if len(parts) > PARTS_OF_PREFIX_MAX:
            raise InvalidInputError(
                problem=f"keys with this prefix lie in {len(parts)} parts, at most {PARTS_OF_PREFIX_MAX} are read",
                where=f"trie key prefix {wanted.trie_key.hex()}",
                remedy="Take a longer prefix.",
            )
        names = tuple(self.request.layout.state_part(shard.shard_id, PartId(part.part_id, shard.num_parts)) for part in parts)
        # Parts that were read to find the account's shard are let go, but for those that are needed again.
        self.entries = {name: entries for name, entries in self.entries.items() if name in names}
        for name, part in zip(names, parts, strict=True):
            if name not in self.entries:
                self.entries[name] = self._read_part(name, shard, part)
        return NodesByHash((entry for name in names for entry in self.entries[name]), f"shard {shard.shard_id}, {self.store.url}")

    def _read_part(self, name: str, shard: ManifestShard, stated: StatementPart) -> list[bytes]:
        """Read a part and check its bytes and its trie."""
        stored = shard.part(stated.part_id)
        if stored is None:
            raise EpochNotReadyError(problem="the part that is needed is not published", where=f"{self.store.url}/{name}")
        data = self._object(name, stored.size, stored.sha256)
        digests, decoded = digest_part(data, self.believed.manifest.encoding)
        if (digests.decoded_size, digests.decoded_sha256) != (stated.decoded_size, stated.sha256):
            raise ObjectMismatchError(problem="a part does not decode to its statement's size and sha256", where=f"{self.store.url}/{name}")
        choose_kernel(self.request.kernel_name).validate(decoded, shard.state_root, PartId(stated.part_id, shard.num_parts))
        self.parts_read.append(name)
        self.bytes_read += len(data)
        return decode_partial_state(decoded)

    def _object(self, name: str, size: int, sha256: str) -> bytes:
        data = self.store.get(name, 0, size + 1)
        if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
            raise ObjectMismatchError(problem="an object does not have the manifest's size and sha256", where=f"{self.store.url}/{name}")
        return data


def _touches(part: StatementPart, wanted: WantedRecord) -> bool:
    """Return whether a part's interval has the wanted key, or keys with the wanted prefix."""
    end = _after(wanted.trie_key) if wanted.is_prefix else wanted.trie_key + b"\0"
    return (part.key_end is None or wanted.trie_key < part.key_end) and (end is None or part.key_begin < end)


def _after(prefix: bytes) -> bytes | None:
    """Return the first key after all that begin with a prefix; None when there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
