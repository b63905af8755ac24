"""Values that are kept beside a dataset while it is restored from parts."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from pipelines.near.node.flat_state_source import KeyRange
from pipelines.restoring.part_folder import find_epoch, open_epoch_parts
from pipelines.restoring.parts_source import PartsSource
from tests.support.commands import statecast

RECORDS = [(b"\x00account%04d" % number, (b"%08d" % (number % 30)) * 2000) for number in range(60)]
"""Two records refer to each value, and they are in different parts."""
HASHES = [sha256(value).digest() for _, value in RECORDS[:30]]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publish the records in four parts."""
    folder = tmp_path_factory.mktemp("parts")
    lines = (json.dumps({"key": key.hex(), "value": value.hex()}) for key, value in RECORDS)
    (folder / "records.jsonl").write_text("\n".join(lines))
    options = ("--num-parts", 4, "--allow-unsigned", "--work", folder / "work", "--in-process")
    assert statecast("produce", "--from", f"records://{folder}/records.jsonl", "--to", folder / "bucket", *options).code == 0
    return folder / "bucket"


@pytest.fixture
def source(bucket: Path, tmp_path: Path) -> PartsSource:
    """Return the parts as a source whose values are kept already."""
    url, layout = find_epoch(str(bucket))
    epoch = open_epoch_parts(url, layout, None, None, ())
    parts = PartsSource.of_shard(epoch, epoch.shards[0], str(tmp_path), "auto")
    assert sum(batch.num_rows for batch in parts.records(parts.context.shards[0], KeyRange(b"", None), 1 << 20)) == len(RECORDS)
    return parts


def test_values_come_in_the_order_asked_for(source: PartsSource) -> None:
    """Whichever part holds them, each once."""
    rows = [row for batch in source.values(source.context.shards[0], HASHES, 50_000) for row in batch.to_pylist()]
    assert [row["value_hash"] for row in rows] == HASHES
    assert [row["value"] for row in rows] == [value for _, value in RECORDS[:30]]


@pytest.mark.parametrize("data", [b"", b"ARROW1" + bytes(5000), None])
def test_kept_values_that_are_damaged_are_taken_from_the_part_again(source: PartsSource, tmp_path: Path, data: bytes | None) -> None:
    """Cut off, full of zeros or gone."""
    kept = sorted(tmp_path.rglob("*.values.arrow"))
    assert len(kept) == 4
    for path in kept:
        path.unlink()
        if data is not None:
            path.write_bytes(data)
    rows = [row for batch in source.values(source.context.shards[0], HASHES, 50_000) for row in batch.to_pylist()]
    assert [row["value_hash"] for row in rows] == HASHES
