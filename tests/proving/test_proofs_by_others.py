"""Proofs that real nodes gave, and nearcore's own verdicts, through this verifier."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pipelines.proving.node_readers import NodesByHash
from pipelines.proving.verify_trie_proof import verify_trie_proof
from pipelines.proving.walk_proof import check_claim, walk_to_key
from schemas.errors import IntegrityError, MissingTrieValueError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.trie_key import contract_data_key
from schemas.published.proof import PrefixClaim, ShardChoice, TrieProof
from tests.support.proofs import decode_nodes, proofs_by_others

ANSWERS: list[dict[str, Any]] = proofs_by_others()["answers"]
QUERIES: list[dict[str, Any]] = proofs_by_others()["nearcore_test"]["queries"]


def _as_document(answer: dict[str, Any]) -> TrieProof:
    values = [(base64.b64decode(item["key"]), base64.b64decode(item["value"])) for item in answer["values"]]
    return TrieProof(
        chain_id=answer["network"].partition(" ")[0],
        epoch_height=None,
        epoch_id=None,
        shard_uid=ShardUId(0, 0),
        shard_chosen_by=ShardChoice.OPTION,
        state_root=CryptoHash.from_base58(answer["state_root"]),
        block_hash=None,
        claim=PrefixClaim(
            contract_data_key(answer["account_id"], b""),
            tuple((contract_data_key(answer["account_id"], key), value) for key, value in values),
        ),
        nodes=decode_nodes(answer["proof"]),
        chain=None,
    )


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["id"])
def test_the_answers_of_nodes_hold_as_they_are(answer: dict[str, Any]) -> None:
    """A node's answer to view_state, nodes in the node's order, is a proof of the prefix."""
    verified = verify_trie_proof(_as_document(answer), answer["id"], state_root=CryptoHash.from_base58(answer["state_root"]))
    assert verified.tied_to == (f"state root {answer['state_root']}",)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer["id"])
def test_the_answers_of_nodes_prove_what_is_absent(answer: dict[str, Any]) -> None:
    """The same nodes show that keys beside those of the answer are absent, and say nothing of keys elsewhere."""
    root, read = CryptoHash.from_base58(answer["state_root"]), NodesByHash(decode_nodes(answer["proof"]), answer["id"])
    for key in map(bytes.fromhex, answer["absent_trie_keys"]):
        check_claim(walk_to_key(read, root, key), key, None)
    for key in map(bytes.fromhex, answer["undecidable_trie_keys"]):
        with pytest.raises(MissingTrieValueError):
            walk_to_key(read, root, key)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query['key']}={query['value']}")
def test_the_verdicts_of_nearcore(query: dict[str, Any]) -> None:
    """The claims that nearcore's own test accepts are accepted, and those that it refuses are refused."""
    test = proofs_by_others()["nearcore_test"]
    key = contract_data_key(query["account_id"], query["key"].encode())
    path = walk_to_key(NodesByHash(decode_nodes(test["proof"]), "nearcore's test"), CryptoHash.from_base58(test["state_root"]), key)
    claimed = None if query["value"] is None else query["value"].encode()
    if query["accepted"]:
        check_claim(path, key, claimed)
    else:
        with pytest.raises(IntegrityError):
            check_claim(path, key, claimed)


def test_the_verdicts_are_of_both_kinds() -> None:
    """The test above can fail in both ways."""
    assert [query["accepted"] for query in QUERIES].count(True) == 5
    assert len(QUERIES) == 10
