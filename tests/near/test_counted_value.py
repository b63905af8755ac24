"""Payloads of rows whose reference counts were not merged."""

from __future__ import annotations

import struct
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.node.counted_value import find_payload

DELIMITER = b"0123456789abcdef"
# A process draws its delimiter, so no payload has it.
payloads = (st.binary(max_size=40) | st.sampled_from([b"", b";", b"\0" * 8, b"\xff" * 16, b";" * 30])).filter(
    lambda payload: DELIMITER not in payload
)
counts = st.integers(min_value=-3, max_value=3)


@given(payload=payloads, operations=st.lists(counts, max_size=6))
def test_a_payload_is_found_among_any_pending_merges(payload: bytes, operations: list[int]) -> None:
    """Writes carry the payload, removals only a count, and a merge that came out at zero is empty."""
    entries = [payload + struct.pack("<q", 1)] + [
        b"" if count == 0 else (payload if count > 0 else b"") + struct.pack("<q", count) for count in operations
    ]
    for rotation in range(len(entries)):
        row = DELIMITER.join(entries[rotation:] + entries[:rotation])
        assert find_payload(row, sha256(payload).digest(), DELIMITER) == payload


@given(payload=payloads)
def test_a_cold_store_row_is_the_bare_payload(payload: bytes) -> None:
    """An archival node's rows have no count."""
    assert find_payload(payload, sha256(payload).digest(), DELIMITER) == payload


@given(payload=st.binary(min_size=1, max_size=40))
def test_a_changed_payload_is_not_found(payload: bytes) -> None:
    """What does not hash to the key is no payload."""
    damaged = bytes([payload[0] ^ 1]) + payload[1:] + struct.pack("<q", 1)
    assert find_payload(damaged, sha256(payload).digest(), DELIMITER) is None
