"""Records out of genesis files: nearcore's own roots come out, and what it would refuse is refused."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pipelines.kernel.choice import choose_kernel
from pipelines.near.files.genesis_records import GenesisSource, genesis_context
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_columns import BLOCK_MISC
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import InvalidInputError, SourceError
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId, base58_decode, base58_encode
from schemas.nearcore.account import decode_account
from schemas.nearcore.epoch_context import ShardContext
from schemas.nearcore.trie_key import (
    account_key,
    contract_code_key,
    contract_data_key,
    delayed_receipt_indices_key,
    delayed_receipt_key,
    pending_data_count_key,
    postponed_receipt_id_key,
    postponed_receipt_key,
    promise_yield_receipt_key,
    received_data_key,
)
from tests.support.nodes import localnet_home
from tests.support.records import pairs_of

WHOLE = KeyRange(b"", None)
MAINNET_GENESIS_ROOT = "8EhZRfDTYujfZoUZtZ3eSMB9gJyFo5zjscR12dEcaxGU"
NO_CODE = str(ZERO_HASH)
PUBLIC_KEY = "ed25519:7PGseFbWxvYVgZ89K1uTJKYoKetWs7BJtbyXDzfbAcqX"
DATA_ID = str(CryptoHash(b"\1" * 32))
OTHER_DATA_ID = str(CryptoHash(b"\2" * 32))
RECEIPT_ID = CryptoHash(b"\3" * 32)

Json = dict[str, Any]


def read(source: GenesisSource, shard: ShardContext) -> list[tuple[bytes, bytes]]:
    """Return a shard's keys and values."""
    records = list(source.records(shard, WHOLE, 1 << 20))
    hashes = sorted({value_hash for batch in records for value_hash in batch["value_hash"].to_pylist() if value_hash})
    return pairs_of(records, source.values(shard, hashes, 1 << 20))


def state_root(source: GenesisSource, shard: ShardContext) -> CryptoHash:
    """Return the root that a shard's records hash to."""
    kernel = choose_kernel("auto")
    records = list(source.records(shard, WHOLE, 1 << 20))
    hashes = sorted({value_hash for batch in records for value_hash in batch["value_hash"].to_pylist() if value_hash})
    return kernel.seal([kernel.build(records, list(source.values(shard, hashes, 1 << 20)), None, None).edge]).state_root


def account(account_id: str, amount: object = 7, **changes: object) -> Json:
    """Return an account's record."""
    fields = {"amount": str(amount), "locked": "0", "code_hash": NO_CODE, "storage_usage": 999, **changes}
    return {"Account": {"account_id": account_id, "account": fields}}


def text(data: bytes) -> str:
    """Return bytes as JSON has them."""
    return base64.b64encode(data).decode()


def receipt(
    kind: str = "Action", receiver_id: str = "alice", inputs: tuple[str, ...] = (), action: Json | None = None, **changes: object
) -> Json:
    """Return a receipt's JSON."""
    body: Json = {
        "signer_id": "bob",
        "signer_public_key": PUBLIC_KEY,
        "gas_price": "5",
        "output_data_receivers": [],
        "input_data_ids": list(inputs),
        "actions": [action or {"Transfer": {"deposit": "9"}}],
    }
    if kind in ("Data", "PromiseResume"):
        body = {"data_id": DATA_ID, "data": text(b"data")}
    return {"predecessor_id": "bob", "receiver_id": receiver_id, "receipt_id": str(RECEIPT_ID), "receipt": {kind: body}, **changes}


@pytest.fixture
def genesis(tmp_path: Path) -> Callable[..., GenesisSource]:
    """Writes a genesis file of some records and returns its source."""

    def write(*records: object, **fields: object) -> GenesisSource:
        path = tmp_path / "genesis.json"
        path.write_text(json.dumps({"chain_id": "test", "protocol_version": 74, "validators": [], **fields, "records": records}))
        return GenesisSource(str(path))

    return write


