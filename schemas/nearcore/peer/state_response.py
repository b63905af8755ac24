"""A shard's state header or one of its parts, as a host sends it.

Borsh within a protobuf message. Source: nearcore's `core/primitives/src/state_sync.rs` (ShardStateSyncResponse) and
`chain/network/src/network_protocol` (StateResponseInfo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.ids import CryptoHash
from schemas.nearcore.borsh import BorshReader, BorshWriter
from schemas.nearcore.peer.identity import peer_reader
from schemas.nearcore.state_part import PARTIAL_STATE_BYTES_MAX

_INFO_V2: Final = 1
RESPONSE_V3: Final = 2
"""For epochs of protocol versions below 82: a part is a bare PartialState."""
RESPONSE_V4: Final = 3
"""For epochs of version 82 and later: a part is a StatePart, which may be compressed."""

_CACHED_PARTS = {b"\x00": None, b"\x01\x00": None, b"\x01\x01": None}


@dataclass(frozen=True, slots=True)
class StateResponse:
    """What a host says of one shard: a header, a part, or neither."""

    shard_id: int
    sync_hash: CryptoHash
    version: int
    """`RESPONSE_V3` or `RESPONSE_V4`."""
    header: memoryview | None = None
    """Of the response's own form: a dumped header without its first byte."""
    part_id: int | None = None
    part: memoryview | None = None
    """V3: PartialState. V4: a StatePart with its tag, as it is published in the encodings v0-tagged and v1. May be in many megabytes,
    and is not copied."""
    cached_parts: bytes = b"\x00"
    """V3 alone: which parts the host has at hand, as it says it."""
    can_generate: bool = True
    """V3 alone: whether the host can still make parts of this state."""

    @classmethod
    def from_bytes(cls, data: memoryview) -> StateResponse:
        """Decode borsh.

        Raises:
            PeerProtocolError: not a response, of an older form, or one with both a header and a part.
        """
        reader = peer_reader(data, "state response")
        if (tag := reader.u8()) != _INFO_V2:
            reader.fail(f"a state response of kind {tag} is not known")
        shard_id, sync_hash, version = reader.u64(), CryptoHash(reader.fixed(32)), reader.u8()
        if version not in {RESPONSE_V3, RESPONSE_V4}:
            reader.fail(f"a state response of version {version} is not known")
        if reader.flag():
            header, cached_parts, can_generate = _header_and_tail(reader, version)
            return cls(shard_id, sync_hash, version, header, None, None, cached_parts, can_generate)
        part_id = part = None
        if reader.flag():
            part_id = reader.u64()
            part = _read_state_part(reader) if version == RESPONSE_V4 else reader.byte_vec_view(PARTIAL_STATE_BYTES_MAX)
        cached_parts, can_generate = b"\x00", True
        if version == RESPONSE_V3:
            cached_parts = _read_cached_parts(reader)
            can_generate = reader.flag()
        reader.end()
        return cls(shard_id, sync_hash, version, None, part_id, part, cached_parts, can_generate)

    def around(self, size: int) -> tuple[bytes, bytes]:
        """Encode what stands before and after the header or part, of ``size`` bytes, that `header` or `part_id` says is there."""
        writer = BorshWriter().u8(_INFO_V2).u64(self.shard_id).fixed(self.sync_hash).u8(self.version)
        tail = self.cached_parts + bytes([self.can_generate]) if self.version == RESPONSE_V3 else b""
        if self.part_id is not None:
            writer.u8(0).u8(1).u64(self.part_id)
            if self.version == RESPONSE_V3:
                writer.u32(size)
            return writer.to_bytes(), tail
        if self.header is not None:
            return writer.u8(1).to_bytes(), b"\x00" + tail
        return writer.u8(0).u8(0).to_bytes(), tail

    def pieces(self) -> tuple[bytes, bytes | memoryview, bytes]:
        """Encode as borsh, in pieces of which the large one is not copied."""
        large = self.header if self.header is not None else self.part if self.part is not None else b""
        before, after = self.around(len(large))
        return before, large, after


def _header_and_tail(reader: BorshReader, version: int) -> tuple[memoryview, bytes, bool]:
    """Part a header from what follows it, which is told by the end alone: no header comes with a part."""
    rest = reader.fixed_view(reader.remaining)
    if version == RESPONSE_V4:
        if len(rest) < 2 or rest[-1] != 0:
            reader.fail("a part follows a header")
        return rest[:-1], b"\x00", True
    for cached_parts in _CACHED_PARTS:
        tail = b"\x00" + cached_parts
        if len(rest) > len(tail) + 1 and rest[-1] <= 1 and rest[-len(tail) - 1 : -1] == tail:
            return rest[: -len(tail) - 1], cached_parts, bool(rest[-1])
    reader.fail("what follows a header is not known")


def _read_state_part(reader: BorshReader) -> memoryview:
    start = reader.remaining
    whole = reader.fixed_view(start)
    inner = peer_reader(whole, "state part")
    if (tag := inner.u8()) > 1:
        inner.fail(f"a state part of kind {tag} is not known")
    inner.byte_vec_view(PARTIAL_STATE_BYTES_MAX)
    inner.end()
    return whole


def _read_cached_parts(reader: BorshReader) -> bytes:
    if not reader.flag():
        return b"\x00"
    kind = reader.u8()
    if kind > 1:
        reader.fail(f"cached parts of kind {kind} are not known")
    return bytes([1, kind])
