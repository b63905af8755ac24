"""A nearcore RocksDB, opened strictly read-only.

rocksdict leaves a file in every folder that it opens, even read-only, so the database is opened through a private temporary folder
of symbolic links. That folder is gone as soon as the database is open: every table file is held open from then on (there is no limit
on open files), which also is why a running node may delete files under a reader without harm. Blob files, which a node may be configured
to keep large values in, are opened when a value is read, so where there are some the folder stays as long as the reader.

Only the column families that are asked for are opened. Rows of the others are skipped when the write-ahead log is replayed, so their
merge operators don't matter; those that are opened get RocksDB's string append operator as a stand-in for nearcore's reference
counting. It puts ``MERGE_DELIMITER`` between operands, and `pipelines.near.node.counted_value` takes them apart again.

This module knows nothing about what the rows mean.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import secrets
import shutil
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from rocksdict import AccessType, DbClosedError, Options, Rdict, RdictIter, ReadOptions

from pipelines.near.node.node_columns import display_name
from pipelines.stores.held_folder import HeldFolder, held_folder, make_held_folder
from schemas.errors import ColumnMissingError, SourceChangedError, SourceError, StatecastError

OPEN_ATTEMPTS_MAX: Final = 8
"""How often a database whose files vanish or grow while it is opened is tried again from a new listing."""

OPEN_RETRY_DELAY_S: Final = 0.05
"""Pause before the second attempt; it doubles with each further one."""

READERS_CACHED_MAX: Final = 8
"""Most databases that a process keeps open; the one used longest ago is closed first."""

SCAN_ROWS: Final = 512
"""Rows that one step of a scan takes from RocksDB. A row of flat state is below 7 KiB, so a step stays below 4 MiB."""

READAHEAD_BYTES: Final = 4 << 20
"""How far a scan reads ahead."""

MERGE_DELIMITER: Final = secrets.token_hex(16).encode()
"""Stands between the operands of a row that has pending merges. Random in each process: what can't be known in advance is in no
row, whatever a chain's users have stored."""

_MERGE_OPERATOR_OPTIONS = f"""[Version]
  rocksdb_version=8.0.0
  options_file_version=1.1

[DBOptions]

[CFOptions "default"]
  merge_operator={{id=StringAppendOperator;delimiter={MERGE_DELIMITER.decode()}}}

[TableOptions/BlockBasedTable "default"]
"""

_DATABASE_FILE = re.compile(r"CURRENT|IDENTITY|MANIFEST-\d+|\d+\.(sst|log|blob)")
# Nothing else is linked; least of all rocksdict-config.json, through whose link rocksdict would write into the node's home.

_NAMED_FILE = re.compile(r"(\d+\.(?:sst|log|blob)|MANIFEST-\d+|CURRENT)\b")
_ERROR_TEXT_MAX = 400

_ONCE = ReadOptions()
_ONCE.fill_cache(False)
_BLOB = ".blob"

Row = tuple[bytes, bytes]
Opened = TypeVar("Opened")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """One SST file of a column family."""

    first_key: bytes
    last_key: bytes
    size: int


