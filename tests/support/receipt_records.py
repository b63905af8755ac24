"""Records that hold receipts: every kind of receipt and action in every place of the state that has receipts, in every form."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

_FILE = Path(__file__).resolve().parents[1] / "fixtures" / "receipts" / "receipts.json"


@lru_cache
def receipts() -> dict[str, bytes]:
    """Return nearcore's receipts by name."""
    return {name: bytes.fromhex(text) for name, text in json.loads(_FILE.read_text(encoding="utf-8")).items()}


def stored(receipt: bytes, version: int = 1) -> bytes:
    """Return the form that has figures of congestion with it."""
    return b"\xff\xff" + bytes([version]) + receipt + (7).to_bytes(8, "little") + (8).to_bytes(8, "little")


def receipt_records() -> list[tuple[bytes, bytes]]:
    """Return keys and values; the last ones are of kinds that a later nearcore might have."""
    records: list[tuple[bytes, bytes]] = []
    for number, receipt in enumerate(receipts().values()):
        index = number.to_bytes(8, "little")
        named = b"receiver.near," + bytes([number]) * 32
        with_priority = b"\1" + receipt + bytes(8)
        records += [(b"\7" + index, receipt), (b"\7" + (1000 + number).to_bytes(8, "little"), stored(receipt, 0))]
        records += [(b"\6" + named, receipt), (b"\6a" + named, with_priority), (b"\x0c" + named, receipt)]
        records += [(b"\x0e\1\0" + index, receipt), (b"\x0e\2\0" + index, stored(receipt))]
    later = bytearray(receipts()["data"])
    later[58] = 7
    action = bytearray(receipts()["action_create_account"])
    action[-1] = 99
    transfer = bytearray(receipts()["action_transfer"])
    return [
        *records,
        (b"\7" + b"\xfe" * 8, bytes(later)),
        (b"\7" + b"\xfd" * 8, bytes(action)),
        (b"\7" + b"\xfc" * 8, stored(bytes(transfer), 2)),
        (b"\7" + b"\xfb" * 8, bytes(transfer[:-16]) + b"\xff" * 16),
    ]
