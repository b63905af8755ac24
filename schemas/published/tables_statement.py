"""Tables statements: which Parquet files are an epoch's decoded tables, and whether the state roots follow from them.

The payload is an in-toto Statement in canonical JSON and names no producer and no time. Subjects are the tables' files and the summaries
of the shards, by the SHA-256 of their bytes, named relative to where the tables are. Another version of the libraries may write other
bytes of the same tables, so two statements that differ are no evidence of anything. What does not encode back to the same bytes is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import TablesShard, shard_tables_name
from schemas.errors import ManifestError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import FieldReader
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.shard_layout import SHARDS_MAX
from schemas.published.dsse import PAYLOAD_BYTES_MAX
from schemas.published.in_toto import decode_in_toto, encode_in_toto, subject_sha256

TABLES_STATEMENT_TYPE: Final = "urn:statecast:tables-statement:v1"
"""Predicate type; a change that readers must know of gets a new one."""

TABLE_FILES_MAX: Final = 100_000
"""Most files of an epoch's tables."""

# A file is an object with three fields, and a subject two objects with two; a selection has lists of names.
_LIMITS: Final = JsonLimits(PAYLOAD_BYTES_MAX, 3 * TABLE_FILES_MAX + 8 * SHARDS_MAX + 64, 6 * TABLE_FILES_MAX + 64 * SHARDS_MAX + (1 << 16))

_ROWS_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StatedFile:
    """One Parquet file."""

    name: str
    """Relative to where the tables are."""
    size: int
    records: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StatedShard:
    """The tables of one shard."""

    shard_uid: ShardUId
    state_root: CryptoHash
    gives_state_root: bool
    """Whether the tables have the raw columns of every record, so that anybody can recompute the state root from them."""
    summary_sha256: str
    """Of the shard's ``tables.json``."""
    files: tuple[StatedFile, ...]
    """Ascending by name."""

    @property
    def shard_id(self) -> int:
        """The shard's id in names."""
        return self.shard_uid.shard_id


@dataclass(frozen=True, slots=True)
class TablesStatement:
    """The decoded tables of an epoch."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash
    sync_hash: CryptoHash
    selection: TablesSelection
    shards: tuple[StatedShard, ...]
    """Ascending by shard id."""

    @classmethod
    def of(cls, sync_hash: CryptoHash, shards: Sequence[TablesShard]) -> TablesStatement:
        """Return the statement of an epoch's finished tables, at least one shard's, ascending by shard id."""
        first = shards[0]
        return cls(
            first.context.chain_id,
            first.context.epoch_height,
            first.context.epoch_id,
            sync_hash,
            first.selection,
            tuple(_stated(shard) for shard in shards),
        )

    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the payload in hexadecimal: the statement's name in a manifest."""
        return hashlib.sha256(self.to_payload()).hexdigest()

    def shard(self, shard_id: int) -> StatedShard | None:
        """Return one shard; None when it is not stated."""
        return next((shard for shard in self.shards if shard.shard_id == shard_id), None)

    def to_payload(self) -> bytes:
        """Return the canonical payload."""
        predicate: dict[str, Any] = {
            "chain_id": self.chain_id,
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "sync_hash": str(self.sync_hash),
            "selection": self.selection.to_json(),
            "shards": [
                {
                    "shard_id": shard.shard_id,
                    "shard_uid": str(shard.shard_uid),
                    "state_root": str(shard.state_root),
                    "gives_state_root": shard.gives_state_root,
                    "files": [{"name": file.name, "size": file.size, "records": file.records} for file in shard.files],
                }
                for shard in self.shards
            ],
        }
        return encode_in_toto(TABLES_STATEMENT_TYPE, self._subjects(), predicate)

    @classmethod
    def from_payload(cls, payload: bytes, where: str) -> TablesStatement:
        """Parse a payload.

        Raises:
            ManifestError: not a tables statement, one that contradicts itself, or not in the canonical encoding.
        """
        subjects, predicate = decode_in_toto(payload, TABLES_STATEMENT_TYPE, _LIMITS, TABLE_FILES_MAX + SHARDS_MAX, where)
        epoch_height = predicate.number("epoch_height", 0, 2**64 - 1)
        try:
            selection = TablesSelection.from_json(predicate.value("selection"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ManifestError(problem=f"field selection is none: {error}", where=where) from None
        statement = cls(
            chain_id=predicate.text("chain_id", 64, CHAIN_ID_PATTERN),
            epoch_height=epoch_height,
            epoch_id=predicate.hash("epoch_id"),
            sync_hash=predicate.hash("sync_hash"),
            selection=selection,
            shards=tuple(_read_shard(entry, subjects, epoch_height) for entry in predicate.inners("shards", SHARDS_MAX)),
        )
        problem = statement._problem()
        if problem is not None:
            raise ManifestError(problem=problem, where=where)
        if statement.to_payload() != payload:
            raise ManifestError(
                problem="the tables statement is not in its canonical encoding, or has fields that it should not have", where=where
            )
        return statement

    def _subjects(self) -> dict[str, str]:
        subjects = {}
        for shard in self.shards:
            subjects[shard_tables_name(self.epoch_height, shard.shard_id)] = shard.summary_sha256
            subjects |= {file.name: file.sha256 for file in shard.files}
        return subjects

    def _problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        shard_ids = [shard.shard_id for shard in self.shards]
        if not shard_ids or shard_ids != sorted(set(shard_ids)):
            return "shards are listed once each, ascending, and there is one"
        for shard in self.shards:
            names = [file.name for file in shard.files]
            if names != sorted(set(names)):
                return "a shard's files are listed once each, ascending"
            place = f"/chain_id={self.chain_id}/epoch_height={self.epoch_height}/shard_id={shard.shard_id}/"
            if not all(name.startswith("kind=") and place in name and name.endswith(".parquet") for name in names):
                return f"a file of shard {shard.shard_id} lies elsewhere than its tables"
            if shard.gives_state_root and not self.selection.is_whole:
                return "what is left out of the tables gives no state root"
        return None


def gives_state_root(shard: TablesShard) -> bool:
    """Tell whether a shard's state root can be recomputed from its tables."""
    return shard.selection.is_whole and shard.complete and (bool(shard.ranges) or not shard.source_records)


def _stated(shard: TablesShard) -> StatedShard:
    assert shard.verified_state_root is not None, "tables are made of datasets whose root was recomputed"
    return StatedShard(
        shard_uid=shard.shard_uid,
        state_root=shard.verified_state_root,
        gives_state_root=gives_state_root(shard),
        summary_sha256=hashlib.sha256(shard.to_bytes()).hexdigest(),
        files=tuple(StatedFile(file.name, file.size, file.records, file.sha256) for file in shard.files),
    )


def _read_shard(entry: FieldReader, subjects: dict[str, str], epoch_height: int) -> StatedShard:
    shard_uid = entry.shard_uid("shard_uid")
    return StatedShard(
        shard_uid=shard_uid,
        state_root=entry.hash("state_root"),
        gives_state_root=entry.flag("gives_state_root"),
        summary_sha256=subject_sha256(entry, subjects, shard_tables_name(epoch_height, shard_uid.shard_id)),
        files=tuple(_read_file(file, subjects) for file in entry.inners("files", TABLE_FILES_MAX)),
    )


def _read_file(entry: FieldReader, subjects: dict[str, str]) -> StatedFile:
    name = entry.text("name", 512)
    return StatedFile(
        name, entry.number("size", 0, _ROWS_MAX), entry.number("records", 0, _ROWS_MAX), subject_sha256(entry, subjects, name)
    )
