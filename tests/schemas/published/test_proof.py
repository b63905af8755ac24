"""The proof document: one spelling, and limits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import schemas
from schemas.errors import IntegrityError, InvalidInputError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import encode_base64, encode_json
from schemas.nearcore.flat_state_limits import VALUE_BYTES_MAX
from schemas.nearcore.merkle import MerklePathItem
from schemas.published.proof import NODE_BYTES_MAX, PROOF_NODES_MAX, KeyClaim, PrefixClaim, ShardChoice, TrieProof
from schemas.published.proof_chain import ChainEvidence

SCHEMA = json.loads((Path(schemas.__file__).parent / "published" / "proof.schema.json").read_text())

PROOF = TrieProof(
    chain_id="test",
    epoch_height=7,
    epoch_id=CryptoHash(bytes(32)),
    shard_uid=ShardUId(3, 1),
    shard_chosen_by=ShardChoice.OPTION,
    state_root=CryptoHash(bytes(range(32))),
    block_hash=None,
    claim=KeyClaim(b"\0alice.near", None),
    nodes=(b"node", b""),
    chain=None,
)


def _changed(**fields: Any) -> bytes:
    """Return the document with other fields and the right sha256."""
    body = {name: value for name, value in json.loads(PROOF.to_bytes()).items() if name != "sha256"} | fields
    body = {name: value for name, value in body.items() if value != "left out"}
    return encode_json({**body, "sha256": hashlib.sha256(encode_json(body)).hexdigest()}) + b"\n"


@pytest.mark.parametrize(
    "claim",
    [
        KeyClaim(b"", b""),
        KeyClaim(b"\0a", b"value"),
        KeyClaim(b"\xff", None),
        PrefixClaim(b"", ()),
        PrefixClaim(b"a", ((b"ab", b""), (b"ac", b"x"))),
    ],
)
def test_what_is_written_is_what_is_read(claim: KeyClaim | PrefixClaim) -> None:
    """A document is read back as the proof that it was made of, whatever it claims."""
    proof = dataclasses.replace(PROOF, claim=claim, epoch_height=None, epoch_id=None, block_hash=PROOF.state_root)
    assert TrieProof.parse(proof.to_bytes(), "proof") == proof
    jsonschema.validate(json.loads(proof.to_bytes()), SCHEMA)


def test_headers_are_in_the_schema() -> None:
    """The JSON Schema knows a document with headers, and refuses a field too many."""
    chain = ChainEvidence(b"chunk", (MerklePathItem(PROOF.state_root, is_left=True),), b"block", b"child")
    document = json.loads(dataclasses.replace(PROOF, chain=chain).to_bytes())
    jsonschema.validate(document, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "more": 1}, SCHEMA)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "urn:statecast:trie-proof:v2"},
        {"kind": "keys"},
        {"trie_key": "0"},
        {"trie_key": "AB"},
        {"trie_key": "00" * 3000},
        {"trie_key": "left out"},
        {"value": "Zh=="},
        {"value": 5},
        {"nodes": None},
        {"nodes": ["?"]},
        {"nodes": [encode_base64(bytes(NODE_BYTES_MAX + 1))]},
        {"nodes": [""] * (PROOF_NODES_MAX + 1)},
        {"value": encode_base64(bytes(VALUE_BYTES_MAX + 1))},
        {"epoch_height": -1},
        {"epoch_height": True},
        {"epoch_height": 2**64},
        {"epoch_id": ""},
        {"state_root": "1"},
        {"shard_uid": "s01.v3"},
        {"shard_uid": "1"},
        {"shard_chosen_by": "dice"},
        {"chain": {}},
        {"chain_id": "a b"},
        {"more": 1},
    ],
)
def test_another_form_is_refused(fields: dict[str, Any]) -> None:
    """A field too many, missing, of another type, over a limit or in another spelling, although the sha256 is right."""
    assert TrieProof.parse(_changed(), "proof") == PROOF
    with pytest.raises(IntegrityError):
        TrieProof.parse(_changed(**fields), "proof")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"type": 1e999}',
        PROOF.to_bytes() * 2,
        PROOF.to_bytes()[:-1],
        b" " + PROOF.to_bytes(),
    ],
    ids=range(11),
)
def test_garbage_is_refused(data: bytes) -> None:
    """What is no document, or one in another spelling, is refused with one error."""
    with pytest.raises(IntegrityError):
        TrieProof.parse(data, "proof")


def test_a_proof_that_is_too_long_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document over the limit is refused before it is returned."""
    monkeypatch.setattr("schemas.published.proof.PROOF_BYTES_MAX", len(PROOF.to_bytes()) - 1)
    with pytest.raises(InvalidInputError, match="longer prefix"):
        PROOF.to_bytes()
