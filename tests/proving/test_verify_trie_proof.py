"""Altered proofs: none of them holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.proving.prove_node import NodeProofRequest, prove_from_node
from pipelines.proving.verify_trie_proof import verify_trie_proof
from pipelines.proving.wanted_record import WantedRecord, wanted_record
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.json_document import encode_json
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice, TrieProof
from tests.support.nodes import localnet_home
from tests.support.proofs import small_proof

PAIRS = [(b"\x11\x11", b"one"), (b"\x11\x12", b"two"), (b"\x11\x12\x34", b""), (b"\x11\x22\x33", b"five"), (b"\x22", b"six")]
SMALL = [
    small_proof(PAIRS, WantedRecord(None, b"\x11\x12\x34")),
    small_proof(PAIRS, WantedRecord(None, b"\x11\x12")),
    small_proof(PAIRS, WantedRecord(None, b"\x11\x12\x35")),
    small_proof(PAIRS, WantedRecord(None, b"\x11\x12", is_prefix=True)),
    small_proof(PAIRS, WantedRecord(None, b"\x33", is_prefix=True)),
]
ACCOUNT_ID = "08fb740e3a2727888fcb3ae7a2a9a5c56a82bbf4dcb5098cf238d6c2d997e559"


@lru_cache
def _real(contract_prefix: str | None) -> TrieProof:
    wanted = wanted_record(ACCOUNT_ID, contract_prefix=contract_prefix)
    return prove_from_node(NodeProofRequest(localnet_home(), wanted)).proof


def _holds(data: bytes, trusted_block: CryptoHash | None = None) -> bool:
    try:
        verify_trie_proof(TrieProof.parse(data, "proof"), "proof", trusted_block)
    except IntegrityError:
        return False
    return True


def _resealed(document: dict[str, Any]) -> bytes:
    """Return a document with the right sha256, as a forger would write it."""
    body = {name: value for name, value in document.items() if name != "sha256"}
    return encode_json({**body, "sha256": hashlib.sha256(encode_json(body)).hexdigest()}) + b"\n"


@pytest.mark.parametrize("proof", SMALL, ids=["value", "branch value", "absent", "prefix", "empty prefix"])
def test_no_byte_of_a_proof_can_be_changed(proof: TrieProof) -> None:
    """Every byte of a document, changed in any of eight ways, cut off or put twice, makes it fail; as it is, it holds."""
    data = proof.to_bytes()
    assert _holds(data)
    for position in range(len(data)):
        assert not _holds(data[:position])
        assert not _holds(data[:position] + data[position:][:1] + data[position:])
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            assert not _holds(bytes(changed)), (position, bit)


@given(st.data())
def test_no_byte_of_a_real_proof_can_be_changed(data: st.DataObject) -> None:
    """The same of a proof with headers, at bytes drawn at random."""
    document = _real(data.draw(st.sampled_from([None, ""]))).to_bytes()
    position = data.draw(st.integers(0, len(document) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != document[position]))
    assert not _holds(document[:position] + bytes([value]) + document[position + 1 :])


@given(
    st.binary(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_garbage_is_refused(data: bytes) -> None:
    """Bytes that are no proof are refused with an error of ours."""
    assert not _holds(data)


@given(st.data())
def test_fields_of_any_kind_are_refused_without_another_error(data: st.DataObject) -> None:
    """Whatever stands in a field, and with the right sha256: a refusal, or a proof that holds as it stands; never another exception."""
    document = json.loads(_real(None).to_bytes())
    inner = data.draw(st.sampled_from([document, document["chain"], document["chain"]["chunk_path"][0]]))
    name = data.draw(st.sampled_from(sorted(inner)))
    inner[name] = data.draw(st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=3) | st.just({}))
    resealed = _resealed(document)
    # Nothing was skipped or taken for something else.
    assert not _holds(resealed) or TrieProof.parse(resealed, "proof").to_bytes() == resealed


def _altered(proof: TrieProof) -> dict[str, TrieProof]:
    """Return forgeries of a proof that holds, each of which says something else."""
    assert proof.chain is not None
    chain = proof.chain
    other = CryptoHash(bytes(range(32)))
    replace = dataclasses.replace
    forged = {
        "state root": replace(proof, state_root=other),
        "block": replace(proof, block_hash=other),
        "no block": replace(proof, block_hash=None),
        "epoch": replace(proof, epoch_id=other),
        "shard": replace(proof, shard_uid=replace(proof.shard_uid, shard_id=proof.shard_uid.shard_id + 1)),
        "the only shard": replace(proof, shard_chosen_by=ShardChoice.ONLY_SHARD),
        "node less": replace(proof, nodes=proof.nodes[:-1]),
        "node more": replace(proof, nodes=(*proof.nodes, proof.nodes[-1])),
        "nodes swapped": replace(proof, nodes=(proof.nodes[1], proof.nodes[0], *proof.nodes[2:])),
        "no path": replace(proof, chain=replace(chain, chunk_path=())),
        "path turned": replace(
            proof, chain=replace(chain, chunk_path=tuple(replace(item, is_left=not item.is_left) for item in chain.chunk_path))
        ),
        "child as block": replace(proof, chain=replace(chain, block_header=chain.child_header or b"", child_header=None)),
        "chunk header cut": replace(proof, chain=replace(chain, chunk_header=chain.chunk_header[:-1])),
        "chunk header longer": replace(proof, chain=replace(chain, chunk_header=chain.chunk_header + b"\0")),
        "headers empty": replace(proof, chain=replace(chain, block_header=b"", chunk_header=b"")),
    }
    match proof.claim:
        case KeyClaim(key, value):
            assert value is not None
            forged |= {
                "key": replace(proof, claim=KeyClaim(key[:-1] + bytes([key[-1] ^ 1]), value)),
                "longer key": replace(proof, claim=KeyClaim(key + b"\0", value)),
                "absent": replace(proof, claim=KeyClaim(key, None)),
                "value": replace(proof, claim=KeyClaim(key, value[:-1] + bytes([value[-1] ^ 1]))),
                "longer value": replace(proof, claim=KeyClaim(key, value + b"\0")),
            }
        case PrefixClaim(prefix, values):
            forged |= {
                "prefix": replace(proof, claim=PrefixClaim(prefix + values[0][0][len(prefix) :][:1], values)),
                "shorter prefix": replace(proof, claim=PrefixClaim(prefix[:1], values)),
                "key less": replace(proof, claim=PrefixClaim(prefix, values[1:])),
                "key more": replace(proof, claim=PrefixClaim(prefix, (*values, (prefix + b"\xff\xff", b"")))),
                "no keys": replace(proof, claim=PrefixClaim(prefix, ())),
                "keys swapped": replace(proof, claim=PrefixClaim(prefix, (values[1], values[0], *values[2:]))),
                "value": replace(proof, claim=PrefixClaim(prefix, ((values[0][0], b"other"), *values[1:]))),
            }
    return forged


@pytest.mark.parametrize("contract_prefix", [None, ""], ids=["key", "prefix"])
def test_forgeries_fail(contract_prefix: str | None) -> None:
    """A forger who writes the right sha256 still can't change what a proof says, with or without a trusted block."""
    proof = _real(contract_prefix)
    block = verify_trie_proof(proof, "proof").chunk
    assert block is not None
    for name, forged in _altered(proof).items():
        assert not _holds(forged.to_bytes()), name
        assert not _holds(forged.to_bytes(), block.block.hash), name


