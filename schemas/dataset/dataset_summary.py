"""The Arrow dataset of an epoch's flat state: names and summaries.

::

    chain_id=C/epoch_height=H/epoch_id=E/
        shard_uid=s0.v3/
            shard.json                           what the folder holds, written last: no shard.json, no dataset
            flat_state/range-000000-0000.arrow   records of one key range a file, ascending through the files' names
            values/range-000000-0000-0000.arrow  values that one record alone refers to, in the order of these records
            shared_values/shared-0000-0000-0000.arrow   values that several records refer to, each once, ascending by hash
            state_header                         the shard's ShardStateSyncResponseHeader, where the node had one or it was computed
            ranges/range-000000.json             summary of one export task, so that a rerun can skip it
            ranges/range-000000.references.arrow keys, hashes and lengths of the values that the range refers to
            ranges/shared-0000.arrow             hashes and lengths of shared values
            ranges/shared-0000.rows.arrow        which rows of each range's references are theirs

Parquet files end in ``.parquet`` and are else the same. Nothing here reads or writes a file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from schemas.errors import DatasetError, StatecastError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import EpochContext, GenesisBlock, ShardContext, epoch_context_from_json
from schemas.nearcore.epoch_folder import epoch_folder
from schemas.nearcore.state_header import HeaderOrigin

DATASET_FORMAT = "statecast.flat_state.2"
"""Format name in ``shard.json`` and in the files' schema metadata."""

SUMMARY_BYTES_MAX = 256 << 20
"""Largest summary that is parsed."""

# A file is an object and one or two lists; of each record batch a summary has its rows, or its first key and offset.
_LIMITS = JsonLimits(SUMMARY_BYTES_MAX, containers_max=1 << 20, values_max=1 << 23)

METADATA_PREFIX = b"statecast."
"""What the keys of our Arrow schema metadata start with."""


@dataclass(frozen=True, slots=True)
class RecordsFile:
    """One file of records: one key range."""

    name: str
    """Relative to the shard's folder."""
    size: int
    sha256: str
    first_key: bytes
    last_key: bytes
    batch_rows: tuple[int, ...]
    """Rows of each record batch (of each row group in Parquet), in order."""
    value_bytes: int
    """Sum of the lengths of all values, inlined or referenced."""

    @property
    def records(self) -> int:
        """Rows in the file."""
        return sum(self.batch_rows)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "first_key": self.first_key.hex(),
            "last_key": self.last_key.hex(),
            "batch_rows": list(self.batch_rows),
            "value_bytes": self.value_bytes,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RecordsFile:
        """Build from decoded JSON values; raises KeyError, TypeError or ValueError on another shape."""
        return cls(
            name=str(document["name"]),
            size=int(document["size"]),
            sha256=str(document["sha256"]),
            first_key=bytes.fromhex(document["first_key"]),
            last_key=bytes.fromhex(document["last_key"]),
            batch_rows=tuple(int(rows) for rows in document["batch_rows"]),
            value_bytes=int(document["value_bytes"]),
        )


