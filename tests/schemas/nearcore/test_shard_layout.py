"""Shard layouts and the shards of accounts."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import IntegrityError, InvalidInputError
from schemas.ids import ShardUId
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.shard_layout import SINGLE_SHARD, read_shard_layout, shard_layout_from_json
from tests.support.nodes import localnet_home

V1: dict[str, Any] = {"boundary_accounts": ["aurora", "aurora-0", "kkuuue2akv_1630967379.near"], "shards_split_map": None, "version": 1}
V2: dict[str, Any] = {"boundary_accounts": ["ccc", "kkk", "ppp"], "shard_ids": [3, 8, 4, 7], "version": 3}


def vectors(shared_fixtures: Path) -> dict[str, dict[str, Any]]:
    """Return accounts with the shards they are in, by set."""
    document = json.loads((shared_fixtures / "real" / "account_to_shard.json").read_text())
    return {vector["id"]: vector["data"] for vector in document["vectors"]}


def test_accounts_of_the_real_chain_are_in_the_shards_they_were_seen_in(shared_fixtures: Path) -> None:
    """Hundreds of mainnet accounts, and nearcore's own test layouts."""
    found = vectors(shared_fixtures)
    for name, kind in (("mainnet_seen", "V1"), ("layout_v1_test", "V1"), ("layout_v2_test", "V2")):
        data = found[name]
        layout = shard_layout_from_json(
            {kind: {"boundary_accounts": data["boundary_accounts"], "shard_ids": data.get("shard_ids"), "version": 1}}, name
        )
        assert len(data["accounts"]) > 5
        for account_id, shard_id in data["accounts"].items():
            assert layout.shard_ids[layout.shard_index_of(account_id)] == shard_id, account_id


def test_ids_are_not_indexes_in_v2() -> None:
    """The boundary account itself is in the shard on its right."""
    layout = shard_layout_from_json({"V2": V2}, "test")
    accounts = ("aaa", "ccc", "cccc", "kkk", "ppp", "zzz")
    assert [layout.shard_ids[layout.shard_index_of(account)] for account in accounts] == [3, 8, 8, 4, 7, 7]
    assert layout.shard_uids[0] == ShardUId(version=3, shard_id=3)


def test_v0_assigns_by_hash() -> None:
    """With one shard everything is in it; with more, the first eight bytes of the hash decide."""
    assert SINGLE_SHARD.shard_index_of("near") == 0
    layout = shard_layout_from_json({"V0": {"num_shards": 4, "version": 0}}, "test")
    # The hash's first eight bytes as a little-endian number, modulo 4.
    assert layout.shard_index_of("near") == sha256(b"near").digest()[0] % 4 == 2
    assert {layout.shard_index_of(f"account{index}") for index in range(50)} == {0, 1, 2, 3}


def test_v3_has_a_fixed_version() -> None:
    """Its layouts don't say one."""
    layout = shard_layout_from_json(
        {"V3": {"boundary_accounts": ["m"], "shard_ids": [5, 6], "shards_split_map": {}, "last_split": 1}}, "test"
    )
    assert [str(uid) for uid in layout.shard_uids] == ["s5.v3", "s6.v3"]


def test_the_localnets_layout() -> None:
    """As its genesis file has it."""
    layout = shard_layout_from_json(json.loads((localnet_home() / "genesis.json").read_text())["shard_layout"], "genesis")
    assert (layout.kind, layout.version, layout.shard_ids, layout.boundary_accounts) == ("V2", 0, (3, 1, 0, 2), ("9f", "bb", "tt"))


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"V9": {}},
        {"V1": []},
        {"V0": {"num_shards": 0, "version": 0}},
        {"V0": {"num_shards": True, "version": 0}},
        {"V0": {"num_shards": 2**33, "version": 0}},
        {"V1": {"boundary_accounts": ["b", "a"], "version": 1}},
        {"V1": {"boundary_accounts": [1], "version": 1}},
        {"V1": {"boundary_accounts": ["a"]}},
        {"V2": {**V2, "shard_ids": [3, 8, 4]}},
        {"V2": {**V2, "shard_ids": [3, 8, 4, 4]}},
        {"V2": {**V2, "shard_ids": [3, 8, 4, -1]}},
        {"V2": {"boundary_accounts": [], "version": 3}},
        {"V2": {**V2, "boundary_accounts": ["ccc", "kkk", "pp\u00e9"]}},
        {"V2": {**V2, "boundary_accounts": ["ccc", "kkk", "p" * 65]}},
    ],
)
def test_what_is_no_layout_is_refused(document: object) -> None:
    """Lists must fit each other and numbers their types."""
    with pytest.raises(InvalidInputError):
        shard_layout_from_json(document, "test")


