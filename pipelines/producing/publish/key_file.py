"""Signing keys in files.

A key file is JSON as NEAR's validator_key.json has it: ``public_key`` and ``secret_key`` (or ``private_key``, as near-cli writes), in
the form ``ed25519:BASE58``; a secret key is 64 bytes, the seed and the public key. Other fields are ignored. The file is readable by
its owner alone, or comes through standard input: then its owner may be another user than this process's, whose workers can't read it.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipelines.producing.publish.process_memory import close_to_others
from pipelines.producing.publish.signing import Signer
from pipelines.stores.regular_file import open_regular
from pipelines.trust.signatures import library_key
from schemas.errors import InvalidInputError
from schemas.ids import base58_decode, base58_encode
from schemas.published.public_key import KeyScheme, PublicKey

STANDARD_INPUT = "-"
"""Stands for standard input where a key file is named."""

SEED_BYTES = 32
KEY_FILE_BYTES_MAX = 1 << 16
"""Largest key file that is read."""

_PREFIX = "ed25519:"
_SECRET_LENGTH_MAX = 90
"""Longest base58 of 64 bytes is 88 characters."""


def generate_key(path: Path) -> str:
    """Make a key and write it to a new file of mode 0600; return the public key.

    Raises:
        InvalidInputError: there is a file already, or it can't be written.
    """
    private_key = Ed25519PrivateKey.generate()
    seed = private_key.private_bytes_raw()
    public_key = PublicKey(private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    secret_key = _PREFIX + base58_encode(seed + public_key.data)
    text = json.dumps({"public_key": str(public_key), "secret_key": secret_key}, indent=2) + "\n"
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
    return str(public_key)


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
    try:
        document = json.loads(data) if len(data) <= KEY_FILE_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidInputError(problem="this is no key file", where=where, remedy="It holds JSON with public_key and secret_key.")
    secret = _decode_secret(document.get("secret_key", document.get("private_key")))
    if secret is None:
        raise InvalidInputError(problem="secret_key is not ed25519: and the base58 of 64 bytes", where=where)
    signer = _signer_of(secret)
    if signer is None or document.get("public_key") != str(signer.public_key):
        raise InvalidInputError(problem="public_key and secret_key do not belong together", where=where)
    return signer


def _decode_secret(value: object) -> bytes | None:
    if not isinstance(value, str) or not value.startswith(_PREFIX) or len(value) > len(_PREFIX) + _SECRET_LENGTH_MAX:
        return None
    try:
        secret = base58_decode(value.removeprefix(_PREFIX))
    except InvalidInputError:
        # The error would repeat a part of the secret.
        return None
    return secret if len(secret) == SEED_BYTES + KeyScheme.ED25519.key_bytes else None


def _signer_of(secret: bytes) -> Signer | None:
    """Return the signer of a 64-byte secret key; None when its public half is not its seed's."""
    seed, public = secret[:SEED_BYTES], secret[SEED_BYTES:]
    private_key = Ed25519PrivateKey.from_private_bytes(seed)
    if private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != public:
        return None
    key = PublicKey(public)

    def sign(signed: bytes) -> bytes:
        # Imported here: the package loads every cloud's key service that is installed.
        from securesystemslib.signer import CryptoSigner

        return bytes.fromhex(CryptoSigner(private_key, library_key(key)).sign(signed).signature)

    return Signer(key, sign)
