"""Keys in key services: Amazon's as moto serves it over HTTP, Google's as its client library answers; nothing here reached either cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.api_core.exceptions import PermissionDenied
from google.cloud import kms
from moto.kms.utils import ECDSAPrivateKey

from pipelines.producing.publish.kms_key import open_kms_signer
from pipelines.producing.publish.signing import sign_payload
from pipelines.trust.signatures import TrustRule, agreed_signers
from schemas.errors import InvalidInputError, SignatureError
from schemas.published.public_key import PublicKey
from tests.support.commands import lasting_objects_in, statecast
from tests.support.nodes import localnet_home
from tests.support.servers import aws_environment, moto_server

GOOGLE_KEY = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"


@pytest.fixture(scope="module")
def amazon() -> Iterator[Any]:
    """A client of a key service that has no keys yet; what the program asks goes there too."""

    def sign_digest(key: ECDSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        return key.private_key.sign(message, ECDSA(Prehashed(SHA256())))

    with pytest.MonkeyPatch.context() as patch, aws_environment(), moto_server() as url:
        # moto does not implement MessageType DIGEST yet: it would hash the digest again.
        patch.setattr(ECDSAPrivateKey, "sign", sign_digest)
        patch.setenv("AWS_ENDPOINT_URL_KMS", url)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.client("kms")


def amazon_key(amazon: Any, kind: str = "ECC_NIST_P256") -> str:
    """Make a key; return its id."""
    return str(amazon.create_key(KeyUsage="SIGN_VERIFY", KeySpec=kind)["KeyMetadata"]["KeyId"])


def is_believed(url: str) -> bool:
    """Sign with a key, and verify with no more than the public key as text."""
    signer = open_kms_signer(url)
    payload = b"x" * 100_000
    rule = TrustRule((PublicKey.parse(str(signer.public_key)),))
    return agreed_signers([sign_payload(payload, [signer])], rule, "test") == (signer.public_key,)


def test_amazon_signs(amazon: Any) -> None:
    """By id, ARN and alias; the same key each time."""
    key_id = amazon_key(amazon)
    amazon.create_alias(AliasName="alias/statecast", TargetKeyId=key_id)
    arn = amazon.describe_key(KeyId=key_id)["KeyMetadata"]["Arn"]
    names = [f"kms://aws/{name}" for name in (key_id, arn, "alias/statecast")]
    assert all(is_believed(name) for name in names)
    assert len({open_kms_signer(name).public_key for name in names}) == 1


def test_an_epoch_is_signed_in_the_key_service(amazon: Any, tmp_path: Path) -> None:
    """From the public key to a checked epoch; a second run has nothing to do, a second key adds its signature and changes no statement."""
    urls = [f"kms://aws/{amazon_key(amazon)}" for _ in range(2)]
    keys = [statecast("keygen", url, "--json").document["public_key"] for url in urls]
    produce = ("produce", "--node-home", localnet_home(), "--to", tmp_path / "out", "--work", tmp_path / "work", "--in-process", "--json")
    made = statecast(*produce, "--signing-key", urls[0])
    assert made.code == 0 and keys[0].startswith("ecdsa-p256:"), made.stderr
    before = lasting_objects_in(tmp_path / "out")
    assert statecast(*produce, "--signing-key", urls[0]).document["nothing_to_do"]
    assert lasting_objects_in(tmp_path / "out") == before
    (manifest,) = (tmp_path / "out").glob("chain_id=*/epoch_height=*/epoch_id=*/manifest.json")
    checked = statecast("check", manifest.parent, "--trust-key", keys[0], "--in-process")
    assert checked.code == 0, checked.stderr
    check_second = ("check", manifest.parent, "--trust-key", keys[1], "--in-process")
    assert statecast(*check_second).code == 21
    statements = {path: json.loads(path.read_text())["payload"] for path in manifest.parent.rglob("statements/*")}
    assert statements
    assert statecast(*produce, "--signing-key", urls[1], "--repair").code == 0
    assert {path: json.loads(path.read_text())["payload"] for path in statements} == statements
    assert statecast(*check_second).code == 0 and statecast("check", manifest.parent, "--trust-key", keys[0], "--in-process").code == 0


def test_a_key_of_another_kind_is_refused(amazon: Any) -> None:
    """What to make instead is said."""
    for kind in ("RSA_2048", "ECC_NIST_P384"):
        with pytest.raises(InvalidInputError, match="ECC_NIST_P256"):
            open_kms_signer(f"kms://aws/{amazon_key(amazon, kind)}")


def test_a_key_that_is_not_there_is_named(amazon: Any) -> None:
    """With what the service says."""
    with pytest.raises(SignatureError, match=r"NotFoundException.*kms://aws/alias/nobody"):
        open_kms_signer("kms://aws/alias/nobody")


def test_a_service_that_is_away_is_an_error_of_ours(amazon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it shall sign, and when its public key is asked for."""
    with moto_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", url)
        key_url = f"kms://aws/{amazon_key(boto3.client('kms'))}"
        signer = open_kms_signer(key_url)
    with pytest.raises(SignatureError, match=rf"EndpointConnectionError.*{key_url}.*same command"):
        sign_payload(b"payload", [signer])
    with pytest.raises(SignatureError, match="EndpointConnectionError"):
        open_kms_signer(key_url)


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_ENDPOINT_URL_KMS", "127.0.0.1:9"), ("AWS_MAX_ATTEMPTS", "many"), ("AWS_DEFAULT_REGION", "no region")]
)
def test_an_environment_that_can_t_be_used_is_an_error_of_ours(
    amazon: Any, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Whatever class the client's own error is of."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SignatureError, match="kms://aws/alias/nobody"):
        open_kms_signer("kms://aws/alias/nobody")


@pytest.mark.parametrize("answer", [{"PublicKey": b"x"}, {"PublicKey": b"x", "SigningAlgorithms": []}])
def test_a_key_that_is_not_for_signing_is_refused(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    """As Amazon answers of one that encrypts."""
    monkeypatch.setattr(boto3, "client", lambda service: SimpleNamespace(get_public_key=lambda KeyId: answer))
    with pytest.raises(InvalidInputError, match="ECC_NIST_P256"):
        open_kms_signer("kms://aws/some")


@pytest.mark.parametrize("damaged", [b"", b"junk", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_public_key_that_is_none_is_an_error_of_ours(google: type[GoogleClient], monkeypatch: pytest.MonkeyPatch, damaged: bytes) -> None:
    """Whatever a service, or what stands between, answers."""
    answer = SimpleNamespace(algorithm=GoogleClient.algorithm, public_key=SimpleNamespace(data=damaged))
    monkeypatch.setattr(google, "get_public_key", lambda client, request: answer)
    with pytest.raises(SignatureError, match="kms://gcp/"):
        open_kms_signer(f"kms://gcp/{GOOGLE_KEY}")


@pytest.mark.parametrize("url", ["kms://", "kms://azure/x", "kms://aws/", "kms://gcp/"])
def test_a_url_that_names_no_key_is_refused(url: str) -> None:
    """With both forms that are taken."""
    with pytest.raises(InvalidInputError, match="kms://gcp/projects"):
        open_kms_signer(url)


class GoogleClient:
    """Answers as Google's client does, with a key of its own."""

    key: EllipticCurvePrivateKey
    algorithm = kms.CryptoKeyVersion.CryptoKeyVersionAlgorithm.EC_SIGN_P256_SHA256
    refuses = False

    def get_public_key(self, request: dict[str, Any]) -> SimpleNamespace:
        """Show the public key."""
        assert request["name"] == GOOGLE_KEY
        pem = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return SimpleNamespace(algorithm=self.algorithm, public_key=SimpleNamespace(data=pem))

    def asymmetric_sign(self, request: dict[str, Any]) -> SimpleNamespace:
        """Sign a digest."""
        assert request["name"] == GOOGLE_KEY
        if self.refuses:
            raise PermissionDenied("no")
        return SimpleNamespace(signature=self.key.sign(request["digest"]["sha256"], ECDSA(Prehashed(SHA256()))))


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> type[GoogleClient]:
    """Let Google's client be ours."""
    client = type("Client", (GoogleClient,), {"key": generate_private_key(SECP256R1())})
    monkeypatch.setattr(kms, "KeyManagementServiceClient", client)
    return client


def test_google_signs(google: type[GoogleClient]) -> None:
    """By the name of a key's version."""
    assert is_believed(f"kms://gcp/{GOOGLE_KEY}")


def test_google_that_refuses_is_an_error_of_ours(google: type[GoogleClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the key, and that nothing is lost."""
    signer = open_kms_signer(f"kms://gcp/{GOOGLE_KEY}")
    monkeypatch.setattr(google, "refuses", True)
    with pytest.raises(SignatureError, match=r"PermissionDenied.*kms://gcp/projects/p/.*same command"):
        sign_payload(b"payload", [signer])


def test_a_key_of_google_that_signs_otherwise_is_refused(google: type[GoogleClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the library does not know at all."""
    monkeypatch.setattr(google, "algorithm", kms.CryptoKeyVersion.CryptoKeyVersionAlgorithm.EC_SIGN_SECP256K1_SHA256)
    with pytest.raises(InvalidInputError, match="EC_SIGN_P256_SHA256"):
        open_kms_signer(f"kms://gcp/{GOOGLE_KEY}")
