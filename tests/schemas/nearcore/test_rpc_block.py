"""Blocks as JSON-RPC shows them: the bytes that nearcore hashes come out, and whatever is changed is found."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.node.node_columns import BLOCK, BLOCK_HEADER
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import IntegrityError, SourceError, StatecastError
from schemas.ids import CryptoHash, base58_encode
from schemas.nearcore.block import chunk_headers_root, decode_block_chunks, decode_block_header, read_chunk_header
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.merkle import merkle_root
from schemas.nearcore.rpc_block import read_rpc_block, read_rpc_header
from schemas.nearcore.rpc_reader import RpcReader
from tests.support.nodes import localnet_home
from tests.support.rpc_server import recorded_block

Json = dict[str, Any]


def test_the_bytes_are_those_of_the_nodes_database() -> None:
    """Header and chunk headers of every block that a real node showed, against what the same node stored."""
    with RocksDbReader(localnet_home() / "data", (BLOCK, BLOCK_HEADER)) as reader:
        for height in range(111, 242):
            shown = recorded_block(height)
            found = read_rpc_block(shown, "test")
            row = reader.get(BLOCK_HEADER, found.header.hash)
            assert row is not None
            stored = decode_block_header(row, "test")
            assert found.header == stored
            assert found.header.encoded == row
            block_row = reader.get(BLOCK, found.header.hash)
            assert block_row is not None
            assert found.chunks() == decode_block_chunks(block_row, stored, "test")
            assert found.prev_height == height - 1


def test_blocks_of_the_real_chain_hash(shared_fixtures: Path) -> None:
    """Of all versions, with their chunks; and those of whole epochs, whose first one is known by its epoch ids."""
    check_blocks_with_chunks(shared_fixtures)
    check_whole_epochs(shared_fixtures)
    check_first_two_versions(shared_fixtures)


def check_blocks_with_chunks(shared_fixtures: Path) -> None:
    """Headers of V3, V4 and V5."""
    versions = set()
    for vector in json.loads((shared_fixtures / "real" / "blocks_with_chunks.json").read_text())["vectors"]:
        if "header" in vector:
            found = read_rpc_block(vector, vector["id"])
            assert str(found.header.hash) == vector["header"]["hash"]
            assert [str(chunk.chunk_hash) for chunk in found.chunks()] == [chunk["chunk_hash"] for chunk in vector["chunks"]]
            versions.add(found.header.version)
    assert versions == {3, 4, 5}


def check_whole_epochs(shared_fixtures: Path) -> None:
    """And the first block of an epoch is known by its next_epoch_id, which is the hash of the block before it."""
    epochs = json.loads((shared_fixtures / "real" / "epochs_mainnet_2024_06.json").read_text())["epochs"]
    for epoch in epochs:
        headers = {entry["label"]: read_rpc_header(RpcReader(entry["header"], entry["label"])) for entry in epoch["blocks"]}
        assert str(headers["block-0"].prev_hash) == epoch["prev_epoch_last_block"]
        assert [label for label, header in headers.items() if header.prev_hash == header.next_epoch_id] == ["block-0"]
    assert [epoch["epoch_id"] for epoch in epochs[2:]] == [epoch["last_block"] for epoch in epochs[:-2]]


def first_block(shared_fixtures: Path) -> Json:
    """Return the header of mainnet's genesis block as an endpoint shows it, of V1."""
    facts = json.loads((shared_fixtures / "real" / "mainnet_genesis.json").read_text())
    genesis, published, computed = facts["genesis"], facts["published"], facts["computed_on_the_way"]
    nothing, height = str(CryptoHash(bytes(32))), genesis["genesis_height"]
    chunk_leaf = CryptoHash.from_base58(computed["chunk_hash"]) + height.to_bytes(8, "little")
    root_of_nothing = str(CryptoHash(hashlib.sha256(bytes(32)).digest()))
    zeros = ("epoch_id", "next_epoch_id", "prev_hash", "outcome_root", "block_merkle_root", "challenges_root", "random_value")
    return {
        **dict.fromkeys((*zeros, "last_final_block", "last_ds_final_block"), nothing),
        "hash": published["genesis_block_hash"],
        "height": height,
        "prev_height": None,
        "block_ordinal": None,
        "epoch_sync_data_hash": None,
        "prev_state_root": str(CryptoHash(merkle_root([CryptoHash.from_base58(published["state_root"])]))),
        "timestamp_nanosec": str(computed["timestamp_ns"]),
        "next_bp_hash": computed["next_bp_hash"],
        "chunk_receipts_root": root_of_nothing,
        "chunk_headers_root": str(merkle_root([chunk_leaf])),
        "chunk_tx_root": root_of_nothing,
        # A genesis that does not begin at height 0 counts none.
        "chunks_included": 0,
        "validator_proposals": [],
        "chunk_mask": [],
        "gas_price": genesis["min_gas_price"],
        "total_supply": genesis["total_supply"],
        "challenges_result": [],
        "approvals": [],
        "signature": "ed25519:" + "1" * 64,
        "latest_protocol_version": genesis["protocol_version"],
    }


