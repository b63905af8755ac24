"""Proofs of others, verified offline."""

from __future__ import annotations

from pathlib import Path

from pipelines.proving.verify_trie_proof import VerifiedProof, read_proof, verify_trie_proof
from schemas.ids import CryptoHash
from schemas.published.proof import TrieProof


def verify_proof(proof: bytes | str | Path, *, block: str | None = None, state_root: str | None = None) -> VerifiedProof:
    """Verify a proof document. Without block and state root it can only be found consistent: ``tied_to`` is empty then.

    Args:
        proof: the document, or the path of its file.
        block: hash in base58 of the block that names the state root, or of its child.
        state_root: in base58, where the reader knows it.
    Raises:
        IntegrityError: it does not hold; its subclasses say why.
        InvalidInputError: the file can't be read, or a text is no hash.
    """
    trusted = None if block is None else CryptoHash.from_base58(block)
    root = None if state_root is None else CryptoHash.from_base58(state_root)
    document = TrieProof.parse(proof, "proof") if isinstance(proof, bytes) else read_proof(Path(proof))
    return verify_trie_proof(document, "proof" if isinstance(proof, bytes) else str(proof), trusted, root)
