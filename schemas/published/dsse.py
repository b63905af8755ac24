"""DSSE envelopes: a payload, its type, and any number of signatures over both.

Wire form: JSON ``{"payload": base64, "payloadType": text, "signatures": [{"keyid": hex, "sig": base64}, ...]}``. An unsigned envelope
has an empty list. Nothing here signs or verifies. Source: https://github.com/secure-systems-lab/dsse, envelope.md, protocol.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from schemas.json_document import FieldReader, decode_base64, decode_json, encode_base64, encode_json
from schemas.json_limits import JsonLimits

PAYLOAD_BYTES_MAX = 64 << 20
"""Largest payload that is read."""

ENVELOPE_BYTES_MAX = PAYLOAD_BYTES_MAX // 3 * 4 + (1 << 20)
"""Largest envelope that is read: the payload in base64, and its signatures."""

SIGNATURES_MAX = 256
"""Most signatures of an envelope."""

SIGNATURE_BYTES_MAX = 1024

# Room for what a later version adds. Nothing of an envelope is signed but the payload, which is one text here.
_LIMITS = JsonLimits(ENVELOPE_BYTES_MAX, 4 * SIGNATURES_MAX, 16 * SIGNATURES_MAX)


@dataclass(frozen=True, slots=True)
class EnvelopeSignature:
    """One signature, not verified."""

    key_id: str
    """SHA-256 of the public key in hexadecimal, as `schemas.published.public_key` has it; a hint at the signer."""
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and its signatures."""

    payload: bytes
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...] = ()
    """Ascending by key id, one a key id."""

    @property
    def payload_sha256(self) -> str:
        """Digest of the payload in hexadecimal, whatever the signatures."""
        return hashlib.sha256(self.payload).hexdigest()

    def pre_authentication_encoding(self) -> bytes:
        """Return the bytes that a signature is made over."""
        payload_type = self.payload_type.encode()
        return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type, len(self.payload), self.payload)

    def with_signatures(self, signatures: tuple[EnvelopeSignature, ...]) -> Envelope:
        """Return the envelope with more signatures; one of a key that has signed already replaces the old one."""
        by_key = {signature.key_id: signature for signature in (*self.signatures, *signatures)}
        return Envelope(self.payload, self.payload_type, tuple(by_key[key_id] for key_id in sorted(by_key)))

    def to_bytes(self) -> bytes:
        """Return the wire form."""
        return encode_json(
            {
                "payload": encode_base64(self.payload),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": found.key_id, "sig": encode_base64(found.signature)} for found in self.signatures],
            }
        )


def parse_envelope(data: bytes, where: str) -> Envelope:
    """Parse the wire form; unknown fields are ignored, since no signature covers them.

    Raises:
        ManifestError: not an envelope, over a limit, or two signatures of one key id.
    """
    reader = FieldReader(decode_json(data, _LIMITS, where), where)
    payload = decode_base64(reader.value("payload"), PAYLOAD_BYTES_MAX, f"{where}: payload")
    signatures = tuple(
        EnvelopeSignature(entry.text("keyid", 128), decode_base64(entry.value("sig"), SIGNATURE_BYTES_MAX, f"{entry.where}: sig"))
        for entry in reader.inners("signatures", SIGNATURES_MAX)
    )
    if len({signature.key_id for signature in signatures}) != len(signatures):
        reader.fail("two signatures have one key id")
    return Envelope(payload, reader.text("payloadType", 128), tuple(sorted(signatures, key=lambda signature: signature.key_id)))