def check_first_two_versions(shared_fixtures: Path) -> None:
    """That of mainnet's first block, of which no field that is hashed can be another; the second version is the first without chunks_included."""
    shown = first_block(shared_fixtures)
    header = read_rpc_header(RpcReader(shown, "genesis"))
    assert (header.version, header.height) == (1, 9820210)
    for change in ({"chunks_included": 2}, {"chunk_mask": [False]}, {"gas_price": "1"}, {"latest_protocol_version": 30}):
        with pytest.raises(IntegrityError):
            read_rpc_header(RpcReader({**shown, **change}, "genesis"))
    first = header.encoded
    chunks_included = 1 + 32 + (8 + 4 * 32 + 8 + 2 * 32) + 3 * 32
    second = decode_block_header(b"\1" + first[1:chunks_included] + first[chunks_included + 8 :], "test")
    assert read_rpc_header(RpcReader({**shown, "hash": str(second.hash)}, "test")) == second


HEIGHT = 204


def other_hash(text: str) -> str:
    """Return another hash than this one."""
    return base58_encode(bytes([CryptoHash.from_base58(text)[0] ^ 1]) + CryptoHash.from_base58(text)[1:])


def changing_header(name: str, change: Callable[[Any], object]) -> Callable[[Json], object]:
    """Return what changes a field of a block's header."""
    return lambda block: block["header"].update({name: change(block["header"][name])})


def changing_chunk(name: str, change: Callable[[Any], object]) -> Callable[[Json], object]:
    """Return what changes a field of a block's second chunk header."""
    return lambda block: block["chunks"][1].update({name: change(block["chunks"][1][name])})


def next_number(number: int) -> int:
    """Return another number than this one."""
    return number + 1