def only_shard(source: GenesisSource) -> ShardContext:
    """Return the shard of a genesis without a layout."""
    (shard,) = genesis_context(source.path).shards
    return shard


def state(source: GenesisSource) -> dict[bytes, bytes]:
    """Return the only shard's values by key."""
    return dict(read(source, only_shard(source)))


# nearcore's own results


def test_mainnet_genesis_has_the_published_root(shared_fixtures: Path, tmp_path: Path) -> None:
    """The whole genesis state of mainnet, one shard."""
    document = json.loads((shared_fixtures / "real" / "mainnet_genesis.json").read_text())
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(document["genesis"]))
    source = GenesisSource(str(path))
    assert str(only_shard(source).shard_uid) == "s0.v0"
    assert str(state_root(source, only_shard(source))) == MAINNET_GENESIS_ROOT


def test_the_localnets_genesis_has_the_roots_in_its_database() -> None:
    """Four shards by a V2 layout, whose ids are not in order; nothing but the records is in the state at genesis."""
    with RocksDbReader(localnet_home() / "data", (BLOCK_MISC,)) as reader:
        roots = reader.get(BLOCK_MISC, b"GENESIS_STATE_ROOTS")
    assert roots is not None
    path = localnet_home() / "genesis.json"
    source = GenesisSource(str(path))
    context = genesis_context(path)
    assert (context.chain_id, context.protocol_version, context.epoch_height) == ("test-chain-klplt", 74, 0)
    by_index = [CryptoHash(roots[4 + 32 * index :][:32]) for index in range(4)]
    assert [state_root(source, context.shard(shard_id)) for shard_id in (3, 1, 0, 2)] == by_index


# accounts


def test_storage_usage_is_computed_and_stake_locked(genesis: Callable[..., GenesisSource]) -> None:
    """The file's storage figures are not used; a validator's stake replaces what is locked."""
    code = b"\0asm" * 2000
    source = genesis(
        account("alice", code_hash=str(CryptoHash(sha256(code).digest()))),
        {"Data": {"account_id": "alice", "data_key": text(b"key"), "value": text(b"value")}},
        {"AccessKey": {"account_id": "alice", "public_key": PUBLIC_KEY, "access_key": {"nonce": 0, "permission": "FullAccess"}}},
        {"Contract": {"account_id": "alice", "code": text(code)}},
        validators=[{"account_id": "alice", "public_key": PUBLIC_KEY, "amount": "1000"}],
    )
    found = state(source)
    usage = 100 + (40 + 3 + 5) + (40 + 33 + 9) + len(code)
    assert found[account_key("alice")] == (7).to_bytes(16, "little") + (1000).to_bytes(16, "little") + sha256(code).digest() + struct.pack(
        "<Q", usage
    )
    assert found[contract_code_key("alice")] == code
    assert found[contract_data_key("alice", b"key")] == b"value"
    assert len(found) == 4


def test_the_last_record_of_a_key_counts(genesis: Callable[..., GenesisSource]) -> None:
    """As when one is set after the other; storage is charged for both."""
    entry = {"account_id": "alice", "data_key": text(b"k")}
    found = state(
        genesis(account("alice"), account("alice", 8), {"Data": {**entry, "value": text(b"1")}}, {"Data": {**entry, "value": text(b"2")}})
    )
    assert found[contract_data_key("alice", b"k")] == b"2"
    assert found[account_key("alice")][:16] == (8).to_bytes(16, "little")
    assert int.from_bytes(found[account_key("alice")][-8:], "little") == 2 * 100 + 2 * 42


@pytest.mark.parametrize(
    ("fields", "contract"),
    [
        ({}, b"\0"),
        ({"code_hash": DATA_ID}, b"\1" + b"\1" * 32),
        ({"global_contract_hash": DATA_ID}, b"\2" + b"\1" * 32),
        ({"global_contract_account_id": "carol"}, b"\3\5\0\0\0carol"),
    ],
    ids=["none", "local", "global", "global by account"],
)
def test_accounts_of_the_second_version(genesis: Callable[..., GenesisSource], fields: Json, contract: bytes) -> None:
    """They begin with a sum that no account can have, and name their contract."""
    found = state(genesis(account("alice", version="V2", **fields)))
    head = b"\xff" * 16 + b"\0" + (7).to_bytes(16, "little") + bytes(16)
    assert found == {account_key("alice"): head + struct.pack("<Q", 100) + contract}


