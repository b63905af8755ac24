"""Holds a JSON file that is streamed to limits before its parser sees it.

A parser of events has none: it builds the name of a place anew at each level, so deep nesting takes the square of the depth; a number
of thousands of digits ends the process (ijson's parser in C, over Python's limit of such texts), and ``1E999999999`` is a number as long
as it says once it is made whole. So each piece of the file is looked at on its way, outside of its texts.
"""

from __future__ import annotations

import re
from typing import IO, Final

import numpy as np

from schemas.errors import SourceError

JSON_DEPTH_MAX: Final = 64
"""Deepest nesting: an access key that an action of a receipt adds lies 13 deep."""

NUMBER_LENGTH_MAX: Final = 64
"""Longest number; an amount has 39 digits, and may be written with a fraction."""

TEXT_BYTES_MAX: Final = 24 << 20
"""Longest text: a value of 16 MiB in base64."""

_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_LONG_NUMBER = re.compile(rb"[0-9.eE+-]{%d}|[eE][+-]?[0-9]{4}" % (NUMBER_LENGTH_MAX + 1))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class BoundedJson:
    """A file whose ``read`` raises where its JSON is over a limit; its bytes are passed on unchanged, whether they are JSON or not.

    Args:
        where: for errors.
    """

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file = file
        self._where = where
        self._depth = 0
        self._in_text = False
        self._text_bytes = 0
        self._after_backslash = False
        # The end of what was read, as a number may go on in the next piece.
        self._tail = b""

    def read(self, size: int = -1) -> bytes:
        """Read the next piece.

        Raises:
            SourceError: over a limit.
            OSError, EOFError: as the file's.
        """
        data = self._file.read(size)
        self._check(data)
        return data

    def _check(self, data: bytes) -> None:
        if self._after_backslash and data:
            data, self._after_backslash = data[1:], False
        if b"\\" in data:
            # There are backslashes in texts alone, or it is not JSON.
            data = _ESCAPED.sub(b"__", data)
            self._after_backslash = data.endswith(b"\\")
        pieces = data.split(b'"')
        outside = b" ".join(pieces[int(self._in_text) :: 2])
        self._check_numbers(b"" if self._in_text else self._tail, outside)
        self._check_depth(outside)
        self._text_bytes = len(pieces[-1]) + (self._text_bytes if len(pieces) == 1 else 0)
        self._in_text ^= len(pieces) % 2 == 0
        if self._in_text and self._text_bytes > TEXT_BYTES_MAX:
            self._fail(f"a text has more than {TEXT_BYTES_MAX} bytes")

    def _check_numbers(self, before: bytes, outside: bytes) -> None:
        seen = before + outside
        if _LONG_NUMBER.search(seen):
            self._fail(f"a number has more than {NUMBER_LENGTH_MAX} characters, or an exponent of more than three digits")
        self._tail = seen[-NUMBER_LENGTH_MAX:]

    def _check_depth(self, outside: bytes) -> None:
        depths = self._depth + np.cumsum(np.frombuffer(outside.translate(_STEPS, _NO_BRACKETS), np.int8), dtype=np.int64)
        if depths.size:
            self._depth = int(depths[-1])
            if int(depths.max()) > JSON_DEPTH_MAX:
                self._fail(f"it is nested more than {JSON_DEPTH_MAX} deep")

    def _fail(self, problem: str) -> None:
        raise SourceError(problem=f"the JSON can't be read: {problem}", where=self._where)
