"""Decoders of files: datasets and what tasks leave beside them, what people give, and what commands remember."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from jobs.options import parse_byte_count, parse_duration_s
from jobs.plan import _read_costs
from jobs.prove import read_shard_layout_file
from pipelines.dataset.dataset_files import IpcBatches, ParquetBatches, opened_batches, read_adjacent_batches, read_table
from pipelines.dataset.delta.find_delta import read_found_changes
from pipelines.dataset.export.references import REFERENCE_SCHEMA
from pipelines.dataset.record_files import FileDestination, FileFormat, write_record_files, write_values_files
from pipelines.dataset.referenced_values import _checked
from pipelines.keeping.scrub_sample import parse_sample_ppm
from pipelines.near.epoch.given_context import read_context_file
from pipelines.near.files.genesis_records import GenesisSource, _read_records, genesis_context, read_genesis_head
from pipelines.near.files.records_file import RecordsFileSource, _record, records_context
from pipelines.near.node.bounded_json import BoundedJson
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_home import read_node_config, read_node_home
from pipelines.producing.backfill.backfill_epochs import parse_epoch_range
from pipelines.producing.backfill.backfill_status import STATUS_NAME, BackfillStatus
from pipelines.producing.build.build_part import BuildSummary, _read_summary
from pipelines.producing.build.plan_parts import FileStructure, _read_structure
from pipelines.producing.build.scan_structure import ScannedRange, _read_scanned
from pipelines.producing.forecast.price_list import PriceList
from pipelines.producing.forecast.stage_costs import stage_costs_from_benchmark
from pipelines.producing.rebuild.rebuild_part import read_rebuilt
from pipelines.proving.wanted_record import parse_bytes, parse_public_key
from pipelines.restoring.merge_state import _read_bucket
from pipelines.restoring.restore_epoch import restored_shards
from pipelines.restoring.restore_part import _read_part
from pipelines.restoring.restore_work import read_summary
from pipelines.seeding.assisted_node import CONFIG_NAME, _peer_id, node_state, read_assisted_node
from pipelines.seeding.data_folder import OWN_FOLDER, DataFolder
from pipelines.seeding.node_config import _parsed as _parsed_node_config
from pipelines.seeding.node_config import add_peers, backup_of, restore_config
from pipelines.stores.file_store import FileStore
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.open_store import open_store
from schemas.address import parse_address
from schemas.dataset.dataset_summary import (
    DatasetSummary,
    RangeSummary,
    RecordsFile,
    ValuesFile,
    parse_summary,
    range_summary_from_bytes,
    range_summary_to_bytes,
)
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_sql import athena_ddl, bigquery_ddl, duckdb_views
from schemas.dataset.tables_summary import (
    EpochEntry,
    ShardEntry,
    StateBlock,
    TableFile,
    TablesCatalogue,
    TablesEpoch,
    TablesRange,
    TablesShard,
    state_block_from_json,
    written_from_bytes,
    written_to_bytes,
)
from schemas.errors import DatasetError, InvalidInputError
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId, base58_encode
from schemas.json_note import read_note
from schemas.nearcore.epoch_context import EpochContext, GenesisBlock, ShardContext
from schemas.nearcore.genesis import access_key_from_json, account_from_json, receipt_from_json, received_data_from_json
from schemas.nearcore.peer.identity import PeerId
from tests.fuzz.decoder import Decoder, file_of
from tests.fuzz.mutation import inside_gzip, mixed, mutate_bytes, mutate_json, mutate_json_lines, mutate_text
from tests.support.records import record_batches

_JSON = mixed(mutate_json)
_WHOLE = KeyRange(b"", None)
_NODE_KEY = "ed25519:" + base58_encode(bytes(range(32)))
_RECORDS_FILE = RecordsFile("flat_state/range-000000-0000.arrow", 700, "ab" * 32, b"\0a", b"\0b", (3, 4), 99)
_VALUES_FILE = ValuesFile("values/range-000000-0000-0000.arrow", 700, "ab" * 32, 2, 9000, (b"\0a", b"\0b"), (8, 300, 690))


def _context() -> EpochContext:
    return EpochContext("test", 7, CryptoHash(b"\1" * 32), ZERO_HASH, 82, (ShardContext(ShardUId(3, 0), CryptoHash(b"\2" * 32)),))


def _dataset_summaries() -> list[bytes]:
    summary = DatasetSummary(_context(), "a source", "a fingerprint", (_RECORDS_FILE,), (_VALUES_FILE,))
    header: dict[str, Any] = {
        "verified_state_root": CryptoHash(b"\3" * 32),
        "memory_usage": 5000,
        "verified_state_header_sha256": "cd" * 32,
    }
    headers = replace(_context(), block_headers=(b"one", b"two"))
    (shard,) = _context().shards
    genesis = replace(_context(), shards=(replace(shard, genesis_block=GenesisBlock(100, 1_600_000_000_123_456, 3 * 10**33)),))
    return [
        summary.to_bytes(),
        replace(summary, context=genesis).to_bytes(),
        replace(summary, context=headers, shared_values_files=(_VALUES_FILE,), **header).to_bytes(),
    ]


def _dataset_summary(data: bytes) -> object:
    summary = DatasetSummary.from_bytes(data, "fuzz")
    summary.to_bytes()
    return summary.content_sha256(), summary.records, summary.size, summary.value_bytes


def _tables(data: bytes) -> object:
    tables = TablesShard.from_bytes(data, "fuzz")
    return tables.to_bytes(), tables.complete


def _tables_summaries() -> list[bytes]:
    file = TableFile("kind=account/x.parquet", "account", 5, 0, 900, "ab" * 32)
    one = TablesRange("x", "ab" * 32, 5, b"\0a", b"\0b")
    return [TablesShard(_context(), _STATE_BLOCK, 5, None, TablesSelection(), True, (file, file), (one,)).to_bytes()]


_STATE_BLOCK = StateBlock(100, 1_600_000_000_123_456, 3 * 10**33)


def _tables_epoch_bytes() -> list[bytes]:
    shards = [ShardEntry.of(TablesShard.from_bytes(data, "fuzz")) for data in _tables_summaries()]
    return [TablesEpoch("mainnet", 7, _context().epoch_id, tuple(shards), (3,)).to_bytes()]


def _tables_catalogue() -> TablesCatalogue:
    (epoch,) = _tables_epoch_bytes()
    selection = TablesSelection.choose(("account",), ("amount",), False, ("a.near",))
    return TablesCatalogue("mainnet", selection).with_epoch(replace(EpochEntry.of(TablesEpoch.from_bytes(epoch, "fuzz")), complete=True))


def _read_catalogue(data: bytes) -> object:
    catalogue = TablesCatalogue.from_bytes(data, "fuzz")
    views = [make("gs://bucket", catalogue) for make in (duckdb_views, bigquery_ddl, athena_ddl)]
    return catalogue.to_bytes(), catalogue.latest_to_bytes(), views


@lru_cache
def _ipc_file() -> bytes:
    store = MemoryStore("memory://fuzz")
    destination = FileDestination(store, "folder", FileFormat.IPC, 1 << 20)
    pairs = [(bytes([0, number]), bytes([number]) * number * 40) for number in range(120)]
    (file,) = write_record_files(record_batches(pairs, 40), RECORD_SCHEMA, "records", destination)
    return bytes(store.open(f"folder/{file.name}").read())


@lru_cache
def _parquet_file() -> bytes:
    store = MemoryStore("memory://fuzz")
    destination = FileDestination(store, "folder", FileFormat.PARQUET, 1 << 20)
    pairs = [(bytes([0, number]), bytes([number]) * number * 40) for number in range(120)]
    (file,) = write_record_files(record_batches(pairs, 40), RECORD_SCHEMA, "records", destination)
    return bytes(store.open(f"folder/{file.name}").read())


def _batches_of(data: bytes, suffix: str) -> object:
    """Read the first record batches of a dataset's file, as `ShardDataset` does."""
    path = file_of(data, suffix)
    with opened_batches(FileStore(str(path.parent)), path.name, len(data), RECORD_SCHEMA) as batches:
        for index in range(3):
            batch = batches.read(index)
            if not batch.schema.equals(RECORD_SCHEMA, check_metadata=False):
                raise DatasetError(problem="the columns are others")
            batch.validate(full=True)
    return batch.num_rows


