"""The shard layout that a node's files name for a protocol version: that of its epoch configurations, else the genesis file's.

A chain that was resharded by its protocol has one configuration a layout, a file ``epoch_configs/VERSION.json`` in the node's home. The
layouts of mainnet and testnet are built into nearcore, which takes none of theirs from files; what is in the genesis file there is that
of the chain's first epochs.

Source: nearcore chain/epoch-manager/src/lib.rs, EpochManager::new_arc_handle; core/primitives/src/epoch_manager.rs, EpochConfigStore.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_home import NodeHome

SINGLE_SHARD_DOCUMENT: Final[dict[str, Any]] = {"V0": {"num_shards": 1, "version": 0}}
"""What nearcore takes where the genesis file names no layout."""

_BUILT_IN: Final = ("mainnet", "testnet")
_FOLDER: Final = "epoch_configs"
_FIELD: Final = "shard_layout"
_VERSION_DIGITS_MAX: Final = 10


def configured_layout(home: NodeHome, protocol_version: int) -> dict[str, Any] | None:
    """Return the JSON of the shard layout at a protocol version, in the form ``{"V2": {…}}``.

    Returns:
        None where no file names one: no genesis file, or a configuration with dynamic resharding, of which EpochInfo has the layout.
    Raises:
        SourceError: a file can't be read, or is not JSON.
    """
    if home.genesis_file is None or not home.genesis_file.is_file():
        return None
    genesis = read_genesis_fields(home.genesis_file, ("chain_id", _FIELD))
    files = _configurations(home, genesis)
    since = max((version for version in files if version <= protocol_version), default=None)
    return genesis.get(_FIELD) or SINGLE_SHARD_DOCUMENT if since is None else _layout_of(files[since])


def known_layouts(home: NodeHome) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield every layout that a node's files name, with its file: the genesis file's, then those of the epoch configurations.

    Raises:
        SourceError: a file can't be read, or is not JSON.
    """
    if home.genesis_file is None or not home.genesis_file.is_file():
        return
    genesis = read_genesis_fields(home.genesis_file, ("chain_id", _FIELD))
    yield genesis.get(_FIELD) or SINGLE_SHARD_DOCUMENT, home.genesis_file
    for _, file in sorted(_configurations(home, genesis).items()):
        if (layout := _layout_of(file)) is not None:
            yield layout, file


def _layout_of(file: Path) -> dict[str, Any] | None:
    return read_genesis_fields(file, (_FIELD,)).get(_FIELD)


def _configurations(home: NodeHome, genesis: Mapping[str, Any]) -> dict[int, Path]:
    """Return the files by the protocol version from which each holds."""
    if genesis.get("chain_id") in _BUILT_IN:
        return {}
    files = (home.home / _FOLDER).glob("*.json")
    return {int(file.stem): file for file in files if file.stem.isdecimal() and len(file.stem) <= _VERSION_DIGITS_MAX}
