"""Where things are in a nearcore node's home folder, as its config.json says.

Reads config.json and names files; opens no database and no genesis file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.stores.regular_file import open_regular
from schemas.errors import SourceError
from schemas.json_limits import JsonLimits

CONFIG_BYTES_MAX = 16 << 20
"""Largest config.json that is read."""

IDENTITY_BYTES_MAX = 1 << 10
"""Largest IDENTITY of a database that is read; RocksDB writes a line."""

NAME_LENGTH_MAX = 255
"""Longest name of a file."""

# What has no end goes to the file's end, so that it is looked for once.
_JSON_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class NodeHome:
    """The places that statecast reads in a node's home."""

    home: Path
    data: Path
    """The hot store."""
    cold_data: Path | None
    """An archival node's cold store, where config.json names one."""
    genesis_file: Path | None
    """None without a config.json that names it."""
    genesis_records_file: Path | None = None
    """Where the genesis keeps its records apart."""
    makes_snapshots: bool | None = None
    """Whether config.json tells the node to keep a state snapshot of each epoch; None where it leaves that to the release.

    Source: nearcore core/store/src/config.rs, StateSnapshotType: EveryEpoch and ForReshardingOnly are the names of before 2.8.
    """

    @property
    def databases(self) -> tuple[Path, ...]:
        """The hot store, then the cold store if it is there: a node makes it with the first rows that it moves."""
        return (self.data,) if self.cold_data is None or not self.cold_data.is_dir() else (self.data, self.cold_data)

    @property
    def snapshots(self) -> Path:
        """The folder whose subfolders are state snapshots.

        Source: nearcore core/store/src/trie/state_snapshot.rs, StateSnapshotConfig.
        """
        return self.data / "state_snapshot"


def read_node_home(node_home: str | Path) -> NodeHome:
    """Look a node's home up. Without a config.json the hot store is ``data``, nearcore's default; ``cold-data`` is a cold store's.

    Source: nearcore core/store/src/opener.rs, DBOpener::new.

    Raises:
        SourceError: the folder or its hot store is not there, or config.json can't be used.
    """
    home = Path(node_home)
    if not home.is_dir():
        raise SourceError(
            problem="the node's home is not a folder", where=str(home), remedy="Give the folder that holds config.json and data."
        )
    config = read_node_config(home / "config.json")
    store = config.get("store") or {}
    cold_store = config.get("cold_store")
    if not isinstance(store, dict) or not isinstance(cold_store, dict | None):
        raise SourceError(problem="store and cold_store must be JSON objects", where=str(home / "config.json"))
    data = _path(home, store.get("path") or "data")
    if not data.is_dir():
        raise SourceError(
            problem="the node has no database folder", where=str(data), remedy="Give the node's home, not the folder inside it."
        )
    genesis, genesis_records = config.get("genesis_file"), config.get("genesis_records_file")
    return NodeHome(
        home=home,
        data=data,
        cold_data=None if cold_store is None else _path(home, cold_store.get("path") or "cold-data"),
        genesis_file=_path(home, genesis) if genesis else None,
        genesis_records_file=_path(home, genesis_records) if genesis_records else None,
        makes_snapshots=_makes_snapshots(store),
    )


def _makes_snapshots(store: dict[str, Any]) -> bool | None:
    snapshots = store.get("state_snapshot_config")
    kind = snapshots.get("state_snapshot_type") if isinstance(snapshots, dict) else None
    return {"Enabled": True, "EveryEpoch": True, "Disabled": False, "ForReshardingOnly": False}.get(str(kind))


def read_node_config(config_file: Path) -> dict[str, Any]:
    """Read a node's config.json, comments and all; empty where there is none.

    Raises:
        SourceError: it can't be read, or is no JSON object.
    """
    try:
        with open_regular(config_file) as file:
            text = file.read(CONFIG_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SourceError(problem=f"config.json can't be read: {error.strerror}", where=str(config_file)) from None
    try:
        # nearcore allows comments in its JSON files.
        plain = _JSON_COMMENT.sub(lambda match: match[1] or "", text.decode())
        limits = JsonLimits(CONFIG_BYTES_MAX)
        too_much = limits.problem(text) if len(text) > CONFIG_BYTES_MAX else limits.problem(plain.encode())
        config = json.loads(plain) if too_much is None else None
    except (ValueError, RecursionError) as error:
        raise SourceError(problem=f"config.json is not JSON: {error}", where=str(config_file)) from None
    if not isinstance(config, dict):
        problem = "config.json must be a JSON object" if too_much is None else f"config.json can't be read: {too_much}"
        raise SourceError(problem=problem, where=str(config_file))
    return config


def _path(home: Path, configured: object) -> Path:
    if not isinstance(configured, str) or "\0" in configured or any(len(part) > NAME_LENGTH_MAX for part in configured.split("/")):
        raise SourceError(
            problem=f"a path in config.json is not text, or no system has such names: {configured!r:.80}", where=str(home / "config.json")
        )
    return home / configured
