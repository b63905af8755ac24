"""Shard layouts and the shards of accounts."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import InvalidInputError
from schemas.ids import ShardUId
from schemas.shard_layout import SINGLE_SHARD, shard_layout_from_json
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
    ],
)
def test_what_is_no_layout_is_refused(document: object) -> None:
    """Lists must fit each other and numbers their types."""
    with pytest.raises(InvalidInputError):
        shard_layout_from_json(document, "test")
