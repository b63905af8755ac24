"""Merkle paths of chunks, and the evidence out of a node's own rows and headers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import CryptoHash
from schemas.json_document import FieldReader
from schemas.nearcore.merkle import MerklePathItem, merkle_root, path_root
from schemas.published.proof_chain import ChainEvidence, merkle_path


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20))
def test_every_path_leads_to_the_root(items: list[bytes]) -> None:
    """From each item its path leads to the root over all items."""
    for index, item in enumerate(items):
        assert path_root(item, merkle_path(items, index)) == merkle_root(items)


@given(
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.none() | st.binary(max_size=40),
    st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.booleans()), max_size=5),
)
def test_json_gives_the_evidence_back(chunk: bytes, block: bytes, child: bytes | None, path: list[tuple[bytes, bool]]) -> None:
    """What is written is what is read."""
    evidence = ChainEvidence(chunk, tuple(MerklePathItem(CryptoHash(item), is_left=left) for item, left in path), block, child)
    assert ChainEvidence.from_json(FieldReader(evidence.to_json(), "test")) == evidence
