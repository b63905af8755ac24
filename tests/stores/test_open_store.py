"""From a URL to a store, and what is no store's URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.stores.azure_store import AzureStore
from pipelines.stores.file_store import FileStore
from pipelines.stores.fsspec_store import FsspecStore
from pipelines.stores.gcs_store import GcsStore
from pipelines.stores.http_store import HttpStore
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.open_store import open_store
from pipelines.stores.retrying import RetryingStore
from pipelines.stores.s3_store import S3Store
from schemas.errors import InvalidInputError
from tests.support.stored_bytes import stored_bytes


def test_a_path_and_its_url_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, absolute paths and file URLs meet; percent escapes of a URL are undone."""
    monkeypatch.chdir(tmp_path)
    here = FileStore(str(tmp_path / "a b"))
    assert [
        open_store(url) for url in ("a b", "./a b/", f"{tmp_path}/a b", f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a b")
    ] == [here] * 5


@pytest.mark.parametrize("name", ["a?b#c", "50%25", "100%", "a b", "tab\there", "line\nbreak"])
def test_a_folder_of_any_name_is_the_same_by_its_own_url(name: str, tmp_path: Path) -> None:
    """What is written by a path is read by the URL that the store says it has."""
    written = open_store(str(tmp_path / name))
    written.put("object", b"x")
    assert open_store(written.url) == written
    assert (tmp_path / name / "object").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("gs://bucket/folder", GcsStore),
        ("s3://bucket/folder", S3Store),
        ("az://container/folder", AzureStore),
        ("https://host/folder", HttpStore),
        ("zip://folder::/data/archive.zip", FsspecStore),
    ],
)
def test_remote_stores_retry_unless_told_not_to(url: str, kind: type) -> None:
    """Opening makes no connection, keeps the URL, and wraps the store for retries."""
    wrapped, plain = open_store(url if "::" in url else url + "/"), open_store(url, retry=None)
    assert isinstance(wrapped, RetryingStore)
    assert isinstance(wrapped.inner, kind)
    assert isinstance(plain, kind)
    assert wrapped.url == plain.url == url.removesuffix("/")


def test_memory_stores_of_one_name_are_one_folder() -> None:
    """Inside a process the name is the identity."""
    open_store("memory://open/one").put("object", b"x")
    assert stored_bytes(open_store("memory://open/one"), "object") == b"x"
    assert open_store("memory://open/two").info("object") is None
    assert isinstance(open_store("memory://open"), MemoryStore)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gopher://host/folder",
        "https://user:secret@host/folder",
        "https://host/folder?token=secret",
        "ftp://user:secret@host/folder",
        "zip://::ftp://user:secret@host/folder.zip",
        "az://key:secret@container/x",
        "gs://",
        "gs:///folder",
        "s3://UPPER/x",
        "gs://bucket/../x",
        "gs://bucket/a b",
        "s3://key:secret@bucket/x",
        "s3://bucket/x?secret=1",
        "file://host/x",
        "file:///x?y",
        "file:///x#z",
        "file://",
    ],
)
def test_what_is_no_store_is_refused(url: str) -> None:
    """A usage error that names no secret."""
    with pytest.raises(InvalidInputError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_s3_without_s3fs_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the line that installs what is missing."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InvalidInputError, match=r"statecast\[s3\]"):
        open_store("s3://bucket/folder")


def test_a_folder_alone_is_read_past_the_store(tmp_path: Path) -> None:
    """Links and memory maps go by the folder itself; a bucket has none."""
    assert open_store(f"file://{tmp_path}").local_root() == tmp_path
    remote = ("gs://bucket", "s3://bucket", "az://container", "memory://name", "https://host")
    assert [open_store(url).local_root() for url in remote] == [None] * len(remote)
