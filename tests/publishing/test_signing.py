"""Key files and signatures."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope as LibraryEnvelope
from securesystemslib.signer import SSlibKey

from pipelines.publishing.signing import generate_key, load_signer, merge_signatures, sign_payload
from schemas.dsse import EnvelopeSignature
from schemas.errors import InvalidInputError, ManifestError, SignatureError
from schemas.ids import base58_decode, base58_encode
from schemas.public_key import PublicKey

RFC_8032_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_8032_PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
"""Test 2 of RFC 8032, section 7.1."""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A fresh key."""
    generate_key(tmp_path / "folder" / "key.json")
    return tmp_path / "folder" / "key.json"


def test_a_key_file_has_nears_form_and_one_reader(key_file: Path) -> None:
    """ed25519: and base58, 64 bytes of seed and public key, mode 0600."""
    document = json.loads(key_file.read_text())
    secret = base58_decode(document["secret_key"].removeprefix("ed25519:"))
    assert set(document) == {"public_key", "secret_key"}
    assert len(secret) == 64
    assert PublicKey.parse(document["public_key"]).data == secret[32:]
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(key_file: Path) -> None:
    """The second keygen changes nothing."""
    before = key_file.read_bytes()
    with pytest.raises(InvalidInputError, match="never overwritten"):
        generate_key(key_file)
    assert key_file.read_bytes() == before


def test_a_key_of_the_standard_is_read_right(tmp_path: Path) -> None:
    """A seed of RFC 8032 gives its public key; near-cli's field name and further fields are taken."""
    path = tmp_path / "key.json"
    secret = "ed25519:" + base58_encode(RFC_8032_SEED + RFC_8032_PUBLIC)
    path.write_text(json.dumps({"account_id": "x.near", "public_key": str(PublicKey(RFC_8032_PUBLIC)), "private_key": secret}))
    path.chmod(0o600)
    signer = load_signer(path)
    assert signer.public_key.data == RFC_8032_PUBLIC
    [signature] = signer.sign(sign_payload(b"\x72", ())).signatures
    Ed25519PublicKey.from_public_bytes(RFC_8032_PUBLIC).verify(signature.signature, b"DSSEv1 28 application/vnd.in-toto+json 1 \x72")


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: "not json",
        lambda d: "[]",
        lambda d: json.dumps({**d, "secret_key": None}),
        lambda d: json.dumps({**d, "secret_key": d["secret_key"][:-2]}),
        lambda d: json.dumps({**d, "secret_key": d["secret_key"] + "0"}),
        lambda d: json.dumps({**d, "secret_key": d["secret_key"].removeprefix("ed25519:")}),
        lambda d: json.dumps({**d, "public_key": "ed25519:" + "1" * 32}),
        lambda d: json.dumps({"secret_key": d["secret_key"]}),
        lambda d: json.dumps({**d, "padding": "x" * 70_000}),
    ],
)
def test_a_damaged_key_file_is_refused(key_file: Path, damage: Callable[[dict[str, str]], str]) -> None:
    """And nothing of what is in it shows in the error."""
    document = json.loads(key_file.read_text())
    key_file.write_text(damage(document))
    with pytest.raises(SignatureError) as caught:
        load_signer(key_file)
    assert document["secret_key"][8:30] not in str(caught.value)


def test_a_key_that_others_can_read_is_refused(key_file: Path) -> None:
    """The error says how to mend it."""
    os.chmod(key_file, 0o640)
    with pytest.raises(SignatureError, match="chmod 600"):
        load_signer(key_file)
    with pytest.raises(SignatureError, match="keygen"):
        load_signer(key_file.with_name("missing"))


def test_a_signer_does_not_leave_its_process(key_file: Path) -> None:
    """It can't be pickled, and does not show its seed."""
    signer = load_signer(key_file)
    with pytest.raises(AssertionError):
        pickle.dumps(signer)
    assert "_seed" not in repr(signer)


def test_the_library_verifies_our_signatures(key_file: Path) -> None:
    """securesystemslib alone, from the wire form and the public key."""
    signer = load_signer(key_file)
    envelope = sign_payload(b"payload", [signer])
    key = SSlibKey(signer.public_key.key_id, "ed25519", "ed25519", {"public": signer.public_key.data.hex()})
    assert len(LibraryEnvelope.from_dict(json.loads(envelope.to_bytes())).verify([key], 1)) == 1
    assert sign_payload(b"payload", [signer]) == envelope, "ed25519 signatures are deterministic"


def test_signatures_of_identical_payloads_merge(tmp_path: Path) -> None:
    """The union, ours kept where both have one; other payloads and endless lists are refused."""
    for name in ("a", "b"):
        generate_key(tmp_path / name)
    ours, theirs = load_signer(tmp_path / "a"), load_signer(tmp_path / "b")
    mine = sign_payload(b"payload", [ours])
    forged = mine.with_signatures((EnvelopeSignature(ours.public_key.key_id, b"forged"),))
    merged = merge_signatures(mine, theirs.sign(forged), "test")
    assert merged == sign_payload(b"payload", [theirs, ours])
    with pytest.raises(ManifestError, match="differ"):
        merge_signatures(mine, sign_payload(b"other", [theirs]), "test")
    flood = mine.with_signatures(tuple(EnvelopeSignature(f"{number:064x}", b"") for number in range(256)))
    with pytest.raises(ManifestError, match="at most 256"):
        merge_signatures(mine, flood, "test")
