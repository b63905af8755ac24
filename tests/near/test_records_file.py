"""Records out of JSON Lines."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kernel.choice import choose_kernel
from pipelines.near.files.records_file import LINE_BYTES_MAX, RecordsFileSource, records_context
from pipelines.near.files.sorted_file import SortedFile, sorted_file
from pipelines.near.node.flat_state_source import KeyRange
from schemas.errors import SourceChangedError, SourceError, ValueMismatchError
from schemas.ids import ZERO_HASH
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from tests.support.records import Pairs, pairs_of, record_sets
from tests.support.vectors import COMMITTED_VECTORS, pairs_of_case, read_vectors

WHOLE = KeyRange(b"", None)
SHARD = records_context().shards[0]


def lines(pairs: Pairs) -> bytes:
    """Return records as JSON Lines."""
    return b"".join(json.dumps({"key": key.hex(), "value": value.hex()}).encode() + b"\n" for key, value in pairs)


def read(path: Path, key_range: KeyRange = WHOLE) -> list[tuple[bytes, bytes]]:
    """Return a file's keys and values."""
    source = RecordsFileSource(str(path))
    records = list(source.records(SHARD, key_range, 2000))
    hashes = sorted({value_hash for batch in records for value_hash in batch["value_hash"].to_pylist() if value_hash})
    return pairs_of(records, source.values(SHARD, hashes, 2000))


