"""What ``statecast inspect`` shows of one file that is neither a signed document nor a state part: everything else that statecast writes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.bittorrent.library import import_libtorrent
from schemas.dataset.dataset_summary import DatasetSummary
from schemas.dataset.tables_summary import TablesCatalogue, TablesEpoch, TablesShard
from schemas.errors import StatecastError
from schemas.ipc_message import record_batch_rows, schema_of
from schemas.nearcore.epoch_context import parse_epoch_context
from schemas.nearcore.state_header import decode_state_header
from schemas.published.catalogue import Catalogue
from schemas.published.claim import Claim
from schemas.published.latest_pointer import LatestPointer
from schemas.published.lease import ReaderLease
from schemas.published.object_layout import ObjectKind
from schemas.published.proof import KeyClaim, TrieProof
from schemas.published.scrub_state import ScrubState

LISTED_SHOWN_MAX = 40
"""Most rows of a list that are printed for people."""


def object_document(data: bytes, where: str, kind: ObjectKind | None) -> dict[str, Any] | None:
    """Describe a file.

    Args:
        kind: what the name of a published object says; without one the bytes decide.
    Returns: None where it is nothing of this.
    Raises:
        StatecastError: its name says what it is, and that is not in it.
    """
    if kind is not None and kind in _BY_NAME:
        return _BY_NAME[kind](data, where)
    for describe in _BY_CONTENT_JSON if data[:1] == b"{" else _BY_CONTENT:
        try:
            return describe(data, where)
        except (StatecastError, ValueError):
            continue
    return None


def _latest(data: bytes, where: str) -> dict[str, Any]:
    pointer = LatestPointer.parse(data, where)
    return {
        "kind": "latest_pointer",
        "chain_id": pointer.chain_id,
        "epoch_height": pointer.epoch_height,
        "epoch_id": str(pointer.epoch_id),
        "manifest_revision": pointer.revision,
    }


def _catalogue(data: bytes, where: str) -> dict[str, Any]:
    return {"kind": "catalogue", **Catalogue.parse(data, where).to_json()}


def _claim(data: bytes, where: str) -> dict[str, Any]:
    claim = Claim.parse(data, where)
    return {
        "kind": "claim",
        "chain_id": claim.layout.chain_id,
        "epoch_height": claim.layout.epoch_height,
        "epoch_id": str(claim.layout.epoch_id),
        "leases": [lease.to_json() for lease in claim.leases],
    }


def _lease(data: bytes, where: str) -> dict[str, Any]:
    lease = ReaderLease.parse(data, where)
    times = {"renewed": lease.renewed.isoformat(), "expires": lease.expires.isoformat()}
    return {"kind": "lease", "holder": lease.holder, "purpose": lease.purpose, **times}


def _scrub(data: bytes, where: str) -> dict[str, Any]:
    state = ScrubState.parse(data, where)
    return {"kind": "scrub_state", "seed": state.seed, "next_ppm": state.next_ppm, "scrubbed": state.scrubbed.isoformat()}


def _proof(data: bytes, where: str) -> dict[str, Any]:
    proof = TrieProof.parse(data, where)
    claim = proof.claim
    claimed = {"trie_key": claim.trie_key.hex()} if isinstance(claim, KeyClaim) else {"prefix": claim.trie_key_prefix.hex()}
    return {
        "kind": "proof",
        "chain_id": proof.chain_id,
        "epoch_height": proof.epoch_height,
        "epoch_id": None if proof.epoch_id is None else str(proof.epoch_id),
        "shard_uid": str(proof.shard_uid),
        "state_root": str(proof.state_root),
        "block_hash": None if proof.block_hash is None else str(proof.block_hash),
        **claimed,
        "size": len(data),
    }


def _context(data: bytes, where: str) -> dict[str, Any]:
    return {"kind": "epoch_context", **parse_epoch_context(data, where).to_json()}


def _tables(data: bytes, where: str) -> dict[str, Any]:
    return {"kind": "tables_shard", **tables_shard_document(TablesShard.from_bytes(data, where))}


def _tables_epoch(data: bytes, where: str) -> dict[str, Any]:
    epoch = TablesEpoch.from_bytes(data, where)
    return {
        "kind": "tables_epoch",
        "epoch_height": epoch.epoch_height,
        "epoch_id": str(epoch.epoch_id),
        "missing_shard_ids": list(epoch.missing_shard_ids),
        "shards": [shard.to_json() for shard in epoch.shards],
    }


def _tables_latest(data: bytes, where: str) -> dict[str, Any]:
    entry = TablesCatalogue.latest_from_bytes(data, where)
    return {"kind": "tables_latest", **entry.to_json()}


def _tables_catalogue(data: bytes, where: str) -> dict[str, Any]:
    return {"kind": "tables_catalogue", **tables_catalogue_document(TablesCatalogue.from_bytes(data, where))}


def tables_catalogue_document(catalogue: TablesCatalogue) -> dict[str, Any]:
    """Describe the finished epochs of a place of decoded tables."""
    return {
        "chain_id": catalogue.chain_id,
        "selection": catalogue.selection.describe() or "everything",
        "latest": None if catalogue.latest is None else catalogue.latest.epoch_height,
        "epochs": [entry.to_json() for entry in catalogue.epochs],
    }


def tables_shard_document(shard: TablesShard) -> dict[str, Any]:
    """Describe the decoded tables of a shard."""
    return {
        "epoch_height": shard.context.epoch_height,
        "epoch_id": str(shard.context.epoch_id),
        "shard_uid": ", ".join(str(found.shard_uid) for found in shard.context.shards),
        "records": shard.records,
        "complete": shard.complete,
        "decode_errors": shard.decode_errors,
        "files": len(shard.files),
        "state_root": None if shard.verified_state_root is None else str(shard.verified_state_root),
        "records_by_kind": shard.records_by_kind(),
    }


def _dataset_shard(data: bytes, where: str) -> dict[str, Any]:
    summary = DatasetSummary.from_bytes(data, where)
    return {
        "kind": "dataset_shard",
        "epoch_height": summary.context.epoch_height,
        "epoch_id": str(summary.context.epoch_id),
        "shard_uid": str(summary.shard.shard_uid),
        "records": summary.records,
        "value_bytes": summary.value_bytes,
        "files": len(summary.all_files),
        "state_root": None if summary.verified_state_root is None else str(summary.verified_state_root),
    }


def _state_header(data: bytes, where: str) -> dict[str, Any]:
    header = decode_state_header(data, where)
    return {
        "kind": "state_header",
        "size": len(data),
        "chunk_hash": str(header.chunk.chunk_hash),
        "state_root": str(header.state_root),
        "memory_usage": header.memory_usage,
    }


def _torrent(data: bytes, where: str) -> dict[str, Any]:
    library = import_libtorrent()
    try:
        info = library.load_torrent_buffer(data).ti
    except RuntimeError as error:
        raise ValueError(f"{where}: {error}") from error
    hashes, layout = info.info_hashes(), info.layout()
    files = [index for index in range(layout.num_files()) if not layout.file_flags(index) & layout.flag_pad_file]
    return {
        "kind": "torrent",
        "name": info.name(),
        "info_hash_v1": hashes.v1.to_bytes().hex() if hashes.has_v1() else None,
        "info_hash_v2": hashes.v2.to_bytes().hex() if hashes.has_v2() else None,
        "piece_length": info.piece_length(),
        "pieces": info.num_pieces(),
        "files": [{"name": layout.file_path(index), "size": layout.file_size(index)} for index in files],
    }


def _arrow_file(data: bytes, where: str) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if data[:8] == b"ARROW1\0\0":
            # Nothing is decompressed: a few kilobytes may be gigabytes then.
            messages = pa.ipc.MessageReader.open_stream(pa.py_buffer(data).slice(8))
            names, form = schema_of(messages.read_next_message()).names, "ipc"
            records = sum(record_batch_rows(message) for message in messages if message.type == "record batch")
        elif data[:4] == b"PAR1":
            parquet = pq.ParquetFile(BytesIO(data))
            records, names, form = parquet.metadata.num_rows, parquet.schema_arrow.names, "parquet"
        else:
            raise ValueError("it is no file of record batches")
    except (pa.ArrowException, OSError, ValueError, EOFError, TypeError, struct.error, StopIteration) as error:
        raise ValueError(f"{where}: {error}") from error
    return {"kind": "record_batches", "format": form, "records": records, "size": len(data), "columns": list(names)}


_BY_NAME: dict[ObjectKind, Callable[[bytes, str], dict[str, Any]]] = {
    ObjectKind.LATEST: _latest,
    ObjectKind.CATALOGUE: _catalogue,
    ObjectKind.CLAIM: _claim,
    ObjectKind.LEASE: _lease,
    ObjectKind.SCRUB: _scrub,
    ObjectKind.STATE_HEADER: _state_header,
}
_BY_CONTENT_JSON = (
    _proof,
    _tables,
    _tables_epoch,
    _tables_catalogue,
    _tables_latest,
    _dataset_shard,
    _catalogue,
    _latest,
    _claim,
    _lease,
    _scrub,
    _context,
)
_BY_CONTENT = (_arrow_file, _torrent, _state_header)


def print_facts(console: Console, document: dict[str, Any]) -> None:
    """Print names and values; a list of objects as a table."""
    plain = {name: value for name, value in document.items() if not _is_table(value)}
    width = max(map(len, plain))
    for name, value in plain.items():
        shown = json.dumps(value) if isinstance(value, dict) else ", ".join(map(str, value)) if isinstance(value, list) else value
        console.print(f"{name.replace('_', ' '):<{width}} {'none' if shown is None else shown}", highlight=False, soft_wrap=True)
    for name, rows in document.items():
        if _is_table(rows):
            columns = [column for column, value in rows[0].items() if not isinstance(value, (dict, list))]
            table = Table(*(column.replace("_", " ") for column in columns), title=name.replace("_", " "), title_justify="left")
            for row in rows[:LISTED_SHOWN_MAX]:
                table.add_row(*(str(row.get(column, "")) for column in columns))
            console.print(table)
            if len(rows) > LISTED_SHOWN_MAX:
                console.print(f"… and {len(rows) - LISTED_SHOWN_MAX} more; --json lists all", highlight=False)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
