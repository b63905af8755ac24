"""The epoch context out of JSON-RPC: what a real node's database says comes out, and an endpoint that lies is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.epoch.rpc_client import RpcClient, RpcLimits
from pipelines.near.epoch.rpc_context import EPOCHS_BACK_MAX, RpcContextSource
from schemas.errors import ContextMismatchError, EpochNotReadyError, IntegrityError, InvalidInputError, SourceError
from schemas.ids import CryptoHash
from schemas.nearcore.block import decode_block_header
from schemas.nearcore.epoch_context import EpochContext
from tests.support.nodes import LOCALNET_EPOCH_ID, localnet_home
from tests.support.rpc_server import RecordedChain, changed_block, recorded_block, relinked, rpc_server

EPOCH_IDS = {
    3: "9JcaWDd9GYPQYTS5GacTarFZWV9wVfKufQ1GLFGteXhM",
    4: "DwAcBKgT8BW3YZ8VpVUtRURkdHx3jB6bwj5scRNk1c4N",
    5: "B1MJukrtNDhujVkwT8kVEVpNckym36FWFZHE3QUu6Psm",
    6: LOCALNET_EPOCH_ID,
}
STARTS = {3: 121, 4: 161, 5: 201, 6: 241}
QUICK = RpcLimits(timeout_s=120, requests_per_s=10_000, attempts_max=2, wait_first_s=0.001, wait_max_s=0.002)
LAYOUT = {
    "V2": {
        "boundary_accounts": ["9f", "bb", "tt"],
        "shard_ids": [3, 1, 0, 2],
        "id_to_index_map": {"0": 2, "1": 1, "2": 3, "3": 0},
        "index_to_id_map": {"0": 3, "1": 1, "2": 0, "3": 2},
        "shards_parent_map": {"0": 0, "1": 9, "2": 2, "3": 9},
        "shards_split_map": {"0": [0], "2": [2], "9": [3, 1]},
        "version": 3,
    }
}


def look_up(chain: RecordedChain, selector: str = "latest") -> EpochContext:
    """Ask an endpoint that shows a chain."""
    with rpc_server(chain) as server:
        return RpcContextSource(RpcClient(server.url, QUICK)).epoch_context(selector)


def from_database(height: int) -> EpochContext:
    """Return what the same node's database says."""
    return epoch_context_from_node(localnet_home(), str(height))


@pytest.mark.parametrize("height", [3, 4, 5])
def test_the_context_is_the_databases_field_by_field(height: int) -> None:
    """Sync hash, state roots, shard uids, the blocks that flat state must stand at, and the headers' bytes."""
    asked, stored = look_up(RecordedChain(), str(height)), from_database(height)
    assert asked == look_up(RecordedChain(), EPOCH_IDS[height]) == stored
    for shard, same in zip(asked.shards, stored.shards, strict=True):
        assert shard.flat_head_header == same.flat_head_header
        header = decode_block_header(shard.flat_head_header, "test", shard.flat_head_target)
        assert (header.hash, header.height > 0) == (shard.flat_head_target, True)


def test_latest_is_the_newest_epoch_whose_sync_block_is_final() -> None:
    """The one that has just begun has none."""
    assert look_up(RecordedChain()) == from_database(5)


def test_stored_answers_by_height_alone_are_enough() -> None:
    """Of all epochs, by any name: no block by its hash, and no configuration but that of the final block."""
    recorded = RecordedChain(as_recorded=True)
    for height in (3, 4, 5):
        assert look_up(recorded, str(height)) == look_up(recorded, EPOCH_IDS[height]) == from_database(height)
    assert look_up(recorded) == from_database(5)
    with pytest.raises(EpochNotReadyError, match="not known yet"):
        look_up(recorded, "6")


@pytest.mark.parametrize("other", [{"protocol_version": 82}, {"shard_layout": {"V0": {"num_shards": 4, "version": 0}}}])
def test_the_final_blocks_configuration_must_fit_the_block_that_it_stands_for(other: dict[str, Any]) -> None:
    """Another version, or other shards: then the endpoint does not know the epoch."""
    recorded = RecordedChain(as_recorded=True, configs={LOCALNET_EPOCH_ID: other})
    with pytest.raises(EpochNotReadyError, match="does not have the blocks"):
        look_up(recorded, "5")


def test_a_block_in_the_place_of_an_epochs_last_is_not_taken_for_it() -> None:
    """By height another block is found than the one whose hash is wanted."""
    recorded = RecordedChain(as_recorded=True, blocks={240: None})
    with pytest.raises(EpochNotReadyError, match="the last one before epoch"):
        look_up(recorded)