CHANGES: dict[str, Callable[[Json], object]] = {
    **{
        name: changing_header(name, other_hash)
        for name in (
            *("hash", "prev_hash", "epoch_id", "next_epoch_id", "prev_state_root", "outcome_root", "next_bp_hash", "block_merkle_root"),
            *("block_body_hash", "chunk_receipts_root", "chunk_headers_root", "chunk_tx_root", "challenges_root", "random_value"),
            *("last_final_block", "last_ds_final_block"),
        )
    },
    **{name: changing_header(name, next_number) for name in ("height", "prev_height", "block_ordinal", "latest_protocol_version")},
    "gas_price": lambda block: block["header"].update(gas_price="7"),
    "timestamp_nanosec": lambda block: block["header"].update(timestamp_nanosec="7"),
    "chunk_mask": lambda block: block["header"]["chunk_mask"].__setitem__(0, False),
    "an approval": lambda block: block["header"]["approvals"].__setitem__(0, None),
    "endorsements": lambda block: block["header"]["chunk_endorsements"][0].append(1),
    "no endorsements": lambda block: block["header"].pop("chunk_endorsements"),
    "a proposal": lambda block: block["header"]["validator_proposals"].append(
        {"account_id": "a.near", "public_key": "ed25519:" + "1" * 32, "stake": "1"}
    ),
    **{
        f"chunk's {name}": changing_chunk(name, other_hash)
        for name in ("chunk_hash", "prev_block_hash", "prev_state_root", "outcome_root", "encoded_merkle_root", "tx_root")
    },
    **{
        f"chunk's {name}": changing_chunk(name, next_number)
        for name in ("height_created", "height_included", "shard_id", "encoded_length", "gas_used", "gas_limit")
    },
    "chunk's congestion": lambda block: block["chunks"][1]["congestion_info"].update(receipt_bytes=1),
    "no congestion": lambda block: block["chunks"][1].update(congestion_info=None),
    "a chunk less": lambda block: block["chunks"].pop(),
    "a chunk twice": lambda block: block["chunks"].append(block["chunks"][0]),
    "chunks in another order": lambda block: block["chunks"].reverse(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_is_changed_is_found(change: Callable[[Json], object]) -> None:
    """No field of the header that is hashed, and none of a chunk header, can be another."""
    block = copy.deepcopy(recorded_block(HEIGHT))
    change(block)
    assert block != recorded_block(HEIGHT)
    with pytest.raises(IntegrityError):
        read_rpc_block(block, "test")


@pytest.mark.parametrize("name", ["author", "timestamp", "rent_paid", "validator_reward", "chunks_included"])
def test_what_no_hash_covers_is_not_looked_at(name: str) -> None:
    """Fields that nodes show besides."""
    block = copy.deepcopy(recorded_block(HEIGHT))
    (block if name == "author" else block["header"])[name] = None
    assert read_rpc_block(block, "test") == read_rpc_block(recorded_block(HEIGHT), "test")


values = st.one_of(st.none(), st.booleans(), st.integers(-1, 2**70), st.text(max_size=5), st.lists(st.integers(), max_size=2), st.just({}))


@given(data=st.data(), value=values)
def test_fields_of_another_form_are_refused_without_a_crash(data: st.DataObject, value: object) -> None:
    """Whatever stands in whatever field: an error of ours, or the same block when the field is one that no hash covers."""
    block = copy.deepcopy(recorded_block(HEIGHT))
    part: Json = data.draw(st.sampled_from([block, block["header"], block["chunks"][0]]))
    name = data.draw(st.sampled_from(sorted(part)))
    part[name] = value
    try:
        found = read_rpc_block(block, "test")
    except StatecastError as error:
        assert isinstance(error, (SourceError, IntegrityError))
    else:
        assert found.header.hash == read_rpc_block(recorded_block(HEIGHT), "test").header.hash


@pytest.mark.parametrize("answer", [None, [], "block", {"header": {}}, {"header": None, "chunks": []}])
def test_what_is_no_block_is_a_fault_of_the_source(answer: object) -> None:
    """The endpoint is named."""
    with pytest.raises(SourceError, match="endpoint"):
        read_rpc_block(answer, "endpoint")


# versions that no public data was found of: written as nearcore's source says, and read back by the decoder of database rows


def rehashed(block: Json, header_version: int, chunk_version: tuple[int, int]) -> Json:
    """Return a block whose chunk and block hashes are what its fields give in other versions."""
    from schemas.nearcore import rpc_block

    for chunk in block["chunks"]:
        reader = RpcReader(chunk, "test")
        encoded = rpc_block._chunk_header(reader, *chunk_version)
        chunk["chunk_hash"] = str(read_chunk_header(BorshReader(encoded), encoded).chunk_hash)
    encoded_chunks = [rpc_block._read_chunk(RpcReader(chunk, "test")) for chunk in block["chunks"]]
    block["header"]["chunk_headers_root"] = str(chunk_headers_root(encoded_chunks))
    shown = RpcReader(block["header"], "test")
    inner = rpc_block._inner_lite(shown) + rpc_block._inner_rest(shown, header_version)
    encoded = bytes([header_version - 1]) + shown.hash("prev_hash") + inner + shown.key("signature")
    block["header"]["hash"] = str(decode_block_header(encoded, "test").hash)
    return block


def bandwidth(block: Json) -> None:
    """Add requests for bandwidth, as from protocol 77 on."""
    bitmap = {"data": [1, 2, 3, 4, 5]}
    for chunk in block["chunks"]:
        chunk["bandwidth_requests"] = {"V1": {"requests": [{"to_shard": 3, "requested_values_bitmap": bitmap}]}}


@pytest.mark.parametrize("split", [None, {"boundary_account": "m.near", "left_memory": 5, "right_memory": 6}])
@pytest.mark.parametrize("shard_split", [None, [3, "m.near"]])
def test_headers_of_dynamic_resharding_are_read(split: Json | None, shard_split: list[object] | None) -> None:
    """Block headers of V6 with chunk headers of V3.5, with and without a split."""
    block = copy.deepcopy(recorded_block(HEIGHT))
    bandwidth(block)
    for chunk in block["chunks"]:
        chunk["proposed_split"] = split
    block["header"]["shard_split"] = shard_split
    found = read_rpc_block(rehashed(block, 6, (3, 5)), "test")
    assert found.header.version == 6
    assert len(found.chunks()) == 4


def test_chunk_headers_with_bandwidth_are_read() -> None:
    """V3.4."""
    block = copy.deepcopy(recorded_block(HEIGHT))
    bandwidth(block)
    assert read_rpc_block(rehashed(block, 5, (3, 4)), "test").header.version == 5


@pytest.mark.parametrize("chunk_version", [(1, 1), (2, 1), (3, 1), (3, 2)])
def test_old_chunk_headers_are_read(chunk_version: tuple[int, int]) -> None:
    """V1, V2, V3.1 and V3.2 show the same fields; the hash decides."""
    block = copy.deepcopy(recorded_block(HEIGHT))
    for chunk in block["chunks"]:
        del chunk["congestion_info"]
    assert len(read_rpc_block(rehashed(block, 5, chunk_version), "test").chunks()) == 4
