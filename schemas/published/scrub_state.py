"""How far the scrubs of an epoch are: successive samples go on where the last one ended, so that together they read everything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.json_document import FieldReader, decode_json, encode_json, encode_time
from schemas.json_limits import JsonLimits

SCRUB_STATE_BYTES_MAX: Final = 1 << 12

WHOLE_PPM: Final = 1_000_000
"""All parts of an epoch, in millionths."""

SEED_MAX: Final = 2**32 - 1

_FORMAT = "urn:statecast:scrub:v1"


@dataclass(frozen=True, slots=True)
class ScrubState:
    """What ``scrub.json`` says."""

    seed: int
    """Orders the parts."""
    next_ppm: int
    """Where in that order the next sample begins."""
    scrubbed: datetime
    """When the last sample ended. UTC, whole seconds."""

    def to_bytes(self) -> bytes:
        """Return the wire form, canonical JSON."""
        return encode_json({"format": _FORMAT, "seed": self.seed, "next_ppm": self.next_ppm, "scrubbed": encode_time(self.scrubbed)})

    @classmethod
    def parse(cls, data: bytes, where: str) -> ScrubState:
        """Parse the wire form; unknown fields are ignored.

        Raises:
            ManifestError: not such a document.
        """
        reader = FieldReader(decode_json(data, JsonLimits(SCRUB_STATE_BYTES_MAX), where), where)
        reader.literal("format", _FORMAT)
        return cls(reader.number("seed", 0, SEED_MAX), reader.number("next_ppm", 0, WHOLE_PPM - 1), reader.time("scrubbed"))
