"""Decoders of nearcore's bytes: rows of a node's database, headers, parts, tries, and what JSON-RPC answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any

import pyarrow as pa
import zstandard

from pipelines.dataset.tables.decoded_records import decode_batch
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.edge import decode_edge, encode_edge
from pipelines.kernel.native import is_available
from pipelines.kernel.reference import ReferenceKernel
from pipelines.kernel.reference_counts import node_references
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.epoch.rpc_client import RpcClient, _PassingError
from pipelines.near.node.counted_value import find_payload
from pipelines.near.node.native_state_header import ReadRow, verify_state_header
from pipelines.near.node.node_columns import BLOCK, BLOCK_HEADER, EPOCH_INFO
from pipelines.near.node.node_state_header import open_state_header
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader
from pipelines.restoring.state_rows import check_state_rows
from schemas.dataset.decoded_record import decode_record
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.dataset.flat_state_value import decode_records, encode_inlined, encode_ref
from schemas.errors import IntegrityError, MalformedNodeError, SourceError, StatecastError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.access_key import AccessKey, FunctionCallLimits, GasKeyInfo, PermissionKind, decode_access_key
from schemas.nearcore.account import Account, AccountContract, AccountVersion, ContractKind, decode_account
from schemas.nearcore.block import (
    _reader_at_supply,
    decode_block_chunks,
    decode_block_header,
    header_prev_height,
    header_total_supply,
    read_chunk_header,
    read_chunk_header_v1,
    skip_validator_stake,
)
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.epoch_context import epoch_context_from_json, parse_epoch_context
from schemas.nearcore.epoch_info import decode_epoch_info, decode_epoch_shard_layout, peek_epoch_height
from schemas.nearcore.flat_storage import (
    FlatBlock,
    decode_flat_state_changes,
    decode_flat_state_delta_metadata,
    decode_flat_storage_status,
    encode_ready_status,
)
from schemas.nearcore.merkle import read_merkle_path
from schemas.nearcore.receipt import decode_receipt
from schemas.nearcore.rpc_block import _header_versions, _inner_lite, _inner_rest, _read_chunk, read_rpc_block, read_rpc_header
from schemas.nearcore.rpc_epoch import read_rpc_epoch, read_rpc_protocol_config
from schemas.nearcore.rpc_reader import RpcReader
from schemas.nearcore.shard_layout import read_shard_layout, shard_layout_from_json
from schemas.nearcore.state_changes import account_of, decode_last_change
from schemas.nearcore.state_header import decode_state_header, prove_state_root
from schemas.nearcore.state_part import Encoding, decode_partial_state, decode_state_part, encode_state_part, partial_state_bytes
from schemas.nearcore.trie_key import parse_trie_key
from schemas.nearcore.trie_node import decode_nibbles, decode_trie_node, encode_trie_node, read_value_ref
from schemas.nearcore.zstd_frames import decompress_frames
from schemas.published.proof_chain import evidence_from_block, evidence_from_state_header
from tests.fuzz.decoder import Decoder, bytes_with, json_with
from tests.fuzz.mutation import mixed, mutate_bytes, mutate_json
from tests.support.dumped_headers import dumped_header
from tests.support.nodes import localnet_home
from tests.support.receipt_records import receipt_records
from tests.support.records import build_ranges, cut_pairs, parts_of, record_batches
from tests.support.rpc_server import recorded_block, recorded_calls
from tests.support.state_records import state_records

DECODED_BYTES_MAX = 32 << 20
"""Limit of a part here: nearcore's own, of 512 MiB, is what a part of a kilobyte may take."""

_JSON = mixed(mutate_json)


@lru_cache
def _rows() -> tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]]:
    """Rows of BlockHeader, Block and EpochInfo of the real node; the headers are of the blocks."""
    with RocksDbReader(localnet_home() / "data", (BLOCK, BLOCK_HEADER, EPOCH_INFO)) as reader:
        hashes = [CryptoHash.from_base58(recorded_block(height)["header"]["hash"]) for height in (239, 240, 241)]
        headers = [reader.get(BLOCK_HEADER, block_hash) for block_hash in hashes]
        blocks = [reader.get(BLOCK, block_hash) for block_hash in hashes]
        infos = [row for rows in reader.scan(EPOCH_INFO, b"", None) for key, row in rows if key != b"AGGREGATOR_KEY"]
    whole = (tuple(row for row in rows if row is not None) for rows in (headers, blocks))
    return *whole, tuple(infos[:3])  # type: ignore[return-value]