def _reference_file() -> bytes:
    row = {"key": b"k", "value_hash": b"h" * 32, "value_length": 5000}
    batch = pa.RecordBatch.from_pylist([row, row], schema=REFERENCE_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, REFERENCE_SCHEMA) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


@lru_cache
def _values_file() -> tuple[bytes, tuple[int, ...]]:
    store = MemoryStore("memory://fuzz")
    rows = [{"value_hash": bytes([number]) * 32, "value": b"v" * number * 30} for number in range(40)]
    batches = [pa.RecordBatch.from_pylist(part, schema=VALUE_SCHEMA) for part in (rows[:20], rows[20:])]
    (file,) = write_values_files(batches, VALUE_SCHEMA, "values", FileDestination(store, "folder", FileFormat.IPC))
    return store.open(f"folder/{file.name}").read(), file.batch_offsets


def _adjacent(data: bytes) -> object:
    """Read record batches of a remote file where the summary says that they lie."""
    store = MemoryStore("memory://fuzz-adjacent")
    store.put("values.arrow", data)
    batches = read_adjacent_batches(store, "values.arrow", _values_file()[1], VALUE_SCHEMA)
    return [_checked(batch, VALUE_SCHEMA, "fuzz").num_rows for batch in batches]


def _table(data: bytes) -> object:
    path = file_of(data, ".arrow")
    return read_table(FileStore(str(path.parent)), path.name, REFERENCE_SCHEMA).num_rows


