"""Decoding of zstd frames that come from strangers: bounded, and complete or refused.

What is taken is what nearcore takes: its reader (the zstd crate's ``stream::read::Decoder``, not set to a single frame) decodes
concatenated frames one after the other until the input ends and skips skippable frames; a frame that is cut off, and bytes that
begin no frame, are errors. Arrow's stream does the same; the stream reader of the Python binding ends silently where a frame is
cut off. Compression is not done here.

Source: RFC 8878 section 3.1.1.
"""

from __future__ import annotations

import contextlib

import pyarrow as pa
import zstandard

from schemas.errors import MalformedPartError, PartLimitError

WINDOW_BYTES_MAX = 1 << 27
"""Largest window that is decoded, the stream decoder's own default (ZSTD_WINDOWLOG_LIMIT_DEFAULT)."""

_FRAME_HEADER_BYTES_MAX = 18
_READ_BYTES = 1 << 20


def decompress_frames(data: memoryview, decoded_bytes_max: int) -> pa.Buffer:
    """Decode all frames of ``data``, which must be made of whole frames alone.

    Raises:
        MalformedPartError: a frame is cut off or damaged, or bytes begin no frame; a later frame has a window over `WINDOW_BYTES_MAX`.
        PartLimitError: more than ``decoded_bytes_max`` decoded bytes, or the first frame's window is over `WINDOW_BYTES_MAX`.
    """
    announced_bytes = _announced_bytes(data, decoded_bytes_max)
    if announced_bytes:
        # A frame that tells its size has no smaller window: a stream would decode it into a window of that size first, in twice
        # the time. What is more than this frame, or not quite it, fails here and is left to the stream.
        with contextlib.suppress(zstandard.ZstdError):
            return pa.py_buffer(zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False))
    try:
        decoded = _read_frames(data, decoded_bytes_max)
    except OSError as error:
        raise MalformedPartError(problem=f"a zstd frame can't be decoded: {error}") from None
    if decoded.size < announced_bytes:
        # A stream overlooks it where the last block is empty.
        raise MalformedPartError(problem=f"a zstd frame announces {announced_bytes} bytes, but {decoded.size} came")
    return decoded


def _announced_bytes(data: memoryview, decoded_bytes_max: int) -> int:
    """Return how many bytes the first frame says that it holds, 0 if it does not say."""
    if data[: len(zstandard.FRAME_HEADER)] != zstandard.FRAME_HEADER:
        return 0
    try:
        header = zstandard.get_frame_parameters(data[:_FRAME_HEADER_BYTES_MAX])
    except zstandard.ZstdError as error:
        raise MalformedPartError(problem=f"a zstd frame header can't be decoded: {error}") from None
    if header.window_size > WINDOW_BYTES_MAX:
        raise PartLimitError(problem=f"a zstd frame with a window of {header.window_size} bytes is over the limit of {WINDOW_BYTES_MAX}")
    if header.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        return 0
    if header.content_size > decoded_bytes_max:
        raise PartLimitError(problem=f"a zstd frame announces {header.content_size} bytes, over the limit of {decoded_bytes_max}")
    return header.content_size


def _read_frames(data: memoryview, decoded_bytes_max: int) -> pa.Buffer:
    decoded: list[bytes] = []
    decoded_bytes = 0
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "zstd") as frames:
        while read := frames.read(min(_READ_BYTES, decoded_bytes_max - decoded_bytes + 1)):
            decoded.append(read)
            decoded_bytes += len(read)
            if decoded_bytes > decoded_bytes_max:
                raise PartLimitError(problem=f"zstd frames decode to more than the limit of {decoded_bytes_max} bytes")
    return pa.py_buffer(b"".join(decoded))