# parents


V1_LAYOUT = {"V1": {"boundary_accounts": ["b", "c"], "shards_split_map": [[0], [1, 2]], "to_parent_shard_map": [0, 1, 1], "version": 2}}
V2_LAYOUT = {
    "V2": {
        "boundary_accounts": ["b", "c"],
        "shard_ids": [0, 6, 7],
        "id_to_index_map": {"0": 0, "6": 1, "7": 2},
        "index_to_id_map": {"0": 0, "1": 6, "2": 7},
        "shards_split_map": {"0": [0], "5": [6, 7]},
        "shards_parent_map": {"0": 0, "6": 5, "7": 5},
        "version": 3,
    }
}
V3_LAYOUT = {
    "V3": {
        "boundary_accounts": ["b", "c", "d"],
        "shard_ids": [0, 6, 8, 9],
        "id_to_index_map": {"0": 0, "6": 1, "8": 2, "9": 3},
        "shards_split_map": {"5": [6, 7], "7": [8, 9]},
        "last_split": 7,
    }
}


@pytest.mark.parametrize(
    ("document", "parents"),
    [
        (V1_LAYOUT, {0: "s0.v1", 1: "s1.v1", 2: "s1.v1"}),
        (V2_LAYOUT, {0: None, 6: "s5.v3", 7: "s5.v3"}),
        (V3_LAYOUT, {0: None, 6: "s5.v3", 8: "s7.v3", 9: "s7.v3"}),
        ({"V0": {"num_shards": 2, "version": 0}}, {0: None, 1: None}),
        ({"V1": {**V1_LAYOUT["V1"], "shards_split_map": None}}, {0: None, 1: None, 2: None}),
        ({"V2": {**V2_LAYOUT["V2"], "shards_split_map": None, "shards_parent_map": None}}, {0: None, 6: None, 7: None}),
    ],
)
def test_parents_are_those_of_the_split_map(document: dict[str, Any], parents: dict[int, str | None]) -> None:
    """V1 renames every shard; V2 and V3 name a parent of split shards alone, V3 of earlier reshardings too."""
    layout = shard_layout_from_json(document, "test")
    found = {shard_id: layout.parent_of(shard_id) for shard_id in layout.shard_ids}
    assert {shard_id: None if uid is None else str(uid) for shard_id, uid in found.items()} == parents


def test_the_layout_before_tells_the_parents_version() -> None:
    """The first layout of version 3 may follow one of any version."""
    before = shard_layout_from_json({"V0": {"num_shards": 6, "version": 1}}, "test")
    layout = shard_layout_from_json(V2_LAYOUT, "test")
    assert str(layout.parent_of(6, before)) == "s5.v1"
    assert str(layout.parent_of(0, before)) == "s0.v1"
    assert layout.parent_of(99, before) is None


@pytest.mark.parametrize(
    "split_map",
    [{"5": [6, 7], "4": [7]}, {"x": [6]}, {"5": [True]}, [[1]], {"5": 6}, {"5": ["6"]}],
    ids=["two parents", "no id", "flag", "list", "no list", "text"],
)
def test_a_split_map_of_another_form_is_refused(split_map: object) -> None:
    """A shard has one parent, and ids are numbers."""
    with pytest.raises(InvalidInputError):
        shard_layout_from_json({"V2": {**V2_LAYOUT["V2"], "shards_split_map": split_map}}, "test")


# borsh


def id_list(writer: BorshWriter, ids: list[int]) -> None:
    """Append shard ids."""
    writer.u32(len(ids))
    for shard_id in ids:
        writer.u64(shard_id)


