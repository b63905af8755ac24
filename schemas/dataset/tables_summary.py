"""Decoded tables: Parquet, one table a kind of record, and what is known of them::

    kind=account/chain_id=C/epoch_height=H/shard_id=S/range-000000-0000.parquet
                                                records of one kind, ascending by key through the files' names
    _catalogue.json                             the finished epochs, and what all tables here have in common
    _latest.json                                the newest complete epoch
    _sql/views.sql, bigquery.sql, athena.sql    views of the finished epochs, for DuckDB and others
    _epochs/epoch_height=H/
        tables.json                             the epoch's shards, written when all of them are there
        shard_id=S/tables.json                  the shard's files, written last
        shard_id=S/written/range-000000-0000.json   what one task left, so that a rerun can skip it

Readers of Parquet pass over names that begin with ``_``. One place holds the tables of one chain. The columns are those of
`schemas.dataset.tables_selection.TablesSelection.schema`. Nothing here reads or writes a file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

from schemas.dataset.dataset_summary import METADATA_PREFIX, parse_summary, schema_metadata
from schemas.dataset.tables_selection import TablesSelection
from schemas.errors import DatasetError, StatecastError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, epoch_context_from_json

TABLES_FORMAT: Final = "statecast.decoded_tables.2"

TABLES_NAME: Final = "tables.json"
CATALOGUE_NAME: Final = "_catalogue.json"
LATEST_NAME: Final = "_latest.json"
SQL_FOLDER: Final = "_sql"
EPOCHS_FOLDER: Final = "_epochs"
ICEBERG_NOTES: Final = "_written"
"""Where a place of Iceberg tables has what each task left."""

_OF_EPOCH: Final = re.compile(r"(?:kind=[^/]+/chain_id=[^/]+|_epochs)/epoch_height=(0|[1-9][0-9]{0,19})/.+")
_MICROSECOND: Final = timedelta(microseconds=1)
_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def table_folder(kind: str, chain_id: str, epoch_height: int, shard_id: int) -> str:
    """Return the folder of a shard's records of one kind."""
    return f"kind={kind}/chain_id={chain_id}/epoch_height={epoch_height}/shard_id={shard_id}"


def epoch_tables_name(epoch_height: int) -> str:
    """Return the name of an epoch's summary."""
    return f"{epoch_side_folder(epoch_height)}/{TABLES_NAME}"


def epoch_side_folder(epoch_height: int) -> str:
    """Return the folder of an epoch's side files."""
    return f"{EPOCHS_FOLDER}/epoch_height={epoch_height}"


def tables_height(name: str) -> int | None:
    """Return the height of the epoch that an object of a place belongs to; None where it belongs to none."""
    found = _OF_EPOCH.fullmatch(name)
    return None if found is None else int(found[1])


def shard_side_folder(epoch_height: int, shard_id: int) -> str:
    """Return the folder of a shard's side files."""
    return f"{epoch_side_folder(epoch_height)}/shard_id={shard_id}"


def shard_tables_name(epoch_height: int, shard_id: int) -> str:
    """Return the name of a shard's summary."""
    return f"{shard_side_folder(epoch_height, shard_id)}/{TABLES_NAME}"


@dataclass(frozen=True, slots=True)
class StateBlock:
    """The block that a state is after."""

    height: int
    timestamp_us: int | None
    """Since 1970, in UTC; nearcore's nanoseconds cut off. None where the height alone is known, by the header of the block after it."""
    total_supply: int | None = None
    """YoctoNEAR after it, by the header of the block whose chunks commit to the epoch's state; None where that is not known."""

    @property
    def time(self) -> datetime | None:
        """The timestamp as a time."""
        return None if self.timestamp_us is None else _UNIX_EPOCH + self.timestamp_us * _MICROSECOND

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        time = None if self.time is None else self.time.isoformat().replace("+00:00", "Z")
        supply = None if self.total_supply is None else str(self.total_supply)
        return {"block_height": self.height, "block_timestamp": time, "total_supply": supply}


def state_block_json(block: StateBlock | None) -> dict[str, Any]:
    """Return a block that may be unknown as plain JSON values."""
    return {"block_height": None, "block_timestamp": None, "total_supply": None} if block is None else block.to_json()


