"""Lengths of keys and values in flat state."""

from __future__ import annotations

from typing import Final

INLINED_VALUE_BYTES_MAX: Final = 4000
"""A value of at most this many bytes is inlined (nearcore core/primitives/src/state.rs, INLINE_DISK_VALUE_THRESHOLD)."""

KEY_BYTES_MAX: Final = 2048 + 256
"""Longest trie key taken: nearcore limits a contract data key to 2048 bytes, and a prefix and an account id come before it."""

VALUE_BYTES_MAX: Final = 16 << 20
"""Largest value taken; the protocol's own limits (contract code, storage value) are 4 MiB."""