def localnet_headers() -> tuple[bytes, ...]:
    """Return three block headers, each the parent of the next."""
    return _rows()[0]


def chunk_headers() -> list[bytes]:
    """Return chunk headers with their tags."""
    data = dumped_header(6, 0).data
    reader = BorshReader(data[34:])
    read_chunk_header(reader, data[34:])
    return [data[34 : len(data) - reader.remaining]]


def _block_header(data: bytes) -> object:
    header = decode_block_header(data, "fuzz")
    header_total_supply(header)
    header_prev_height(header)
    return header


def _block(data: bytes) -> object:
    """Read a Block row under the header that it begins with, as if that had hashed right."""
    header = next((header for header in localnet_headers() if data[1 : 1 + len(header)] == header), localnet_headers()[0])
    decoded = decode_block_header(header, "fuzz")
    evidence_from_block(data, decoded, 0, None, "fuzz")
    return decode_block_chunks(data, decoded, "fuzz")


def _reseal_state_header(data: bytearray) -> None:
    """Write the hash that the changed chunk header has."""
    inner = bytes(data[34:])
    chunk = read_chunk_header(BorshReader(inner), inner)
    data[2:34] = chunk.chunk_hash


def _state_headers() -> list[bytes]:
    return [dumped_header(6, shard_id).data for shard_id in (0, 1)]


def _state_header(data: bytes) -> object:
    header = decode_state_header(data, "fuzz")
    parent = decode_block_header(dumped_header(6, 0).context.block_headers[1], "fuzz")
    try:
        evidence_from_state_header(data, parent, b"", "fuzz")
        prove_state_root(data, dumped_header(6, 0).sync_hash, dumped_header(6, 0).context.block_headers, "fuzz")
    except IntegrityError as error:
        return error
    return header


@lru_cache
def _header_rows() -> tuple[ReadRow, Any]:
    """Rows that the verification of a genuine header asks for."""
    dumped = dumped_header(6, 0)
    rows: dict[tuple[str, bytes], bytes | None] = {}
    with open_state_header(localnet_home(), dumped.context.chain_id, dumped.shard_uid, dumped.sync_hash) as opened:

        def read(column: str, key: bytes) -> bytes | None:
            rows[column, bytes(key)] = found = opened._named_row(column, key)
            return found

        verify_state_header(dumped.data, read, opened.chain, dumped.sync_hash, 0)
        return lambda column, key: rows.get((column, bytes(key))), opened.chain


def _verified_state_header(data: bytes) -> object:
    read_row, chain = _header_rows()
    return verify_state_header(data, read_row, chain, dumped_header(6, 0).sync_hash, 0)


def _chunk_header(data: bytes) -> object:
    reader = BorshReader(data, "fuzz", IntegrityError)
    read_chunk_header_v1(BorshReader(data[1:], "fuzz", IntegrityError), data[1:])
    return read_chunk_header(reader, data)


def _chunk_headers() -> list[bytes]:
    # One of the first version reads as such with and without its tag.
    tagged = chunk_headers()[0]
    first = BorshWriter().u8(0).fixed(bytes(4 * 32)).u64(1).u64(2).u64(3).u64(4).u64(5).u128(6).fixed(bytes(64)).u32(0)
    return [first.u64(7).u8(0).fixed(bytes(64)).to_bytes() + tagged[:0]]


def _epoch_infos() -> list[bytes]:
    return [*_rows()[2], _epoch_info_v5()]


def _epoch_info_v5() -> bytes:
    writer = BorshWriter().u8(4).u64(7).u32(1).u8(0).byte_vec(b"a.near").u8(0).fixed(bytes(32)).u128(5)
    writer.u32(1).byte_vec(b"a.near").u64(0).u32(1).u64(0).u32(1).u32(1).u64(0)
    writer.u32(1).byte_vec(b"a.near").u128(5).u32(0).u32(1).byte_vec(b"b.near").u8(1).u64(1).u64(2).u128(1).u128(2).u32(83)
    # A layout of V2: boundaries, shard ids, two maps, no splits, no parents, version.
    writer.u8(2).u32(1).byte_vec(b"m").u32(2).u64(3).u64(4).u32(1).u64(3).u64(0).u32(0)
    writer.u8(1).u32(1).u64(1).u32(2).u64(3).u64(4).u8(0).u32(3)
    return writer.to_bytes()


