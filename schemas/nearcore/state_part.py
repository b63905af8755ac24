"""State parts: PartialState, the object encodings around it, and the arithmetic of part sizes.

PartialState bytes (borsh): u8 0, then vec of vec<u8>, sorted by bytes, each entry once. Object bytes::

    v0          the PartialState bytes themselves                       (protocol versions below 82)
    v0-tagged   u8 0, u32 length, PartialState bytes                    (StatePart::V0)
    v1          u8 1, u32 length, zstd frames of the PartialState bytes (StatePart::V1, protocol version 82 and later)

Nothing here looks inside an entry: whether a part proves anything is the kernel's to say.

Source: nearcore core/primitives/src/{state_part,state_sync}.rs.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import pyarrow as pa
import zstandard

from schemas.errors import InvalidInputError, PartLimitError
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.zstd_frames import decompress_frames

PARTIAL_STATE_BYTES_MAX = 512 << 20
"""Largest decoded part that is read or written (nearcore core/primitives/src/state_part.rs, PART_SIZE_LIMIT)."""

PARTIAL_STATE_ENTRIES_MAX = 16 << 20
"""Most entries of a part. The smallest entry takes 4 bytes, so this also bounds what a decoder allocates."""

STATE_PART_MEMORY_USAGE = 30 << 20
"""Memory usage that a part is meant to have (nearcore core/primitives/src/state_sync.rs, STATE_PART_MEMORY_LIMIT)."""

STATE_PARTS_COMPRESSION_PROTOCOL_VERSION = 82
"""First protocol version with the enum StatePart (ProtocolFeature::StatePartsCompression)."""

ZSTD_LEVEL_DEFAULT = 1
"""nearcore's own default for dumping parts."""

_PARTIAL_STATE_TAG = 0
_STATE_PART_HEADER_BYTES = 5

Data: TypeAlias = "bytes | bytearray | memoryview | pa.Buffer"
"""Anything with bytes in it."""


class Encoding(enum.StrEnum):
    """How a part's PartialState bytes are wrapped into an object."""

    V0 = "v0"
    V0_TAGGED = "v0-tagged"
    V1 = "v1"


_TAGS = {Encoding.V0_TAGGED: 0, Encoding.V1: 1}


def default_encoding(protocol_version: int) -> Encoding:
    """Return the encoding that nodes of a protocol version read."""
    return Encoding.V0 if protocol_version < STATE_PARTS_COMPRESSION_PROTOCOL_VERSION else Encoding.V1


