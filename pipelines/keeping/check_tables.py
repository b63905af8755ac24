"""The check of an epoch's decoded tables: their statement against the manifest, every file against the statement, the records against the chain's state roots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pipelines.bucket.published_epoch import Judge, StoredManifest, read_tables_statement
from pipelines.dataset.tables.decode_tables import read_shard_tables
from pipelines.dataset.tables.tables_place import read_tables_catalogue
from pipelines.dataset.tables.verify_tables import WrongFile, verify_tables
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.findings import check_named, is_of_epoch
from pipelines.kernel.trie_kernel import Kernel
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.dataset.tables_summary import TablesShard, shard_tables_name
from schemas.errors import DatasetError, ManifestError
from schemas.published.dsse import Envelope
from schemas.published.manifest import Manifest
from schemas.published.tables_statement import StatedFile, StatedShard, TablesStatement

UNTRUSTED_PLACE: Final = "no trusted key has signed the manifest that says where they are"


@dataclass(frozen=True, slots=True)
class CheckedTables:
    """The result of the check of an epoch's tables."""

    url: str | None
    """Where they were read; None where they were not."""
    files: int
    records: int
    size: int
    shards_proved: tuple[int, ...]
    """Shards whose state root was recomputed from the tables."""
    unproved: str
    """Why the others' was not; empty where all were."""
    wrong: tuple[WrongFile, ...]
    """The statement, by its name, and what of the tables is not as stated, by its URL."""


@dataclass(frozen=True, slots=True)
class TablesCheck:
    """A check of the tables that a manifest names."""

    runner: StageRunner
    kernel: Kernel
    store: Store
    """Of the published epoch."""
    stored: StoredManifest
    shard_ids: Sequence[int]
    """Shards to check."""
    url: str | None
    """Where the tables are; None for what the manifest says."""
    is_trusted: bool
    """Whether a trusted key signed the manifest: else no place that it names is asked."""
    judge: Judge
    """Raises ManifestError where no trusted key signed the statement."""
    left_out: str = ""
    """Why the tables themselves are not read; empty where they are."""

    def run(self) -> CheckedTables | None:
        """Check; None where the manifest names no tables.

        Raises:
            ManifestError: the statement is not signed by a trusted key.
            StoreError: the tables can't be read.
        """
        named = self.stored.manifest.tables
        if named is None:
            return None
        found: list[WrongFile] = []
        read = read_stated_tables(self.store, self.stored.manifest, found)
        if read is not None:
            self.judge(read[1])
        statement = None if read is None else read[0]
        url = self.url or (named.url if self.is_trusted else None)
        if statement is None:
            return CheckedTables(None, 0, 0, 0, (), "their statement is not right", tuple(found))
        if self.left_out:
            return CheckedTables(None, 0, 0, 0, (), self.left_out, tuple(found))
        if url is None:
            why = "the manifest does not say where they are" if named.url is None else UNTRUSTED_PLACE
            return CheckedTables(None, 0, 0, 0, (), f"{why}; --tables says it", ())
        tables = open_store(url)
        gone = _why_gone(tables, statement)
        if gone:
            return CheckedTables(tables.url, 0, 0, 0, (), gone, ())
        files = records = size = 0
        proved, unproved = [], ""
        for stated in statement.shards:
            if stated.shard_id not in self.shard_ids:
                continue
            shard = self._summary(tables, stated, statement.epoch_height, found)
            if shard is None:
                unproved = unproved or "a summary is missing or wrong"
                continue
            verified = verify_tables(self.runner, self.kernel, url, shard)
            files, records, size = files + verified.files, records + verified.records, size + verified.size
            found += [replace(wrong, name=f"{tables.url}/{wrong.name}") for wrong in verified.wrong]
            if verified.state_root is None:
                unproved = unproved or _why_unproved(stated, statement)
            elif verified.state_root != stated.state_root:
                problem = f"the records of its tables hash to state root {verified.state_root}, the chain's is {stated.state_root}"
                found.append(WrongFile(_where(tables, statement.epoch_height, stated), False, problem))
            else:
                proved.append(stated.shard_id)
        return CheckedTables(tables.url, files, records, size, tuple(proved), unproved, tuple(found))

    def _summary(self, tables: Store, stated: StatedShard, epoch_height: int, wrong: list[WrongFile]) -> TablesShard | None:
        """Read a shard's summary, which lists what the statement does."""
        where = _where(tables, epoch_height, stated)
        try:
            shard = read_shard_tables(tables, epoch_height, stated.shard_id, stated.summary_sha256)
        except DatasetError as error:
            wrong.append(WrongFile(where, False, error.problem))
            return None
        if shard is None:
            wrong.append(WrongFile(where, True, "the summary of its tables is missing"))
            return None
        if tuple(StatedFile(file.name, file.size, file.records, file.sha256) for file in shard.files) != stated.files:
            wrong.append(WrongFile(where, False, "the summary of its tables lists other files than the statement"))
            return None
        return shard


def _why_gone(tables: Store, statement: TablesStatement) -> str:
    """Return that a place keeps newer epochs alone, as after a collection; empty where the epoch's tables should be there."""
    try:
        catalogue = read_tables_catalogue(tables)
    except DatasetError:
        return ""
    if catalogue is None or not catalogue.epochs or statement.epoch_height >= catalogue.epochs[0].epoch_height:
        return ""
    return f"the place keeps tables from epoch {catalogue.epochs[0].epoch_height} on"


def read_stated_tables(store: Store, manifest: Manifest, wrong: list[WrongFile]) -> tuple[TablesStatement, Envelope] | None:
    """Read the statement of the tables that a manifest names, and compare it with the manifest; None where it is not right, which is noted.

    Raises:
        StoreError: the store can't be read.
    """
    layout, named = manifest.layout, manifest.tables
    assert named is not None, "the manifest names tables"
    name = layout.tables_statement
    try:
        found = read_tables_statement(store, layout, lambda envelope: check_named(envelope, named.statement_sha256))
    except ManifestError as error:
        wrong.append(WrongFile(name, False, error.problem))
        return None
    if found is None:
        wrong.append(WrongFile(name, True, "it is missing"))
        return None
    statement, envelope = found
    roots = {shard.shard_uid: shard.state_root for shard in manifest.shards}
    if not is_of_epoch(statement, manifest) or any(roots.get(shard.shard_uid) != shard.state_root for shard in statement.shards):
        wrong.append(WrongFile(name, False, "it is of another epoch, shard or state root than the manifest"))
        return None
    return statement, envelope


def _why_unproved(stated: StatedShard, statement: TablesStatement) -> str:
    if stated.gives_state_root:
        return "a file is missing or wrong"
    left_out = statement.selection.describe()
    why = f"they are of {left_out}" if left_out else "not all records are there, or not in order"
    return f"the state root does not follow from them ({why}), so that they hold the chain's records can't be checked"


def _where(tables: Store, epoch_height: int, stated: StatedShard) -> str:
    return f"{tables.url}/{shard_tables_name(epoch_height, stated.shard_id)}"
