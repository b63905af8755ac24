"""Node keys in files, as neard's node_key.json has them (`schemas.nearcore.key_file`)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipelines.nearpeer.node_key import NodeKey
from schemas.errors import InvalidInputError
from schemas.nearcore.key_file import KEY_FILE_BYTES_MAX, SecretKey, halves_differ, read_key_file


def read_or_make_node_key(path: Path) -> NodeKey:
    """Return the key of a file; make the file, of mode 0600, where there is none.

    A peer keeps its key: what it announced outlives it, and nodes go on asking the key that announced.

    Raises:
        InvalidInputError: the file holds no key, or can't be made.
    """
    try:
        with open(path, "rb") as file:
            return _parse(file.read(KEY_FILE_BYTES_MAX + 1), str(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InvalidInputError(problem=f"the node key can't be read: {error.strerror}", where=str(path)) from error
    key = NodeKey.generate()
    secret = SecretKey(key.seed(), key.peer_id.key)
    text = json.dumps({"account_id": "", **secret.to_json()}, indent=2) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InvalidInputError(problem=f"the node key can't be made: {error.strerror}", where=str(path)) from error
    return key


def _parse(data: bytes, where: str) -> NodeKey:
    secret = read_key_file(data, where)
    key = NodeKey.from_seed(secret.seed)
    if key.peer_id.key != secret.public:
        raise halves_differ(where)
    return key