def num_parts_for(memory_usage: int) -> int:
    """Return the number of parts of a shard whose root has this memory usage; 0 for an empty one.

    Source: nearcore core/primitives/src/state_sync.rs, get_num_state_parts, and neard's dumper, which writes no part of an empty shard.
    """
    return -(-memory_usage // STATE_PART_MEMORY_USAGE)


def boundary_threshold(part_id: int, num_parts: int, total: int) -> int:
    """Return the memory usage that precedes a part: it begins at the first key whose running total is greater.

    Args:
        part_id: 0 <= part_id <= num_parts. Part 0 begins at the empty key whatever the threshold, and ``num_parts`` itself, like
            any part whose threshold is not below ``total``, at the right end.
        total: memory usage of the root.
    Source: nearcore core/store/src/trie/state_parts.rs, Trie::find_state_part_boundary.
    """
    assert 0 <= part_id <= num_parts and num_parts > 0, (part_id, num_parts)
    return total // num_parts * part_id + min(part_id, total % num_parts)


def encode_partial_state(entries: Iterable[bytes]) -> pa.Buffer:
    """Return the PartialState bytes of a set of node and value bytes: sorted, each once.

    Raises:
        PartLimitError: over `PARTIAL_STATE_BYTES_MAX` or `PARTIAL_STATE_ENTRIES_MAX`.
    """
    unique = sorted(set(entries))
    size = 1 + 4 + sum(4 + len(entry) for entry in unique)
    if size > PARTIAL_STATE_BYTES_MAX or len(unique) > PARTIAL_STATE_ENTRIES_MAX:
        raise PartLimitError(
            problem=f"a part of {size} bytes and {len(unique)} entries is over the limit of {PARTIAL_STATE_BYTES_MAX} bytes "
            f"and {PARTIAL_STATE_ENTRIES_MAX} entries",
            remedy="Ask for more parts.",
        )
    return pa.py_buffer(partial_state_bytes(unique))


def partial_state_bytes(entries: Sequence[bytes]) -> bytes:
    """Return PartialState bytes with these entries in this order."""
    writer = BorshWriter().u8(_PARTIAL_STATE_TAG).u32(len(entries))
    for entry in entries:
        writer.byte_vec(entry)
    return writer.to_bytes()


def decode_partial_state(data: Data) -> list[bytes]:
    """Return the entries in their order; neither order nor uniqueness is checked, as in nearcore.

    Raises:
        MalformedPartError: not PartialState bytes, or bytes follow them.
        PartLimitError: over `PARTIAL_STATE_BYTES_MAX` or `PARTIAL_STATE_ENTRIES_MAX`.
    """
    view = memoryview(data)
    _check_size(view.nbytes, PARTIAL_STATE_BYTES_MAX)
    reader = BorshReader(view, where="PartialState")
    tag = reader.u8()
    if tag != _PARTIAL_STATE_TAG:
        reader.fail(f"no kind of PartialState has the tag {tag}")
    count = reader.count(item_bytes_min=4)
    if count > PARTIAL_STATE_ENTRIES_MAX:
        raise PartLimitError(problem=f"a part of {count} entries is over the limit of {PARTIAL_STATE_ENTRIES_MAX}", where="PartialState")
    entries = [reader.byte_vec() for _ in range(count)]
    reader.end()
    return entries


def encode_state_part(partial_state: Data, encoding: Encoding, zstd_level: int = ZSTD_LEVEL_DEFAULT) -> bytes:
    """Wrap PartialState bytes into an object. V1 is a single frame that tells its content size.

    Raises:
        PartLimitError: over `PARTIAL_STATE_BYTES_MAX`.
        InvalidInputError: zstd has no such level.
    """
    view = memoryview(partial_state).cast("B")
    _check_size(view.nbytes, PARTIAL_STATE_BYTES_MAX)
    match encoding:
        case Encoding.V0:
            return bytes(view)
        case Encoding.V0_TAGGED:
            return BorshWriter().u8(_TAGS[encoding]).byte_vec(view).to_bytes()
        case Encoding.V1:
            if not 1 <= zstd_level <= zstandard.MAX_COMPRESSION_LEVEL:
                raise InvalidInputError(problem=f"zstd levels go from 1 to {zstandard.MAX_COMPRESSION_LEVEL}, not {zstd_level}")
            compressed = zstandard.ZstdCompressor(level=zstd_level).compress(view)
            return BorshWriter().u8(_TAGS[encoding]).u32(len(compressed)).to_bytes() + compressed


def decode_state_part(data: Data, encoding: Encoding, *, decoded_bytes_max: int = PARTIAL_STATE_BYTES_MAX) -> pa.Buffer:
    """Return the PartialState bytes of an object; they are not looked into. Not copied unless compressed.

    The object must have the encoding that is named: nothing is guessed from its bytes.

    Raises:
        MalformedPartError: another tag, a length that is not that of the payload, or a payload that zstd refuses.
        PartLimitError: more than ``decoded_bytes_max`` decoded bytes; found before more than that is allocated.
    Source: nearcore core/primitives/src/state_part.rs, StatePart::{from_bytes, to_partial_state}.
    """
    whole = data if isinstance(data, pa.Buffer) else pa.py_buffer(data)
    if encoding is Encoding.V0:
        _check_size(whole.size, decoded_bytes_max)
        return whole
    reader = BorshReader(memoryview(whole), where=f"state part, encoding {encoding}")
    tag = reader.u8()
    if tag != _TAGS[encoding]:
        reader.fail(f"the tag is {tag}, not {_TAGS[encoding]}")
    payload = reader.byte_vec_view()
    reader.end()
    if encoding is Encoding.V0_TAGGED:
        _check_size(len(payload), decoded_bytes_max)
        return whole.slice(_STATE_PART_HEADER_BYTES)
    return decompress_frames(payload, decoded_bytes_max)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise PartLimitError(problem=f"a part of {size} decoded bytes is over the limit of {limit}")
