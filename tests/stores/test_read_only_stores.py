"""Stores that are only read: web servers, and file systems of fsspec."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from pipelines.stores.fsspec_store import FsspecStore, _store_error
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.read_only import check_destination
from pipelines.stores.store import Store
from schemas.errors import (
    InvalidInputError,
    ObjectMismatchError,
    ObjectNotFoundError,
    RangeRefusedError,
    StoreDeniedError,
    StoreError,
    StoreNotListedError,
    TransientStoreError,
)
from tests.support.fault_server import fault_server
from tests.support.folder_server import folder_server
from tests.support.json_process import running_mirror
from tests.support.published import published_localnet
from tests.support.stored_bytes import stored_bytes
from tests.support.zip_archive import zipped

BODY = Random(1).randbytes(300_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with some objects."""
    root = tmp_path / "objects"
    (root / "folder/deep").mkdir(parents=True)
    (root / "object").write_bytes(BODY)
    (root / "empty").write_bytes(b"")
    (root / "folder/deep/other").write_bytes(b"0123456789")
    return root


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """The same in a zip file."""
    return zipped(folder, tmp_path / "archive.zip")


def writes(store: Store) -> list[Callable[[], object]]:
    """Return every call that changes a store."""
    return [
        lambda: store.put("object", b"x"),
        lambda: store.put("new", b"x", create_only=True),
        lambda: store.swap("object", b"x", None),
        lambda: store.delete("object"),
    ]


def test_a_mirror_is_read_whole_and_by_ranges() -> None:
    """Over statecast's own mirror: the same bytes as the folder's, cut as slices are."""
    name = next(info.name for info in open_store(str(published_localnet())).list() if "state_part_" in info.name)
    data = (published_localnet() / name).read_bytes()
    with running_mirror(published_localnet()) as (_, url):
        store = open_store(url, retry=None)
        ranges = [
            (0, 1 << 40),
            (0, 10),
            (2, 5),
            (4, 1 << 30),
            (5, 5),
            (len(data) - 3, len(data) + 9),
            (len(data), len(data) + 1),
            (len(data) + 5, len(data) + 9),
        ]
        assert [store.get(name, start, stop) == data[start:stop] for start, stop in ranges] == [True] * len(ranges)
        found = store.info(name)
        assert found is not None
        assert (found.size, bool(found.version)) == (len(data), True)
        with store.open(name) as file:
            file.seek(100)
            assert file.read(50) == data[100:150]
        absent = name.replace("state_part_0", "state_part_9")
        assert store.info(absent) is None
        for call in (lambda: stored_bytes(store, absent), lambda: store.get(absent, 3, 3), lambda: store.open(absent)):
            with pytest.raises(ObjectNotFoundError):
                call()


def test_a_server_without_ranges_gives_objects_from_their_beginning(folder: Path) -> None:
    """A first range is cut out of the whole; a later one is refused, since to read up to it may be to read everything."""
    with folder_server(folder, has_ranges=False) as url:
        store = open_store(url, retry=None)
        assert (stored_bytes(store, "object"), store.get("object", 0, 10), stored_bytes(store, "empty")) == (BODY, BODY[:10], b"")
        info = store.info("object")
        assert info is not None
        assert (info.size, info.modified is None) == (len(BODY), False)
        with pytest.raises(RangeRefusedError):
            store.get("object", 5, 9)


def test_a_web_server_is_not_listed_and_not_written(folder: Path) -> None:
    """Both are said in one sentence, the second with the schemes that can be written."""
    with folder_server(folder, has_ranges=False) as url:
        store = open_store(url, retry=None)
        with pytest.raises(StoreNotListedError, match="can't be listed"):
            list(store.list("folder"))
        for write in writes(store):
            with pytest.raises(StoreDeniedError, match=r"only read.*s3://"):
                write()
        assert pickle.loads(pickle.dumps(store)) == store


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("deny", StoreDeniedError),
        ("unavailable", TransientStoreError),
        ("close", TransientStoreError),
        ("redirect-loop", StoreError),
        ("compress", StoreError),
    ],
)
def test_faults_of_a_web_server_are_told_apart(folder: Path, tmp_path: Path, fault: str, error: type[StoreError]) -> None:
    """As those of a bucket."""
    with fault_server(folder, tmp_path / "log", fault, everything=True) as server, pytest.raises(error) as caught:
        stored_bytes(open_store(server.url, retry=None), "object")
    assert type(caught.value) is error