# receipts


def test_delayed_receipts_get_their_places_in_file_order(genesis: Callable[..., GenesisSource]) -> None:
    """The queue begins at 0, whether or not the file names an index."""
    first, second = receipt(gas_price="1"), receipt("Data")
    found = state(genesis(account("alice"), {"DelayedReceipt": first}, {"DelayedReceipt": {"index": 77, "receipt": second}}))
    assert found[delayed_receipt_indices_key()] == struct.pack("<QQ", 0, 2)
    assert found[delayed_receipt_key(1)].endswith(b"\1" + b"\1" * 32 + b"\1\4\0\0\0data")
    assert found[delayed_receipt_key(0)][:18] == b"\3\0\0\0bob\5\0\0\0alice" + b"\3\3"


def test_a_postponed_receipt_waits_for_the_data_that_has_not_come(genesis: Callable[..., GenesisSource]) -> None:
    """Data that comes anywhere in the file counts as received."""
    received = {"ReceivedData": {"account_id": "alice", "data_id": DATA_ID, "data": None}}
    found = state(genesis(account("alice"), {"PostponedReceipt": receipt(inputs=(DATA_ID, OTHER_DATA_ID))}, received))
    assert found[received_data_key("alice", b"\1" * 32)] == b"\0"
    assert postponed_receipt_id_key("alice", b"\1" * 32) not in found
    assert found[postponed_receipt_id_key("alice", b"\2" * 32)] == RECEIPT_ID
    assert found[pending_data_count_key("alice", RECEIPT_ID)] == struct.pack("<I", 1)
    assert postponed_receipt_key("alice", RECEIPT_ID) in found


def test_a_yielded_promise_has_a_key_of_its_own(genesis: Callable[..., GenesisSource]) -> None:
    """It waits under its only data id, without a count."""
    found = state(genesis(account("alice"), {"PostponedReceipt": receipt("PromiseYield", inputs=(DATA_ID,))}))
    assert found.keys() == {account_key("alice"), promise_yield_receipt_key("alice", b"\1" * 32)}


# files


def test_records_can_lie_in_a_file_of_their_own(genesis: Callable[..., GenesisSource], tmp_path: Path) -> None:
    """A JSON array, gzip or not."""
    whole = genesis(account("alice"), account("bob"))
    expected = state(whole)
    apart = tmp_path / "records.json.gz"
    apart.write_bytes(gzip.compress(json.dumps([account("alice"), account("bob")]).encode()))
    head = tmp_path / "head.json"
    head.write_text(json.dumps({"chain_id": "test", "protocol_version": 74}))
    source = GenesisSource(str(head), str(apart))
    assert dict(read(source, only_shard(source))) == expected
    assert source.fingerprint(only_shard(source)) != whole.fingerprint(only_shard(whole))
    with pytest.raises(SourceError, match="no records"):
        read(GenesisSource(str(head)), only_shard(source))


def test_shards_are_split_by_account(genesis: Callable[..., GenesisSource]) -> None:
    """Each shard has its own accounts and its own queue of receipts, and ranges cut inside it."""
    layout = {"V1": {"boundary_accounts": ["b", "c"], "shards_split_map": None, "version": 2}}
    records = [account("alice"), account("bob"), account("carol"), {"DelayedReceipt": receipt(receiver_id="carol")}]
    source = genesis(*records, shard_layout=layout)
    shards = genesis_context(source.path).shards
    assert [str(shard.shard_uid) for shard in shards] == ["s0.v2", "s1.v2", "s2.v2"]
    found = [dict(read(source, shard)) for shard in shards]
    assert [account_key("alice") in found[0], account_key("bob") in found[1], account_key("carol") in found[2]] == [True] * 3
    assert [delayed_receipt_indices_key() in shard for shard in found] == [False, False, True]
    middle = delayed_receipt_indices_key()
    halves = [list(source.records(shards[2], key_range, 1 << 20)) for key_range in (KeyRange(b"", middle), KeyRange(middle, None))]
    assert [row["key"] for half in halves for batch in half for row in batch.to_pylist()] == sorted(found[2])
    with pytest.raises(InvalidInputError, match=r"s0\.v0"):
        source.key_ranges(ShardContext(ShardUId(version=0, shard_id=0), None), 1)


