"""Key files and signatures."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope as LibraryEnvelope
from securesystemslib.signer import SSlibKey

from pipelines.producing.publish.key_file import generate_key, load_signer
from pipelines.producing.publish.signing import Signer, add_signatures, sign_payload
from schemas.errors import InvalidInputError, ManifestError, SignatureError
from schemas.ids import base58_decode, base58_encode
from schemas.published.dsse import EnvelopeSignature
from schemas.published.public_key import KeyScheme, PublicKey

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
    with pytest.raises(InvalidInputError) as caught:
        load_signer(key_file)
    assert document["secret_key"][8:30] not in str(caught.value)


def test_a_key_that_others_can_read_is_refused(key_file: Path) -> None:
    """The error says how to mend it."""
    os.chmod(key_file, 0o640)
    with pytest.raises(InvalidInputError, match="chmod 600"):
        load_signer(key_file)
    with pytest.raises(InvalidInputError, match="keygen"):
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


def test_a_signature_is_added_to_those_of_others(tmp_path: Path) -> None:
    """A forged one under our key id is replaced; another type and endless lists are refused."""
    for name in ("a", "b"):
        generate_key(tmp_path / name)
    ours, theirs = load_signer(tmp_path / "a"), load_signer(tmp_path / "b")
    forged = sign_payload(b"payload", [theirs]).with_signatures((EnvelopeSignature(ours.public_key.key_id, b"forged"),))
    assert add_signatures(forged, [ours], "test") == sign_payload(b"payload", [theirs, ours])
    with pytest.raises(ManifestError, match="type"):
        add_signatures(sign_payload(b"payload", [theirs], "text/plain"), [ours], "test")
    flood = sign_payload(b"payload", ()).with_signatures(tuple(EnvelopeSignature(f"{number:064x}", b"") for number in range(256)))
    with pytest.raises(ManifestError, match="at most 256"):
        add_signatures(flood, [ours], "test")


def test_a_signature_that_is_there_already_stays() -> None:
    """Not every scheme gives the same signature twice: a rerun with nothing to say must not change a byte."""
    private_key = generate_private_key(SECP256R1())
    point = private_key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    signer = Signer(PublicKey(point, KeyScheme.ECDSA_P256), lambda signed: private_key.sign(signed, ECDSA(SHA256())))
    envelope = sign_payload(b"payload", [signer])
    assert sign_payload(b"payload", [signer]) != envelope, "ECDSA takes a random number for each signature"
    assert add_signatures(envelope, [signer], "test") == envelope


def test_a_signature_that_does_not_verify_is_not_taken(key_file: Path) -> None:
    """As where a key service signs with another version of the key than it showed."""
    public_key = load_signer(key_file).public_key
    with pytest.raises(SignatureError, match="does not verify"):
        sign_payload(b"payload", [Signer(public_key, lambda signed: bytes(64))])


def test_a_key_from_standard_input_is_left_to_no_child(key_file: Path) -> None:
    """The descriptor that it came through is empty for whatever is started later."""
    script = (
        "import subprocess, sys\n"
        "from pipelines.producing.publish.key_file import signer_from_standard_input\n"
        "print(signer_from_standard_input().public_key)\n"
        "sys.stdout.flush()\n"
        "subprocess.run(['cat'], check=True)\n"
    )
    with open(key_file, "rb") as key:
        done = subprocess.run([sys.executable, "-c", script], stdin=key, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{load_signer(key_file).public_key}\n"


@pytest.mark.parametrize("given", [b"", b"{}", b"x" * 70_000])
def test_standard_input_without_a_key_is_an_error(given: bytes) -> None:
    """It says how a key is given."""
    script = "from pipelines.producing.publish.key_file import signer_from_standard_input as read\nread()"
    done = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, timeout=60, check=False)
    assert b"InvalidInputError" in done.stderr and b"standard input" in done.stderr


def test_a_key_is_not_typed_into_a_terminal() -> None:
    """It would stand on the screen, without a prompt."""
    terminal, other_end = os.openpty()
    script = "from pipelines.producing.publish.key_file import signer_from_standard_input as read\nread()"
    for stdin in (other_end, None):
        command = [sys.executable, "-c", script] if stdin else ["sh", "-c", 'exec "$0" -c "$1" <&-', sys.executable, script]
        done = subprocess.run(command, stdin=stdin, capture_output=True, timeout=60, check=False)
        assert b"InvalidInputError: no key comes through it [standard input]" in done.stderr
    os.close(terminal)
    os.close(other_end)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux closes a process to others of its user")
def test_the_memory_of_a_process_with_a_key_is_closed(key_file: Path) -> None:
    """Another process of the same user opens nothing of it; one that it starts is as any."""
    script = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from pipelines.producing.publish.key_file import load_signer\n"
        "load_signer(Path(sys.argv[1]))\n"
        "print(subprocess.run(['cat', f'/proc/{os.getpid()}/environ'], capture_output=True, text=True).stderr, flush=True)\n"
        "subprocess.run(['sh', '-c', 'test -r /proc/$$/environ && echo open'])\n"
    )
    # Root's own powers look into every process.
    without_powers = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    command = [*without_powers, sys.executable, "-c", script, str(key_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Permission denied" in done.stdout and done.stdout.endswith("open\n"), done.stdout