def test_a_redirect_is_followed(folder: Path, tmp_path: Path) -> None:
    """Within bounds: the client is that of the fetch."""
    with fault_server(folder, tmp_path / "log", "redirect", everything=True) as server:
        assert stored_bytes(open_store(server.url, retry=None), "object") == BODY


def test_a_body_that_never_ends_is_left(folder: Path, tmp_path: Path) -> None:
    """No more is read than an object can be."""
    with (
        fault_server(folder, tmp_path / "log", "endless", everything=True) as server,
        pytest.raises(ObjectMismatchError, match="more than"),
    ):
        read_object(open_store(server.url, retry=None), "object", 1 << 20)


def test_an_archive_is_read_as_a_folder(archive: Path) -> None:
    """By fsspec's zip: whole, by ranges, listed in the order of names; a folder is no object."""
    store = open_store(f"zip://::{archive}")
    assert [(info.name, info.size) for info in store.list()] == [("empty", 0), ("folder/deep/other", 10), ("object", len(BODY))]
    assert [info.name for info in store.list("folder")] == ["folder/deep/other"]
    assert list(store.list("missing")) == []
    ranges = [(0, 11), (0, 10), (2, 5), (4, 1 << 40), (9, 10), (5, 5), (8, 100), (10, 11), (20, 30)]
    name = "folder/deep/other"
    assert [store.get(name, start, stop) for start, stop in ranges] == [b"0123456789"[start:stop] for start, stop in ranges]
    assert store.info(name) == next(store.list("folder"))
    assert stored_bytes(open_store(f"zip://folder::{archive}"), "deep/other") == b"0123456789"
    for absent in ("missing", "folder", "missing/deep"):
        assert store.info(absent) is None
        with pytest.raises(ObjectNotFoundError):
            stored_bytes(store, absent)
    for name in ("../x", "/object", ""):
        with pytest.raises(InvalidInputError):
            stored_bytes(store, name)


def test_an_archive_is_not_written(archive: Path) -> None:
    """fsspec's file systems can't create a file on the condition that there is none, so none is written by them."""
    before = archive.read_bytes()
    for write in writes(open_store(f"zip://::{archive}")):
        with pytest.raises(StoreDeniedError, match=r"zip:// is only read.*az://"):
            write()
    assert archive.read_bytes() == before


def test_a_table_in_an_archive_can_be_read_anywhere(folder: Path, tmp_path: Path) -> None:
    """Arrow reads record batches in any order."""
    sink, table = io.BytesIO(), pa.table({"number": range(10_000)})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)
    (folder / "table.arrow").write_bytes(sink.getvalue())
    store = open_store(f"zip://::{zipped(folder, tmp_path / 'other.zip')}")
    with store.open("table.arrow") as file, pa.ipc.open_file(file) as reader:
        assert reader.get_batch(7).column(0)[0].as_py() == 7000


def test_threads_take_turns_at_one_connection(archive: Path) -> None:
    """Most of fsspec's file systems have one, and two readers at a time would mix their answers."""
    store = open_store(f"zip://::{archive}", retry=None)
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda start: store.get("object", start, start + 5000) == BODY[start : start + 5000], range(0, 250_000, 1000))
        assert all(read)
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert stored_bytes(copy, "empty") == b""


def test_a_scheme_whose_package_is_missing_names_it() -> None:
    """fsspec knows which package it is."""
    with pytest.raises(InvalidInputError, match="paramiko"):
        FsspecStore.parse("sftp://host/folder")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError("x"), ObjectNotFoundError),
        (PermissionError("x"), StoreDeniedError),
        (ConnectionResetError("x"), TransientStoreError),
        (EOFError("x"), TransientStoreError),
        (TimeoutError("x"), TransientStoreError),
        (OSError("x"), StoreError),
    ],
)
def test_errors_of_fsspec(error: Exception, expected: type[StoreError]) -> None:
    """Only transient faults are worth another try."""
    assert type(_store_error(error, "zip://")) is expected


@pytest.mark.parametrize("url", ["/folder", "relative", "file:///folder", "memory://x", "gs://b", "s3://b", "az://c"])
def test_what_can_be_written_is_a_destination(url: str) -> None:
    """By its scheme."""
    check_destination(url, "--to")


@pytest.mark.parametrize("url", ["https://host/x", "ftp://host/x", "zip://::/x.zip", "simplecache::s3://b/x", "gcs://b"])
def test_what_is_only_read_is_no_destination(url: str) -> None:
    """The option is named, and where one can write."""
    with pytest.raises(InvalidInputError, match=r"only read.*--to.*gs://"):
        check_destination(url, "--to")