@dataclass(frozen=True, slots=True)
class ValuesFile:
    """One file of referenced values, own or shared."""

    name: str
    size: int
    sha256: str
    values: int
    value_bytes: int
    batch_starts: tuple[bytes, ...]
    """Of each record batch, ascending: the key that its first value belongs to, or of shared values the first hash. Which batch can hold
    a value follows without reading."""
    batch_offsets: tuple[int, ...] = ()
    """Where each record batch begins in an IPC file, and where the last one ends; none for Parquet. So they can be read without the footer."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "values": self.values,
            "value_bytes": self.value_bytes,
            "batch_starts": [start.hex() for start in self.batch_starts],
            "batch_offsets": list(self.batch_offsets),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ValuesFile:
        """Build from decoded JSON values; raises KeyError, TypeError or ValueError on another shape."""
        offsets = [int(offset) for offset in document["batch_offsets"]]
        within = [0, *offsets, int(document["size"])]
        if len(offsets) not in (0, len(document["batch_starts"]) + 1) or within != sorted(within):
            raise ValueError("batch_offsets ascends within the file and has one number more than batch_starts, or none")
        return cls(
            name=str(document["name"]),
            size=int(document["size"]),
            sha256=str(document["sha256"]),
            values=int(document["values"]),
            value_bytes=int(document["value_bytes"]),
            batch_starts=tuple(bytes.fromhex(start) for start in document["batch_starts"]),
            batch_offsets=tuple(offsets),
        )


@dataclass(frozen=True, slots=True)
class RangeSummary:
    """What one export task left."""

    files: tuple[RecordsFile, ...]
    reference_count: int
    """Records of the range that refer to a value."""
    reference_bytes: int
    """Sum of these values' lengths, each as often as it is referred to."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "files": [file.to_json() for file in self.files],
            "reference_count": self.reference_count,
            "reference_bytes": self.reference_bytes,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RangeSummary:
        """Build from decoded JSON values; raises KeyError, TypeError or ValueError on another shape."""
        return cls(
            files=tuple(RecordsFile.from_json(entry) for entry in document["files"]),
            reference_count=int(document["reference_count"]),
            reference_bytes=int(document["reference_bytes"]),
        )


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """The summary of one exported shard: the content of ``shard.json``."""

    context: EpochContext
    """Of this shard alone. The shard's state root is the trusted one; None when the source could not tell."""
    source: str
    fingerprint: str
    """Of the source; an export under another fingerprint is another export."""
    files: tuple[RecordsFile, ...]
    """Ascending by key; none for an empty shard."""
    values_files: tuple[ValuesFile, ...]
    """Own values: one record refers to each; ascending by its key."""
    shared_values_files: tuple[ValuesFile, ...] = ()
    """Shared values: several records refer to each; ascending by hash."""
    verified_state_root: CryptoHash | None = None
    """The state root recomputed from these very files; None while that has not been done."""
    memory_usage: int | None = None
    """Of the state root; None while it is not known."""
    state_header_origin: HeaderOrigin | None = None
    """Where the state header in the shard's folder is from; None where there is none."""
    state_header_reason: str = ""
    """Why there is none."""
    verified_state_header_sha256: str | None = None
    """Of the state header in the shard's folder, in hexadecimal, where the writer had verified all of it; else None."""

    @property
    def shard(self) -> ShardContext:
        """The one shard of the context."""
        return self.context.shards[0]

    @property
    def has_state_header(self) -> bool:
        """Whether the shard's folder holds a state header."""
        return self.state_header_origin is not None

    @property
    def all_files(self) -> tuple[RecordsFile | ValuesFile, ...]:
        """Files of records, then files of own and of shared values."""
        return (*self.files, *self.values_files, *self.shared_values_files)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.all_files)

    @property
    def records(self) -> int:
        """Rows of all files."""
        return sum(file.records for file in self.files)

    @property
    def value_bytes(self) -> int:
        """Length of all records' values."""
        return sum(file.value_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        """Encode as JSON, the same bytes for the same content."""
        return json.dumps(self._to_json(), indent=1).encode()

    def content_sha256(self) -> str:
        """Return the digest of all but what is noted later, root and memory usage: in hexadecimal, the same for as long as the dataset is."""
        noted_later = {"verified_state_root": None, "memory_usage": None}
        return hashlib.sha256(json.dumps(self._to_json() | noted_later).encode()).hexdigest()

    def _to_json(self) -> dict[str, Any]:
        return {
            "format": DATASET_FORMAT,
            "context": self.context.to_json(),
            "source": self.source,
            "fingerprint": self.fingerprint,
            "files": [file.to_json() for file in self.files],
            "values_files": [file.to_json() for file in self.values_files],
            "shared_values_files": [file.to_json() for file in self.shared_values_files],
            "verified_state_root": None if self.verified_state_root is None else str(self.verified_state_root),
            "memory_usage": self.memory_usage,
            "has_state_header": self.has_state_header,
            "state_header_origin": self.state_header_origin,
            "state_header_reason": self.state_header_reason,
            "verified_state_header_sha256": self.verified_state_header_sha256,
            "block_headers": [header.hex() for header in self.context.block_headers],
            **({"genesis_block": self.shard.genesis_block.to_json()} if self.shard.genesis_block is not None else {}),
            **({"flat_head_header": self.shard.flat_head_header.hex()} if self.shard.flat_head_header else {}),
        }

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> DatasetSummary:
        """Decode ``shard.json``.

        Raises:
            DatasetError: not a summary of this format.
        """
        document = parse_summary(data, where)
        if document.get("format") != DATASET_FORMAT:
            found = str(document.get("format", "says no format"))[:80]
            raise DatasetError(
                problem=f"this is not a dataset of format {DATASET_FORMAT}, but {found}",
                where=where,
                remedy="It was written by another version; export it again with this one.",
            )
        try:
            context = epoch_context_from_json(document["context"], where)
            genesis = document.get("genesis_block")
            shard = replace(
                context.shards[0],
                flat_head_header=bytes.fromhex(document.get("flat_head_header", "")),
                genesis_block=None if genesis is None else GenesisBlock.from_json(genesis),
            )
            return cls(
                context=replace(
                    context,
                    shards=(shard,),
                    block_headers=tuple(bytes.fromhex(header) for header in document.get("block_headers", ())),
                ),
                source=str(document["source"]),
                fingerprint=str(document["fingerprint"]),
                files=tuple(RecordsFile.from_json(entry) for entry in document["files"]),
                values_files=tuple(ValuesFile.from_json(entry) for entry in document["values_files"]),
                shared_values_files=tuple(ValuesFile.from_json(entry) for entry in document["shared_values_files"]),
                verified_state_root=None
                if document["verified_state_root"] is None
                else CryptoHash.from_base58(document["verified_state_root"]),
                memory_usage=None if document["memory_usage"] is None else int(document["memory_usage"]),
                state_header_origin=_header_origin(document),
                state_header_reason=str(document.get("state_header_reason", "")),
                verified_state_header_sha256=_digest_or_none(document.get("verified_state_header_sha256")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DatasetError(problem=f"the dataset's summary lacks or misstates a field: {error}", where=where) from None


def _header_origin(document: dict[str, Any]) -> HeaderOrigin | None:
    # Datasets of before the field hold headers that were copied.
    return HeaderOrigin(document.get("state_header_origin") or HeaderOrigin.COPIED) if document["has_state_header"] else None


def _digest_or_none(value: object) -> str | None:
    # Datasets of before the field, and those whose header was not verified in full, have none.
    if value is not None and (not isinstance(value, str) or len(value) != 64):
        raise ValueError("verified_state_header_sha256 is 64 hexadecimal digits or null")
    return value


def parse_summary(data: bytes, where: str) -> dict[str, Any]:
    """Parse a summary as a JSON object.

    Raises:
        DatasetError: not a JSON object, or over a limit.
    """
    too_much = _LIMITS.problem(data)
    if too_much is not None:
        raise DatasetError(problem=too_much, where=where)
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            problem=f"the summary is not JSON: {error}", where=where, remedy="It was cut off or changed; export again."
        ) from None
    if not isinstance(document, dict):
        raise DatasetError(problem="a summary is a JSON object", where=where)
    return document


def range_summary_from_bytes(data: bytes, fingerprint: str, where: str) -> RangeSummary | None:
    """Decode a range's summary; None when it is of another fingerprint or format, or can't be decoded, so that the range is done again."""
    try:
        document = parse_summary(data, where)
        if document["format"] != DATASET_FORMAT or document["fingerprint"] != fingerprint:
            return None
        return RangeSummary.from_json(document["summary"])
    except (KeyError, TypeError, ValueError, OverflowError, StatecastError):
        return None


def range_summary_to_bytes(summary: RangeSummary, fingerprint: str) -> bytes:
    """Encode a range's summary with the fingerprint of its source."""
    return json.dumps({"format": DATASET_FORMAT, "fingerprint": fingerprint, "summary": summary.to_json()}).encode()


def shard_folder(context: EpochContext, shard_uid: ShardUId) -> str:
    """Return the folder of one shard's dataset."""
    return f"{epoch_folder(context.chain_id, context.epoch_height, context.epoch_id)}/shard_uid={shard_uid}"


def schema_metadata(context: EpochContext, shard: ShardContext, memory_usage: int | None) -> dict[bytes, bytes]:
    """Return the Arrow schema metadata of a dataset's files: chain, epoch, shard, root and, where known, memory usage, as text."""
    facts = {
        "format": DATASET_FORMAT,
        "chain_id": context.chain_id,
        "epoch_height": str(context.epoch_height),
        "epoch_id": str(context.epoch_id),
        "sync_hash": str(context.sync_hash),
        "protocol_version": str(context.protocol_version),
        "shard_uid": str(shard.shard_uid),
        "state_root": "" if shard.state_root is None else str(shard.state_root),
        "memory_usage": "" if memory_usage is None else str(memory_usage),
    }
    return {METADATA_PREFIX + name.encode(): text.encode() for name, text in facts.items()}