def state_block_from_json(document: dict[str, Any]) -> StateBlock | None:
    """Build from decoded JSON values; raises KeyError, TypeError, ValueError or OverflowError on another shape."""
    if document["block_height"] is None:
        return None
    supply, timestamp_us = document["total_supply"], None
    if document["block_timestamp"] is not None:
        time = datetime.fromisoformat(str(document["block_timestamp"]))
        if time.tzinfo is None:
            raise ValueError("block_timestamp has no time zone")
        timestamp_us = (time - _UNIX_EPOCH) // _MICROSECOND
    return StateBlock(int(document["block_height"]), timestamp_us, None if supply is None else int(supply))


@dataclass(frozen=True, slots=True)
class TableFile:
    """One Parquet file: records of one kind."""

    name: str
    """Relative to where the tables are."""
    kind: str
    records: int
    decode_errors: int
    """Rows with a ``decode_error``."""
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableFile:
        """Build from decoded JSON values; raises KeyError, TypeError or ValueError on another shape."""
        return cls(
            name=str(document["name"]),
            kind=str(document["kind"]),
            records=int(document["records"]),
            decode_errors=int(document["decode_errors"]),
            size=int(document["size"]),
            sha256=str(document["sha256"]),
        )


@dataclass(frozen=True, slots=True)
class TablesRange:
    """One file of the dataset, whose records are in table files of the same stem."""

    stem: str
    source_sha256: str
    """Of the dataset's file: tables of the same file need not be made again."""
    records: int
    first_key: bytes
    last_key: bytes

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "stem": self.stem,
            "source_sha256": self.source_sha256,
            "records": self.records,
            "first_key": self.first_key.hex(),
            "last_key": self.last_key.hex(),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TablesRange:
        """Build from decoded JSON values; raises KeyError, TypeError or ValueError on another shape."""
        return cls(
            stem=str(document["stem"]),
            source_sha256=str(document["source_sha256"]),
            records=int(document["records"]),
            first_key=bytes.fromhex(document["first_key"]),
            last_key=bytes.fromhex(document["last_key"]),
        )


