"""Records out of a genesis file: what a node's state is before the first block.

The file is streamed, its records are turned into state as nearcore does it, split by the shard layout and sorted outside memory:

- an account's storage usage is computed again from its records, whatever the file says;
- a validator's stake is locked in its account;
- a contract's code must hash to its account's code_hash;
- postponed receipts get their counts of pending data, delayed ones their places in the shard's queue, in file order.

Where nearcore would stop with a panic, or leave a record out with a message in its log, this refuses the file.

Source: nearcore core/store/src/genesis/{state_applier,initialization}.rs. Bandwidth scheduler state and congestion info are not part
of it: nearcore writes them with the first blocks, outside the state of the genesis.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Final

import ijson
import pyarrow as pa

from pipelines.near.files.external_sort import Entry
from pipelines.near.files.sorted_file import SortedFile, content_fingerprint, encode_records, inlined
from pipelines.near.files.sorting_source import SortingSource
from pipelines.near.node.bounded_json import BoundedJson
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.genesis_head import READ_ERRORS, open_maybe_gzip, read_genesis_fields
from schemas.errors import InvalidInputError, SourceError
from schemas.ids import ZERO_HASH, ShardUId
from schemas.nearcore.account import Account, AccountVersion, ContractKind, decode_account
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN, EpochContext, GenesisBlock, ShardContext
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX, VALUE_BYTES_MAX
from schemas.nearcore.genesis import (
    GenesisReceipt,
    JsonFields,
    access_key_from_json,
    account_from_json,
    receipt_from_json,
    received_data_from_json,
)
from schemas.nearcore.shard_layout import SINGLE_SHARD, ShardLayout, shard_layout_from_json
from schemas.nearcore.trie_key import (
    access_key_key,
    account_key,
    contract_code_key,
    contract_data_key,
    delayed_receipt_indices_key,
    delayed_receipt_key,
    gas_key_nonce_key,
    pending_data_count_key,
    postponed_receipt_id_key,
    postponed_receipt_key,
    promise_yield_receipt_key,
    received_data_key,
)

ACCOUNT_STORAGE_USAGE: Final = 100
"""Bytes that an account itself is charged (nearcore core/parameters, storage_num_bytes_account; the same in all versions)."""

RECORD_STORAGE_USAGE: Final = 40
"""Bytes that a contract's entry or an access key is charged on top (storage_num_extra_bytes_record)."""

GAS_KEY_INDEX_BYTES: Final = 2
"""Bytes of the index of a gas key's nonce, which its account is charged for too."""

VALIDATORS_MAX: Final = 1 << 20
POSTPONED_RECEIPTS_MAX: Final = 1 << 20
"""Most postponed receipts, and most received data; both are held in memory."""

_HEAD_FIELDS: Final = ("chain_id", "protocol_version", "shard_layout", "validators", "genesis_height", "genesis_time", "total_supply")

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# First byte of an entry's payload.
_VALUE: Final = b"v"
_ACCOUNT: Final = b"a"
_CODE_HASH: Final = b"c"
_USAGE: Final = b"u"


@dataclass(frozen=True, slots=True)
class GenesisHead:
    """What is used of a genesis file besides its records."""

    chain_id: str
    protocol_version: int
    layout: ShardLayout
    stakes: dict[str, int]
    """Stake by account id of the validators."""
    block: GenesisBlock | None = None
    """None where the file does not say height, time and supply."""


@dataclass(frozen=True, slots=True)
class GenesisSource(SortingSource):
    """A genesis file as a `FlatStateSource`."""

    records_path: str | None = None
    """A separate file with the records, a JSON array; None when they are in the genesis file."""

    def describe(self) -> str:
        """Return what is read, for people."""
        return f"genesis file {self.path}" + (f" with records from {self.records_path}" if self.records_path else "")

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a digest of the files' content.

        Raises:
            SourceError: a file can't be read.
        """
        return f"genesis-{content_fingerprint(self.paths)}"

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Return one range: the file is sorted as a whole.

        Raises:
            SourceError: the file can't be read, or has no such shard.
        """
        _shard_index(read_genesis_head(Path(self.path)), shard.shard_uid)
        return (KeyRange(b"", None),)

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range, ascending.

        Raises:
            SourceError: the file can't be read, has no such shard, or nearcore would refuse a record.
        """
        head = read_genesis_head(Path(self.path))
        prefix = struct.pack(">H", _shard_index(head, shard.shard_uid))
        end = struct.pack(">H", _shard_index(head, shard.shard_uid) + 1) if key_range.end is None else prefix + key_range.end
        opened = self.sorted()
        entries = opened.sort.entries(prefix + key_range.begin, end)
        yield from encode_records(_resolved(entries, head, self.path), record_batch_bytes_max)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The genesis file, and the one with the records where there is one."""
        return (Path(self.path), *(() if self.records_path is None else (Path(self.records_path),)))

    def read(self, target: SortedFile) -> None:
        """See `SortingSource.read`."""
        records = (Path(self.path), "records.item") if self.records_path is None else (Path(self.records_path), "item")
        _read_records(*records, read_genesis_head(Path(self.path)), target)


