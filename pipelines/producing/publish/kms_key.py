"""Signing keys that Google's or Amazon's key service holds: they sign there and never leave it.

``kms://gcp/projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V`` and ``kms://aws/KEY``, where KEY is a key's id, its ARN,
``alias/NAME`` or an alias' ARN. Credentials and region come from the provider's own environment variables, as for its stores. The key
is of NIST P-256 with SHA-256 (``EC_SIGN_P256_SHA256``, ``ECC_NIST_P256``): the services sign a message of any length by its digest,
which ed25519 does not take. Only the process that publishes asks the service.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pipelines.producing.publish.signing import Signer
from pipelines.trust.signatures import library_key
from schemas.errors import InvalidInputError, SignatureError, StatecastError
from schemas.published.public_key import KeyScheme, PublicKey
from schemas.shown_text import shown_url

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

SCHEME: Final = "kms://"

_GOOGLE, _AMAZON = "kms://gcp/", "kms://aws/"


def open_kms_signer(url: str) -> Signer:
    """Return the signer of a key in a key service, whose public half is asked for.

    Raises:
        InvalidInputError: another form, a key of another kind, or the service's package is not installed.
        SignatureError: the service can't be reached, refuses, or its environment settings can't be used.
    """
    google = url.startswith(_GOOGLE)
    name = url.removeprefix(_GOOGLE if google else _AMAZON)
    if name in (url, ""):
        raise InvalidInputError(
            problem="this names no key of a key service",
            where=shown_url(url),
            remedy="Write kms://gcp/projects/…/cryptoKeyVersions/1, or kms://aws/ and a key's id, ARN or alias.",
        )
    # Imported here: the package loads every cloud's key service that is installed.
    from securesystemslib.signer import AWSSigner, GCPSigner

    library = GCPSigner if google else AWSSigner
    with _service(url):
        public_key = _public_key(library.import_(name)[1], url)
        signer = library(name, library_key(public_key))

    def sign(signed: bytes) -> bytes:
        with _service(url):
            return bytes.fromhex(signer.sign(signed).signature)

    return Signer(public_key, sign)


def _public_key(found: SSlibKey, url: str) -> PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    key: Any = load_pem_public_key(found.keyval["public"].encode())
    if not isinstance(key, EllipticCurvePublicKey):
        raise _wrong_kind(url, found.keytype)
    if not isinstance(key.curve, SECP256R1):
        raise _wrong_kind(url, key.curve.name)
    return PublicKey(key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint), KeyScheme.ECDSA_P256)


def _wrong_kind(url: str, kind: str) -> InvalidInputError:
    return InvalidInputError(
        problem=f"a key of the kind {kind} can't sign manifests",
        where=shown_url(url),
        remedy="Make one that signs with NIST P-256 and SHA-256: EC_SIGN_P256_SHA256 at Google, ECC_NIST_P256 at Amazon.",
    )


@contextmanager
def _service(url: str) -> Iterator[None]:
    """Turn what the services' packages raise into errors of ours, which name the key and nothing secret."""
    from securesystemslib.exceptions import UnsupportedAlgorithmError, UnsupportedLibraryError

    # The library logs what our error says.
    logging.getLogger("securesystemslib").setLevel(logging.CRITICAL)
    try:
        yield
    except StatecastError:
        raise
    except UnsupportedLibraryError as error:
        raise InvalidInputError(
            problem="the key service's package is not installed", where=shown_url(url), remedy="pip install 'statecast[kms]'"
        ) from error
    except UnsupportedAlgorithmError as error:
        raise _wrong_kind(url, "that it has") from error
    except KeyError as error:
        # Amazon names no ways to sign of a key that is for something else.
        raise _wrong_kind(url, f"without {error}") from error
    except Exception as error:
        # Of any class: what the clients raise where an address, a credentials file or an answer can't be parsed is their own affair.
        words = " ".join(str(error).split())[:300]
        raise SignatureError(
            problem=f"the key service does not sign: {type(error).__name__}: {words}",
            where=shown_url(url),
            remedy="Check the key's name, the region, the credentials, and that this identity may read the key's public half and sign with it. "
            "Nothing is lost: the same command goes on.",
        ) from error
