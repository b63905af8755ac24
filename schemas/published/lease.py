"""Leases: a reader's word, beside an epoch's objects, that it is at work on them until some time.

A lease asks a collection to wait; it gives no rights and proves nothing. It ends by itself, so a killed reader holds an epoch for no
longer than `LEASE_TTL_S`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.json_document import FieldReader, decode_json, encode_json, encode_time
from schemas.json_limits import JsonLimits

LEASE_BYTES_MAX: Final = 1 << 12
"""Largest lease that is read."""

LEASE_TTL_S: Final = 900
"""How long a lease holds after it was written."""

LEASE_TTL_MAX_S: Final = 86_400
"""Longest that any lease may hold: one that claims more is damaged."""

TEXT_LENGTH_MAX: Final = 100

_FORMAT = "urn:statecast:lease:v1"


@dataclass(frozen=True, slots=True)
class ReaderLease:
    """What ``leases/ID.json`` says."""

    holder: str
    """Host and process, for people; printable ASCII, at most `TEXT_LENGTH_MAX` characters."""
    purpose: str
    """``fetch`` or ``seed``; for people."""
    renewed: datetime
    """UTC, whole seconds."""
    expires: datetime
    """UTC, whole seconds."""

    def to_bytes(self) -> bytes:
        """Return the wire form, canonical JSON."""
        return encode_json(
            {
                "format": _FORMAT,
                "holder": self.holder,
                "purpose": self.purpose,
                "renewed": encode_time(self.renewed),
                "expires": encode_time(self.expires),
            }
        )

    @classmethod
    def parse(cls, data: bytes, where: str) -> ReaderLease:
        """Parse the wire form; unknown fields are ignored.

        Raises:
            ManifestError: not a lease, or one that claims to hold longer than a lease can.
        """
        reader = FieldReader(decode_json(data, JsonLimits(LEASE_BYTES_MAX), where), where)
        reader.literal("format", _FORMAT)
        lease = cls(
            holder=reader.text("holder", TEXT_LENGTH_MAX),
            purpose=reader.text("purpose", TEXT_LENGTH_MAX),
            renewed=reader.time("renewed"),
            expires=reader.time("expires"),
        )
        if lease.expires.year == datetime.max.year:
            # Nothing could be reckoned after it.
            reader.fail("field expires is no time that a lease ends at")
        if not timedelta(0) <= lease.expires - lease.renewed <= timedelta(seconds=LEASE_TTL_MAX_S):
            reader.fail(f"a lease ends at most {LEASE_TTL_MAX_S} s after it was renewed")
        return lease
