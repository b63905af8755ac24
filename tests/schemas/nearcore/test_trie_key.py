"""Trie keys, against those that nearcore's own code made."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import MalformedValueError
from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind, access_key_key, contract_data_key, parse_trie_key
from tests.support.state_records import state_records

RECORDS = state_records()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_a_trie_key_is_taken_apart_as_nearcore_put_it_together(record: Any) -> None:
    """Kind and every part."""
    parsed = parse_trie_key(record.key)
    assert parsed.kind == record.kind
    for name in ("account_id", "public_key", "nonce_index", "queue_index", "receiving_shard_id"):
        assert getattr(parsed, name) == record.facts.get(name)
    for name in ("data_id", "receipt_id", "yield_id", "code_hash"):
        value = getattr(parsed, name)
        assert value is None or str(value) == record.facts[name]
    if parsed.kind is TrieKeyKind.CONTRACT_DATA:
        assert parsed.data_key == bytes.fromhex(record.facts["data_key"])


def test_every_kind_is_in_the_vectors() -> None:
    """Nothing is known that nearcore did not show."""
    kinds = {kind for kinds in KINDS_BY_FIRST_BYTE.values() for kind in kinds}
    assert kinds == {record.kind for record in RECORDS} == set(TrieKeyKind) - {TrieKeyKind.UNKNOWN}


@pytest.mark.parametrize("key", [b"", b"\x08abc", b"\x15", b"\xff"])
def test_a_key_of_no_known_kind_is_no_error(key: bytes) -> None:
    """A later nearcore may have more kinds."""
    assert parse_trie_key(key).kind is TrieKeyKind.UNKNOWN


@pytest.mark.parametrize("record", [record for record in RECORDS if record.kind not in ("account", "contract_code", "contract_data")])
def test_a_byte_more_is_refused(record: Any) -> None:
    """A key of a fixed form has one length (an access key with two more bytes is a gas key's nonce)."""
    with pytest.raises(MalformedValueError):
        parse_trie_key(record.key + b"\0")


@pytest.mark.parametrize("key", [b"\0", b"\0" + b"a" * 65, b"\0\xc3\xa9", b"\x09alice", b"\x02alice\x02\x02", b"\x02alice", b"\x12\x02"])
def test_malformed_keys_are_refused(key: bytes) -> None:
    """No account id, a long one, one that is not ASCII, no separator, an unknown type of public key."""
    with pytest.raises(MalformedValueError):
        parse_trie_key(key)


def test_encoder_and_parser_agree() -> None:
    """What is put together comes apart."""
    assert parse_trie_key(contract_data_key("a.near", b"k,v")).data_key == b"k,v"
    assert str(parse_trie_key(access_key_key("a.near", b"\0" + bytes(32))).public_key) == "ed25519:" + "1" * 32