def _lines() -> list[bytes]:
    lines = b'{"key": "00616c696365", "value": "0102"}\n{"key": "01", "value": ""}\n\n{"value": "ff", "key": "02"}\n'
    return [lines, gzip.compress(lines, mtime=0)]


def _records_file(data: bytes) -> object:
    source = RecordsFileSource(str(file_of(data, ".jsonl")))
    return sum(batch.num_rows for batch in source.records(records_context().shards[0], _WHOLE, 1 << 20))


_KEY = "ed25519:7PGseFbWxvYVgZ89K1uTJKYoKetWs7BJtbyXDzfbAcqX"


@lru_cache
def _genesis_files() -> tuple[bytes, ...]:
    nothing = str(ZERO_HASH)
    some = str(CryptoHash(b"\1" * 32))
    account = {"amount": "7", "locked": "0", "code_hash": nothing, "storage_usage": 9}
    action = {
        "signer_id": "bob",
        "signer_public_key": _KEY,
        "gas_price": "5",
        "output_data_receivers": [{"data_id": some, "receiver_id": "bob"}],
        "input_data_ids": [],
        "actions": [
            "CreateAccount",
            {"Transfer": {"deposit": "9"}},
            {"FunctionCall": {"method_name": "call", "args": "e30=", "gas": 5, "deposit": "0"}},
            {"AddKey": {"public_key": _KEY, "access_key": {"nonce": 0, "permission": "FullAccess"}}},
            {"Stake": {"stake": "5", "public_key": _KEY}},
        ],
    }
    receipt = {"predecessor_id": "bob", "receiver_id": "alice", "receipt_id": some, "receipt": {"Action": action}}
    postponed = {**receipt, "receipt": {"Action": {**action, "input_data_ids": [some]}}}
    limited = {"FunctionCall": {"allowance": "5", "receiver_id": "alice", "method_names": ["call"]}}
    records = [
        {"Account": {"account_id": "alice", "account": account}},
        {"Account": {"account_id": "bob", "account": account}},
        {"AccessKey": {"account_id": "alice", "public_key": _KEY, "access_key": {"nonce": 1, "permission": limited}}},
        {"Data": {"account_id": "alice", "data_key": "a2V5", "value": "dmFsdWU="}},
        {"ReceivedData": {"account_id": "bob", "data_id": some, "data": "eA=="}},
        {"DelayedReceipt": receipt},
        {"PostponedReceipt": postponed},
    ]
    head: dict[str, Any] = {"chain_id": "test", "protocol_version": 74, "validators": [{"account_id": "bob", "amount": "3"}]}
    layout = {"V2": {"boundary_accounts": ["b"], "shard_ids": [0, 1], "version": 3}}
    return (
        json.dumps({**head, "records": records}).encode(),
        json.dumps({**head, "validators": [], "shard_layout": layout, "records": records[:4]}).encode(),
        gzip.compress(json.dumps({**head, "records": records[:3]}).encode(), mtime=0),
    )


