"""The stanza of config.json that lets a neard before 2.13 take state parts from a folder.

Source: nearcore core/chain-configs/src/client_config.rs, SyncConfig::ExternalStorage.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pipelines.near.node.node_home import CONFIG_BYTES_MAX
from pipelines.stores.regular_file import read_regular
from schemas.errors import InvalidInputError, SourceError

CONCURRENT_REQUESTS: Final = 4
"""How many parts the node reads at once."""


def external_storage_stanza(parts_root: Path) -> dict[str, Any]:
    """Return the fields of config.json.

    Args:
        parts_root: the folder that holds ``chain_id=…``.
    """
    return {
        "state_sync_enabled": True,
        "state_sync": {
            "sync": {
                "ExternalStorage": {
                    "location": {"Filesystem": {"root_dir": str(parts_root)}},
                    "num_concurrent_requests": CONCURRENT_REQUESTS,
                    "external_storage_fallback_threshold": 0,
                }
            }
        },
    }


def write_config(config_file: Path, parts_root: Path) -> Path | None:
    """Put the stanza into config.json, keeping everything else, the file's mode, and a copy of what was there.

    Returns:
        The copy; None when the stanza was there already.
    Raises:
        SourceError: the file can't be read or written.
        InvalidInputError: it has comments, which a rewrite would lose, or is no JSON object.
    """
    try:
        text = read_regular(config_file, CONFIG_BYTES_MAX)
    except OSError as error:
        raise SourceError(problem=f"config.json can't be read: {error.strerror}", where=str(config_file)) from error
    config = _parse(text, config_file)
    stanza = external_storage_stanza(parts_root)
    state_sync = config.get("state_sync")
    merged = {**config, **stanza, "state_sync": {**(state_sync if isinstance(state_sync, dict) else {}), **stanza["state_sync"]}}
    if merged == config:
        return None
    backup = config_file.with_name(f"config.json.before-statecast-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    unfinished = config_file.with_name(".config.json.unfinished")
    try:
        shutil.copy2(config_file, backup)
        # Made with the mode of the old one from the start: the file can hold secrets.
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, config_file.stat().st_mode & 0o777)
        with os.fdopen(descriptor, "w") as file:
            json.dump(merged, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, config_file.stat().st_mode & 0o777)
        unfinished.replace(config_file)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SourceError(problem=f"config.json can't be written: {error.strerror}", where=str(config_file)) from error
    return backup


def _parse(text: bytes, config_file: Path) -> dict[str, Any]:
    try:
        config = json.loads(text) if len(text) <= CONFIG_BYTES_MAX else None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            problem=f"config.json is not plain JSON, comments in it would be lost: {error}",
            where=str(config_file),
            remedy="Put the stanza that --plan prints into it by hand.",
        ) from None
    if not isinstance(config, dict):
        raise InvalidInputError(problem=f"config.json must be a JSON object of at most {CONFIG_BYTES_MAX} bytes", where=str(config_file))
    return config
