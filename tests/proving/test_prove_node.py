"""Proofs out of the State column of a real node, beside that node's own answers to JSON-RPC."""

from __future__ import annotations

import base64
import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from pipelines.proving.prove_node import NodeProofRequest, prove_from_node
from pipelines.proving.verify_trie_proof import verify_trie_proof
from pipelines.proving.wanted_record import wanted_record
from schemas.errors import EpochNotReadyError, IntegrityError, InvalidInputError
from schemas.ids import CryptoHash
from schemas.nearcore.account import decode_account
from schemas.nearcore.trie_key import contract_data_key
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice
from tests.support.nodes import copied, localnet, localnet_home


@lru_cache
def _calls() -> list[dict[str, Any]]:
    """The recorded calls of JSON-RPC, each with its result or error."""
    calls: list[dict[str, Any]] = json.loads(gzip.decompress((localnet() / "rpc.json.gz").read_bytes()))
    return calls


def _answers(request_type: str) -> list[dict[str, Any]]:
    return [call for call in _calls() if call["method"] == "query" and call["params"]["request_type"] == request_type and "result" in call]


def _block(height: int) -> dict[str, Any]:
    calls = (call for call in _calls() if call["method"] == "block" and "result" in call)
    return next(call["result"] for call in calls if call["result"]["header"]["height"] == height)


@pytest.mark.parametrize("number", range(3))
def test_a_proof_of_a_prefix_is_what_the_node_answered(number: int) -> None:
    """At the recorded height the nodes equal the proof of view_state, element by element, and so do keys and values."""
    call = _answers("view_state")[number]
    params, result = call["params"], call["result"]
    wanted = wanted_record(params["account_id"], contract_prefix=f"base64:{params['prefix_base64']}")
    proof = prove_from_node(NodeProofRequest(localnet_home(), wanted, block=str(params["block_id"]))).proof
    assert [base64.b64encode(node).decode() for node in proof.nodes] == result["proof"]
    assert isinstance(proof.claim, PrefixClaim)
    skipped = len(contract_data_key(params["account_id"], b""))
    assert [
        {"key": base64.b64encode(key[skipped:]).decode(), "value": base64.b64encode(value).decode()} for key, value in proof.claim.values
    ] == result["values"]
    assert str(proof.block_hash) == result["block_hash"]


def test_several_answers_are_compared() -> None:
    """The recording has answers with proofs of more than one account, and each is compared."""
    assert [len(call["result"]["proof"]) for call in _answers("view_state")] == [23, 18, 13]
    assert len(_answers("view_account")) == 4


@pytest.mark.parametrize("number", range(4))
def test_a_proof_of_an_account_is_what_the_node_answered(number: int) -> None:
    """At the recorded height an account's proven value says what view_account said."""
    call = _answers("view_account")[number]
    wanted = wanted_record(call["params"]["account_id"])
    claim = prove_from_node(NodeProofRequest(localnet_home(), wanted, block=str(call["params"]["block_id"]))).proof.claim
    assert isinstance(claim, KeyClaim)
    assert claim.value is not None
    account = decode_account(claim.value)
    answer = call["result"]
    assert (str(account.amount), str(account.locked), account.storage_usage) == (
        answer["amount"],
        answer["locked"],
        answer["storage_usage"],
    )
    assert str(account.contract.code_hash or CryptoHash(bytes(32))) == answer["code_hash"]


def test_the_state_after_a_block_is_named_in_the_next() -> None:
    """The proof at block 238 is tied to block 239, whose chunk has the state root, and to no other."""
    wanted = wanted_record(_answers("view_state")[0]["params"]["account_id"])
    proof = prove_from_node(NodeProofRequest(localnet_home(), wanted, block=_block(238)["header"]["hash"])).proof
    (chunk,) = [chunk for chunk in _block(239)["chunks"] if chunk["shard_id"] == proof.shard_uid.shard_id]
    assert str(proof.state_root) == chunk["prev_state_root"]
    assert verify_trie_proof(proof, "", CryptoHash.from_base58(_block(239)["header"]["hash"])).tied_to
    for height in (238, 240):
        with pytest.raises(IntegrityError):
            verify_trie_proof(proof, "", CryptoHash.from_base58(_block(height)["header"]["hash"]))


