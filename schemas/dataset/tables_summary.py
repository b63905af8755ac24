"""The decoded tables of an epoch: Parquet, a folder a shard and kind of record::

    chain_id=C/epoch_height=H/epoch_id=E/
        shard_uid=s0.v3/
            tables.json                             what the folder holds, written last: no tables.json, no tables
            kind=account/range-000000-0000.parquet  records of this kind, ascending by key through the files' names
            kind=access_key/…
            written/range-000000-0000.json          what one task left, so that a rerun can skip it

The columns are those of `schemas.dataset.decoded_record.kind_schema`. Nothing here reads or writes a file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from schemas.dataset.dataset_summary import parse_summary
from schemas.errors import DatasetError, StatecastError
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext, epoch_context_from_json

TABLES_FORMAT: Final = "statecast.decoded_tables.1"

TABLES_NAME: Final = "tables.json"


@dataclass(frozen=True, slots=True)
class TableFile:
    """One Parquet file: records of one kind."""

    name: str
    """Relative to the shard's folder."""
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
class TablesShard:
    """The decoded tables of one shard: the content of ``tables.json``."""

    context: EpochContext
    """Of this shard alone."""
    source_records: int
    """Records of the dataset that the tables were made from."""
    verified_state_root: CryptoHash | None
    """The state root that was recomputed from that dataset; None while that had not been done."""
    files: tuple[TableFile, ...]

    @property
    def records(self) -> int:
        """Rows of all files."""
        return sum(file.records for file in self.files)

    @property
    def complete(self) -> bool:
        """Whether every record of the dataset is there, as far as their number tells."""
        return self.records == self.source_records

    @property
    def decode_errors(self) -> int:
        """Rows with a ``decode_error``."""
        return sum(file.decode_errors for file in self.files)

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
            "source_records": self.source_records,
            "verified_state_root": None if self.verified_state_root is None else str(self.verified_state_root),
            "records": self.records,
            "complete": self.complete,
            "records_by_kind": self.records_by_kind(),
            "decode_errors": self.decode_errors,
            "files": [file.to_json() for file in self.files],
        }
        return json.dumps(document, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> TablesShard:
        """Decode ``tables.json``.

        Raises:
            DatasetError: not a summary of this format.
        """
        document = parse_summary(data, where)
        if document.get("format") != TABLES_FORMAT:
            raise DatasetError(problem=f"these are not tables of format {TABLES_FORMAT}", where=where, remedy="Write them again.")
        try:
            root = document["verified_state_root"]
            return cls(
                context=epoch_context_from_json(document["context"], where),
                source_records=int(document["source_records"]),
                verified_state_root=None if root is None else CryptoHash.from_base58(root),
                files=tuple(TableFile.from_json(entry) for entry in document["files"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DatasetError(problem=f"the summary lacks or misstates a field: {error}", where=where) from None


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