def _epoch_info(data: bytes) -> object:
    peek_epoch_height(data)
    layout = decode_epoch_shard_layout(data, "fuzz")
    if layout is not None:
        layout.to_json()
        layout.shard_index_of("alice.near")
    return decode_epoch_info(data, "fuzz")


def _merkle_path(data: bytes) -> object:
    return read_merkle_path(BorshReader(data, "fuzz", IntegrityError))


def _flat_rows(data: bytes) -> object:
    """A flat head, the metadata of a delta and its changes: rows of three columns that are read together."""
    return _either(
        data,
        lambda: decode_flat_storage_status(data, "fuzz"),
        lambda: decode_flat_state_delta_metadata(data, "fuzz"),
        lambda: decode_flat_state_changes(data, "fuzz"),
    )


def _either(data: bytes, *readers: Callable[[], object]) -> object:
    """Return what the first one that takes it says, after all have looked."""
    found, last = [], None
    for read in readers:
        try:
            found.append(read())
        except StatecastError as error:
            last = error
    if found:
        return found[0]
    assert last is not None
    raise last


def _flat_storage_rows() -> list[bytes]:
    block = FlatBlock(CryptoHash(b"\1" * 32), 7, CryptoHash(b"\2" * 32))
    metadata = BorshWriter().fixed(block.hash).u64(7).fixed(block.prev_hash).u8(1).fixed(bytes(32)).u64(5)
    changes = BorshWriter().u32(3).byte_vec(b"key").u8(1).fixed(encode_inlined(b"value"))
    changes.byte_vec(b"key2").u8(1).fixed(encode_ref(5000, b"\3" * 32)).byte_vec(b"key3").u8(0)
    return [encode_ready_status(block), metadata.to_bytes(), changes.to_bytes()]


def _flat_state(data: bytes) -> object:
    """Read rows of FlatState: two of this value, and one that is sound."""
    key, _, row = data.partition(b"|")
    batch = decode_records([b"12345678" + key, b"12345678ok", b"12345678" + key], [row, encode_inlined(b"ok"), row], 8, "fuzz")
    batch.validate(full=True)
    return batch


def _state_change(data: bytes) -> object:
    key, _, row = data.partition(b"|")
    account_of(key or b"\0", "fuzz")
    return decode_last_change(row, key, "fuzz")


def _state_changes() -> list[bytes]:
    rows = []
    for key, head in (
        (b"\x00alice.near", b"\x00\x0a\0\0\0alice.near"),
        (b"\x09alice.near,k", b"\x09\x0a\0\0\0alice.near\1\0\0\0k"),
        (b"\x02alice.near\x02\x00" + b"p" * 32, b"\x02\x0a\0\0\0alice.near\x00" + b"p" * 32),
    ):
        rows.append(key + b"|" + head + b"\2\0\0\0" + b"\1\0" + b"\2" + b"h" * 32 + b"\1\3\0\0\0new")
    return rows


def _accounts() -> list[bytes]:
    contract = AccountContract(ContractKind.GLOBAL_BY_ACCOUNT, account_id="bob.near")
    return [
        Account(AccountVersion.V1, 7, 8, 9).to_bytes(),
        Account(AccountVersion.V2, 7, 8, 9, contract).to_bytes(),
        Account(AccountVersion.V2, 7, 8, 9, AccountContract(ContractKind.LOCAL, CryptoHash(b"\1" * 32))).to_bytes(),
        Account(AccountVersion.UNINITIALIZED, 7, 0, 9, bootstrap_nonce=4).to_bytes(),
    ]


def _access_keys() -> list[bytes]:
    limits = FunctionCallLimits(5, "bob.near", ("call", "other"))
    return [
        AccessKey(1, PermissionKind.FULL_ACCESS).to_bytes(),
        AccessKey(1, PermissionKind.FUNCTION_CALL, limits).to_bytes(),
        AccessKey(1, PermissionKind.GAS_KEY_FUNCTION_CALL, limits, GasKeyInfo(7, 3)).to_bytes(),
    ]


def _access_key(data: bytes) -> object:
    key = decode_access_key(data, "fuzz")
    assert key.to_bytes() == data
    return key


def _account(data: bytes) -> object:
    account = decode_account(data, "fuzz")
    account.to_bytes()
    return account