def genesis_context(path: str | Path) -> EpochContext:
    """Return the context of a genesis: epoch height 0, epoch id and sync hash of zero bytes, no state roots.

    Raises:
        SourceError, InvalidInputError: the file can't be used.
    """
    head = read_genesis_head(Path(path))
    return EpochContext(
        chain_id=head.chain_id,
        epoch_height=0,
        epoch_id=ZERO_HASH,
        sync_hash=ZERO_HASH,
        protocol_version=head.protocol_version,
        shards=tuple(
            ShardContext(shard_uid=shard_uid, state_root=None, genesis_block=head.block)
            for shard_uid in sorted(head.layout.shard_uids, key=lambda uid: uid.shard_id)
        ),
        shard_layout=head.layout.assignment,
    )


def read_genesis_head(path: Path) -> GenesisHead:
    """Read all of a genesis file that is not a record.

    Raises:
        SourceError: the file can't be read, or a field is missing.
        InvalidInputError: the shard layout is of an unknown kind.
    """
    document = read_genesis_fields(path, _HEAD_FIELDS)
    fields = JsonFields(document, str(path))
    stakes = {}
    for item in fields.items("validators", VALIDATORS_MAX) if fields.has("validators") else ():
        validator = JsonFields(item, f"{path}, validators")
        stakes[validator.account_id("account_id")] = validator.number("amount", 128)
    layout = document.get("shard_layout")
    chain_id = fields.text("chain_id")
    if re.fullmatch(CHAIN_ID_PATTERN, chain_id) is None:
        fields.fail(f"field chain_id must match {CHAIN_ID_PATTERN}")
    return GenesisHead(
        chain_id=chain_id,
        protocol_version=fields.number("protocol_version", 32),
        layout=SINGLE_SHARD if layout is None else shard_layout_from_json(layout, str(path)),
        stakes=stakes,
        block=_genesis_block(fields),
    )


def _genesis_block(fields: JsonFields) -> GenesisBlock | None:
    if not all(fields.has(name) for name in ("genesis_height", "genesis_time", "total_supply")):
        return None
    text = fields.text("genesis_time")
    try:
        time = datetime.fromisoformat(text)
        timestamp_us = (time - _UNIX_EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError, OverflowError):
        timestamp_us = -1
    if timestamp_us < 0:
        fields.fail(f"field genesis_time: {text[:64]!r} is no time with a time zone, since 1970")
    return GenesisBlock(fields.number("genesis_height", 63), timestamp_us, fields.number("total_supply", 128))


def _shard_index(head: GenesisHead, shard_uid: ShardUId) -> int:
    if shard_uid not in head.layout.shard_uids:
        known = ", ".join(map(str, head.layout.shard_uids))
        raise InvalidInputError(problem=f"shard {shard_uid} is not in the genesis file's shard layout", remedy=f"Its shards are {known}.")
    return head.layout.shard_uids.index(shard_uid)


def _read_records(path: Path, items: str, head: GenesisHead, target: SortedFile) -> None:
    reader = _RecordReader(head, target)
    try:
        with open_maybe_gzip(path) as file:
            for number, record in enumerate(ijson.items(BoundedJson(file, str(path)), items)):
                reader.add(record, f"{path}, record {number}", number)
    except (ijson.JSONError, UnicodeDecodeError, *READ_ERRORS) as error:
        raise SourceError(problem=f"the records can't be read: {error}", where=str(path)) from None
    if reader.count == 0:
        raise SourceError(
            problem="the file has no records",
            where=str(path),
            remedy="Give the file with the records as well: genesis:///path?records=/path.",
        )
    reader.finish()