def _genesis(data: bytes) -> object:
    path = str(file_of(data, ".json"))
    source = GenesisSource(path)
    return [sum(batch.num_rows for batch in source.records(shard, _WHOLE, 1 << 20)) for shard in genesis_context(path).shards[:3]]


def _layout_files() -> list[bytes]:
    return [
        b'{"V2":{"boundary_accounts":["b"],"shard_ids":[0,1],"version":3}}',
        _genesis_files()[1],
        b'{"shard_layout":{"V0":{"num_shards":4,"version":0}}}',
    ]


def _node_home(data: bytes) -> object:
    home = file_of(b"").parent / "home"
    (home / "data").mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_bytes(data)
    return read_node_home(home)


def _assisted_home(data: bytes) -> object:
    home = file_of(b"").parent / "assisted"
    home.mkdir(parents=True, exist_ok=True)
    (home / "genesis.json").write_text('{"chain_id": "localnet"}')
    key, _, config = data.partition(b"\n")
    (home / "node_key.json").write_bytes(key)
    (home / CONFIG_NAME).write_bytes(config)
    return read_assisted_node(home)


def _node_status(data: bytes) -> object:
    try:
        result = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(problem="not JSON") from error
    return node_state(result, "localnet")


def _edited_config(data: bytes) -> object:
    file = file_of(data)
    backup_of(file).unlink(missing_ok=True)
    key = PeerId.parse(_NODE_KEY)
    if not add_peers(file, [f"{key}@127.0.0.1:1"], "127.0.0.1:2"):
        raise InvalidInputError(problem="it names the peer already")
    assert json.loads(file.read_bytes()) != json.loads(data)
    assert restore_config(file, [key], "127.0.0.1:2") and file.read_bytes() == data
    return data


def _costs() -> list[bytes]:
    stages = dict.fromkeys(("export", "values", "structure", "boundaries", "build", "seal", "publish"), 1.5)
    return [json.dumps({"memory_usage": 10**9, "scaling": [{"cores": 1, "stages": stages}]}).encode()]


def _backfill_status(data: bytes) -> object:
    url = "memory://fuzz-status"
    open_store(url).put(STATUS_NAME, data)
    status = BackfillStatus(url)
    status.recall()
    return [step.to_json() for step in status.listed()]


def _restore_notes(data: bytes) -> object:
    path = file_of(data)
    readers: tuple[Callable[[dict[str, Any]], object], ...] = (_read_part, _read_bucket, restored_shards)
    return [read_summary(path, read) for read in readers]


def _restore_summaries() -> list[bytes]:
    counts = dict.fromkeys(("memory_usage", "num_parts", "records", "state_rows", "references"), 7)
    shard = {"shard_uid": "s0.v3", "state_root": "1" * 32, **counts, "root_proved": True, "flat_head": None}
    return [
        b'{"records": 5, "first_key": "00", "last_key": "01", "references": 9, "size": 700}',
        b'{"rows": 5, "references": 9, "size": 700}',
        json.dumps({"shards": [shard, {**shard, "flat_head": "1" * 32}]}).encode(),
    ]


def _rebuilt_notes() -> list[bytes]:
    digests = {"interior_sha256": "ab" * 32, "edge_sha256": "cd" * 32}
    return [json.dumps({"records": 5, "left_key": left, "first_key": "00", "last_key": "01", **digests}).encode() for left in (None, "00")]


def _build_notes(data: bytes) -> object:
    return read_note(data, _read_structure), read_note(data, _read_summary), read_note(data, _read_scanned)


def _build_summaries() -> list[bytes]:
    summary = BuildSummary(7, 7, 7, interior_sha256="", edge_sha256="ab" * 32, kinds=((-1, 1, 0), (0, 1, 2)))
    scanned = ScannedRange(7, None, b"\0a", FileStructure(b"\1\2", 5))
    return [
        b'{"edge": "0102", "charges_sum": 5}',
        json.dumps(asdict(summary)).encode(),
        *(json.dumps(one.to_json()).encode() for one in (scanned, replace(scanned, left_key=b"\0"))),
    ]