CODE = text(b"code")


SIGNATURE = "ed25519:" + base58_encode(bytes([3]) * 64)
DELEGATE: Json = {
    "delegate_action": {
        **{"sender_id": "bob", "receiver_id": "alice", "actions": [{"Transfer": {"deposit": "9"}}]},
        **{"nonce": 5, "max_block_height": 6, "public_key": PUBLIC_KEY},
    },
    "signature": SIGNATURE,
}


def test_gas_keys_and_their_nonces_are_state(genesis: Callable[..., GenesisSource]) -> None:
    """The account is charged for the index of each nonce too; a receiver in a permission is free text."""
    limits = {"allowance": None, "receiver_id": "No Account", "method_names": ["m"]}
    permission = {"GasKeyFunctionCall": [{"balance": "100", "num_nonces": 2}, limits]}
    key = {"account_id": "alice", "public_key": PUBLIC_KEY}
    found = state(
        genesis(
            account("alice"),
            {"AccessKey": {**key, "access_key": {"nonce": 0, "permission": permission}}},
            *({"GasKeyNonce": {**key, "index": index, "nonce": 300 + index}} for index in (0, 258)),
        )
    )
    borsh_key = b"\0" + base58_decode(PUBLIC_KEY.removeprefix("ed25519:"))
    access_key = b"\2alice\2" + borsh_key
    value = found[access_key]
    assert value == bytes(8) + b"\2" + (100).to_bytes(16, "little") + b"\2\0" + b"\0" + b"\x0a\0\0\0No Account" + b"\1\0\0\0\1\0\0\0m"
    assert found[access_key + b"\0\0"] == (300).to_bytes(8, "little")
    assert found[access_key + b"\2\1"] == (558).to_bytes(8, "little")
    assert decode_account(found[b"\0alice"]).storage_usage == 100 + 40 + 33 + len(value) + 2 * (40 + 33 + 2 + 8)


