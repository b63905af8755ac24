"""Homes of nodes for tests: unpacked once a session and only read, or copied and then changed."""

from __future__ import annotations

import atexit
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rocksdict import Options, Rdict

from pipelines.near.epoch.node_context import open_node
from schemas.nearcore.epoch_context import EpochContext, parse_epoch_context

NODES = Path(__file__).resolve().parents[1] / "fixtures" / "nodes"
LOCALNET_EPOCH_HEIGHT = 6
LOCALNET_EPOCH_ID = "3jRZ8aoF7c92LXvfL7FCe4tqNzypHe5n7fDD3DP3hZ7H"

_WRITABLE_OPTIONS = """[Version]
  rocksdb_version=8.0.0
  options_file_version=1.1

[DBOptions]

[CFOptions "default"]
  merge_operator={id=StringAppendOperator;delimiter=}

[TableOptions/BlockBasedTable "default"]
"""


@lru_cache
def unpacked(archive: Path) -> Path:
    """Return an archive's one folder, unpacked for this session. It must not be changed."""
    folder = Path(tempfile.mkdtemp(prefix="nodes-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def node_a() -> Path:
    """Return a home with pending merges, a delta after the flat head and a shard that was born by resharding; no epoch columns."""
    return unpacked(NODES / "node-a.tar.gz")


def node_b() -> Path:
    """Return a larger home of the same kind."""
    return unpacked(NODES / "node-b.tar.xz")


def localnet() -> Path:
    """Return a real node's ``home``, what its dumper wrote (``dump``) and its answers to JSON-RPC (``rpc.json.gz``)."""
    return unpacked(NODES / "localnet.tar.gz")


def localnet_home() -> Path:
    """Return the real node's home."""
    return localnet() / "home"


def context_file(home: Path, name: str = "context.json") -> EpochContext:
    """Read a context that comes with a fixture."""
    return parse_epoch_context((home / name).read_bytes(), name)


def check_context_against_node(context: EpochContext, home: Path) -> None:
    """Compare a given context with what a node knows of its epoch."""
    with open_node(home) as node:
        node.check(context, "the given context", of_given=True)


def node_facts(home: Path) -> dict[str, Any]:
    """Return what is known of each shard of a fixture, by shard uid."""
    facts = json.loads((home / "node.json").read_text())
    return {shard["shard_uid"]: shard for shard in facts["shards"]}


def copied(home: Path, folder: Path) -> Path:
    """Copy a home so that a test can damage it."""
    copy = folder / "home"
    shutil.copytree(home, copy)
    return copy


def snapshot_folder(home: Path) -> Path:
    """Return the database folder of a home's only state snapshot."""
    (snapshot,) = (home / "data" / "state_snapshot").iterdir()
    return snapshot / "data"


def tree(folder: Path) -> list[tuple[str, int, int]]:
    """Return all names under a folder with their sizes and times of change, without the time of the last access."""
    entries = [folder, *sorted(folder.rglob("*"))]
    return [(str(path.relative_to(folder)), path.lstat().st_size, path.lstat().st_mtime_ns) for path in entries]


def open_writable(data: Path) -> Rdict:
    """Open a copied database for writing, all column families; what nearcore's merge operator does is not done."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "OPTIONS-000001").write_text(_WRITABLE_OPTIONS)
        options, families = Options.load_latest(folder, ignore_unknown_options=True)
    return Rdict(str(data), options=options, column_families=dict.fromkeys(Rdict.list_cf(str(data)), families["default"]))


def change_rows(data: Path, column: str, rows: Mapping[bytes, bytes | None]) -> None:
    """Write rows of a copied database; None removes one."""
    database = open_writable(data)
    family = database.get_column_family(column)
    for key, row in rows.items():
        if row is None:
            del family[key]
        else:
            family[key] = row
    family.close()
    database.close()


def drop_column(data: Path, column: str) -> None:
    """Remove a column family from a copied database."""
    database = open_writable(data)
    database.drop_column_family(column)
    database.close()


def new_database(data: Path, rows: dict[str, dict[bytes, bytes]]) -> None:
    """Make a database of some column families."""
    data.mkdir(parents=True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    database = Rdict(str(data), options=options, column_families={name: options for name in ("default", *rows)})
    for name, columns in rows.items():
        family = database.get_column_family(name)
        for key, row in columns.items():
            family[key] = row
        family.flush()
        family.close()
    database.close()
