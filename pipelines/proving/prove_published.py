"""Makes a proof out of a published epoch: the one part that can hold a key is read whole, verified, and searched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pipelines.proving.make_proof import has_key, make_claim
from pipelines.proving.node_readers import NodesByHash
from pipelines.proving.published_state import PublishedState
from pipelines.proving.shard_choice import choose_shard
from pipelines.proving.verify_trie_proof import VerifiedProof, verify_trie_proof
from pipelines.proving.wanted_record import WantedRecord
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from schemas.errors import InvalidInputError, ManifestError
from schemas.ids import ZERO_HASH, ShardUId
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.trie_key import account_key
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice, TrieProof
from schemas.published.proof_chain import ChainEvidence, evidence_from_state_header
from schemas.published.shard_statement import StatementPart

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


@dataclass(slots=True)
class _Proving:
    request: PublishedProofRequest
    state: PublishedState
    entries: dict[str, list[bytes]] = field(default_factory=dict)
    """Nodes and values of the parts that were read last, by object name."""

    @classmethod
    def open(cls, request: PublishedProofRequest) -> _Proving:
        store = open_store(request.store_url)
        return cls(request, PublishedState.open(store, request.layout, request.policy, request.kernel_name))

    def prove(self) -> PublishedProof:
        request, manifest = self.request, self.state.believed.manifest
        wanted = request.wanted
        shard_uid, chosen_by = choose_shard(
            offered=[shard.shard_uid for shard in manifest.shards],
            num_shards=len(manifest.shards) + len(manifest.missing_shard_ids),
            shard_id=request.shard_id,
            account_id=wanted.account_id,
            shard_layout=request.shard_layout or manifest.shard_layout,
            has_account=self._has_account,
        )
        shard = self.state.listed(shard_uid)
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
            block_hash=None if chain is None else chain.prove(None, self.state.store.url).chunk.prev_block_hash,
            claim=claim,
            nodes=nodes,
            chain=chain,
        )
        verified = verify_trie_proof(proof, f"proof from {self.state.store.url}/{request.layout.folder}", request.policy.trusted_block)
        layout_signers = tuple(map(str, self.state.believed.signers)) if by_manifest else None
        signers = self.state.shard(shard_uid).signers
        return PublishedProof(verified, signers, tuple(self.state.parts_read), self.state.bytes_read, layout_signers)

    def _doubt_layout(self, shard_uid: ShardUId, claim: KeyClaim | PrefixClaim) -> None:
        """Look for the account in the other shards, if the manifest's layout is not signed by a pinned key and its state roots are the chain's.

        A layout without a pinned signature must not turn a record that is present into an absent one, and all records of an account are in
        one shard.
        """
        policy, account_id = self.request.policy, self.request.wanted.account_id
        is_absent = not claim.values if isinstance(claim, PrefixClaim) else claim.value is None
        if policy.trusted_block is None or policy.keys is not None or not is_absent or self._has_account(shard_uid):
            return
        others = (shard.shard_uid for shard in self.state.believed.manifest.shards if shard.shard_uid != shard_uid)
        elsewhere = next((other for other in others if self._has_account(other)), None)
        if elsewhere is not None:
            raise ManifestError(
                problem=f"the manifest's shard layout has {account_id} in shard {shard_uid}, and shard {elsewhere} has its record",
                where=f"{self.state.store.url}/{self.request.layout.manifest}",
                remedy="Its publisher errs or lies: read from another one, or give the layout with --shard-layout.",
            )

    def _has_account(self, shard_uid: ShardUId) -> bool:
        account_id = self.request.wanted.account_id
        if account_id is None:
            return False
        record = WantedRecord(account_id, account_key(account_id))
        shard = self.state.listed(shard_uid)
        return has_key(self._reader(shard, record), shard.state_root, record.trie_key)

    def _evidence(self, shard: ManifestShard) -> ChainEvidence | None:
        header, block_headers = self.state.shard(shard.shard_uid).state_header, self.state.believed.manifest.block_headers
        if header is None or not block_headers:
            return None
        where = f"{self.state.store.url}/{self.request.layout.state_header(shard.shard_id)}"
        sync_block = decode_block_header(block_headers[0], where, self.state.believed.manifest.sync_hash)
        parent = decode_block_header(block_headers[1], where, sync_block.prev_hash)
        return evidence_from_state_header(header, parent, sync_block.encoded, where)

    def _reader(self, shard: ManifestShard, wanted: WantedRecord) -> NodesByHash:
        """Return the nodes and values of the parts that the wanted keys' interval touches."""
        statement = self.state.shard(shard.shard_uid).statement
        # Parts of an empty trie hold nothing, and each of them spans everything.
        parts = [] if shard.state_root == ZERO_HASH else [part for part in statement.parts if _touches(part, wanted)]
        if len(parts) > PARTS_OF_PREFIX_MAX:
            raise InvalidInputError(
                problem=f"keys with this prefix lie in {len(parts)} parts, at most {PARTS_OF_PREFIX_MAX} are read",
                where=f"trie key prefix {wanted.trie_key.hex()}",
                remedy="Take a longer prefix.",
            )
        names = tuple(self.state.part_name(shard.shard_uid, part.part_id) for part in parts)
        # Parts that were read to find the account's shard are let go, but for those that are needed again.
        self.entries = {name: entries for name, entries in self.entries.items() if name in names}
        for name, part in zip(names, parts, strict=True):
            if name not in self.entries:
                self.entries[name] = self.state.read_part(shard.shard_uid, part)
        return NodesByHash((entry for name in names for entry in self.entries[name]), f"shard {shard.shard_id}, {self.state.store.url}")


def _touches(part: StatementPart, wanted: WantedRecord) -> bool:
    """Return whether a part's interval has the wanted key, or keys with the wanted prefix."""
    end = _after(wanted.trie_key) if wanted.is_prefix else wanted.trie_key + b"\0"
    return (part.key_end is None or wanted.trie_key < part.key_end) and (end is None or part.key_begin < end)


def _after(prefix: bytes) -> bytes | None:
    """Return the first key after all that begin with a prefix; None when there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