class RocksDbReader:
    """Some column families of one database, as they were when it was opened."""

    def __init__(self, folder: Path, columns: Sequence[str], *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Open the database.

        Args:
            folder: where CURRENT lies.
            columns: column families to open; all of them must be there.
            sleep: waits some seconds for files that the node is changing.
        Raises:
            SourceError: not a database, half-written or damaged; the file is named.
            SourceChangedError: its files kept changing while it was opened.
            ColumnMissingError: a column family is not in it.
        """
        self.folder = folder
        self.columns = tuple(columns)
        self._database, links = _open(folder, self.columns, sleep)
        self._unlink = weakref.finalize(self, links.close)
        if not any(name.endswith(_BLOB) for name in os.listdir(links.path)):
            self._unlink()
        self._families = {column: self._database.get_column_family(column) for column in self.columns}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give up the open files. A second call does nothing."""
        self._families.clear()
        with contextlib.suppress(DbClosedError):
            self._database.close()
        self._unlink()

    def get(self, column: str, key: bytes, *, once: bool = False) -> bytes | None:
        """Return the row of a key; None when there is none.

        Args:
            once: nobody will read this row or its neighbours again.
        Raises:
            SourceError: the file that holds it is damaged.
        """
        try:
            row: bytes | None = self._families[column].get(key, read_opt=_ONCE if once else None)
        except DbClosedError:
            raise
        except Exception as error:
            raise _read_error(error, self.folder, column) from None
        return row

    def get_many(self, column: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the rows of some keys, in the keys' order; None where there is none.

        Raises:
            SourceError: a file that holds one is damaged.
        """
        try:
            rows: list[bytes | None] = self._families[column].get(list(keys))
        except DbClosedError:
            raise
        except Exception as error:
            raise _read_error(error, self.folder, column) from None
        return rows

    def first_key(self, column: str, key: bytes) -> bytes | None:
        """Return the first key that is not below ``key``; None when there is none.

        Raises:
            SourceError: the file that holds it is damaged.
        """
        return self._seek(column, lambda cursor: cursor.seek(key))

    def last_key(self, column: str, key: bytes) -> bytes | None:
        """Return the last key that is not above ``key``; None when there is none.

        Raises:
            SourceError: the file that holds it is damaged.
        """
        return self._seek(column, lambda cursor: cursor.seek_for_prev(key))

    def _seek(self, column: str, move: Callable[[RdictIter], None]) -> bytes | None:
        try:
            cursor = self._families[column].iter()
            move(cursor)
            if cursor.valid():
                found: bytes = cursor.key()
                return found
            cursor.status()
        except DbClosedError:
            raise
        except Exception as error:
            raise _read_error(error, self.folder, column) from None
        return None

    def scan(self, column: str, begin: bytes, end: bytes | None, readahead_bytes: int = READAHEAD_BYTES) -> Iterator[list[Row]]:
        """Yield the rows with begin <= key < end, ascending, in lists of at most ``SCAN_ROWS``.

        Args:
            readahead_bytes: how far it reads ahead.
        Raises:
            SourceError: a file is damaged.
        """

        def take(rows: Iterator[Row]) -> tuple[list[Row], bytes] | None:
            taken = list(itertools.islice(rows, SCAN_ROWS))
            return (taken, taken[-1][0]) if taken else None

        return self.scan_by(column, begin, end, take, readahead_bytes)

    def scan_by(
        self,
        column: str,
        begin: bytes,
        end: bytes | None,
        take: Callable[[Iterator[Row]], tuple[Made, bytes] | None],
        readahead_bytes: int = READAHEAD_BYTES,
    ) -> Iterator[Made]:
        """Yield what is made of the rows with begin <= key < end, which ascend.

        Args:
            take: takes some of the rows and gives what it makes of them, with the last key that it took; None where there are no more.
            readahead_bytes: how far it reads ahead.
        Raises:
            SourceError: a file is damaged. The end of a scan is checked, since rocksdict ends a failed one like a finished one.
        """
        family = self._families[column]
        options = ReadOptions()
        options.set_readahead_size(readahead_bytes)
        # What is read once would only drive out of the cache what is read again, and fill it to its 32 MiB.
        options.fill_cache(False)
        if end is not None:
            options.set_iterate_upper_bound(end)
        last_key: bytes | None = None
        try:
            rows: Iterator[Row] = family.items(from_key=begin, read_opt=options)
            while (taken := take(rows)) is not None:
                made, last_key = taken
                yield made
                del made, taken
            self._check_end(family, begin, last_key, end)
        except (DbClosedError, StatecastError):
            raise
        except Exception as error:
            raise _read_error(error, self.folder, column) from None

    def _check_end(self, family: Rdict, begin: bytes, last_key: bytes | None, end: bytes | None) -> None:
        cursor = family.iter()
        cursor.seek(begin if last_key is None else last_key)
        if last_key is not None and cursor.valid():
            cursor.next()
        if cursor.valid() and (end is None or cursor.key() < end):
            raise SourceError(
                problem=f"a scan of the database stopped before key {cursor.key().hex()}, though that row is there",
                where=str(self.folder),
                remedy="A file of the database is damaged.",
            )
        cursor.status()


def list_columns(folder: Path) -> tuple[str, ...]:
    """Return the names of a database's column families, from its MANIFEST.

    Raises:
        SourceError, SourceChangedError: as `RocksDbReader`.
    """
    found, links = _attempt(folder, lambda links: tuple(Rdict.list_cf(links)))
    links.close()
    return found


def table_files(folder: Path, column: str) -> tuple[DatabaseFile, ...]:
    """Return the SST files of one column family, by first key.

    rocksdict lists the files of all open families without naming the family, so this opens only one.

    Raises:
        SourceError, SourceChangedError, ColumnMissingError: as `RocksDbReader`.
    """
    database, links = _open(folder, (column,))
    links.close()
    try:
        listed: list[dict[str, Any]] = [
            file for file in database.live_files() if file["start_key"] is not None and file["end_key"] is not None
        ]
    finally:
        database.close()
    return tuple(
        sorted((DatabaseFile(file["start_key"], file["end_key"], file["size"]) for file in listed), key=lambda file: file.first_key)
    )


def cached_reader(folder: Path, columns: Sequence[str], *, reopen: bool = False) -> RocksDbReader:
    """Return this process's reader of a database, opening it at first use.

    Args:
        reopen: open it again, to see what a running node has written since.
    Raises:
        SourceError, SourceChangedError, ColumnMissingError: as `RocksDbReader`.
    """
    # The process id is part of the key: a forked child must not use its parent's handles.
    name = (os.getpid(), str(folder), tuple(columns))
    with _cache_lock:
        reader = None if reopen else _cache.get(name)
        if reader is None:
            reader = _cache[name] = RocksDbReader(folder, columns)
            # An evicted reader isn't closed: a scan may still run on it. Its files are closed with the last reference.
            while len(_cache) > READERS_CACHED_MAX:
                _cache.popitem(last=False)
        _cache.move_to_end(name)
        return reader


def forget_readers() -> None:
    """Drop all cached readers of this process."""
    with _cache_lock:
        _cache.clear()


_cache: OrderedDict[tuple[int, str, tuple[str, ...]], RocksDbReader] = OrderedDict()
_cache_lock = threading.Lock()


def _open(folder: Path, columns: tuple[str, ...], sleep: Callable[[float], None] = time.sleep) -> tuple[Rdict, HeldFolder]:
    _raise_open_files_limit()
    return _attempt(folder, lambda links: _open_links(links, columns), sleep)


def _open_links(links: str, columns: tuple[str, ...]) -> Rdict:
    database_options, family_options = _options_with_merge_operator()
    database_options.set_max_open_files(-1)
    database_options.set_skip_stats_update_on_db_open(True)
    families = {column: family_options for column in ("default", *columns)}
    return Rdict(links, options=database_options, column_families=families, access_type=AccessType.read_only(error_if_log_file_exist=False))


def _options_with_merge_operator() -> tuple[Options, Options]:
    # rocksdict can't set a merge operator by a call, but it takes one from an options file.
    with held_folder("options") as folder:
        (folder / "OPTIONS-000001").write_text(_MERGE_OPERATOR_OPTIONS)
        database_options, family_options = Options.load_latest(str(folder), ignore_unknown_options=True)
    return database_options, family_options["default"]


def _attempt(folder: Path, operation: Callable[[str], Opened], sleep: Callable[[float], None] = time.sleep) -> tuple[Opened, HeldFolder]:
    """Run an operation on a folder of links; again from a new listing while the database changes under it.

    Returns:
        Its result, and the folder of links, which is to be removed.
    """
    before = None
    for attempt in range(OPEN_ATTEMPTS_MAX):
        listing = _listing(folder)
        links = make_held_folder("links")
        try:
            _link(folder, listing, links.path)
            return operation(str(links.path)), links
        except Exception as error:
            links.close()
            failure = _open_error(error, folder, str(links.path))
        except BaseException:
            links.close()
            raise
        # The same failure on an unchanged folder will not go away.
        if isinstance(failure, ColumnMissingError) or before == (str(failure), listing):
            raise failure
        before = (str(failure), listing)
        sleep(OPEN_RETRY_DELAY_S * 2**attempt)
    raise SourceChangedError(
        problem=f"the database changed during each of {OPEN_ATTEMPTS_MAX} attempts to open it; the last one failed: {failure.problem}",
        where=str(folder),
        remedy="Run again when the node is less busy, or read from a state snapshot.",
    )


def _listing(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return names and sizes of the files that belong to the database."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if _DATABASE_FILE.fullmatch(entry.name))
    except OSError as error:
        raise SourceError(problem=f"the database folder can't be read: {error.strerror}", where=str(folder)) from None
    if "CURRENT" not in found:
        raise SourceError(
            problem="the folder has no file CURRENT: it is no RocksDB database, or was not written to its end",
            where=str(folder / "CURRENT"),
            remedy="Point to a node's home, or wait until the snapshot is complete.",
        )
    sizes = []
    for name in found:
        with contextlib.suppress(FileNotFoundError):
            sizes.append((name, (folder / name).stat().st_size))
    return tuple(sizes)


def _link(folder: Path, listing: tuple[tuple[str, int], ...], links: Path) -> None:
    for name, _ in listing:
        if name == "CURRENT":
            shutil.copyfile(folder / name, links / name)
        else:
            (links / name).symlink_to((folder / name).absolute())


def _raise_open_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_error(error: Exception, folder: Path, links: str) -> SourceError:
    text = " ".join(str(error).replace(links, str(folder)).split())
    family = re.search(r"Column family not found: (\S+)", text)
    if family is not None:
        return ColumnMissingError(
            problem=f"the database has no column family {display_name(family[1])}",
            where=str(folder),
            remedy="Point to the hot store or state snapshot of a nearcore node.",
        )
    if "Too many open files" in text:
        return SourceError(
            problem="the process may not open as many files as the database has", where=str(folder), remedy="Raise ulimit -n."
        )
    file = _NAMED_FILE.search(text)
    where = folder / file[1] if file is not None else folder
    if file is not None and not where.exists():
        return SourceError(
            problem=f"the database names {where.name}, but that file is missing",
            where=str(where),
            remedy="The folder is an incomplete copy, or its snapshot is being deleted.",
        )
    return SourceError(
        problem=f"the database can't be opened: {text[:_ERROR_TEXT_MAX]}",
        where=str(where),
        remedy="The file is damaged or was not written to its end.",
    )


def _read_error(error: Exception, folder: Path, column: str) -> SourceError:
    text = " ".join(str(error).split())
    file = _NAMED_FILE.search(text)
    # The path in the message is that of the link folder, which is gone; only the file's name means something.
    where = folder / file[1] if file is not None else folder
    if file is not None and not where.exists():
        return SourceChangedError(
            problem=f"column family {display_name(column)} can't be read: {where.name} is gone",
            where=str(where),
            remedy="The node has replaced it meanwhile: run again, or read from a state snapshot.",
        )
    problem = re.sub(r"\S*statecast-links-[^/\s]*/", "", text)[:_ERROR_TEXT_MAX]
    return SourceError(
        problem=f"column family {display_name(column)} can't be read: {problem}", where=str(where), remedy="The file is damaged."
    )
