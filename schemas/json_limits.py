"""How much JSON is decoded at all: a scan of the bytes that builds nothing, before a parser builds something of them.

Three bytes of JSON can become seventy of memory, so a bound on bytes alone is none. What a document costs is known from its brackets and
commas: an object or list is some 60 to 230 bytes, any other value at most some 60 and its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

DEPTH_MAX: Final = 64
"""Deepest nesting; no document of ours goes deeper than ten."""

_MARKS: Final = b'"[]{},:'
_OTHERS: Final = bytes(byte for byte in range(256) if byte not in _MARKS)
_TEXT: Final = re.compile(rb'"[^"]*"?')
# As signed bytes: one level down, one level up.
_STEPS: Final = bytes.maketrans(b"[{]}", bytes([1, 1, 255, 255]))


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """What is decoded at most of one kind of document."""

    bytes_max: int
    containers_max: int = 1 << 14
    """Objects and lists."""
    values_max: int = 1 << 17
    """Commas outside of texts: there are at most as many other values, and as many fields, beside one for each object or list."""

    def problem(self, data: bytes) -> str | None:
        """Return what a document has too much of, or None. The time is linear in its bytes; what is no JSON is no problem here."""
        if len(data) > self.bytes_max:
            return f"the document has {len(data)} bytes, at most {self.bytes_max} are read"
        plain = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
        # Between two texts there is a comma or colon, so that two quotes in a row are the whole of one text.
        marks = plain.translate(None, _OTHERS).replace(b'""', b"")
        if marks.count(b'"') > 4 * (self.containers_max + self.values_max + 1):
            return f"the document has more texts than {self.values_max} values and their names"
        structure = _TEXT.sub(b"", marks) if b'"' in marks else marks
        containers = structure.count(b"[") + structure.count(b"{")
        if containers > self.containers_max:
            return f"the document has {containers} objects and lists, at most {self.containers_max} are read"
        values = structure.count(b",")
        if values > self.values_max:
            return f"the document has {values} values or more, at most {self.values_max} are read"
        steps = memoryview(structure.translate(_STEPS, b",:")).cast("b")
        if containers > DEPTH_MAX and max(accumulate(steps)) > DEPTH_MAX:
            return f"the document is nested deeper than {DEPTH_MAX}"
        return None