def test_an_uninitialized_account_keeps_its_bootstrap_nonce(genesis: Callable[..., GenesisSource]) -> None:
    """In the encoding of its own."""
    (value,) = state(genesis(account("alice", version="UNINITIALIZED", bootstrap_nonce=9))).values()
    assert value == b"\xff" * 16 + b"\1" + (7).to_bytes(16, "little") + (100).to_bytes(8, "little") + (9).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("action", "encoded"),
    [
        (
            {"Delegate": DELEGATE},
            b"\x08\3\0\0\0bob\5\0\0\0alice\1\0\0\0\3"
            + (9).to_bytes(16, "little")
            + (5).to_bytes(8, "little")
            + (6).to_bytes(8, "little")
            + b"\0"
            + base58_decode(PUBLIC_KEY.removeprefix("ed25519:"))
            + b"\0"
            + b"\3" * 64,
        ),
        ({"DeployGlobalContract": {"code": text(b"code"), "deploy_mode": "AccountId"}}, b"\x09\4\0\0\0code\1"),
        ({"UseGlobalContract": {"contract_identifier": {"AccountId": "bob"}}}, b"\x0a\1\3\0\0\0bob"),
        ({"UseGlobalContract": {"contract_identifier": {"CodeHash": DATA_ID}}}, b"\x0a\0" + CryptoHash.from_base58(DATA_ID)),
        ({"UseGlobalContract": {"contract_identifier": {"hash": DATA_ID}}}, b"\x0a\0" + CryptoHash.from_base58(DATA_ID)),
        (
            {
                "DeterministicStateInit": {
                    "state_init": {"V1": {"code": {"account_id": "bob"}, "data": {"Yg==": "", "YQ==": "eA=="}}},
                    "deposit": "3",
                }
            },
            b"\x0b\0\1\3\0\0\0bob\2\0\0\0\1\0\0\0a\1\0\0\0x\1\0\0\0b\0\0\0\0" + (3).to_bytes(16, "little"),
        ),
        (
            {"TransferToGasKey": {"public_key": "ml-dsa-65:" + base58_encode(b"\7" * 1952), "deposit": "3"}},
            b"\x0c\2" + b"\7" * 1952 + (3).to_bytes(16, "little"),
        ),
        (
            {"WithdrawFromGasKey": {"public_key": PUBLIC_KEY, "amount": "3"}},
            b"\x0d\0" + base58_decode(PUBLIC_KEY.removeprefix("ed25519:")) + (3).to_bytes(16, "little"),
        ),
        (
            {
                "DelegateV2": {
                    **DELEGATE,
                    "delegate_action": {"V2": {**DELEGATE["delegate_action"], "nonce": {"GasKeyNonce": {"nonce": 5, "nonce_index": 2}}}},
                }
            },
            b"\x0e\0\3\0\0\0bob\5\0\0\0alice\1\0\0\0\3"
            + (9).to_bytes(16, "little")
            + b"\1"
            + (5).to_bytes(8, "little")
            + b"\2\0"
            + (6).to_bytes(8, "little")
            + b"\0"
            + base58_decode(PUBLIC_KEY.removeprefix("ed25519:"))
            + b"\0"
            + b"\3" * 64,
        ),
        ({"UniversalStateInit": {"state_init": text(b"init"), "deposit": "3"}}, b"\x0f\4\0\0\0init" + (3).to_bytes(16, "little")),
    ],
)
def test_receipts_of_running_chains_are_taken(genesis: Callable[..., GenesisSource], action: Json, encoded: bytes) -> None:
    """Delegated actions and global contracts, in nearcore's borsh."""
    found = state(genesis({"DelayedReceipt": receipt(action=action)}))
    assert [value for value in found.values() if value.endswith(b"\1\0\0\0" + encoded)]


@pytest.mark.parametrize(("refund_to", "encoded"), [(None, b"\0"), ("carol", b"\1\5\0\0\0carol")])
def test_receipts_that_refund_to_another_are_taken(genesis: Callable[..., GenesisSource], refund_to: str | None, encoded: bytes) -> None:
    """Delayed ones, and those of yielded promises under their key."""
    of_actions, of_yield = receipt(), receipt("PromiseYield", inputs=(DATA_ID,))
    of_actions["receipt"] = {"ActionV2": {**of_actions["receipt"]["Action"], "refund_to": refund_to}}
    of_yield["receipt"] = {"PromiseYieldV2": {**of_yield["receipt"]["PromiseYield"], "refund_to": refund_to}}
    found = state(genesis({"DelayedReceipt": of_actions}, {"PostponedReceipt": of_yield}))
    assert b"\5\3\0\0\0bob" + encoded + b"\0" in found[delayed_receipt_key(0)]
    assert b"\6\3\0\0\0bob" + encoded + b"\0" in found[promise_yield_receipt_key("alice", b"\1" * 32)]


