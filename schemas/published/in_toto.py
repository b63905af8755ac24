"""The frame of an in-toto Statement v1: what is spoken of (subjects by SHA-256), of which kind the claim is, and the claim.

Here a subject's name is relative to the epoch's folder. Source: https://github.com/in-toto/attestation, spec/v1/statement.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import ManifestError
from schemas.json_document import FieldReader, decode_json, encode_json
from schemas.json_limits import JsonLimits
from schemas.published.dsse import Envelope, parse_envelope

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
"""Payload type of the DSSE envelope around a statement."""

SUBJECT_NAME_MAX = 1024


def parse_statement_envelope(data: bytes, where: str) -> Envelope:
    """Parse the envelope around a statement.

    Raises:
        ManifestError: not an envelope, or one around something else: no reader takes it for a statement.
    """
    envelope = parse_envelope(data, where)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ManifestError(
            problem=f"the payload's type is {envelope.payload_type!r}, not {PAYLOAD_TYPE}, so no reader takes it for what its name says",
            where=where,
            remedy="Delete the object, or put the right one there.",
        )
    return envelope


def encode_in_toto(predicate_type: str, subjects: Mapping[str, str], predicate: dict[str, Any]) -> bytes:
    """Return the canonical payload.

    Args:
        subjects: SHA-256 in hexadecimal by name, in the order in which they are to be listed.
    """
    listed = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects.items()]
    return encode_json({"_type": STATEMENT_TYPE, "predicateType": predicate_type, "subject": listed, "predicate": predicate})


def decode_in_toto(
    payload: bytes, predicate_type: str, limits: JsonLimits, subjects_max: int, where: str
) -> tuple[dict[str, str], FieldReader]:
    """Parse a payload; return the SHA-256 of each subject by name, in the order listed, and the predicate.

    Raises:
        ManifestError: not such a statement.
    """
    statement = FieldReader(decode_json(payload, limits, where), where)
    statement.literal("_type", STATEMENT_TYPE)
    statement.literal("predicateType", predicate_type)
    subjects: dict[str, str] = {}
    for subject in statement.inners("subject", subjects_max):
        name = subject.text("name", SUBJECT_NAME_MAX)
        if name in subjects:
            subject.fail(f"subject {name} is listed twice")
        subjects[name] = subject.inner("digest").sha256("sha256")
    return subjects, statement.inner("predicate")


def subject_sha256(reader: FieldReader, subjects: Mapping[str, str], name: str) -> str:
    """Return a subject's SHA-256 in hexadecimal; the reader of what names it fails where there is no such subject."""
    if name not in subjects:
        reader.fail(f"subject {name} is missing")
    return subjects[name]