@pytest.mark.parametrize(("final_height", "height"), [(203, 4), (204, 5), (240, 5), (163, 3), (164, 4)])
def test_latest_moves_with_the_sync_block(final_height: int, height: int) -> None:
    """From the very block on."""
    assert look_up(RecordedChain(final_height=final_height)) == from_database(height)


@pytest.mark.parametrize("selector", ["6", LOCALNET_EPOCH_ID])
def test_of_an_epoch_that_has_just_begun_the_sync_hash_is_not_known_yet(selector: str) -> None:
    """Which the error says, with the epoch's height and id."""
    with pytest.raises(EpochNotReadyError, match=rf"sync hash of epoch 6 \({LOCALNET_EPOCH_ID}\) is not known yet") as caught:
        look_up(RecordedChain(), selector)
    assert caught.value.exit_code == 11
    assert "Wait" in caught.value.remedy


@pytest.mark.parametrize("selector", ["7", "99"])
def test_an_epoch_that_has_not_begun_is_not_ready(selector: str) -> None:
    """The chain's own epoch is named."""
    with pytest.raises(EpochNotReadyError, match=rf"has not begun.*epoch 6 \({LOCALNET_EPOCH_ID}\)"):
        look_up(RecordedChain(), selector)


@pytest.mark.parametrize("selector", ["9EUEcC4j3nZAp5tDwK9SWCuSqBMSxVmPh2Pf5FoD6Jp7", "11111111111111111111111111111112"])
def test_an_epoch_that_the_endpoint_does_not_know_is_not_ready(selector: str) -> None:
    """UNKNOWN_EPOCH; another endpoint may know it."""
    with pytest.raises(EpochNotReadyError, match="does not know epoch") as caught:
        look_up(RecordedChain(), selector)
    assert "archival" in caught.value.remedy


@pytest.mark.parametrize("selector", [EPOCH_IDS[4], "4", "2"])
def test_blocks_that_are_gone_are_not_ready(selector: str) -> None:
    """UNKNOWN_BLOCK of a past block; an archival node's endpoint may have it."""
    with pytest.raises(EpochNotReadyError, match="does not have") as caught:
        look_up(RecordedChain(first_height=195), selector)
    assert "archival" in caught.value.remedy


def test_another_form_of_selector_is_refused() -> None:
    """Neither a height nor base58."""
    with pytest.raises(InvalidInputError):
        look_up(RecordedChain(), "newest!")


def test_epochs_long_ago_are_not_counted_back_to() -> None:
    """A call each: there is a limit, and an id needs none."""
    chain = RecordedChain(epochs={LOCALNET_EPOCH_ID: {"epoch_height": EPOCHS_BACK_MAX + 7}})
    with pytest.raises(EpochNotReadyError, match="by its id"):
        look_up(chain, "6")


def test_a_look_up_asks_for_each_block_once() -> None:
    """Few requests: a final block, the epoch, its first blocks, one configuration."""
    with rpc_server() as server:
        RpcContextSource(RpcClient(server.url, QUICK)).epoch_context(EPOCH_IDS[5])
    asked = [(method, str(params)) for method, params in server.requests]
    assert len(asked) == len(set(asked))
    assert [method for method, _ in asked].count("block") == 5
    assert len(asked) == 7


@pytest.mark.parametrize(
    ("heights", "missed", "sync_height", "parent_height"),
    [
        ((201, 203, 204, 207, 208), {}, 207, 204),
        ((201, 202, 203, 204), {}, 204, 203),
        ((201, 203, 204, 207, 208, 210), {204: [2]}, 208, 207),
        ((201, 203, 204, 207, 208, 210), {204: [2], 207: [0, 1]}, 208, 207),
        ((201, 203, 204, 207, 208, 210), {203: [2], 207: [2]}, 210, 208),
    ],
    ids=["gaps", "none", "a missed chunk", "chunks of others missed later", "twice"],
)
def test_heights_without_a_block_and_missed_chunks_put_the_sync_block_off(
    heights: tuple[int, ...], missed: dict[int, list[int]], sync_height: int, parent_height: int
) -> None:
    """The rule counts blocks and new chunks, not heights."""
    chain = relinked(heights, missed)
    context = look_up(RecordedChain(blocks=chain), "5")
    sync_block, parent = chain[sync_height], chain[parent_height]
    assert sync_block is not None
    assert parent is not None
    assert str(context.sync_hash) == sync_block["header"]["hash"]
    assert [(str(shard.state_root), str(shard.flat_head_target)) for shard in context.shards] == [
        (chunk["prev_state_root"], chunk["prev_block_hash"]) for chunk in sorted(parent["chunks"], key=lambda chunk: chunk["shard_id"])
    ]


