"""Writes a fresh RocksDB: sorted files first, then a database that takes them in.

Never opens a database that was there before. Files are written under another name, synced and renamed; the database is put together
in a folder of its own, which its caller renames when it is proved. Knows nothing about what the rows mean.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rocksdict import DBCompressionType, IngestExternalFileOptions, Options, Rdict, SstFileWriter

from pipelines.stores.durable_file import give_name, sync_folder
from schemas.errors import RecordOrderError, StoreDeniedError, StoreError, StoreFullError

UNFINISHED_SUFFIX: Final = ".unfinished"

_LEFT_BY_ROCKSDICT = re.compile(r"rocksdict-config\.json|LOG(\.old\.\d+)?")
_ERROR_TEXT_MAX: Final = 400
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class WrittenTableFile:
    """What was written."""

    rows: int
    size: int


def write_sorted_file(path: Path, rows: Iterable[tuple[bytes, bytes]]) -> WrittenTableFile:
    """Write rows into an SST file; no file where there are none. The name is there only once all is on disk.

    Args:
        rows: strictly ascending by key.
    Raises:
        RecordOrderError: they are not.
        StoreError: the file can't be written.
    """
    unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with writing(path):
        for old in (unfinished, path):
            old.unlink(missing_ok=True)
        writer = SstFileWriter(options=_options())
        last_key: bytes | None = None
        for key, row in rows:
            if last_key is None:
                writer.open(str(unfinished))
            elif key <= last_key:
                raise RecordOrderError(problem=f"rows do not ascend at key {key.hex()}", where=str(path))
            writer[key] = row
            last_key = key
            count += 1
        if not count:
            return WrittenTableFile(0, 0)
        writer.finish()
        del writer
        give_name(unfinished, path)
    return WrittenTableFile(count, path.stat().st_size)


def create_database(
    folder: Path, columns: Sequence[str], files: Mapping[str, Sequence[Path]], rows: Mapping[str, Mapping[bytes, bytes]]
) -> None:
    """Make a database of these columns from sorted files and some single rows. What lies in the folder is removed first.

    Args:
        files: by column, SST files that do not overlap; they are linked, so they stay, and must be on the folder's file system.
    Raises:
        StoreError: it can't be written.
    """
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        staging = folder.with_name(folder.name + ".staging")
        if staging.exists():
            shutil.rmtree(staging)
        folder.mkdir(parents=True)
        staging.mkdir()
        options = _options()
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        database = Rdict(str(folder), options=options, column_families={name: options for name in ("default", *columns)})
        try:
            for column in columns:
                _fill(database, column, files.get(column, ()), rows.get(column, {}), staging)
            database.flush()
        finally:
            database.close()
        shutil.rmtree(staging)
        for entry in folder.iterdir():
            if _LEFT_BY_ROCKSDICT.fullmatch(entry.name):
                entry.unlink()
        sync_folder(folder)


def _fill(database: Rdict, column: str, files: Sequence[Path], rows: Mapping[bytes, bytes], staging: Path) -> None:
    family = database.get_column_family(column)
    try:
        if files:
            # Links are moved in, so that the files themselves are still there for a rerun.
            links = [staging / f"{column}-{index:06d}.sst" for index in range(len(files))]
            for file, link in zip(files, links, strict=True):
                os.link(file, link)
            moving = IngestExternalFileOptions()
            moving.set_move_files(True)
            family.ingest_external_file([str(link) for link in links], moving)
        for key, row in rows.items():
            family[key] = row
        family.flush()
    finally:
        family.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system and rocksdict raise into errors of a store."""
    try:
        yield
    except (StoreError, RecordOrderError):
        raise
    except OSError as error:
        # pyarrow's have the number in their text alone.
        text = error.strerror or str(error)
        raise _failure(error.errno, text)(problem=f"it can't be written: {text[:_ERROR_TEXT_MAX]}", where=str(path)) from error
    except Exception as error:
        # rocksdict raises nothing more special than Exception.
        if type(error) is not Exception:
            raise
        text = " ".join(str(error).split())
        raise _failure(None, text)(problem=f"RocksDB can't write: {text[:_ERROR_TEXT_MAX]}", where=str(path)) from None


def _failure(number: int | None, text: str) -> type[StoreError]:
    for numbers, error_class in ((_FULL, StoreFullError), (_DENIED, StoreDeniedError)):
        if number in numbers or any(os.strerror(known) in text for known in numbers):
            return error_class
    return StoreError


def _options() -> Options:
    options = Options(raw_mode=True)
    options.set_compression_type(DBCompressionType.lz4())
    return options