class _RecordReader:
    """Turns records, in file order, into entries of the sort: shard index and trie key, then what is to be made of it."""

    def __init__(self, head: GenesisHead, target: SortedFile) -> None:
        self.count = 0
        self._head = head
        self._target = target
        self._delayed: dict[int, int] = {}
        self._received: set[bytes] = set()
        self._postponed: list[tuple[GenesisReceipt, str]] = []
        self._kinds: dict[str, Callable[[JsonFields, int], None]] = {
            "Account": self._account,
            "AccessKey": self._access_key,
            "GasKeyNonce": self._gas_key_nonce,
            "Contract": self._contract,
            "Data": self._data,
            "ReceivedData": self._received_data,
            "PostponedReceipt": self._postponed_receipt,
            "DelayedReceipt": self._delayed_receipt,
        }

    def add(self, record: object, where: str, number: int) -> None:
        kind, body = JsonFields(record, where).only_variant()
        if kind not in self._kinds:
            raise SourceError(problem=f"records of kind {kind:.40} are not known", where=where)
        self.count += 1
        self._kinds[kind](JsonFields(body, f"{where} ({kind})"), number)

    def finish(self) -> None:
        """Add what follows from all records together."""
        for shard_index, count in self._delayed.items():
            indices = BorshWriter().u64(0).u64(count).to_bytes()
            self._put(struct.pack(">H", shard_index) + delayed_receipt_indices_key(), indices, self.count)
        for receipt, where in self._postponed:
            self._finish_postponed(receipt, where)
        for account_id in self._head.stakes:
            # An entry without a record reveals a validator without an account.
            self._add_usage(account_id, 0)

    def _key(self, account_id: str, key: bytes) -> bytes:
        return struct.pack(">H", self._head.layout.shard_index_of(account_id)) + key

    def _put(self, key: bytes, value: bytes, number: int) -> None:
        if len(key) - 2 > KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
            raise SourceError(problem=f"record {number} is over the limits of {KEY_BYTES_MAX} bytes a key and {VALUE_BYTES_MAX} a value")
        self._target.sort.add(key, number, _VALUE + self._target.encode_value(value))

    def _add_usage(self, account_id: str, byte_count: int) -> None:
        key = self._key(account_id, account_key(account_id))
        self._target.sort.add(key, self.count, _USAGE + struct.pack("<Q", byte_count))

    def _account(self, fields: JsonFields, number: int) -> None:
        account_id = fields.account_id("account_id")
        account = account_from_json(fields.fields("account"))
        self._target.sort.add(self._key(account_id, account_key(account_id)), number, _ACCOUNT + account.to_bytes())
        self._add_usage(account_id, ACCOUNT_STORAGE_USAGE)

    def _access_key(self, fields: JsonFields, number: int) -> None:
        account_id = fields.account_id("account_id")
        public_key = fields.public_key("public_key")
        access_key = access_key_from_json(fields.fields("access_key")).to_bytes()
        self._put(self._key(account_id, access_key_key(account_id, public_key)), access_key, number)
        self._add_usage(account_id, RECORD_STORAGE_USAGE + len(public_key) + len(access_key))

    def _gas_key_nonce(self, fields: JsonFields, number: int) -> None:
        account_id = fields.account_id("account_id")
        public_key = fields.public_key("public_key")
        index, nonce = fields.number("index", 16), BorshWriter().u64(fields.number("nonce", 64)).to_bytes()
        self._put(self._key(account_id, gas_key_nonce_key(account_id, public_key, index)), nonce, number)
        self._add_usage(account_id, RECORD_STORAGE_USAGE + len(public_key) + GAS_KEY_INDEX_BYTES + len(nonce))

    def _contract(self, fields: JsonFields, number: int) -> None:
        account_id = fields.account_id("account_id")
        code = fields.data("code")
        self._put(self._key(account_id, contract_code_key(account_id)), code, number)
        self._target.sort.add(self._key(account_id, account_key(account_id)), number, _CODE_HASH + hashlib.sha256(code).digest())
        self._add_usage(account_id, len(code))

    def _data(self, fields: JsonFields, number: int) -> None:
        account_id = fields.account_id("account_id")
        data_key, value = fields.data("data_key"), fields.data("value")
        self._put(self._key(account_id, contract_data_key(account_id, data_key)), value, number)
        self._add_usage(account_id, RECORD_STORAGE_USAGE + len(data_key) + len(value))

    def _received_data(self, fields: JsonFields, number: int) -> None:
        account_id = fields.account_id("account_id")
        key = self._key(account_id, received_data_key(account_id, fields.hash("data_id")))
        self._received.add(key)
        if len(self._received) > POSTPONED_RECEIPTS_MAX:
            fields.fail(f"there are more than {POSTPONED_RECEIPTS_MAX} received data")
        self._put(key, received_data_from_json(fields), number)

    def _postponed_receipt(self, fields: JsonFields, number: int) -> None:
        self._postponed.append((receipt_from_json(fields), fields.where))
        if len(self._postponed) > POSTPONED_RECEIPTS_MAX:
            fields.fail(f"there are more than {POSTPONED_RECEIPTS_MAX} postponed receipts")

    def _delayed_receipt(self, fields: JsonFields, number: int) -> None:
        # Later versions wrap the receipt together with the index that it once had, which is not used.
        receipt = receipt_from_json(fields if fields.has("predecessor_id") else fields.fields("receipt"))
        shard_index = self._head.layout.shard_index_of(receipt.receiver_id)
        index = self._delayed.get(shard_index, 0)
        self._delayed[shard_index] = index + 1
        self._put(struct.pack(">H", shard_index) + delayed_receipt_key(index), receipt.encoded, number)

    def _finish_postponed(self, receipt: GenesisReceipt, where: str) -> None:
        receiver_id = receipt.receiver_id
        if receipt.kind in ("PromiseYield", "PromiseYieldV2") and receipt.input_data_ids:
            self._put(
                self._key(receiver_id, promise_yield_receipt_key(receiver_id, receipt.input_data_ids[0])), receipt.encoded, self.count
            )
            return
        missing = [
            data_id
            for data_id in receipt.input_data_ids
            if self._key(receiver_id, received_data_key(receiver_id, data_id)) not in self._received
        ]
        if receipt.kind not in ("Action", "ActionV2") or not missing:
            raise SourceError(problem="a postponed receipt must be an action receipt that waits for data", where=where)
        for data_id in missing:
            self._put(self._key(receiver_id, postponed_receipt_id_key(receiver_id, data_id)), receipt.receipt_id, self.count)
        pending = BorshWriter().u32(len(missing)).to_bytes()
        self._put(self._key(receiver_id, pending_data_count_key(receiver_id, receipt.receipt_id)), pending, self.count)
        self._put(self._key(receiver_id, postponed_receipt_key(receiver_id, receipt.receipt_id)), receipt.encoded, self.count)


