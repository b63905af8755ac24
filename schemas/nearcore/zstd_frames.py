"""Decoding of zstd frames that come from strangers: bounded, and complete or refused.

What is taken is what nearcore takes: its reader (the zstd crate's ``stream::read::Decoder``, not set to a single frame) decodes
concatenated frames one after the other until the input ends and skips skippable frames; a frame that is cut off, and bytes that
begin no frame, are errors. The Python binding's stream reader ends silently where a frame is cut off, so the frames' own
structure (header, block sizes, checksum) is walked first; that also bounds what a frame can decode to. Compression is not done here.

Source: RFC 8878 sections 3.1.1 and 3.1.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import zstandard

from schemas.errors import MalformedPartError, PartLimitError

WINDOW_BYTES_MAX = 1 << 27
"""Largest window that is decoded, the stream decoder's own default (ZSTD_WINDOWLOG_LIMIT_DEFAULT)."""

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_SKIPPABLE_HEADER_BYTES = 8
_BLOCK_HEADER_BYTES = 3
_CHECKSUM_BYTES = 4
_FRAME_HEADER_BYTES_MAX = 18
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Frame:
    data: memoryview
    content_bytes: int | None
    """What the header announces, if it does; never more than the blocks can hold."""


def decompress_frames(data: memoryview, decoded_bytes_max: int) -> pa.Buffer:
    """Decode all frames of ``data``, which must be made of whole frames alone.

    Raises:
        MalformedPartError: a frame is cut off or damaged, or bytes begin no frame.
        PartLimitError: more than ``decoded_bytes_max`` decoded bytes, or a window over `WINDOW_BYTES_MAX`.
    """
    frames = list(_split_frames(data, decoded_bytes_max))
    try:
        if len(frames) == 1 and frames[0].content_bytes:
            return pa.py_buffer(zstandard.ZstdDecompressor().decompress(frames[0].data))
        decoded = bytearray()
        for frame in frames:
            _append_decoded(decoded, frame, decoded_bytes_max)
        return pa.py_buffer(bytes(decoded))
    except zstandard.ZstdError as error:
        raise MalformedPartError(problem=f"a zstd frame can't be decoded: {error}") from None


def _append_decoded(decoded: bytearray, frame: _Frame, decoded_bytes_max: int) -> None:
    with zstandard.ZstdDecompressor().stream_reader(frame.data) as reader:
        while decoded_part := reader.read(min(_READ_BYTES, decoded_bytes_max - len(decoded) + 1)):
            decoded += decoded_part
            if len(decoded) > decoded_bytes_max:
                raise PartLimitError(problem=f"zstd frames decode to more than the limit of {decoded_bytes_max} bytes")


def _split_frames(data: memoryview, decoded_bytes_max: int) -> Iterator[_Frame]:
    position = 0
    while position < len(data):
        magic = _number(data, position, 4)
        if magic == _MAGIC:
            frame = _measure_frame(data[position:], decoded_bytes_max)
            yield frame
            position += len(frame.data)
        elif magic & ~0xF == _SKIPPABLE_MAGIC:
            position += _SKIPPABLE_HEADER_BYTES + _number(data, position + 4, 4)
            _check_inside(data, position)
        else:
            raise MalformedPartError(problem=f"no zstd frame begins at byte {position} of {len(data)}")


def _measure_frame(data: memoryview, decoded_bytes_max: int) -> _Frame:
    header = data[:_FRAME_HEADER_BYTES_MAX]
    try:
        parameters = zstandard.get_frame_parameters(header)
        position = zstandard.frame_header_size(header)
    except zstandard.ZstdError as error:
        raise MalformedPartError(problem=f"a zstd frame header can't be decoded: {error}") from None
    if parameters.window_size > WINDOW_BYTES_MAX:
        raise PartLimitError(
            problem=f"a zstd frame with a window of {parameters.window_size} bytes is over the limit of {WINDOW_BYTES_MAX}"
        )
    content_bytes = None if parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN else parameters.content_size
    if content_bytes is not None and content_bytes > decoded_bytes_max:
        raise PartLimitError(problem=f"a zstd frame announces {content_bytes} bytes, over the limit of {decoded_bytes_max}")
    position, block_count = _walk_blocks(data, position)
    position += _CHECKSUM_BYTES if parameters.has_checksum else 0
    _check_inside(data, position)
    content_bytes_max = block_count * zstandard.BLOCKSIZE_MAX
    if content_bytes is not None and content_bytes > content_bytes_max:
        raise MalformedPartError(problem=f"a zstd frame announces {content_bytes} bytes, but its blocks hold {content_bytes_max} at most")
    return _Frame(data=data[:position], content_bytes=content_bytes)


def _walk_blocks(data: memoryview, position: int) -> tuple[int, int]:
    """Return where the last block ends, and the number of blocks."""
    block_count = 0
    last = False
    while not last:
        block_header = _number(data, position, _BLOCK_HEADER_BYTES)
        last, kind, size = bool(block_header & 1), block_header >> 1 & 3, block_header >> 3
        if kind == _RESERVED_BLOCK:
            raise MalformedPartError(problem="a zstd block is of the reserved kind")
        position += _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else size)
        block_count += 1
    return position, block_count


def _number(data: memoryview, position: int, length: int) -> int:
    _check_inside(data, position + length)
    return int.from_bytes(data[position : position + length], "little")


def _check_inside(data: memoryview, end: int) -> None:
    if end > len(data):
        raise MalformedPartError(problem=f"a zstd frame is cut off: {end - len(data)} bytes are missing")
