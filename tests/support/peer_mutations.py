"""Frames of nearcore's network, changed: bytes, protobuf fields at any depth with lengths that fit again, and what stands in their leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from schemas.errors import PeerProtocolError
from schemas.nearcore.peer import protobuf

NUMBERS = (0, 1, 2, 127, 128, 2**16, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)
DEPTH_MAX = 5


@dataclass(frozen=True)
class Mutator:
    """Changes frames; the same seed gives the same ones."""

    random: Random
    frames: Sequence[bytes]

    def frame(self) -> bytes:
        """Return a recorded frame, changed once or some times."""
        data = self.random.choice(self.frames)
        for _ in range(self.random.choice((1, 1, 1, 2))):
            data = self._fields(data, DEPTH_MAX) if self.random.random() < 0.95 else self._bytes(data)
        return data

    def _fields(self, data: bytes, depth: int) -> bytes:
        """Change one field, perhaps deep inside, of a message; bytes that are none are changed as such."""
        try:
            fields = [(number, value if isinstance(value, int) else bytes(value)) for number, value in protobuf.read_fields(data, "")]
        except PeerProtocolError:
            return self._bytes(data)
        if not fields:
            return self._bytes(data)
        place = self.random.randrange(len(fields))
        number, value = fields[place]
        match self.random.randrange(14):
            case 0:
                fields.insert(self.random.randrange(len(fields) + 1), (number, value))
            case 1:
                del fields[place]
            case 2:
                fields[place] = (self.random.choice((1, 2, 3, 4, 5, 6, 7, 8, 17, 26, 29, 30, 31, 32, 33, 36)), value)
            case 3:
                fields[place] = (number, self.random.choice(NUMBERS))
            case 4:
                fields[place] = (number, self.random.choice(self.frames)[: self.random.randrange(200)])
            case _ if isinstance(value, int):
                fields[place] = (number, (value + self.random.choice((-1, 1, 2))) % 2**64)
            case _:
                fields[place] = (number, self._fields(value, depth - 1) if depth else self._bytes(value))
        return b"".join(
            protobuf.present_integer_field(number, value) if isinstance(value, int) else protobuf.bytes_field(number, value)
            for number, value in fields
        )

    def _bytes(self, data: bytes) -> bytes:
        changed = bytearray(data)
        at = self.random.randrange(len(changed) + 1)
        match self.random.randrange(6):
            case 0:
                del changed[at:]
            case 1:
                del changed[at : at + self.random.randrange(1, 9)]
            case 2:
                changed[at:at] = self.random.randbytes(self.random.randrange(1, 9))
            case 3:
                changed[at : at + 4] = self.random.choice(NUMBERS).to_bytes(8, "little")[:4]
            case 4 if changed:
                changed[at % len(changed)] ^= 1 << self.random.randrange(8)
            case _:
                if changed:
                    changed[at % len(changed)] = self.random.choice((0, 1, 2, 27, 32, 34, 127, 128, 255))
        return bytes(changed)
