"""Node keys in files, as neard's node_key.json has them: ``public_key`` and ``secret_key`` (seed and public key) as ``ed25519:BASE58``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from pipelines.nearpeer.node_key import NodeKey
from schemas.errors import InvalidInputError
from schemas.ids import base58_decode, base58_encode

_PREFIX: Final = "ed25519:"
_FILE_BYTES_MAX: Final = 1 << 16
_SECRET_LENGTH_MAX: Final = 100


def read_or_make_node_key(path: Path) -> NodeKey:
    """Return the key of a file; make the file, of mode 0600, where there is none.

    A peer keeps its key: what it announced outlives it, and nodes go on asking the key that announced.

    Raises:
        InvalidInputError: the file holds no key, or can't be made.
    """
    try:
        with open(path, "rb") as file:
            return _parse(file.read(_FILE_BYTES_MAX + 1), path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InvalidInputError(problem=f"the node key can't be read: {error.strerror}", where=str(path)) from error
    key = NodeKey.generate()
    secret = _PREFIX + base58_encode(key.seed() + key.peer_id.key)
    text = json.dumps({"account_id": "", "public_key": str(key.peer_id), "secret_key": secret}, indent=2) + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InvalidInputError(problem=f"the node key can't be made: {error.strerror}", where=str(path)) from error
    return key


def _parse(data: bytes, path: Path) -> NodeKey:
    try:
        document = json.loads(data[:_FILE_BYTES_MAX])
        secret = document["secret_key"]
        if not secret.startswith(_PREFIX) or len(secret) > _SECRET_LENGTH_MAX:
            raise ValueError
        raw = base58_decode(secret.removeprefix(_PREFIX))
        if len(raw) != 64:
            raise ValueError
        key = NodeKey.from_seed(raw[:32])
    except (ValueError, KeyError, TypeError, AttributeError):
        # The text is a secret: it is not repeated.
        raise InvalidInputError(problem="this is no node key as neard's node_key.json has it", where=str(path)) from None
    if key.peer_id.key != raw[32:]:
        raise InvalidInputError(problem="the node key's two halves do not belong together", where=str(path))
    return key
