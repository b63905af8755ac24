"""Genesis values in nearcore's own encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader
from schemas.errors import SourceError
from schemas.ids import CryptoHash, base58_encode
from schemas.nearcore.account import Account, AccountContract, AccountVersion, ContractKind
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.genesis import JsonFields, access_key_from_json, account_from_json, receipt_from_json
from tests.support.nodes import localnet_home

RECEIPTS_COLUMN = "col45"
KEY = base58_encode(bytes(range(32)))
KEY_BORSH = b"\0" + bytes(range(32))
SECP_KEY = base58_encode(bytes(range(64)))
HASH = str(CryptoHash(b"\1" * 32))

Json = dict[str, Any]


def fields(document: object) -> JsonFields:
    """Wrap a record's JSON."""
    return JsonFields(document, "test")


def receipt_to_json(row: bytes) -> Json:
    """Read a stored action receipt whose actions are transfers."""
    reader = BorshReader(row)
    predecessor_id, receiver_id, receipt_id = reader.byte_vec().decode(), reader.byte_vec().decode(), CryptoHash(reader.fixed(32))
    assert reader.u8() == 0
    signer_id, key_type, key = reader.byte_vec().decode(), reader.u8(), reader.fixed(32)
    assert key_type == 0
    gas_price = reader.u128()
    receivers = reader.vec(lambda: {"data_id": str(CryptoHash(reader.fixed(32))), "receiver_id": reader.byte_vec().decode()})
    inputs = reader.vec(lambda: str(CryptoHash(reader.fixed(32))))

    def action() -> Json:
        assert reader.u8() == 3
        return {"Transfer": {"deposit": str(reader.u128())}}

    body = {
        "signer_id": signer_id,
        "signer_public_key": f"ed25519:{base58_encode(key)}",
        "gas_price": str(gas_price),
        "output_data_receivers": receivers,
        "input_data_ids": inputs,
        "actions": reader.vec(action),
    }
    reader.end()
    return {"predecessor_id": predecessor_id, "receiver_id": receiver_id, "receipt_id": str(receipt_id), "receipt": {"Action": body}}


def test_receipts_of_a_real_chain_have_the_bytes_that_its_node_stored() -> None:
    """Hundreds of receipts, read from the database, written as JSON and encoded again."""
    count = 0
    with RocksDbReader(localnet_home() / "data", (RECEIPTS_COLUMN,)) as reader:
        for rows in reader.scan(RECEIPTS_COLUMN, b"", None):
            for key, row in rows:
                # Payload and reference count, perhaps more than once; a row that came out at zero has neither.
                stored = max(row.split(MERGE_DELIMITER), key=len)[:-8]
                if not stored:
                    continue
                receipt = receipt_from_json(fields(receipt_to_json(stored)))
                assert receipt.encoded == stored
                assert receipt.receipt_id == key
                count += 1
    assert count > 500


ACTIONS: list[tuple[object, bytes]] = [
    ("CreateAccount", b"\0"),
    ({"CreateAccount": {}}, b"\0"),
    ({"DeployContract": {"code": "AAE="}}, b"\1\2\0\0\0\0\1"),
    (
        {"FunctionCall": {"method_name": "m", "args": "AA==", "gas": 7, "deposit": "1"}},
        b"\2\1\0\0\0m\1\0\0\0\0" + (7).to_bytes(8, "little") + (1).to_bytes(16, "little"),
    ),
    ({"Transfer": {"deposit": "340282366920938463463374607431768211455"}}, b"\3" + b"\xff" * 16),
    ({"Stake": {"stake": "5", "public_key": f"ed25519:{KEY}"}}, b"\4" + (5).to_bytes(16, "little") + KEY_BORSH),
    (
        {"AddKey": {"public_key": f"secp256k1:{SECP_KEY}", "access_key": {"nonce": 3, "permission": "FullAccess"}}},
        b"\5\1" + bytes(range(64)) + (3).to_bytes(8, "little") + b"\1",
    ),
    ({"DeleteKey": {"public_key": KEY}}, b"\6" + KEY_BORSH),
    ({"DeleteAccount": {"beneficiary_id": "bob"}}, b"\7\3\0\0\0bob"),
]


