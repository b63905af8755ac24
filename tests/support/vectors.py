"""nearcore's vectors of parts: reading them, and doing the damage that they name."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.kernel.trie_kernel import Kernel
from schemas.errors import MalformedNodeError, MalformedPartError, MissingTrieValueError, UnexpectedTrieValueError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import decode_partial_state, partial_state_bytes

COMMITTED_VECTORS = Path(__file__).resolve().parents[1] / "fixtures" / "vectors" / "trie-parts.json.gz"

"""Fourteen varied cases, few enough to be the parameters of tests."""

ALL_VECTORS = COMMITTED_VECTORS.with_name("all-trie-parts.json.gz")
"""All 48 cases, those fourteen among them."""


def read_vectors(path: Path) -> list[dict[str, Any]]:
    """Return the cases of a vector file."""
    with gzip.open(path) as file:
        return list(json.load(file)["cases"])


def pairs_of_case(case: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return a case's records, ascending by key."""
    return sorted((bytes.fromhex(key), bytes.fromhex(value)) for key, value in case["records"])


def verdict_of(kernel: Kernel, partial_state: bytes, state_root: CryptoHash, part_id: PartId) -> str:
    """Return a kernel's judgement in nearcore's terms: valid, invalid or malformed."""
    try:
        kernel.validate(pa.py_buffer(partial_state), state_root, part_id)
    except MalformedPartError:
        return "malformed"
    except (MissingTrieValueError, UnexpectedTrieValueError, MalformedNodeError):
        return "invalid"
    return "valid"


def damage_part(name: str, partial_state: bytes) -> bytes:
    """Return a damaged copy of a part; ``as_next_part_id`` changes no byte."""
    entries = decode_partial_state(partial_state)
    return _DAMAGE[name](entries, partial_state)


def judged_as(name: str, part_id: PartId) -> PartId:
    """Return the part id that a damaged copy is judged as."""
    return PartId((part_id.idx + 1) % part_id.total, part_id.total) if name == "as_next_part_id" else part_id


def _drop_middle(entries: list[bytes], _: bytes) -> bytes:
    middle = len(entries) // 2
    return partial_state_bytes(entries[:middle] + entries[middle + 1 :])


def _flip_last_byte_of_middle(entries: list[bytes], _: bytes) -> bytes:
    middle = len(entries) // 2
    entry = entries[middle]
    flipped = entry[:-1] + bytes([entry[-1] ^ 1]) if entry else b"\x01"
    return partial_state_bytes([*entries[:middle], flipped, *entries[middle + 1 :]])


_DAMAGE: dict[str, Callable[[list[bytes], bytes], bytes]] = {
    "append_zero_byte": lambda _, whole: whole + b"\0",
    "as_next_part_id": lambda _, whole: whole,
    "drop_middle": _drop_middle,
    "duplicate_middle_appended": lambda entries, _: partial_state_bytes([*entries, entries[len(entries) // 2]]),
    "empty": lambda *_: partial_state_bytes([]),
    "extra_appended": lambda entries, _: partial_state_bytes([*entries, b"extra"]),
    "flip_last_byte_of_middle": _flip_last_byte_of_middle,
    "reversed": lambda entries, _: partial_state_bytes(entries[::-1]),
    "truncate_one_byte": lambda _, whole: whole[:-1],
}

DAMAGE_NAMES = frozenset(_DAMAGE)
"""Every damage that the vectors name."""