def test_where_the_epoch_should_begin_there_must_be_a_block() -> None:
    """An epoch's first height has one."""
    chain = RecordedChain(blocks=dict.fromkeys(range(201, 210)))
    with pytest.raises(EpochNotReadyError, match="does not have the blocks of epoch 5"):
        look_up(chain, EPOCH_IDS[5])


def test_a_long_row_of_heights_without_a_block_is_not_walked_to_its_end() -> None:
    """An endpoint that has lost an epoch but for its first block is asked no more than so often."""
    with rpc_server(RecordedChain(blocks=dict.fromkeys(range(202, 240)))) as server:
        with pytest.raises(SourceError, match="no block of 6 heights in a row"):
            RpcContextSource(RpcClient(server.url, QUICK), empty_heights_max=5).epoch_context(EPOCH_IDS[5])
        assert len(server.requests) < 12


# an endpoint that lies


def flipped(text: str) -> str:
    """Return another hash."""
    data = CryptoHash.from_base58(text)
    return str(CryptoHash(data[:-1] + bytes([data[-1] ^ 1])))


def in_header(name: str) -> Callable[[dict[str, Any]], None]:
    """Return a change of a hash in the header."""
    return lambda block: block["header"].update({name: flipped(block["header"][name])})


def in_chunk(name: str) -> Callable[[dict[str, Any]], None]:
    """Return a change of a hash in a chunk header."""
    return lambda block: block["chunks"][0].update({name: flipped(block["chunks"][0][name])})


@pytest.mark.parametrize("height", [201, 202, 203, 204])
@pytest.mark.parametrize(
    "change",
    [in_header("prev_hash"), in_header("epoch_id"), in_header("chunk_headers_root"), in_header("hash"), in_chunk("prev_state_root")],
    ids=["prev_hash", "epoch_id", "chunk_headers_root", "hash", "prev_state_root"],
)
def test_a_changed_block_is_found(height: int, change: Callable[[dict[str, Any]], None]) -> None:
    """In every block from the epoch's first to its sync block; the endpoint is named."""
    with rpc_server(RecordedChain(blocks={height: changed_block(height, change)})) as server:
        with pytest.raises(IntegrityError) as caught:
            RpcContextSource(RpcClient(server.url, QUICK)).epoch_context("5")
        assert server.url in caught.value.where


def test_a_root_changed_with_its_chunk_hash_is_found() -> None:
    """The header's root commits to the chunk hashes."""

    def change(block: dict[str, Any]) -> None:
        block["chunks"][0] = recorded_block(205)["chunks"][0]

    with pytest.raises(IntegrityError, match="Merkle root"):
        look_up(RecordedChain(blocks={202: changed_block(202, change)}), "5")


@pytest.mark.parametrize(("height", "shown"), [(202, 210), (203, 202), (201, 161)])
def test_another_block_in_place_of_one_is_found(height: int, shown: int) -> None:
    """Whole and well hashed, but not the one of that height."""
    with pytest.raises(IntegrityError, match=f"asked for the block of height {height}"):
        look_up(RecordedChain(blocks={height: recorded_block(shown)}), "5")


@pytest.mark.parametrize("start", [200, 202, 210, 161])
def test_another_first_height_is_found(start: int) -> None:
    """The first block in ``validators`` must be the one with that hash."""
    with pytest.raises(IntegrityError, match="not the first of epoch"):
        look_up(RecordedChain(epochs={EPOCH_IDS[5]: {"epoch_start_height": start}}), "5")


def test_a_block_that_is_kept_back_is_found() -> None:
    """The next one says that it has another parent."""

    class Withholding(RecordedChain):
        def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
            found = super().answer(method, params)
            height = found.get("result", {}).get("header", {}).get("height")
            return {"error": {"cause": {"name": "UNKNOWN_BLOCK"}}} if height == 202 else found

    with pytest.raises(SourceError, match="no block of height 202") as caught:
        look_up(Withholding(), "5")
    assert not isinstance(caught.value, EpochNotReadyError)


def test_another_epoch_of_a_height_is_found() -> None:
    """Epochs are counted back by the hashes in headers; the height that the endpoint gives must fit."""
    with pytest.raises(IntegrityError, match="not of height 4"):
        look_up(RecordedChain(epochs={EPOCH_IDS[4]: {"epoch_height": 3}}), "4")