def test_an_epoch_is_tied_to_its_sync_block_and_to_the_parent() -> None:
    """Without a block the state is that of the epoch's parts, and both hashes that a reader may trust lead to it."""
    verified = prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0")))
    assert verified.chunk is not None
    assert verified.chunk.child is not None
    assert verified.proof.shard_chosen_by is ShardChoice.SHARD_LAYOUT
    for block in (verified.chunk.block.hash, verified.chunk.child.hash):
        assert verify_trie_proof(verified.proof, "", block).tied_to == (f"block {block}",)


def test_the_newest_block_has_no_headers_after_it() -> None:
    """After the chain's last block nothing names the state root yet, and the proof says so."""
    heights = [call["result"]["header"]["height"] for call in _calls() if call["method"] == "block" and "result" in call]
    height = max(heights)
    while True:
        try:
            prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"), block=str(height + 1)))
        except EpochNotReadyError:
            break
        height += 1
    verified = prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"), block=str(height)))
    assert verified.chunk is None
    with pytest.raises(IntegrityError, match="no headers"):
        verify_trie_proof(verified.proof, "", verified.proof.block_hash)


def test_the_genesis_layout_names_the_shard_that_has_the_account() -> None:
    """The accounts of the genesis are where its shard layout says, in more than one shard."""
    records = json.loads((localnet_home() / "genesis.json").read_text())["records"]
    account_ids = [record["Account"]["account_id"] for record in records if "Account" in record]
    proofs = [prove_from_node(NodeProofRequest(localnet_home(), wanted_record(account_id))).proof for account_id in account_ids[:40:4]]
    assert all(isinstance(proof.claim, KeyClaim) and proof.claim.value is not None for proof in proofs)
    assert {proof.shard_chosen_by for proof in proofs} == {ShardChoice.SHARD_LAYOUT}
    assert len({proof.shard_uid for proof in proofs}) > 1


def test_an_epoch_configuration_names_the_shard_after_a_block(tmp_path: Path) -> None:
    """Where the genesis file has the layout of before a resharding; so what no shard has is proven absent too."""
    home = copied(localnet_home(), tmp_path)
    genesis = json.loads((home / "genesis.json").read_text())
    (home / "genesis.json").write_text(json.dumps({**genesis, "shard_layout": {"V0": {"num_shards": 1, "version": 0}}}))
    (home / "epoch_configs").mkdir()
    (home / "epoch_configs" / "74.json").write_text(json.dumps({"epoch_length": 40, "shard_layout": genesis["shard_layout"]}))
    for account_id in ("node0", "nobody.near"):
        expected = prove_from_node(NodeProofRequest(localnet_home(), wanted_record(account_id), block="238")).proof
        proof = prove_from_node(NodeProofRequest(home, wanted_record(account_id), block="238")).proof
        assert (proof.shard_uid, proof.shard_chosen_by) == (expected.shard_uid, ShardChoice.SHARD_LAYOUT)


def test_an_unknown_block_is_refused() -> None:
    """A block that the node does not have is not there."""
    with pytest.raises(EpochNotReadyError):
        prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"), block="999999999"))
    with pytest.raises(EpochNotReadyError):
        prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"), block="1" * 32))


def test_the_shard_may_be_named() -> None:
    """An account is absent from a shard that it does not belong to, and the proof says that the user chose the shard."""
    proof = prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"))).proof
    other = next(shard_id for shard_id in range(4) if shard_id != proof.shard_uid.shard_id)
    elsewhere = prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"), shard_id=other)).proof
    assert isinstance(elsewhere.claim, KeyClaim)
    assert (elsewhere.claim.value, elsewhere.shard_chosen_by) == (None, ShardChoice.OPTION)
    with pytest.raises(InvalidInputError, match="shard 9"):
        prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"), shard_id=9))
