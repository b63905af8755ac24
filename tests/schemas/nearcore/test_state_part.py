"""State part objects: every encoding, its damage, and what claims to be larger than it may be."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
from random import Random

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidInputError, MalformedPartError, PartLimitError
from schemas.nearcore.borsh import BorshWriter
from schemas.nearcore.state_part import (
    PARTIAL_STATE_BYTES_MAX,
    Encoding,
    boundary_threshold,
    decode_partial_state,
    decode_state_part,
    default_encoding,
    encode_partial_state,
    encode_state_part,
    num_parts_for,
    partial_state_bytes,
)

PART = partial_state_bytes([b"", b"a", b"abc" * 1000])
NOISE = Random(3).randbytes(300_000)
SKIPPABLE_FRAME = bytes.fromhex("502a4d18 03000000") + b"xyz"


def v1_object(frames: bytes) -> bytes:
    """Return an object of encoding v1 around zstd frames."""
    return BorshWriter().u8(1).byte_vec(frames).to_bytes()


def frame_of(data: bytes, *, told_size: bool = False, checksum: bool = False) -> bytes:
    """Return a zstd frame, by default as nearcore's encoder writes it: without the content's size."""
    return zstandard.ZstdCompressor(level=1, write_content_size=told_size, write_checksum=checksum).compress(data)


def test_layout_of_partial_state() -> None:
    """A tag, a count, and each entry with its length; sorted, each once."""
    assert encode_partial_state([b"b", b"", b"ab", b"b"]).to_pybytes() == bytes.fromhex("00 03000000 00000000 02000000 6162 01000000 62")
    assert encode_partial_state([]).to_pybytes() == bytes(5)


@given(entries=st.lists(st.binary(max_size=20), max_size=8))
def test_entries_come_back(entries: list[bytes]) -> None:
    """Entries come back sorted from the encoder, and in their order from any bytes."""
    assert sorted(set(entries)) == decode_partial_state(encode_partial_state(entries))
    assert entries == decode_partial_state(partial_state_bytes(entries))


@pytest.mark.parametrize("damaged", [b"", PART[:-1], PART + b"\0", b"\1" + PART[1:], b"\0\xff\xff\xff\xff" + PART[5:]])
def test_damaged_partial_state(damaged: bytes) -> None:
    """Bytes that are cut, extended or of another tag are malformed."""
    with pytest.raises(MalformedPartError):
        decode_partial_state(damaged)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, pa.py_buffer])
@pytest.mark.parametrize("part", [PART, NOISE, b""], ids=["part", "noise", "nothing"])
def test_objects_come_back(encoding: Encoding, kind: type, part: bytes) -> None:
    """Every encoding holds any bytes, whatever object they are in."""
    encoded = encode_state_part(kind(part), encoding)
    assert part == decode_state_part(kind(encoded), encoding).to_pybytes()


def test_layout_of_objects() -> None:
    """v0 is bare; the tagged ones have a tag and a length in front."""
    assert encode_state_part(b"abc", Encoding.V0) == b"abc"
    assert encode_state_part(b"abc", Encoding.V0_TAGGED) == b"\0\3\0\0\0abc"
    frame = zstandard.ZstdCompressor(level=1).compress(PART)
    assert encode_state_part(PART, Encoding.V1) == b"\1" + len(frame).to_bytes(4, "little") + frame
    assert len(encode_state_part(PART, Encoding.V1, zstd_level=19)) < len(PART)


@pytest.mark.parametrize("level", [0, -1, 23])
def test_levels_of_zstd(level: int) -> None:
    """A level that zstd does not have is a usage error."""
    with pytest.raises(InvalidInputError):
        encode_state_part(PART, Encoding.V1, zstd_level=level)


@pytest.mark.parametrize("encoding", [Encoding.V0_TAGGED, Encoding.V1])
def test_an_object_is_what_it_is_said_to_be(encoding: Encoding) -> None:
    """Another tag, a cut, and bytes behind the payload are malformed; nothing is guessed."""
    encoded = encode_state_part(PART, encoding)
    others = [encode_state_part(PART, other) for other in Encoding if other is not encoding]
    for damaged in [*others, encoded + b"\0", b"\2" + encoded[1:], *(encoded[:length] for length in range(0, len(encoded), 7))]:
        with pytest.raises(MalformedPartError):
            decode_state_part(damaged, encoding)


def test_frames_as_nearcore_reads_them() -> None:
    """Concatenated frames are decoded one after the other and skippable ones are skipped, whether they tell a size or not."""
    one, other = frame_of(NOISE), frame_of(PART, told_size=True, checksum=True)
    for frames, expected in [
        (one, NOISE),
        (other, PART),
        (one + other, NOISE + PART),
        (SKIPPABLE_FRAME + other + SKIPPABLE_FRAME, PART),
        (frame_of(b"") + one, NOISE),
        (frame_of(b"", told_size=True), b""),
        (b"", b""),
    ]:
        assert expected == decode_state_part(v1_object(frames), Encoding.V1).to_pybytes()


@pytest.mark.parametrize("told_size", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_frame_is_whole(told_size: bool, checksum: bool) -> None:
    """A frame that is cut off anywhere, and bytes behind it that begin no frame, are malformed, also where all content is there."""
    frame = frame_of(b"abc" * 100, told_size=told_size, checksum=checksum)
    for damaged in [frame + b"\0", frame + b"abcdefgh", frame + SKIPPABLE_FRAME[:-1], *(frame[:length] for length in range(1, len(frame)))]:
        with pytest.raises(MalformedPartError):
            decode_state_part(v1_object(damaged), Encoding.V1)


def test_a_checksum_is_checked() -> None:
    """A frame whose checksum does not hold is malformed."""
    frame = frame_of(PART, checksum=True)
    with pytest.raises(MalformedPartError, match="checksum"):
        decode_state_part(v1_object(frame[:-1] + bytes([frame[-1] ^ 1])), Encoding.V1)


@pytest.mark.parametrize("told_size", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
def test_a_flipped_bit_in_a_frame(told_size: bool, checksum: bool) -> None:
    """Damage inside a frame is malformed, over the limit, or decodes to no more than that: then the trie has to judge it.

    Under a checksum nothing else than the part is ever decoded.
    """
    frame, limit = frame_of(PART, told_size=told_size, checksum=checksum), 2 * len(PART)
    decoded: list[bytes] = []
    for at, bit in itertools.product(range(len(frame)), range(8)):
        flipped = bytearray(frame)
        flipped[at] ^= 1 << bit
        with contextlib.suppress(MalformedPartError, PartLimitError):
            decoded.append(decode_state_part(v1_object(bytes(flipped)), Encoding.V1, decoded_bytes_max=limit).to_pybytes())
    assert max(map(len, decoded), default=0) <= limit
    if checksum:
        assert {*decoded} <= {PART}
    else:
        assert {*decoded} - {PART}


@pytest.mark.parametrize("encoding", Encoding)
def test_the_limit_is_exact(encoding: Encoding) -> None:
    """Exactly the limit is taken, one byte more is not."""
    encoded = encode_state_part(NOISE, encoding)
    assert decode_state_part(encoded, encoding, decoded_bytes_max=len(NOISE)).size == len(NOISE)
    with pytest.raises(PartLimitError):
        decode_state_part(encoded, encoding, decoded_bytes_max=len(NOISE) - 1)


@pytest.mark.parametrize("frames", [frame_of(NOISE), frame_of(NOISE[:150_000]) * 2], ids=["one frame", "two frames"])
def test_the_limit_is_exact_where_no_size_is_told(frames: bytes) -> None:
    """The same holds of frames that do not tell their size, alone or together."""
    assert decode_state_part(v1_object(frames), Encoding.V1, decoded_bytes_max=len(NOISE)).size == len(NOISE)
    with pytest.raises(PartLimitError):
        decode_state_part(v1_object(frames), Encoding.V1, decoded_bytes_max=len(NOISE) - 1)


@pytest.mark.parametrize("told_size", [False, True])
def test_a_bomb_is_not_unpacked(told_size: bool) -> None:
    """A few kilobytes that unfold to 64 MiB are refused without taking that much memory."""
    bomb = v1_object(frame_of(bytes(64 << 20), told_size=told_size))
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(PartLimitError):
            decode_state_part(bomb, Encoding.V1, decoded_bytes_max=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_announced_size_is_not_believed() -> None:
    """A frame that announces more than its blocks can hold is malformed, one that announces more than the limit is over it."""
    header = bytes.fromhex("28b52ffd e0")
    for announced, error_class in [(PARTIAL_STATE_BYTES_MAX + 1, PartLimitError), (100 << 20, MalformedPartError)]:
        frame = header + announced.to_bytes(8, "little") + bytes.fromhex("010000")
        with pytest.raises(error_class):
            decode_state_part(v1_object(frame), Encoding.V1)


def test_a_window_is_limited() -> None:
    """A frame that needs a window of more than 128 MiB is over the limit, as for nearcore's decoder."""
    frame = bytes.fromhex("28b52ffd 00 90 010000")
    with pytest.raises(PartLimitError, match="window"):
        decode_state_part(v1_object(frame), Encoding.V1)