def test_every_byte_of_a_node_counts() -> None:
    """A forger can't change any byte of any node."""
    proof = _real(None)
    for index, node in enumerate(proof.nodes):
        for position in range(len(node)):
            changed = node[:position] + bytes([node[position] ^ 0xFF]) + node[position + 1 :]
            with pytest.raises(IntegrityError):
                verify_trie_proof(dataclasses.replace(proof, nodes=(*proof.nodes[:index], changed, *proof.nodes[index + 1 :])), "proof")


def test_every_hashed_byte_of_the_headers_counts() -> None:
    """With a trusted block no byte of the headers can be changed but those of the signatures, which no hash covers."""
    proof = _real(None)
    assert proof.chain is not None
    proven = verify_trie_proof(proof, "proof").chunk
    assert proven is not None
    assert proven.child is not None
    signature_bytes = 65
    for field, hashed in (
        ("block_header", len(proof.chain.block_header) - signature_bytes),
        ("child_header", len(proof.chain.child_header or b"") - signature_bytes),
    ):
        header = getattr(proof.chain, field)
        # The version does not enter the hash, but says where the fields are.
        for position in range(1, hashed):
            changed = header[:position] + bytes([header[position] ^ 0xFF]) + header[position + 1 :]
            forged = dataclasses.replace(proof, chain=dataclasses.replace(proof.chain, **{field: changed}))
            with pytest.raises(IntegrityError):
                verify_trie_proof(forged, "proof", proven.child.hash)
    for position in range(len(proof.chain.chunk_header) - signature_bytes):
        header = proof.chain.chunk_header
        changed = header[:position] + bytes([header[position] ^ 0xFF]) + header[position + 1 :]
        with pytest.raises(IntegrityError):
            verify_trie_proof(dataclasses.replace(proof, chain=dataclasses.replace(proof.chain, chunk_header=changed)), "proof")


def test_what_is_trusted_must_be_what_is_proven() -> None:
    """A state root or block that the proof is not of is refused, and the error names what it is of."""
    proof = _real(None)
    other = CryptoHash(bytes(range(32)))
    with pytest.raises(IntegrityError, match=str(proof.state_root)):
        verify_trie_proof(proof, "proof", state_root=other)
    with pytest.raises(IntegrityError, match="neither of them the trusted"):
        verify_trie_proof(proof, "proof", other)
    with pytest.raises(IntegrityError, match="no headers"):
        verify_trie_proof(SMALL[0], "proof", other)
    assert verify_trie_proof(proof, "proof").tied_to == ()
    assert verify_trie_proof(proof, "proof", state_root=proof.state_root).tied_to == (f"state root {proof.state_root}",)