def _record(data: bytes) -> object:
    """Take a record apart one at a time and as a batch: both say the same."""
    length = int.from_bytes(data[:2], "little")
    key, value = data[2 : 2 + length], data[2 + length :]
    if len(key) > 2304:
        raise IntegrityError(problem="a key that no source gives")
    slow = decode_record(key, value, None)
    row = {"key": key, "value": value, "value_length": len(value), "value_hash": None}
    batch = pa.RecordBatch.from_pylist([row, row], schema=RECORD_SCHEMA)
    fast = [one for decoded in decode_batch(batch, "s0.v0") for one in decoded.to_pylist()]
    assert len(fast) == 2
    for one in fast:
        differing = {name for name in {*slow, *one} if name not in row and name != "shard_uid" and slow.get(name) != _plain(one.get(name))}
        assert not differing, differing
    decode_record(key, None, sha256(value).digest())
    return slow


def _plain(value: Any) -> Any:
    return int(value) if type(value).__name__ == "Decimal" else value


def _records() -> list[bytes]:
    records = [(record.key, record.value) for record in state_records()] + receipt_records()
    return [len(key).to_bytes(2, "little") + key + value for key, value in records]


@lru_cache
def _shard() -> Any:
    pairs = sorted({bytes([a, b])[: 1 + (a + b) % 2]: bytes([a]) * b for a in range(0, 50, 7) for b in range(0, 90, 13)}.items())
    return parts_of(choose_kernel("auto"), pairs, 3), pairs


def _framed_parts() -> list[bytes]:
    shard = _shard()[0]
    return [bytes([idx, 3]) + shard.state_root + part.to_pybytes() for idx, part in enumerate(shard.parts)]


def mutate_part(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change a part's bytes, or one of its entries and the references to it up to the root."""
    if random.random() < 0.3:
        return mutate_bytes(random, data, corpus)
    try:
        entries = decode_partial_state(data[34:])
    except IntegrityError:
        return mutate_bytes(random, data, corpus)
    root = data[2:34]
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(entries))
        changed = mutate_bytes(random, entries[at], entries)
        # A reference that was changed leads to another entry as often as to nothing.
        if random.random() < 0.3 and len(changed) > 48:
            changed = changed[:-40] + sha256(random.choice(entries)).digest() + changed[-8:]
        before, after = sha256(entries[at]).digest(), sha256(changed).digest()
        entries[at] = changed
        renamed = [(before, after)]
        for _ in range(1000):
            if not renamed:
                break
            before, after = renamed.pop()
            root = after if before == root else root
            for index, entry in enumerate(entries):
                if before in entry:
                    entries[index] = entry.replace(before, after)
                    renamed.append((sha256(entry).digest(), sha256(entries[index]).digest()))
    part_id, total = random.choice((data[:2], data[:2], bytes([0, 1]), bytes([random.randrange(4), 4])))
    return bytes([part_id, total]) + root + partial_state_bytes(sorted(set(entries)) if random.random() < 0.9 else entries)


@lru_cache
def _kernels() -> tuple[Kernel, ...]:
    return (ReferenceKernel(), *([choose_kernel("native")] if is_available() else []))


def _outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "", call()
    except IntegrityError as error:
        return type(error).__name__, None


def _verdict(name: str) -> str:
    return name if name in ("", "MalformedPartError") else "invalid"


def _part(data: bytes) -> object:
    """Judge and apply a part by both kernels: they agree, but of several faults each names the one that it meets first."""
    if len(data) < 34 or data[0] >= data[1]:
        raise IntegrityError(problem="no frame of this test")
    part_id, root, part = PartId(data[0], data[1]), CryptoHash(data[2:34]), pa.py_buffer(data[34:])
    verdicts = {_verdict(_outcome(lambda kernel=kernel: kernel.validate(part, root, part_id))[0]) for kernel in _kernels()}  # type: ignore[misc]
    assert len(verdicts) == 1, verdicts
    applied = [_outcome(lambda kernel=kernel: kernel.apply(part, root, part_id)) for kernel in _kernels()]  # type: ignore[misc]
    # A part may be valid and yet hold a key of half a byte; what is not valid is never applied.
    answers = {_verdict(name) for name, _ in applied}
    assert len(answers) == 1 and verdicts in (answers, {""}), answers
    if applied[0][1] is not None:
        rows = [[row for batch in found.records for row in batch.to_pylist()] for _, found in applied]
        assert all(found == rows[0] for found in rows)
    _kernels()[0].validate(part, root, part_id)
    return len(data)


def _edges() -> list[bytes]:
    ranges = cut_pairs(_shard()[1], [9, 20, 33])
    hashed = [build.edge for build in build_ranges(_kernels()[-1], ranges)]
    plain = [_kernels()[-1].structure(record_batches(one.pairs), one.left_key, one.right_key).edge for one in ranges]
    return hashed + plain


