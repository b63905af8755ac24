"""DSSE envelopes on the wire, and public keys as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as LibraryEnvelope

from schemas.errors import InvalidInputError, ManifestError
from schemas.published.dsse import Envelope, EnvelopeSignature, parse_envelope
from schemas.published.public_key import PublicKey

ENVELOPE = Envelope(b"payload", "application/x", (EnvelopeSignature("aa", b"1"), EnvelopeSignature("bb", b"2")))


@given(st.binary(max_size=200), st.dictionaries(st.text("0123456789abcdef", min_size=1, max_size=8), st.binary(max_size=64), max_size=4))
def test_an_envelope_comes_back(payload: bytes, signatures: dict[str, bytes]) -> None:
    """Any payload, any number of signatures."""
    envelope = Envelope(payload, "application/x").with_signatures(tuple(EnvelopeSignature(*found) for found in signatures.items()))
    assert parse_envelope(envelope.to_bytes(), "test") == envelope


def test_the_library_reads_the_same_envelope() -> None:
    """securesystemslib takes our wire form, and signs the same bytes."""
    theirs = LibraryEnvelope.from_dict(json.loads(ENVELOPE.to_bytes()))
    assert theirs.pae() == ENVELOPE.pre_authentication_encoding()
    assert parse_envelope(json.dumps(theirs.to_dict()).encode(), "test") == ENVELOPE


def test_a_key_signs_once() -> None:
    """A later signature of the same key takes the place of the earlier one, in the order of key ids."""
    added = ENVELOPE.with_signatures((EnvelopeSignature("ab", b"3"), EnvelopeSignature("aa", b"4")))
    assert [(found.key_id, found.signature) for found in added.signatures] == [("aa", b"4"), ("ab", b"3"), ("bb", b"2")]


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no payload": lambda d: d.pop("payload"),
    "no signatures": lambda d: d.pop("signatures"),
    "signatures of no list": lambda d: d.update(signatures={}),
    "a signature of no object": lambda d: d.update(signatures=["x"]),
    "two of one key": lambda d: d["signatures"].append(d["signatures"][0]),
    "too many": lambda d: d.update(signatures=[{"keyid": str(i), "sig": ""} for i in range(257)]),
    "payload of no base64": lambda d: d.update(payload="###"),
    "payload in url base64": lambda d: d.update(payload="-_-_"),
    "payload with a line break": lambda d: d.update(payload=d["payload"][:4] + "\n" + d["payload"][4:]),
    "a long signature": lambda d: d["signatures"][0].update(sig="AAAA" * 400),
    "a type of no text": lambda d: d.update(payloadType=1),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_envelope_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """Each damage alone is enough."""
    document = json.loads(ENVELOPE.to_bytes())
    change(document)
    with pytest.raises(ManifestError, match="test"):
        parse_envelope(json.dumps(document).encode(), "test")


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_comes_back(data: bytes) -> None:
    """As text in NEAR's form."""
    assert PublicKey.parse(str(PublicKey(data))) == PublicKey(data)


@pytest.mark.parametrize("text", ["", "ed25519:", "secp256k1:" + "1" * 32, "ed25519:0" + "1" * 31, "1" * 32, "ed25519:" + "z" * 88])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    """A secret key given by mistake is not repeated."""
    with pytest.raises(InvalidInputError) as caught:
        PublicKey.parse(text)
    assert "z" * 20 not in str(caught.value)
