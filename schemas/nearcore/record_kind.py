"""What kind of record a trie key belongs to: its first byte.

Source: nearcore core/primitives/src/trie_key.rs, module ``col``.
"""

from __future__ import annotations

RECORD_KINDS: dict[int, str] = {
    0: "account",
    1: "contract code",
    2: "access key",
    3: "received data",
    4: "postponed receipt id",
    5: "pending data count",
    6: "postponed receipt",
    7: "delayed receipts",
    9: "contract data",
    10: "promise yield indices",
    11: "promise yield timeout",
    12: "promise yield receipt",
    13: "buffered receipt indices",
    14: "buffered receipt",
    15: "bandwidth scheduler state",
    16: "buffered receipt groups queue data",
    17: "buffered receipt groups queue item",
    18: "global contract code",
    19: "global contract nonce",
    20: "promise yield status",
    22: "yield id to data id",
    23: "data id to yield id",
}
"""First byte of a trie key to the name of its kind; 8 and 21 are never written: delayed receipts are under 7, nonces of gas keys under 2."""


def record_kind_name(first_byte: int | None) -> str:
    """Return a kind's name; None is the empty key, which no kind has."""
    if first_byte is None:
        return "empty key"
    return RECORD_KINDS.get(first_byte, f"unknown kind 0x{first_byte:02x}")