def _edge(data: bytes) -> object:
    edge = decode_edge(data)
    assert encode_edge(edge) == data
    for kernel in _kernels():
        for other in _edge_corpus():
            for left, right in ((data, other), (other, data)):
                try:
                    _outcome(lambda: kernel.merge(left, right))  # noqa: B023
                except AssertionError as error:
                    # Edges of ranges that are not neighbours are the caller's fault; no store gives them.
                    assert error.args, "a broken promise says which"
        try:
            _outcome(lambda: kernel.seal([data]))  # noqa: B023
        except AssertionError as error:
            assert error.args
    return edge


@lru_cache
def _edge_corpus() -> tuple[bytes, ...]:
    return tuple(_edges()[:2])


def _stored_part(encoding: Encoding) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        return decode_partial_state(decode_state_part(data, encoding, decoded_bytes_max=DECODED_BYTES_MAX))

    return read


def _stored_parts(encoding: Encoding) -> list[bytes]:
    parts = [part.to_pybytes() for part in _shard()[0].parts]
    objects = [encode_state_part(part, encoding) for part in parts]
    if encoding is Encoding.V1:
        whole = parts[0]
        frames = zstandard.ZstdCompressor(write_content_size=False).compress(whole[:300]) + zstandard.ZstdCompressor().compress(whole[300:])
        objects.append(b"\1" + len(frames).to_bytes(4, "little") + frames)
    return objects


def _trie_node(data: bytes) -> object:
    """Two readers of nodes: they agree, but for what the shorter one leaves out."""
    try:
        value_hash, children = node_references(data)
    except MalformedNodeError:
        value_hash, children = None, []
    raw = decode_trie_node(data)
    assert encode_trie_node(raw) == data
    assert all(len(child) == 32 for child in children)
    key = getattr(raw.node, "key", b"\0")
    return decode_nibbles(key) if key else value_hash


def _trie_nodes() -> list[bytes]:
    nodes = []
    for part in _shard()[0].parts:
        for entry in decode_partial_state(part):
            try:
                decode_trie_node(entry)
                nodes.append(bytes(entry))
            except MalformedNodeError:
                continue
    return nodes[:40]


def _state_row(data: bytes) -> object:
    wanted = sha256(b"payload").digest()
    find_payload(data, wanted, MERGE_DELIMITER)
    return check_state_rows([(wanted, data)], 0, "fuzz")