@pytest.mark.parametrize(("action", "encoded"), ACTIONS, ids=lambda value: str(value)[:30])
def test_actions_are_encoded_by_their_place_in_nearcores_enum(action: object, encoded: bytes) -> None:
    """Each kind with its fields, at the end of a receipt."""
    body = {
        "signer_id": "aa",
        "signer_public_key": f"ed25519:{KEY}",
        "gas_price": "0",
        "output_data_receivers": [{"data_id": HASH, "receiver_id": "cc"}],
        "input_data_ids": [HASH],
        "actions": [action],
    }
    receipt = receipt_from_json(
        fields({"predecessor_id": "aa", "receiver_id": "bb", "receipt_id": HASH, "receipt": {"PromiseYield": body}})
    )
    expected = b"\2\0\0\0aa\2\0\0\0bb" + b"\1" * 32 + b"\2\2\0\0\0aa" + KEY_BORSH + bytes(16)
    expected += b"\1\0\0\0" + b"\1" * 32 + b"\2\0\0\0cc" + b"\1\0\0\0" + b"\1" * 32
    assert receipt.encoded == expected + b"\1\0\0\0" + encoded
    assert receipt.input_data_ids == (b"\1" * 32,)


def test_a_receipt_with_a_priority_is_of_the_second_version() -> None:
    """It begins with a tag and ends with the priority."""
    plain: Json = {"predecessor_id": "aa", "receiver_id": "bb", "receipt_id": HASH, "receipt": {"Data": {"data_id": HASH, "data": None}}}
    encoded = receipt_from_json(fields(plain)).encoded
    assert encoded == b"\2\0\0\0aa\2\0\0\0bb" + b"\1" * 32 + b"\1" + b"\1" * 32 + b"\0"
    assert receipt_from_json(fields({**plain, "priority": 6})).encoded == b"\1" + encoded + (6).to_bytes(8, "little")


def test_an_access_key_for_function_calls_has_its_limits() -> None:
    """Allowance, receiver and method names; the receiver may be no account id, as in testnet's genesis."""
    call = {"allowance": "9", "receiver_id": "NOT an account", "method_names": ["a", "bc"]}
    encoded = access_key_from_json(fields({"nonce": 1, "permission": {"FunctionCall": call}})).to_bytes()
    tail = b"\x0e\0\0\0NOT an account\2\0\0\0\1\0\0\0a\2\0\0\0bc"
    assert encoded == (1).to_bytes(8, "little") + b"\0\1" + (9).to_bytes(16, "little") + tail
    unlimited = access_key_from_json(fields({"nonce": 1, "permission": {"FunctionCall": {**call, "allowance": None}}})).to_bytes()
    assert unlimited == (1).to_bytes(8, "little") + b"\0\0" + tail


def test_an_accounts_storage_usage_is_not_taken_from_the_file() -> None:
    """nearcore computes it again; amount, stake and contract are as the file says."""
    account = account_from_json(fields({"amount": 5, "locked": "6", "code_hash": HASH, "storage_usage": 9, "version": "V2"}))
    contract = AccountContract(ContractKind.LOCAL, CryptoHash(b"\1" * 32))
    assert account == Account(AccountVersion.V2, 5, 6, 0, contract)


@pytest.mark.parametrize(
    "read",
    [
        lambda: access_key_from_json(fields({"nonce": 1, "permission": {"GasKey": {}}})),
        lambda: access_key_from_json(fields({"nonce": -1, "permission": "FullAccess"})),
        lambda: access_key_from_json(fields({"nonce": True, "permission": "FullAccess"})),
        lambda: account_from_json(fields({"amount": str(2**128 - 1), "locked": "0", "code_hash": HASH})),
        lambda: fields({"k": "ed25519:abc"}).public_key("k"),
        lambda: fields({"k": f"rsa:{KEY}"}).public_key("k"),
        lambda: fields({"k": "ed25519:" + "0" * 44}).public_key("k"),
        lambda: fields({"k": "ed25519:" + "2" * 10_000}).public_key("k"),
        lambda: fields({"n": "1" * 100}).number("n", 128),
        lambda: fields({"n": str(2**64)}).number("n", 64),
        lambda: fields({"l": {}}).items("l"),
        lambda: fields({}).value("missing"),
        lambda: fields({"a": 1, "b": 2}).only_variant(),
        lambda: fields({"t": "half a \ud800 character"}).text("t"),
        lambda: fields([]),
    ],
)
def test_malformed_fields_are_named_errors(read: Callable[[], object]) -> None:
    """Whatever is wrong with a record, it is a typed error."""
    with pytest.raises(SourceError, match="test"):
        read()