def test_too_large_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part over the limit is not written, and the remedy is more parts."""
    monkeypatch.setattr("schemas.nearcore.state_part.PARTIAL_STATE_BYTES_MAX", 100)
    with pytest.raises(PartLimitError):
        encode_state_part(bytes(101), Encoding.V0)
    with pytest.raises(PartLimitError, match="more parts"):
        encode_partial_state([bytes(92)])
    assert encode_partial_state([bytes(91)]).size == 100
    with pytest.raises(PartLimitError):
        decode_partial_state(bytes(101))


@pytest.mark.parametrize(("protocol_version", "expected"), [(74, "v0"), (81, "v0"), (82, "v1"), (90, "v1")])
def test_default_encoding(protocol_version: int, expected: str) -> None:
    """Compressed parts begin with protocol version 82."""
    assert default_encoding(protocol_version) is Encoding(expected)


@pytest.mark.parametrize(("memory_usage", "expected"), [(0, 0), (1, 1), (30 << 20, 1), ((30 << 20) + 1, 2), (90 << 20, 3)])
def test_num_parts(memory_usage: int, expected: int) -> None:
    """A part for every 30 MiB begun, none for an empty trie."""
    assert expected == num_parts_for(memory_usage)


@given(total=st.integers(0, 2**64 - 1), num_parts=st.integers(1, 5000))
def test_thresholds_share_evenly(total: int, num_parts: int) -> None:
    """Thresholds begin at 0, end at the total, and steps differ by one at most, larger ones first."""
    thresholds = [boundary_threshold(part_id, num_parts, total) for part_id in range(min(num_parts, 50) + 1)]
    steps = [after - before for before, after in itertools.pairwise(thresholds)]
    assert thresholds[0] == 0
    assert boundary_threshold(num_parts, num_parts, total) == total
    assert steps == sorted(steps, reverse=True)
    assert set(steps) <= {total // num_parts, total // num_parts + 1}