@pytest.mark.parametrize(
    "layout",
    [{"V1": {"boundary_accounts": ["9f", "bb", "tt"], "version": 1}}, {"V0": {"num_shards": 3, "version": 0}}],
    ids=["another order", "fewer"],
)
def test_a_layout_of_other_shards_than_the_blocks_is_found(layout: dict[str, Any]) -> None:
    """Shard ids in index order are those of the chunks."""
    with pytest.raises(IntegrityError, match="shard layout"):
        look_up(RecordedChain(configs={EPOCH_IDS[5]: {"shard_layout": layout}}), "5")


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("configs", {"shard_layout": {"V9": {}}}),
        ("configs", {"shard_layout": None}),
        ("configs", {"protocol_version": "74"}),
        ("configs", {"chain_id": "../x"}),
        ("epochs", {"epoch_height": -1}),
        ("epochs", {"epoch_start_height": None}),
    ],
)
def test_answers_of_another_form_are_a_fault_of_the_source(method: str, change: dict[str, Any]) -> None:
    """The field is named."""
    answers: dict[str, Any] = {method: {EPOCH_IDS[5]: change}}
    with pytest.raises(SourceError, match="another form") as caught:
        look_up(replace(RecordedChain(), **answers), EPOCH_IDS[5])
    assert next(iter(change)).partition("_")[0] in str(caught.value)


# resharding


def test_parents_are_read_from_the_epochs_layout() -> None:
    """The layout is asked for each epoch: the one before has its own."""
    before = {"V0": {"num_shards": 10, "version": 2}}
    ids_before = {"V2": {**LAYOUT["V2"], "shards_split_map": None, "shards_parent_map": None}}
    context = look_up(RecordedChain(configs={EPOCH_IDS[5]: {"shard_layout": LAYOUT}, EPOCH_IDS[4]: {"shard_layout": before}}), "5")
    assert {str(shard.shard_uid): str(shard.parent_shard_uid) for shard in context.shards} == {
        "s0.v3": "s0.v2",
        "s1.v3": "s9.v2",
        "s2.v3": "s2.v2",
        "s3.v3": "s9.v2",
    }
    later = look_up(RecordedChain(configs={EPOCH_IDS[5]: {"shard_layout": LAYOUT}, EPOCH_IDS[4]: {"shard_layout": LAYOUT}}), "5")
    assert [str(shard.parent_shard_uid) for shard in later.shards] == ["None", "s9.v3", "None", "s9.v3"]
    without = look_up(RecordedChain(configs={EPOCH_IDS[5]: {"shard_layout": ids_before}}), "5")
    assert [shard.parent_shard_uid for shard in without.shards] == [None] * 4


def test_of_an_epoch_before_that_is_gone_the_layout_is_done_without() -> None:
    """The parents' version is then that of the layout itself."""
    context = look_up(RecordedChain(first_height=201, configs={EPOCH_IDS[5]: {"shard_layout": LAYOUT}}), EPOCH_IDS[5])
    assert [str(shard.parent_shard_uid) for shard in context.shards] == ["None", "s9.v3", "None", "s9.v3"]


def test_before_protocol_74_the_first_block_is_the_sync_block() -> None:
    """Its parent, and so the layout, is the epoch's before."""
    old = {"protocol_version": 73}
    context = look_up(RecordedChain(configs={epoch_id: old for epoch_id in EPOCH_IDS.values()}), "5")
    assert str(context.sync_hash) == recorded_block(201)["header"]["hash"]
    chunks = {chunk["shard_id"]: chunk["prev_state_root"] for chunk in recorded_block(200)["chunks"]}
    assert {shard.shard_id: str(shard.state_root) for shard in context.shards} == chunks


# comparing


def test_a_true_context_is_confirmed() -> None:
    """And the endpoint's own is returned."""
    with rpc_server() as server:
        source = RpcContextSource(RpcClient(server.url, QUICK))
        assert source.check(from_database(5), "node") == from_database(5)


def test_an_endpoint_that_does_not_know_the_epoch_has_no_objection() -> None:
    """As long as it is of the same chain."""
    with rpc_server() as server:
        source = RpcContextSource(RpcClient(server.url, QUICK))
        assert source.check(from_database(6), "node") is None
        with pytest.raises(ContextMismatchError, match="chain_id") as caught:
            source.check(replace(from_database(6), chain_id="another"), "node")
    assert caught.value.values == {"node": "another", source.source_id: "test-chain-klplt"}