@dataclass(frozen=True, slots=True)
class TablesShard:
    """The decoded tables of one shard: the content of its ``tables.json``."""

    context: EpochContext
    """Of this shard alone."""
    block: StateBlock | None
    """None where the dataset does not have its header."""
    source_records: int
    """Records of the dataset that the tables were made from."""
    verified_state_root: CryptoHash | None
    """The state root that was recomputed from that dataset; None while that had not been done."""
    selection: TablesSelection
    complete: bool
    """Whether every record of the dataset that the selection takes is there."""
    files: tuple[TableFile, ...]
    ranges: tuple[TablesRange, ...] = ()
    """Ascending by key; none where the rows came from elsewhere than the dataset's files."""

    @property
    def shard_uid(self) -> ShardUId:
        """The one shard."""
        return self.context.shards[0].shard_uid

    @property
    def records(self) -> int:
        """Rows of all files."""
        return sum(file.records for file in self.files)

    @property
    def decode_errors(self) -> int:
        """Rows with a ``decode_error``."""
        return sum(file.decode_errors for file in self.files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def records_by_kind(self) -> dict[str, int]:
        """Return how many rows each kind has, in the order of its name."""
        kinds: dict[str, int] = {}
        for file in sorted(self.files, key=lambda file: file.kind):
            kinds[file.kind] = kinds.get(file.kind, 0) + file.records
        return kinds

    def to_bytes(self) -> bytes:
        """Encode as JSON, the same bytes for the same content."""
        document = {
            "format": TABLES_FORMAT,
            "context": self.context.to_json(),
            **state_block_json(self.block),
            "source_records": self.source_records,
            "verified_state_root": None if self.verified_state_root is None else str(self.verified_state_root),
            "selection": self.selection.to_json(),
            "records": self.records,
            "complete": self.complete,
            "records_by_kind": self.records_by_kind(),
            "decode_errors": self.decode_errors,
            "files": [file.to_json() for file in self.files],
            "ranges": [one.to_json() for one in self.ranges],
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> TablesShard:
        """Decode a shard's ``tables.json``.

        Raises:
            DatasetError: not a summary of this format.
        """
        document = _parse(data, where)
        try:
            root = document["verified_state_root"]
            return cls(
                context=epoch_context_from_json(document["context"], where),
                block=state_block_from_json(document),
                source_records=int(document["source_records"]),
                verified_state_root=None if root is None else CryptoHash.from_base58(root),
                selection=TablesSelection.from_json(document["selection"]),
                complete=bool(document["complete"]),
                files=tuple(TableFile.from_json(entry) for entry in document["files"]),
                ranges=tuple(TablesRange.from_json(entry) for entry in document["ranges"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _misstated(error, where) from None


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard as its epoch's summary names it."""

    shard_uid: ShardUId
    sha256: str
    """Of the shard's ``tables.json``."""
    files: int
    size: int
    decode_errors: int
    complete: bool
    records_by_kind: dict[str, int]
    block: StateBlock | None

    @classmethod
    def of(cls, shard: TablesShard) -> ShardEntry:
        """Return the entry of a shard."""
        return cls(
            shard_uid=shard.shard_uid,
            sha256=hashlib.sha256(shard.to_bytes()).hexdigest(),
            files=len(shard.files),
            size=shard.size,
            decode_errors=shard.decode_errors,
            complete=shard.complete,
            records_by_kind=shard.records_by_kind(),
            block=shard.block,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "shard_id": self.shard_uid.shard_id,
            "shard_uid": str(self.shard_uid),
            "sha256": self.sha256,
            "files": self.files,
            "size": self.size,
            "decode_errors": self.decode_errors,
            "complete": self.complete,
            "records_by_kind": self.records_by_kind,
            **state_block_json(self.block),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ShardEntry:
        """Build from decoded JSON values; raises KeyError, TypeError, ValueError or InvalidInputError on another shape."""
        return cls(
            shard_uid=ShardUId.parse(document["shard_uid"]),
            sha256=str(document["sha256"]),
            files=int(document["files"]),
            size=int(document["size"]),
            decode_errors=int(document["decode_errors"]),
            complete=bool(document["complete"]),
            records_by_kind=_counts(document["records_by_kind"]),
            block=state_block_from_json(document),
        )


@dataclass(frozen=True, slots=True)
class TablesEpoch:
    """The finished tables of an epoch: the content of its ``tables.json``."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash
    shards: tuple[ShardEntry, ...]
    """Ascending by shard id."""
    missing_shard_ids: tuple[int, ...]
    """Shards of the epoch that have no tables, where the epoch's shards are known."""

    def to_bytes(self) -> bytes:
        """Encode as JSON, the same bytes for the same content."""
        document = {
            "format": TABLES_FORMAT,
            "chain_id": self.chain_id,
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "missing_shard_ids": list(self.missing_shard_ids),
            "shards": [shard.to_json() for shard in self.shards],
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> TablesEpoch:
        """Decode an epoch's ``tables.json``.

        Raises:
            DatasetError: not a summary of this format.
        """
        document = _parse(data, where)
        try:
            return cls(
                chain_id=str(document["chain_id"]),
                epoch_height=int(document["epoch_height"]),
                epoch_id=CryptoHash.from_base58(document["epoch_id"]),
                shards=tuple(ShardEntry.from_json(entry) for entry in document["shards"]),
                missing_shard_ids=tuple(int(shard_id) for shard_id in document["missing_shard_ids"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _misstated(error, where) from None


@dataclass(frozen=True, slots=True)
class EpochEntry:
    """A finished epoch as the catalogue has it."""

    epoch_height: int
    epoch_id: CryptoHash
    sha256: str
    """Of the epoch's ``tables.json``."""
    shard_ids: tuple[int, ...]
    complete: bool
    """Whether all shards of the epoch are there, as far as they are known, and nothing was left out of them."""
    files: int
    size: int
    records_by_kind: dict[str, int]
    decode_errors: int
    block: StateBlock | None
    """The newest of its shards' blocks: a shard without a new chunk is after an older one."""

    @property
    def records(self) -> int:
        """Rows of all tables."""
        return sum(self.records_by_kind.values())

    @classmethod
    def of(cls, epoch: TablesEpoch) -> EpochEntry:
        """Return the entry of an epoch."""
        blocks = [shard.block for shard in epoch.shards if shard.block is not None]
        kinds: dict[str, int] = {}
        for shard in epoch.shards:
            for kind, records in shard.records_by_kind.items():
                kinds[kind] = kinds.get(kind, 0) + records
        return cls(
            epoch_height=epoch.epoch_height,
            epoch_id=epoch.epoch_id,
            sha256=hashlib.sha256(epoch.to_bytes()).hexdigest(),
            shard_ids=tuple(shard.shard_uid.shard_id for shard in epoch.shards),
            complete=not epoch.missing_shard_ids and all(shard.complete for shard in epoch.shards),
            files=sum(shard.files for shard in epoch.shards),
            size=sum(shard.size for shard in epoch.shards),
            records_by_kind=dict(sorted(kinds.items())),
            decode_errors=sum(shard.decode_errors for shard in epoch.shards),
            block=max(blocks, key=lambda block: block.height) if len(blocks) == len(epoch.shards) and blocks else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            **state_block_json(self.block),
            "tables": epoch_tables_name(self.epoch_height),
            "sha256": self.sha256,
            "shard_ids": list(self.shard_ids),
            "complete": self.complete,
            "files": self.files,
            "size": self.size,
            "records": self.records,
            "records_by_kind": self.records_by_kind,
            "decode_errors": self.decode_errors,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> EpochEntry:
        """Build from decoded JSON values; raises KeyError, TypeError, ValueError or InvalidInputError on another shape."""
        return cls(
            epoch_height=int(document["epoch_height"]),
            epoch_id=CryptoHash.from_base58(document["epoch_id"]),
            sha256=str(document["sha256"]),
            shard_ids=tuple(int(shard_id) for shard_id in document["shard_ids"]),
            complete=bool(document["complete"]),
            files=int(document["files"]),
            size=int(document["size"]),
            records_by_kind=_counts(document["records_by_kind"]),
            decode_errors=int(document["decode_errors"]),
            block=state_block_from_json(document),
        )


@dataclass(frozen=True, slots=True)
class TablesCatalogue:
    """What a place of tables holds: the content of ``_catalogue.json``."""

    chain_id: str
    selection: TablesSelection
    epochs: tuple[EpochEntry, ...] = ()
    """Finished ones, ascending by height."""
    leaving: tuple[int, ...] = ()
    """Heights whose files a collection is deleting, ascending; none of them is finished."""

    @property
    def latest(self) -> EpochEntry | None:
        """The newest complete epoch."""
        return next((entry for entry in reversed(self.epochs) if entry.complete), None)

    def columns(self) -> dict[str, list[list[str]]]:
        """Return names and Arrow types of each table's columns."""
        return {
            str(kind): [[field.name, str(field.type)] for field in self.selection.schema(kind)] for kind in self.selection.written_kinds
        }

    def with_epoch(self, entry: EpochEntry) -> TablesCatalogue:
        """Return the catalogue with an epoch's entry in place of the one of its height."""
        others = [one for one in self.epochs if one.epoch_height != entry.epoch_height]
        return self._with_epochs([*others, entry])

    def without_epoch(self, epoch_height: int) -> TablesCatalogue:
        """Return the catalogue without the entry of a height."""
        return self._with_epochs([one for one in self.epochs if one.epoch_height != epoch_height])

    def marked(self, epoch_heights: Iterable[int]) -> TablesCatalogue:
        """Return the catalogue without the entries of some heights, whose files are about to be deleted."""
        heights = {*epoch_heights}
        kept = self._with_epochs([one for one in self.epochs if one.epoch_height not in heights])
        return replace(kept, leaving=tuple(sorted({*self.leaving} | heights)))

    def unmarked(self, epoch_heights: Iterable[int]) -> TablesCatalogue:
        """Return the catalogue after the files of some heights were deleted."""
        return replace(self, leaving=tuple(sorted({*self.leaving} - {*epoch_heights})))

    def _with_epochs(self, epochs: Sequence[EpochEntry]) -> TablesCatalogue:
        return replace(self, epochs=tuple(sorted(epochs, key=lambda one: one.epoch_height)))

    def to_bytes(self) -> bytes:
        """Encode as JSON, the same bytes for the same content."""
        document = {
            "format": TABLES_FORMAT,
            "chain_id": self.chain_id,
            "selection": self.selection.to_json(),
            "columns": self.columns(),
            "epochs": [entry.to_json() for entry in self.epochs],
            **({"leaving": list(self.leaving)} if self.leaving else {}),
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> TablesCatalogue:
        """Decode ``_catalogue.json``.

        Raises:
            DatasetError: not a catalogue of this format, or its tables have other columns than this version writes.
        """
        document = _parse(data, where)
        try:
            catalogue = cls(
                chain_id=str(document["chain_id"]),
                selection=TablesSelection.from_json(document["selection"]),
                epochs=tuple(EpochEntry.from_json(entry) for entry in document["epochs"]),
                leaving=tuple(int(height) for height in document.get("leaving", ())),
            )
            same = document["columns"] == catalogue.columns()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _misstated(error, where) from None
        if not same:
            raise DatasetError(
                problem="the tables here have other columns than this version writes",
                where=where,
                remedy="Write to another place: all files of a table have the same columns.",
            )
        return catalogue

    def latest_to_bytes(self) -> bytes | None:
        """Encode ``_latest.json``; None where no epoch is complete."""
        if self.latest is None:
            return None
        return json.dumps({"format": TABLES_FORMAT, "chain_id": self.chain_id, **self.latest.to_json()}, indent=1).encode()

    @staticmethod
    def latest_from_bytes(data: bytes, where: str) -> EpochEntry:
        """Decode ``_latest.json``.

        Raises:
            DatasetError: not such a pointer of this format.
        """
        document = _parse(data, where)
        try:
            return EpochEntry.from_json(document)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _misstated(error, where) from None


def table_metadata(shard: TablesShard, kind: str) -> dict[bytes, bytes]:
    """Return the schema metadata of a table's file, as text: what the dataset's files say, and what else the path and rows say.

    Args:
        shard: its files don't matter.
    """
    context = shard.context
    facts = {
        "format": TABLES_FORMAT,
        "kind": kind,
        "shard_id": str(shard.shard_uid.shard_id),
        "block_height": "" if shard.block is None else str(shard.block.height),
        "block_timestamp": "" if shard.block is None or shard.block.time is None else str(shard.block.to_json()["block_timestamp"]),
    }
    return schema_metadata(context, context.shards[0], None) | {
        METADATA_PREFIX + name.encode(): text.encode() for name, text in facts.items()
    }


def table_constants(shard: TablesShard) -> dict[str, pa.Scalar]:
    """Return the columns that are the same in all rows of a shard's tables, typed as in ``EPOCH_FIELDS``."""
    block = shard.block
    return {
        "epoch_id": pa.scalar(str(shard.context.epoch_id), pa.utf8()),
        "block_height": pa.scalar(None if block is None else block.height, pa.int64()),
        "block_timestamp": pa.scalar(None if block is None else block.timestamp_us, pa.int64()).cast(pa.timestamp("us")),
        "shard_uid": pa.scalar(str(shard.shard_uid), pa.utf8()),
    }


def written_to_bytes(files: tuple[TableFile, ...], fingerprint: str) -> bytes:
    """Encode what one task left, with the fingerprint of what it read."""
    return json.dumps({"fingerprint": fingerprint, "files": [file.to_json() for file in files]}).encode()


def written_from_bytes(data: bytes, fingerprint: str, where: str) -> tuple[TableFile, ...] | None:
    """Decode what one task left; None when it is of another fingerprint or can't be decoded, so that the task is done again."""
    try:
        document = parse_summary(data, where)
        if document["fingerprint"] != fingerprint:
            return None
        return tuple(TableFile.from_json(entry) for entry in document["files"])
    except (KeyError, TypeError, ValueError, OverflowError, StatecastError):
        return None


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = parse_summary(data, where)
    except DatasetError as error:
        remedy = "Delete it and write the tables again: files that are whole are not rebuilt."
        raise DatasetError(problem=error.problem, where=where, remedy=remedy) from None
    if document.get("format") != TABLES_FORMAT:
        raise DatasetError(
            problem=f"these are not tables of format {TABLES_FORMAT}",
            where=where,
            remedy="They are of another version: write the tables again, to another place.",
        )
    return document


def _counts(document: dict[str, Any]) -> dict[str, int]:
    return {str(kind): int(records) for kind, records in document.items()}


def _misstated(error: Exception, where: str) -> DatasetError:
    return DatasetError(problem=f"the summary lacks or misstates a field: {error}", where=where)