@given(record_sets(min_size=0, max_size=20), st.randoms(use_true_random=False), st.booleans())
def test_records_come_out_sorted_from_any_order(pairs: list[tuple[bytes, bytes]], random: object, compressed: bool) -> None:
    """Long values come back by reference; gzip makes no difference."""
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        path.write_bytes(gzip.compress(lines(shuffled)) if compressed else lines(shuffled))
        assert read(path) == pairs
        if pairs:
            middle = pairs[len(pairs) // 2][0]
            assert read(path, KeyRange(b"", middle)) + read(path, KeyRange(middle, None)) == pairs


@pytest.mark.parametrize("value_bytes", [10, 300, 5000])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_a_sorted_copy_takes_is_told_before_it_is_made(tmp_path: Path, value_bytes: int, compressed: bool) -> None:
    """By the file's length, also of one that is compressed."""
    content = lines([(index.to_bytes(40, "big"), bytes([index % 251]) * value_bytes + index.to_bytes(2, "big")) for index in range(1000)])
    source = RecordsFileSource(str(write(tmp_path, gzip.compress(content) if compressed else content)), scratch=str(tmp_path / "scratch"))
    told = source.sorted_size()
    list(source.records(SHARD, WHOLE, 2000))
    taken = sum(path.stat().st_size for path in (tmp_path / "scratch").rglob("*") if path.is_file())
    assert told.least <= taken <= told.most < 4 * taken


def write(tmp_path: Path, content: bytes) -> Path:
    """Write a file of some content."""
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    return path


def test_a_small_trie_of_nearcore_has_its_root(tmp_path: Path) -> None:
    """The records of a case whose root nearcore computed, backwards."""
    case = max(read_vectors(COMMITTED_VECTORS), key=lambda case: len(case["records"]))
    source = RecordsFileSource(str(write(tmp_path, lines(pairs_of_case(case)[::-1]))))
    records = list(source.records(SHARD, WHOLE, 1 << 20))
    values = list(source.values(SHARD, sorted({h for b in records for h in b["value_hash"].to_pylist() if h}), 1 << 20))
    kernel = choose_kernel("auto")
    assert kernel.seal([kernel.build(records, values, None, None).edge])


def test_a_key_twice_names_both_lines(tmp_path: Path) -> None:
    """Which of the two values counts is not guessed."""
    path = write(tmp_path, lines([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]))
    with pytest.raises(SourceError, match=r"lines 1 and 3"):
        read(path)


@pytest.mark.parametrize(
    "bad",
    [
        b"no JSON",
        b"[]",
        b'{"key": "00"}',
        b'{"key": "00", "value": "00", "more": 1}',
        b'{"key": "0", "value": "00"}',
        b'{"key": "zz", "value": "00"}',
        b'{"key": 0, "value": "00"}',
        b'{"key": null, "value": "00"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"key": "00", "value": "00"' + b', "value": ""' * 1000 + b"}",
        b'{"key": "%s", "value": ""}' % (b"00" * (KEY_BYTES_MAX + 1)),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: bytes) -> None:
    """Blank lines are counted too."""
    path = write(tmp_path, lines([(b"a", b"1")]) + b"\n" + bad + b"\n" + lines([(b"b", b"2")]))
    with pytest.raises(SourceError, match="line 3"):
        read(path)


def test_an_endless_line_is_not_read_into_memory(tmp_path: Path) -> None:
    """A line has a limit, whatever it says."""
    path = tmp_path / "records.jsonl"
    with path.open("wb") as file:
        file.truncate(LINE_BYTES_MAX * 4)
    with pytest.raises(SourceError, match="at most"):
        read(path)


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    """It does not pass as a shorter file."""
    whole = gzip.compress(lines([(bytes([index]), os.urandom(50)) for index in range(100)]))
    path = write(tmp_path, whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"records\.jsonl"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before anything else is done."""
    source = RecordsFileSource(str(tmp_path / "nothing"))
    for action in (lambda: source.key_ranges(SHARD, 1), lambda: source.fingerprint(SHARD), lambda: list(source.records(SHARD, WHOLE, 1))):
        with pytest.raises(SourceError, match="nothing"):
            action()


def test_a_value_that_is_not_in_the_file_is_named(tmp_path: Path) -> None:
    """Only referenced values are asked for."""
    source = RecordsFileSource(str(write(tmp_path, lines([(b"a", b"v" * 5000)]))))
    value_hash = sha256(b"v" * 5000).digest()
    assert [batch["value"].to_pylist() for batch in source.values(SHARD, [value_hash], 1)] == [[b"v" * 5000]]
    with pytest.raises(ValueMismatchError, match="00" * 32):
        list(source.values(SHARD, [bytes(32)], 1))


def test_a_changed_file_is_sorted_again(tmp_path: Path) -> None:
    """What a process keeps is of the file as it was; its fingerprint changes as well."""
    path = write(tmp_path, lines([(b"a", b"1")]))
    first = RecordsFileSource(str(path)).fingerprint(SHARD)
    assert read(path) == [(b"a", b"1")]
    write(tmp_path, lines([(b"a", b"22")]))
    assert read(path) == [(b"a", b"22")]
    assert RecordsFileSource(str(path)).fingerprint(SHARD) != first


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Half of one file and half of another are no records."""
    path = write(tmp_path, b"before")

    def change(target: SortedFile) -> None:
        path.write_bytes(b"afterwards")

    with pytest.raises(SourceChangedError, match="changed while"):
        sorted_file([path], change, None)


def test_sorting_leaves_no_folder_when_its_records_are_no_longer_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of files that are no longer kept are removed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in "abcde":
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(lines([(b"k", name.encode())]))
        assert read(path) == [(b"k", name.encode())]
    assert len(list(tmp_path.glob("statecast-sort-*"))) <= 2


def test_it_has_neither_headers_nor_nodes() -> None:
    """What only a node has is not there."""
    source = RecordsFileSource("anywhere")
    assert source.state_header(SHARD, bytes(32)).data is None
    assert source.root_memory_usage(SHARD) is None


def test_records_come_with_a_context_of_their_own() -> None:
    """Chain local, epoch height 0, zero hashes, one shard."""
    context = records_context()
    assert (context.chain_id, context.epoch_height, context.epoch_id, context.sync_hash) == ("local", 0, ZERO_HASH, ZERO_HASH)
    assert [str(shard.shard_uid) for shard in context.shards] == ["s0.v0"]
