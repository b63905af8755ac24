"""Verifies a proof document offline: nodes by hash, keys by nibbles, values by length and hash, the state root by the headers.

1. The walk that made the proof is done again and takes its nodes from the document, each in its place: a node more, less or elsewhere
   fails. It ends where the key's value is referred to, or where the key can't be: that is absence.
2. The claimed values have the lengths and hashes that the nodes say. Of a prefix, the keys are those that the walk met, and all of them.
3. Headers, where there are some, hang together by hash and name this shard, state root, block and epoch; with a trusted block, one of
   them hashes to it. A shard that is said to be the only one has the block's only chunk.

What no header names (chain id, epoch height, version of the shard layout, how the shard was chosen) is not proven. Where the
reader brings a shard layout, the shard must be the one that it has the account in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.proving.node_readers import NodesInOrder
from pipelines.proving.shard_choice import check_shard
from pipelines.proving.walk_proof import Ending, check_claim, check_value, walk_prefix, walk_to_key
from pipelines.stores.regular_file import open_regular
from schemas.errors import IntegrityError, InvalidInputError
from schemas.ids import CryptoHash
from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.proof import PROOF_BYTES_MAX, KeyClaim, PrefixClaim, ShardChoice, TrieProof
from schemas.published.proof_chain import ProvenChunk


@dataclass(frozen=True, slots=True)
class VerifiedProof:
    """A proof that holds."""

    proof: TrieProof
    ending: Ending | None
    """Where the way to the key ends; None for a prefix."""
    chunk: ProvenChunk | None
    """The headers; None where the proof has none."""
    tied_to: tuple[str, ...]
    """What the reader trusts that leads to the state root; empty when the proof is consistent and no more."""
    is_right_shard: bool = False
    """Whether the reader's own shard layout assigns the account to this shard."""


def read_proof(path: Path) -> TrieProof:
    """Read a proof document.

    Raises:
        InvalidInputError: the file can't be read.
        IntegrityError: it is no proof.
    """
    try:
        with open_regular(path.expanduser()) as file:
            return TrieProof.parse(file.read(PROOF_BYTES_MAX + 1), str(path))
    except OSError as error:
        raise InvalidInputError(problem=f"the proof can't be read: {error.strerror}", where=str(path)) from None


def verify_trie_proof(
    proof: TrieProof,
    where: str,
    trusted_block: CryptoHash | None = None,
    state_root: CryptoHash | None = None,
    shard_layout: ShardLayout | None = None,
) -> VerifiedProof:
    """Verify a proof.

    Args:
        trusted_block: hash of the block that includes the chunk of the state root, or of its child.
        state_root: a state root that the reader knows.
        shard_layout: the state's, where the reader knows it.
    Raises:
        InvalidInputError: the trie key is of no one account, so the shard layout says nothing.
        IntegrityError: it does not hold; its subclasses say why.
    """
    if state_root is not None and proof.state_root != state_root:
        raise IntegrityError(problem=f"the proof is of state root {proof.state_root}, not {state_root}", where=where)
    ending = _verify_nodes(proof)
    chunk = _verify_chain(proof, trusted_block, where)
    tied_to = [] if state_root is None else [f"state root {state_root}"]
    if shard_layout is not None:
        check_shard(proof, shard_layout, where)
    tied_to += [] if trusted_block is None else [f"block {trusted_block}"]
    return VerifiedProof(proof, ending, chunk, tuple(tied_to), is_right_shard=shard_layout is not None)


def _verify_nodes(proof: TrieProof) -> Ending | None:
    nodes = NodesInOrder(proof.nodes)
    match proof.claim:
        case KeyClaim(trie_key, value):
            path = walk_to_key(nodes, proof.state_root, trie_key)
            nodes.finish()
            check_claim(path, trie_key, value)
            return path.ending
        case PrefixClaim(prefix, values):
            found = walk_prefix(nodes, proof.state_root, prefix)
            nodes.finish()
            if [key for key, _ in found.items] != [key for key, _ in values]:
                raise IntegrityError(
                    problem=f"the nodes lead to {len(found.items)} keys, the proof lists {len(values)}, and they are not the same",
                    where=f"trie key prefix {prefix.hex()}",
                )
            for (key, value_ref), (_, value) in zip(found.items, values, strict=True):
                check_value(key, value_ref, value)
            return None


def _verify_chain(proof: TrieProof, trusted_block: CryptoHash | None, where: str) -> ProvenChunk | None:
    if proof.chain is None:
        if trusted_block is not None:
            raise IntegrityError(
                problem=f"the proof has no headers, so nothing leads from block {trusted_block} to its state root",
                where=where,
                remedy="Compare the state root with one that you know (--state-root).",
            )
        return None
    proven = proof.chain.prove(trusted_block, where)
    chunk = proven.chunk
    said = (proof.shard_uid.shard_id, proof.state_root, proof.block_hash)
    if said != (chunk.shard_id, chunk.prev_state_root, chunk.prev_block_hash):
        raise IntegrityError(
            problem=f"the chain has shard {chunk.shard_id} with state root {chunk.prev_state_root} after block {chunk.prev_block_hash}, "
            f"the proof says shard {said[0]}, {said[1]}, {said[2]}",
            where=where,
        )
    if proof.shard_chosen_by is ShardChoice.ONLY_SHARD and proof.chain.chunk_path:
        raise IntegrityError(
            problem=f"the proof says that shard {proof.shard_uid} is the only one, and block {proven.block.hash} has chunks of others",
            where=where,
            remedy="Its maker was misled by a manifest without the others: name the shard with --shard-id or --shard-layout.",
        )
    if proof.epoch_id is not None and proof.epoch_id not in (proven.block.epoch_id, proven.block.next_epoch_id):
        raise IntegrityError(problem=f"block {proven.block.hash} is not of epoch {proof.epoch_id}, which the proof says", where=where)
    return proven