def _json(data: bytes) -> object:
    """Decode as the client of JSON-RPC does."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(problem=f"no JSON: {type(error).__name__}") from None


def _rpc_results(method: str, count: int) -> list[bytes]:
    found = [call["result"] for call in recorded_calls() if call["method"] == method and "result" in call]
    return [json.dumps(result).encode() for result in found[:count]]


def _reseal_block(document: Any) -> Any:
    """Name the hash that the changed header has, where the change left it readable."""
    shown = RpcReader(document["header"], "")
    version = _header_versions(shown)[-1]
    encoded = bytes([version - 1]) + shown.hash("prev_hash") + _inner_lite(shown) + _inner_rest(shown, version) + shown.key("signature")
    document["header"]["hash"] = str(decode_block_header(encoded, "").hash)
    return document


def _rpc_blocks() -> list[bytes]:
    recorded = json.loads(_rpc_results("block", 1)[0])
    header = {**recorded["header"], "chunk_endorsements": [[1], [3]], "block_body_hash": "1" * 32, "shard_split": [3, "bob.near"]}
    return [*_rpc_results("block", 3), json.dumps(_reseal_block({**recorded, "header": header})).encode()]


def _rpc_block(data: bytes) -> object:
    return read_rpc_block(_json(data), "fuzz")


def _rpc_answer(data: bytes) -> object:
    try:
        return RpcClient("http://127.0.0.1:1")._answer(200, data, "block")
    except _PassingError as error:
        # The retrying caller turns it into a SourceError.
        return str(error)


def _rpc_answers() -> list[bytes]:
    error = {"name": "HANDLER_ERROR", "cause": {"name": "UNKNOWN_BLOCK", "info": {}}, "code": -32000, "message": "Server error"}
    return [b'{"jsonrpc":"2.0","id":"1","result":{"a":1}}', json.dumps({"jsonrpc": "2.0", "id": "1", "error": error}).encode()]


def _contexts() -> list[bytes]:
    document = epoch_context_from_node(localnet_home(), "6").to_json()
    layout = {"V2": {"boundary_accounts": ["m"], "shard_ids": [4, 3], "version": 3, "shards_split_map": {"1": [3, 4]}}}
    shards = [{"shard_uid": "s3.v3", "state_root": None, "prev_block_hash": "1" * 32}, {"shard_uid": "s4.v3", "state_root": "1" * 32}]
    return [json.dumps(document).encode(), json.dumps({**document, "shards": shards, "shard_layout": layout}).encode()]


def _context(data: bytes) -> object:
    context = parse_epoch_context(data, "fuzz")
    return epoch_context_from_json(context.to_json(), "fuzz")


def decoders() -> tuple[Decoder, ...]:
    """Return the table."""
    native = (Decoder("state header, verified in Rust", _verified_state_header, lambda: _state_headers()[:1], (verify_state_header,)),)
    return (
        Decoder(
            "block header",
            _block_header,
            localnet_headers,
            (decode_block_header, header_total_supply, header_prev_height, _reader_at_supply),
        ),
        Decoder("block", _block, lambda: list(_rows()[1]), (decode_block_chunks, evidence_from_block, read_chunk_header)),
        Decoder(
            "state header",
            _state_header,
            _state_headers,
            (decode_state_header, prove_state_root, evidence_from_state_header, read_merkle_path),
            bytes_with(_reseal_state_header),
        ),
        *(native if is_available() else ()),
        Decoder("chunk header", _chunk_header, _chunk_headers, (read_chunk_header, read_chunk_header_v1)),
        Decoder(
            "epoch info",
            _epoch_info,
            _epoch_infos,
            (decode_epoch_info, decode_epoch_shard_layout, read_shard_layout, shard_layout_from_json, skip_validator_stake),
        ),
        Decoder("Merkle path", _merkle_path, lambda: [b"\1\0\0\0" + b"\7" * 32 + b"\0"], (read_merkle_path,)),
        Decoder(
            "rows of flat storage",
            _flat_rows,
            _flat_storage_rows,
            (decode_flat_storage_status, decode_flat_state_delta_metadata, decode_flat_state_changes),
        ),
        Decoder(
            "row of flat state",
            _flat_state,
            lambda: [b"key|" + encode_inlined(b"value"), b"key|" + encode_ref(5000, b"\3" * 32)],
            (decode_records,),
        ),
        Decoder("row of state changes", _state_change, _state_changes, (decode_last_change, account_of)),
        Decoder(
            "row of state",
            _state_row,
            lambda: [b"payload" + (1).to_bytes(8, "little")],
            (find_payload, check_state_rows),
        ),
        Decoder("account", _account, _accounts, (decode_account,)),
        Decoder("access key", _access_key, _access_keys, (decode_access_key,)),
        Decoder("record", _record, _records, (decode_record, decode_batch, parse_trie_key, decode_receipt)),
        *(
            Decoder(
                f"stored part, encoding {encoding}",
                _stored_part(encoding),
                lambda encoding=encoding: _stored_parts(encoding),  # type: ignore[misc]
                (decode_state_part, decode_partial_state, *((decompress_frames,) if encoding is Encoding.V1 else ())),
            )
            for encoding in Encoding
        ),
        Decoder("part, both kernels", _part, _framed_parts, (ReferenceKernel.validate, ReferenceKernel.apply), mutate_part),
        Decoder("edge, both kernels", _edge, _edges, (decode_edge, ReferenceKernel.merge, ReferenceKernel.seal)),
        Decoder("trie node", _trie_node, _trie_nodes, (decode_trie_node, read_value_ref, node_references, decode_nibbles)),
        Decoder("JSON-RPC answer", _rpc_answer, _rpc_answers, (RpcClient._answer,), _JSON),
        Decoder("JSON-RPC block", _rpc_block, _rpc_blocks, (read_rpc_block, read_rpc_header, _read_chunk), json_with(_reseal_block)),
        Decoder(
            "JSON-RPC epoch",
            lambda data: read_rpc_epoch(_json(data), "fuzz"),
            lambda: _rpc_results("validators", 1),
            (read_rpc_epoch,),
            _JSON,
        ),
        Decoder(
            "JSON-RPC protocol configuration",
            lambda data: read_rpc_protocol_config(_json(data), "fuzz"),
            lambda: _rpc_results("EXPERIMENTAL_protocol_config", 1),
            (read_rpc_protocol_config,),
            _JSON,
        ),
        Decoder("epoch context", _context, _contexts, (parse_epoch_context, epoch_context_from_json), _JSON),
    )
