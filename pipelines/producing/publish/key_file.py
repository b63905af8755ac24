"""Signing keys in files, as `schemas.nearcore.key_file` has them.

A file is readable by its owner alone, or comes through standard input: then its owner may be another user than this process's, whose workers
can't read it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines.producing.publish.process_memory import close_to_others
from pipelines.producing.publish.signing import Signer
from pipelines.stores.regular_file import open_regular
from pipelines.trust.signatures import library_key
from schemas.errors import InvalidInputError
from schemas.nearcore.key_file import KEY_FILE_BYTES_MAX, SecretKey, halves_differ, read_key_file
from schemas.published.public_key import PublicKey

STANDARD_INPUT = "-"
"""Stands for standard input where a key file is named."""


def generate_key(path: Path) -> str:
    """Make a key and write it to a new file of mode 0600; return the public key.

    Raises:
        InvalidInputError: there is a file already, or it can't be written.
    """
    private_key = Ed25519PrivateKey.generate()
    key = SecretKey(private_key.private_bytes_raw(), private_key.public_key().public_bytes_raw())
    text = json.dumps(key.to_json(), indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InvalidInputError(
            problem="there is a file already, and a key is never overwritten", where=str(path), remedy="Name another file."
        ) from None
    except OSError as error:
        raise InvalidInputError(problem=f"the key file can't be made: {error.strerror}", where=str(path)) from error
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # Half a key is worse than none.
        with suppress(OSError):
            path.unlink()
        raise InvalidInputError(problem=f"the key file can't be written: {error.strerror}", where=str(path)) from error
    return key.public_text


def load_signer(path: Path) -> Signer:
    """Read a key file.

    Raises:
        InvalidInputError: no such file, readable by others, or not a key whose halves belong together. Never shows what is in it.
    """
    close_to_others()
    try:
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInputError(
            problem=f"the key file can't be read: {error.strerror}", where=str(path), remedy="statecast keygen makes one."
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInputError(problem="the key file can be read or changed by others", where=str(path), remedy=f"chmod 600 {path}")
    return _parse(data, str(path))


def signer_from_standard_input() -> Signer:
    """Read a key file from standard input, which is empty from then on: no process that is started later inherits it.

    Raises:
        InvalidInputError: as of a file.
    """
    where, remedy = "standard input", "Write `--signing-key - < KEY_FILE`."
    close_to_others()
    # A key that is pasted into a terminal stands on the screen.
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise InvalidInputError(problem="no key comes through it", where=where, remedy=remedy)
    try:
        data = sys.stdin.buffer.read(KEY_FILE_BYTES_MAX + 1)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), sys.stdin.fileno())
    except OSError as error:
        raise InvalidInputError(problem=f"no key can be read: {error.strerror}", where=where, remedy=remedy) from error
    return _parse(data, where)


def _parse(data: bytes, where: str) -> Signer:
    key = read_key_file(data, where)
    signer = _signer_of(key)
    if signer is None:
        raise halves_differ(where)
    return signer


def _signer_of(secret: SecretKey) -> Signer | None:
    """Return the signer of a secret key; None when its public half is not its seed's."""
    private_key = Ed25519PrivateKey.from_private_bytes(secret.seed)
    if private_key.public_key().public_bytes_raw() != secret.public:
        return None
    key = PublicKey(secret.public)

    def sign(signed: bytes) -> bytes:
        # Imported here: the package loads every cloud's key service that is installed.
        from securesystemslib.signer import CryptoSigner

        return bytes.fromhex(CryptoSigner(private_key, library_key(key)).sign(signed).signature)

    return Signer(key, sign)
