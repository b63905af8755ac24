"""Reads back what is stored of an epoch's decoded tables and compares it with their statement: summaries all, files by sample or all.

What the tables decode to was judged before they were published, and is `check_tables`' to judge again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from pipelines.bucket.published_epoch import Judge, StoredManifest
from pipelines.dataset.tables.verify_tables import WrongFile
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.keeping.check_tables import UNTRUSTED_PLACE, read_stated_tables
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import SUMMARY_BYTES_MAX
from schemas.dataset.tables_summary import shard_tables_name
from schemas.errors import InvalidInputError, ManifestError, ObjectMismatchError, ObjectNotFoundError, StoreError
from schemas.published.tables_statement import StatedFile, TablesStatement

SCRUB_TABLES_TASK_MEMORY_BYTES = 300 << 20
"""Peak memory of reading one file."""

_LOOKUPS: Final = 8
"""Files that are looked up at once."""


@dataclass(frozen=True, slots=True)
class ScrubbedTables:
    """What the scrub of an epoch's tables found."""

    url: str | None
    """Where they were looked up; None where they were not."""
    files: int
    """Listed by their statement; each was looked up by name and size."""
    files_read: int
    bytes_read: int
    unread: str
    """Why they were not looked up; empty where they were."""
    wrong: tuple[WrongFile, ...]
    """The statement, by its name, and what of the tables is not as stated, by its URL."""


@dataclass(frozen=True, slots=True)
class ReadTableFileTask:
    """Reads one file of tables and compares it with their statement."""

    url: str
    file: StatedFile

    def run(self) -> WrongFile | None:
        """Return what is wrong with the file, by its URL.

        Raises:
            StoreError: the store can't be read.
        """
        store = open_store(self.url)
        where = f"{store.url}/{self.file.name}"
        try:
            data = read_object(store, self.file.name, self.file.size)
        except ObjectNotFoundError:
            return WrongFile(where, True, "it is missing")
        except ObjectMismatchError as error:
            return WrongFile(where, False, error.problem)
        is_right = hashlib.sha256(data).hexdigest() == self.file.sha256
        return None if is_right else WrongFile(where, False, "it does not have the sha256 of the tables' statement")


@dataclass(frozen=True, slots=True)
class TablesScrub:
    """A scrub of the tables that a manifest names."""

    runner: StageRunner
    store: Store
    """Of the published epoch."""
    stored: StoredManifest
    url: str | None
    """Where the tables are; None for what the manifest says."""
    is_trusted: bool
    """Whether a trusted key signed the manifest: else no place that it names is asked."""
    judge: Judge
    """Raises ManifestError where no trusted key signed the statement."""
    window: SampleWindow

    def run(self) -> ScrubbedTables | None:
        """Scrub; None where the manifest names no tables.

        Raises:
            StoreError: the statement can't be read.
        """
        named, wrong = self.stored.manifest.tables, list[WrongFile]()
        if named is None:
            return None
        read = read_stated_tables(self.store, self.stored.manifest, wrong)
        if read is None:
            return ScrubbedTables(None, 0, 0, 0, "their statement is not right", tuple(wrong))
        statement, envelope = read
        try:
            self.judge(envelope)
        except ManifestError as error:
            wrong.append(WrongFile(self.stored.manifest.layout.tables_statement, False, error.problem))
        url = self.url or (named.url if self.is_trusted else None)
        if url is None:
            why = "the manifest does not say where they are" if named.url is None else UNTRUSTED_PLACE
            return ScrubbedTables(None, 0, 0, 0, f"{why}; --tables says it", tuple(wrong))
        try:
            return self._scrubbed(open_store(url), statement, wrong)
        except (StoreError, InvalidInputError) as error:
            # They may lie in a place of other people: the epoch is scrubbed all the same.
            return ScrubbedTables(None, 0, 0, 0, str(error), tuple(wrong))

    def _scrubbed(self, tables: Store, statement: TablesStatement, wrong: list[WrongFile]) -> ScrubbedTables:
        found = list(self._summaries(tables, statement))
        files = [file for shard in statement.shards for file in shard.files]
        chosen, to_read = self.window.choose(file.name for file in files), []
        with ThreadPoolExecutor(_LOOKUPS) as pool:
            for file, info in zip(files, pool.map(lambda file: tables.info(file.name), files), strict=True):
                where = f"{tables.url}/{file.name}"
                if info is None:
                    found.append(WrongFile(where, True, "it is missing"))
                elif info.size != file.size:
                    found.append(WrongFile(where, False, f"it has {info.size} bytes, the tables' statement says {file.size}"))
                elif file.name in chosen:
                    to_read.append(ReadTableFileTask(tables.url, file))
        needs = TaskNeeds(SCRUB_TABLES_TASK_MEMORY_BYTES)
        found += [one for one in self.runner.run("scrub", "tables", to_read, needs, lambda _: Amount(parts=1)) if one is not None]
        return ScrubbedTables(tables.url, len(files), len(to_read), sum(task.file.size for task in to_read), "", (*wrong, *found))

    def _summaries(self, tables: Store, statement: TablesStatement) -> Iterator[WrongFile]:
        for shard in statement.shards:
            name = shard_tables_name(statement.epoch_height, shard.shard_id)
            where = f"{tables.url}/{name}"
            try:
                data = tables.get(name, 0, SUMMARY_BYTES_MAX + 1)
            except ObjectNotFoundError:
                yield WrongFile(where, True, "the summary of a shard's tables is missing")
                continue
            if hashlib.sha256(data).hexdigest() != shard.summary_sha256:
                yield WrongFile(where, False, "the summary of a shard's tables is not the stated one")
