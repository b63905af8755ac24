"""The digest by which a shard's summary is known again."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from schemas.dataset.dataset_summary import DatasetSummary, RecordsFile, ValuesFile
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.state_header import HeaderOrigin

ROOT = CryptoHash(bytes([1]) * 32)
CONTEXT = EpochContext("test", 1, ROOT, ROOT, 82, (ShardContext(ShardUId(3, 0), None, ROOT),))
RECORDS = RecordsFile("records", 10, "00", b"a", b"b", (5, 6), 7)
VALUES = ValuesFile("values", 1, "00", 1, 1, (bytes(32),))
SUMMARY = DatasetSummary(CONTEXT, "a node", "f", (RECORDS,), (VALUES,))

OTHERS: dict[str, Any] = {
    "context": replace(CONTEXT, block_headers=(b"header",)),
    "source": "another node",
    "fingerprint": "g",
    "files": (),
    "values_files": (),
    "shared_values_files": (VALUES,),
    "verified_state_root": ROOT,
    "memory_usage": 9,
    "state_header_origin": HeaderOrigin.COMPUTED,
    "state_header_reason": "gone",
    "verified_state_header_sha256": "0" * 64,
}
NOTED_LATER = {"verified_state_root", "memory_usage"}


@pytest.mark.parametrize("name", [field.name for field in fields(DatasetSummary)])
def test_the_digest_is_of_all_but_what_is_noted_later(name: str) -> None:
    """A field that a reader goes by changes it; root and memory usage, which are noted once they are known, do not."""
    other = replace(SUMMARY, **{name: OTHERS[name]})
    assert other != SUMMARY
    assert (other.content_sha256() == SUMMARY.content_sha256()) == (name in NOTED_LATER)


def test_the_digest_outlives_the_file() -> None:
    """What is read back has the digest of what was written."""
    assert DatasetSummary.from_bytes(SUMMARY.to_bytes(), "").content_sha256() == SUMMARY.content_sha256()