def _resolved(entries: Iterator[Entry], head: GenesisHead, path: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield trie keys and encoded values: the last record of a key counts, and an account's entries make one account."""
    for sort_key, group in groupby(entries, key=lambda entry: entry[0]):
        key = sort_key[2:]
        payloads = [payload for _, _, payload in group]
        if payloads[-1][:1] == _VALUE:
            yield key, payloads[-1][1:]
        else:
            account_id = key[1:].decode("ascii")
            yield key, inlined(_account_state(payloads, account_id, head.stakes.get(account_id), path))


def _account_state(parts: list[bytes], account_id: str, stake: int | None, path: str) -> bytes:
    """Make an account of its entries, which are in file order."""
    account: Account | None = None
    storage_usage = 0
    for part in parts:
        if part[:1] == _ACCOUNT:
            account = decode_account(part[1:])
        elif part[:1] == _USAGE:
            storage_usage += int.from_bytes(part[1:], "little")
        elif account is None or account.contract.kind is not ContractKind.LOCAL or account.contract.code_hash != part[1:]:
            raise SourceError(
                problem=f"the contract of {account_id} comes before its account, or is not the code that its account names", where=path
            )
    if account is None:
        raise SourceError(problem=f"there are records of {account_id} (or it is a validator), but no account", where=path)
    if stake and account.version is AccountVersion.UNINITIALIZED:
        raise SourceError(problem=f"{account_id} is a validator, and its account is not initialized", where=path)
    return replace(account, storage_usage=storage_usage, locked=account.locked if stake is None else stake).to_bytes()