def id_lists(writer: BorshWriter, lists: dict[str, list[int]]) -> None:
    """Append lists of shard ids by shard id."""
    writer.u32(len(lists))
    for key, ids in lists.items():
        id_list(writer.u64(int(key)), ids)


def id_pairs(writer: BorshWriter, pairs: dict[str, int]) -> None:
    """Append numbers by number."""
    writer.u32(len(pairs))
    for key, value in pairs.items():
        writer.u64(int(key)).u64(value)


def in_borsh(document: dict[str, Any]) -> bytes:
    """Encode a layout as nearcore does."""
    ((kind, body),) = document.items()
    writer = BorshWriter().u8(int(kind[1:]))
    if kind == "V0":
        return writer.u64(body["num_shards"]).u32(body["version"]).to_bytes()
    writer.u32(len(body["boundary_accounts"]))
    for account in body["boundary_accounts"]:
        writer.byte_vec(account.encode())
    if kind == "V1":

        def v1_map(lists: list[list[int]]) -> None:
            writer.u32(len(lists))
            for ids in lists:
                id_list(writer, ids)

        writer.option(body["shards_split_map"], v1_map)
        writer.option(body["to_parent_shard_map"], lambda ids: id_list(writer, ids))
        return writer.u32(body["version"]).to_bytes()
    id_list(writer, body["shard_ids"])
    id_pairs(writer, body["id_to_index_map"])
    if kind == "V2":
        id_pairs(writer, body["index_to_id_map"])
        writer.option(body["shards_split_map"], lambda lists: id_lists(writer, lists))
        writer.option(body["shards_parent_map"], lambda pairs: id_pairs(writer, pairs))
        return writer.u32(body["version"]).to_bytes()
    id_lists(writer, body["shards_split_map"])
    id_lists(writer.u64(body["last_split"]), {"6": [5], "8": [7, 5], "9": [7, 5]})
    return writer.to_bytes()


@pytest.mark.parametrize(
    "document", [{"V0": {"num_shards": 2, "version": 0}}, V1_LAYOUT, V2_LAYOUT, V3_LAYOUT], ids=["V0", "V1", "V2", "V3"]
)
def test_borsh_and_json_say_the_same(document: dict[str, Any]) -> None:
    """And nothing of the layout is left to read."""
    data = in_borsh(document)
    reader = BorshReader(data + b"what follows", "test", IntegrityError)
    assert read_shard_layout(reader, "test") == shard_layout_from_json(document, "test")
    assert reader.remaining == len(b"what follows")
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            read_shard_layout(BorshReader(data[:length], "test", IntegrityError), "test")


def test_an_unknown_kind_in_borsh_is_refused() -> None:
    """Nothing is guessed of a fifth."""
    with pytest.raises(IntegrityError, match="no known kind"):
        read_shard_layout(BorshReader(b"\4", "test", IntegrityError), "test")


def test_lists_that_do_not_fit_each_other_are_refused_in_borsh_too() -> None:
    """Two shards need one boundary account."""
    broken = {"V2": {**V2_LAYOUT["V2"], "boundary_accounts": []}}
    with pytest.raises(IntegrityError, match="boundary_accounts"):
        read_shard_layout(BorshReader(in_borsh(broken), "test", IntegrityError), "test")


@pytest.mark.parametrize(
    "document", [V1_LAYOUT, V2_LAYOUT, V3_LAYOUT, {"V0": {"num_shards": 3, "version": 0}}], ids=lambda d: next(iter(d))
)
def test_an_assignment_comes_back(document: dict[str, Any]) -> None:
    """It is the layout but for parents, in the form that genesis files have."""
    layout = shard_layout_from_json(document, "test")
    assert layout.assignment.parent_shard_ids == ()
    assert shard_layout_from_json(json.loads(json.dumps(layout.to_json())), "test") == layout.assignment
    accounts = ("a", "b", "bb", "c", "near", "zz")
    assert [layout.assignment.shard_index_of(account) for account in accounts] == [layout.shard_index_of(account) for account in accounts]
    assert layout.assignment.shard_uids == layout.shard_uids