def test_a_global_contract_on_its_way_is_taken(genesis: Callable[..., GenesisSource]) -> None:
    """As a receipt of its own kind."""
    body = {"V1": {"id": {"AccountId": "bob"}, "target_shard": 6, "already_delivered_shards": [1, 2], "code": text(b"code")}}
    found = state(genesis({"DelayedReceipt": {**receipt(), "receipt": {"GlobalContractDistribution": body}}}))
    shards = (6).to_bytes(8, "little") + b"\2\0\0\0" + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    assert [value for value in found.values() if value.endswith(b"\4\0\1\3\0\0\0bob" + shards + b"\4\0\0\0code")]
    second = {"V2": {**body["V1"], "id": {"account_id": "bob"}, "nonce": 8}}
    found = state(genesis({"DelayedReceipt": {**receipt(), "receipt": {"GlobalContractDistribution": second}}}))
    whole = b"\4\1\1\3\0\0\0bob" + shards + b"\4\0\0\0code" + (8).to_bytes(8, "little")
    assert [value for value in found.values() if value.endswith(whole)]


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        (
            [{"AccessKey": {"account_id": "alice", "public_key": PUBLIC_KEY, "access_key": {"nonce": 0, "permission": "FullAccess"}}}],
            "no account",
        ),
        ([account("alice"), {"Contract": {"account_id": "alice", "code": CODE}}], "code"),
        (
            [{"Contract": {"account_id": "alice", "code": CODE}}, account("alice", code_hash=str(CryptoHash(sha256(b"code").digest())))],
            "before",
        ),
        ([{"PostponedReceipt": receipt()}], "waits for data"),
        ([{"PostponedReceipt": receipt("Data")}], "waits for data"),
        ([{"Unheard": {}}], "record 0"),
        ([account("alice"), {"Account": {"account_id": "bob"}}], r"record 1 \(Account\)"),
        ([account("alice", amount="1.5")], "amount"),
        ([account("alice", version="V1", global_contract_hash=DATA_ID)], "V1"),
        ([account("alice", version="V2", code_hash=DATA_ID, global_contract_hash=DATA_ID)], "one contract"),
        *(
            ([account(refused)], "account id")
            for refused in ("ünknown", "a" * 65, "", "a", "Bob.near", "bob..near", "-bob", "bob_", "bo b", "bob.-near", "bob\n")
        ),
        ([account("alice"), {"DelayedReceipt": receipt(receiver_id="Alice")}], "receiver_id"),
        ([account("alice", version="UNINITIALIZED")], "UNINITIALIZED"),
        ([account("alice", version="UNINITIALIZED", bootstrap_nonce=1, locked="1")], "neither a stake nor a contract"),
        ([{"DelayedReceipt": receipt(action={"Delegate": {**DELEGATE, "signature": "ed25519:1"}})}], "signature"),
        ([{"Data": {"account_id": "alice", "data_key": "?", "value": ""}}], "base64"),
        ([{"Data": {"account_id": "alice", "data_key": text(bytes(4000)), "value": ""}}], "limits"),
        ([{"DelayedReceipt": receipt("GlobalContractDistribution")}], "GlobalContractDistribution"),
        ([{"ReceivedData": {"account_id": "alice", "data_id": "short", "data": None}}], "data_id"),
        (["text"], "record 0"),
    ],
)
def test_what_nearcore_would_refuse_is_refused_with_its_place(
    genesis: Callable[..., GenesisSource], records: list[object], problem: str
) -> None:
    """Nothing is left out silently."""
    with pytest.raises(SourceError, match=problem):
        state(genesis(*records))


def test_a_validator_without_an_account_is_refused(genesis: Callable[..., GenesisSource]) -> None:
    """Its stake would be lost."""
    with pytest.raises(SourceError, match="bob"):
        state(genesis(account("alice"), validators=[{"account_id": "bob", "public_key": PUBLIC_KEY, "amount": "1"}]))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b'{"chain_id": "test"', b"\x1f\x8b broken"),
        b'{"chain_id": 5, "protocol_version": 1}',
        b'{"chain_id": "../x", "protocol_version": 1}',
    ],
)
def test_a_file_that_is_no_genesis_is_named(tmp_path: Path, content: bytes) -> None:
    """Not JSON, not an object, or without its fields."""
    path = tmp_path / "genesis.json"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"genesis\.json"):
        genesis_context(path)


def test_it_has_neither_headers_nor_nodes(genesis: Callable[..., GenesisSource]) -> None:
    """What only a node has is not there."""
    source = genesis(account("alice"))
    assert source.state_header(only_shard(source), bytes(32)).data is None
    assert source.root_memory_usage(only_shard(source)) is None
    assert "genesis.json" in source.describe()