def _own(data: bytes) -> Path:
    """Write a file into the folder of a seeder's own."""
    folder = file_of(b"").parent / "seeder" / OWN_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledger.json").write_bytes(data)
    return folder


def _prices() -> list[bytes]:
    names = ("storage_gib_month", "write_requests_1000", "read_requests_1000", "egress_gib", "worker_core_hour", "head_hour")
    return [b'currency = "USD"\n' + "".join(f"{name} = {number}.5 # a price\n" for number, name in enumerate(names)).encode()]


def _mutate_arrow(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change what describes the data more often than the data itself: the schema at the front and the footer at the end."""
    end = random.choice((600, 1200, len(data)))
    if random.random() < 0.5:
        return mutate_bytes(random, data[:end], corpus) + data[end:]
    return data[:-end] + mutate_bytes(random, data[-end:], corpus)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _arguments(data: bytes) -> object:
    """Read one word as every option takes it that has a form of its own."""
    text, found = _text(data), list[object]()
    for parse in (parse_byte_count, parse_duration_s, parse_sample_ppm, parse_bytes, parse_public_key, parse_address):
        try:
            found.append(parse(text, "--option"))
        except InvalidInputError:
            continue
    with suppress(InvalidInputError):
        found.append(parse_epoch_range(text))
    return found


_WORDS = ("200MB", "64MiB/s", "30m", "1.5d", "0.5%", "hex:00ff", "base64:AAA=", _KEY, "127.0.0.1:80", "[::1]:65535", "2900..2950", "7")


def decoders() -> tuple[Decoder, ...]:
    """Return the table."""
    return (
        Decoder(
            "dataset summary",
            _dataset_summary,
            _dataset_summaries,
            (DatasetSummary.from_bytes, RecordsFile.from_json, ValuesFile.from_json, GenesisBlock.from_json, parse_summary),
            _JSON,
        ),
        Decoder(
            "range summary",
            lambda data: range_summary_from_bytes(data, "f", "fuzz"),
            lambda: [range_summary_to_bytes(RangeSummary((_RECORDS_FILE,), 1, 2), "f")],
            (range_summary_from_bytes, RangeSummary.from_json, RecordsFile.from_json),
            _JSON,
        ),
        Decoder(
            "tables summary",
            _tables,
            _tables_summaries,
            (TablesShard.from_bytes, TableFile.from_json, TablesRange.from_json, TablesSelection.from_json, state_block_from_json),
            _JSON,
        ),
        Decoder(
            "tables of an epoch",
            lambda data: TablesEpoch.from_bytes(data, "fuzz").to_bytes(),
            _tables_epoch_bytes,
            (TablesEpoch.from_bytes, ShardEntry.from_json),
            _JSON,
        ),
        Decoder(
            "catalogue of tables",
            _read_catalogue,
            lambda: [_tables_catalogue().to_bytes()],
            (TablesCatalogue.from_bytes, EpochEntry.from_json),
            _JSON,
        ),
        Decoder(
            "pointer to the latest tables",
            lambda data: TablesCatalogue.latest_from_bytes(data, "fuzz").to_json(),
            lambda: [_tables_catalogue().latest_to_bytes() or b""],
            (TablesCatalogue.latest_from_bytes,),
            _JSON,
        ),
        Decoder(
            "note of written tables",
            lambda data: written_from_bytes(data, "f", "fuzz"),
            lambda: [written_to_bytes((TableFile("x", "account", 5, 0, 900, "ab" * 32),), "f")],
            (written_from_bytes, TableFile.from_json),
            _JSON,
        ),
        Decoder(
            "records in Arrow IPC",
            lambda data: _batches_of(data, ".arrow"),
            lambda: [_ipc_file()],
            (opened_batches, IpcBatches.__init__, IpcBatches.read),
            _mutate_arrow,
        ),
        Decoder(
            "records in Parquet",
            lambda data: _batches_of(data, ".parquet"),
            lambda: [_parquet_file()],
            (opened_batches, ParquetBatches.__init__, ParquetBatches.read),
            _mutate_arrow,
        ),
        Decoder("adjacent record batches", _adjacent, lambda: [_values_file()[0]], (read_adjacent_batches, _checked), _mutate_arrow),
        Decoder("references in Arrow IPC", _table, lambda: [_reference_file()], (read_table,), _mutate_arrow),
        Decoder("records file", _records_file, _lines, (RecordsFileSource.records, _record), inside_gzip(mixed(mutate_json_lines))),
        Decoder(
            "genesis file",
            _genesis,
            _genesis_files,
            (
                read_genesis_fields,
                read_genesis_head,
                GenesisSource.records,
                _read_records,
                BoundedJson.read,
                account_from_json,
                access_key_from_json,
                receipt_from_json,
                received_data_from_json,
            ),
            inside_gzip(_JSON),
        ),
        Decoder(
            "shard layout file",
            lambda data: read_shard_layout_file(file_of(data)),
            _layout_files,
            (read_shard_layout_file, read_genesis_fields),
            _JSON,
        ),
        Decoder(
            "context file",
            lambda data: read_context_file(file_of(data)),
            lambda: [json.dumps(_context().to_json()).encode()],
            (read_context_file,),
            _JSON,
        ),
        Decoder(
            "node's home",
            _node_home,
            lambda: [b'{"genesis_file": "genesis.json", "store": {"path": "data"}, /* a comment */ "cold_store": null}'],
            (read_node_home, read_node_config),
            mixed(mutate_json_lines),
        ),
        Decoder(
            "assisted node's home",
            _assisted_home,
            lambda: [
                b'{"public_key": "%s"}\n{"network": {"addr": "0.0.0.0:1"}, "rpc": {"addr": "[::]:2"}, "tracked_shards_config": {"Shards": ["s1.v2"]}}'
                % _NODE_KEY.encode()
            ],
            (read_assisted_node, _peer_id),
            mixed(mutate_json_lines),
        ),
        Decoder(
            "node's config.json, changed",
            _edited_config,
            lambda: [
                b'{"network": {"boot_nodes": "", "experimental": {"a": 1}}}',
                b'{\n  "a": [1e3, {}],\n  "network": {"experimental": {"tier3_public_addr": null}, "boot_nodes": "x,y" }\n}\n',
            ],
            (add_peers, restore_config, _parsed_node_config),
            mixed(mutate_json_lines),
        ),
        Decoder(
            "node's status",
            _node_status,
            lambda: [
                b'{"chain_id": "localnet", "sync_info": {"latest_block_height": 7, "syncing": true}, "genesis_hash": "11111111111111111111111111111111"}'
            ],
            (node_state,),
            _JSON,
        ),
        Decoder("price list", lambda data: PriceList.parse(data, "fuzz"), _prices, (PriceList.parse,), mutate_text),
        Decoder("measured costs", lambda data: _read_costs(file_of(data)), _costs, (_read_costs, stage_costs_from_benchmark), _JSON),
        Decoder(
            "backfill status",
            _backfill_status,
            lambda: [b'{"steps": [{"epoch_height": 7, "shard": "s0.v3", "state": "published", "way": "state walk", "records": 5}]}'],
            (BackfillStatus.recall,),
            _JSON,
        ),
        Decoder("notes of a restore", _restore_notes, _restore_summaries, (read_summary, _read_part, _read_bucket, restored_shards), _JSON),
        Decoder("notes of a build", _build_notes, _build_summaries, (read_note, _read_structure, _read_summary, _read_scanned), _JSON),
        Decoder("note of a rebuilt part", lambda data: read_note(data, read_rebuilt), _rebuilt_notes, (read_note, read_rebuilt), _JSON),
        Decoder(
            "note of changes",
            lambda data: read_note(data, read_found_changes),
            lambda: [b'{"rows": 5, "pieces": 1}'],
            (read_note, read_found_changes),
            _JSON,
        ),
        Decoder(
            "seeder's ledger",
            lambda data: DataFolder(_own(data).parent).read_own_json("ledger.json"),
            lambda: [b'{"/a/path": [1, 2, "ab"]}'],
            (DataFolder.read_own_json,),
            _JSON,
        ),
        Decoder(
            "arguments",
            _arguments,
            lambda: [word.encode() for word in _WORDS],
            (parse_byte_count, parse_duration_s, parse_sample_ppm, parse_bytes, parse_public_key, parse_address, parse_epoch_range),
            mutate_text,
        ),
    )
