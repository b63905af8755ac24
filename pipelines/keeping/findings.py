"""What a look at a published epoch finds that is not as it should be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from pipelines.bucket.published_epoch import read_statement
from pipelines.dataset.tables.verify_tables import WrongFile
from pipelines.keeping.check_part import CheckedPart
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectMismatchError, ObjectNotFoundError
from schemas.published.dsse import Envelope
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement
from schemas.published.tables_statement import TablesStatement


class FindingKind(StrEnum):
    """How an object differs."""

    MISSING = "missing"
    WRONG = "wrong"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is not as it should be."""

    kind: FindingKind
    object_name: str
    """Relative to the store; a URL where it lies elsewhere."""
    problem: str
    harmless: bool = False
    """Foreign, but outside the folders whose objects nodes count."""


@dataclass(slots=True)
class Findings:
    """Reads an epoch's documents, and notes what is not as it should be."""

    store: Store
    layout: EpochLayout
    found: list[Finding] = field(default_factory=list)

    def missing(self, name: str, problem: str = "it is missing") -> None:
        """Note an object that is not there."""
        self.found.append(Finding(FindingKind.MISSING, name, problem))

    def wrong(self, name: str, problem: str) -> None:
        """Note an object that is another one."""
        self.found.append(Finding(FindingKind.WRONG, name, problem))

    def parts(self, checked: Iterable[CheckedPart]) -> None:
        """Note the parts that are missing or wrong."""
        for part in checked:
            if part.problem is not None:
                (self.missing if part.missing else self.wrong)(part.object_name, part.problem)

    def files(self, wrong: Iterable[WrongFile]) -> None:
        """Note files of tables, or objects of deltas, that are missing or wrong."""
        for file in wrong:
            (self.missing if file.missing else self.wrong)(file.name, file.problem)

    def read(self, name: str, bytes_max: int) -> bytes | None:
        """Return an object; None where it is missing or longer than it may be."""
        try:
            return read_object(self.store, name, bytes_max)
        except ObjectNotFoundError:
            self.missing(name)
        except ObjectMismatchError as error:
            self.wrong(name, error.problem)
        return None

    def header(self, listed: ManifestShard) -> bytes | None:
        """Return a shard's state header; None where none is listed, or it is missing or wrong."""
        if listed.header is None:
            return None
        name = self.layout.state_header(listed.shard_id)
        data = self.read(name, listed.header.size)
        if data is not None and hashlib.sha256(data).hexdigest() != listed.header.sha256:
            self.wrong(name, "it does not have the manifest's sha256")
            return None
        return data

    def statement(self, listed: ManifestShard, manifest: Manifest) -> tuple[ShardStatement, Envelope] | None:
        """Return a shard's statement with its envelope; None where it is missing, or not the one that the manifest lists."""
        name = self.layout.shard_statement(listed.shard_id)
        try:
            found = read_statement(
                self.store, self.layout, listed.shard_id, lambda envelope: check_named(envelope, listed.statement_sha256)
            )
            problem = None if found is None else statement_problem(found[0], listed, manifest)
        except ManifestError as error:
            found, problem = None, error.problem
        if problem is not None:
            self.wrong(name, problem)
            return None
        if found is None:
            self.missing(name)
        return found


def check_named(envelope: Envelope, statement_sha256: str) -> None:
    """Check by the payload's bytes that an envelope has the statement that a manifest names.

    Raises:
        ManifestError: it has another one.
    """
    if envelope.payload_sha256 != statement_sha256:
        raise ManifestError(problem="it is not the statement that the manifest names by its sha256")


def statement_problem(statement: ShardStatement, listed: ManifestShard, manifest: Manifest) -> str | None:
    """Return what keeps a statement, which `check_named` let pass, from being of what a manifest says, or None."""
    if not is_of_epoch(statement, manifest) or (statement.shard_uid, statement.state_root, statement.num_parts) != (
        listed.shard_uid,
        listed.state_root,
        listed.num_parts,
    ):
        return "it is of another epoch, shard, state root or number of parts than the manifest"
    if statement.header_sha256 != (None if listed.header is None else listed.header.sha256):
        return "it names another state header than the manifest, or one where the manifest has none"
    return None


def is_of_epoch(statement: ShardStatement | TablesStatement, manifest: Manifest) -> bool:
    """Tell whether a statement is of a manifest's epoch."""
    said = (statement.chain_id, statement.epoch_height, statement.epoch_id, statement.sync_hash)
    return said == (manifest.chain_id, manifest.epoch_height, manifest.epoch_id, manifest.sync_hash)
