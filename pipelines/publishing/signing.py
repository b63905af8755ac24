"""Signing keys in files, and signatures on DSSE envelopes.

A key file is JSON as NEAR's validator_key.json has it: ``public_key`` and ``secret_key`` (or ``private_key``, as near-cli writes), in
the form ``ed25519:BASE58``; a secret key is 64 bytes, the seed and the public key. Other fields are ignored. The file is readable by
its owner alone. Only the process that publishes holds a signer; it can't be pickled to workers.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from schemas.dsse import SIGNATURES_MAX, Envelope, EnvelopeSignature
from schemas.errors import InvalidInputError, ManifestError, SignatureError
from schemas.ids import base58_decode, base58_encode
from schemas.in_toto import PAYLOAD_TYPE
from schemas.public_key import PUBLIC_KEY_BYTES, PublicKey

SEED_BYTES = 32
KEY_FILE_BYTES_MAX = 1 << 16
"""Largest key file that is read."""

_PREFIX = "ed25519:"
_SECRET_LENGTH_MAX = 90
"""Longest base58 of 64 bytes is 88 characters."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing key at hand."""

    public_key: PublicKey
    _seed: bytes = field(repr=False)

    def sign(self, envelope: Envelope) -> Envelope:
        """Return the envelope with this key's signature added, or replaced."""
        # Imported here: the package loads every cloud's key service that is installed.
        from securesystemslib.signer import CryptoSigner, SSlibKey

        key_id = self.public_key.key_id
        key = SSlibKey(key_id, "ed25519", "ed25519", {"public": self.public_key.data.hex()})
        signer = CryptoSigner(Ed25519PrivateKey.from_private_bytes(self._seed), key)
        signature = signer.sign(envelope.pre_authentication_encoding())
        return envelope.with_signatures((EnvelopeSignature(key_id, bytes.fromhex(signature.signature)),))

    def __reduce__(self) -> NoReturn:
        raise AssertionError("a signing key does not leave its process")


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
        SignatureError: no such file, readable by others, or not a key whose halves belong together. Never shows what is in it.
    """
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SignatureError(
            problem=f"the key file can't be read: {error.strerror}", where=str(path), remedy="statecast keygen makes one."
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise SignatureError(problem="the key file can be read or changed by others", where=str(path), remedy=f"chmod 600 {path}")
    try:
        document = json.loads(data) if len(data) <= KEY_FILE_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise SignatureError(problem="this is no key file", where=str(path), remedy="It holds JSON with public_key and secret_key.")
    secret = _decode_secret(document.get("secret_key", document.get("private_key")))
    if secret is None:
        raise SignatureError(problem="secret_key is not ed25519: and the base58 of 64 bytes", where=str(path))
    signer = _signer_of(secret)
    if signer is None or document.get("public_key") != str(signer.public_key):
        raise SignatureError(problem="public_key and secret_key do not belong together", where=str(path))
    return signer


def sign_payload(payload: bytes, signers: Sequence[Signer], payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Put a payload into an envelope signed by all of these; by none: unsigned."""
    envelope = Envelope(payload, payload_type)
    for signer in signers:
        envelope = signer.sign(envelope)
    return envelope


def merge_signatures(ours: Envelope, theirs: Envelope, where: str) -> Envelope:
    """Return our envelope with the signatures of another one over the same payload added; for a key in both, ours stays.

    Raises:
        ManifestError: the payloads differ, or there would be more signatures than an envelope may have.
    """
    if (ours.payload, ours.payload_type) != (theirs.payload, theirs.payload_type):
        raise ManifestError(
            problem=f"payloads {ours.payload_sha256} and {theirs.payload_sha256} differ, so their signatures can't be merged", where=where
        )
    merged = theirs.with_signatures(ours.signatures)
    if len(merged.signatures) > SIGNATURES_MAX:
        raise ManifestError(
            problem=f"an envelope has at most {SIGNATURES_MAX} signatures", where=where, remedy="Merge those of known keys alone."
        )
    return merged


def _decode_secret(value: object) -> bytes | None:
    if not isinstance(value, str) or not value.startswith(_PREFIX) or len(value) > len(_PREFIX) + _SECRET_LENGTH_MAX:
        return None
    try:
        secret = base58_decode(value.removeprefix(_PREFIX))
    except InvalidInputError:
        # The error would repeat a part of the secret.
        return None
    return secret if len(secret) == SEED_BYTES + PUBLIC_KEY_BYTES else None


def _signer_of(secret: bytes) -> Signer | None:
    """Return the signer of a 64-byte secret key; None when its public half is not its seed's."""
    seed, public = secret[:SEED_BYTES], secret[SEED_BYTES:]
    derived = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Signer(PublicKey(public), seed) if derived == public else None
