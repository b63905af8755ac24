"""Referenced values in a dataset: own ones beside their records, shared ones once; what reading them costs; what damage to them shows as."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.counting_store import READS, count_calls, counted_calls, requests, stop_counting, transferred
from pipelines.dataset.arrow_dataset import RowSpan, ShardDataset, list_shards
from pipelines.dataset.export import export_values
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.dataset.export.references import read_own_references, read_shared
from pipelines.dataset.record_files import FileFormat
from pipelines.execution.stage_runner import silent_runner
from pipelines.near.node.flat_state_source import KeyRange
from schemas.dataset.dataset_summary import ValuesFile
from schemas.errors import DatasetError, SourceError, ValueMismatchError
from tests.support.commands import objects_in
from tests.support.list_source import ListSource, context_of, list_source
from tests.support.records import Pairs, pairs_of, record_batches, record_sets

BOTH_FORMATS = pytest.mark.parametrize("file_format", list(FileFormat))


def own_value(number: int, size: int = 5000) -> bytes:
    """Return a value that no other number has."""
    return (b"%08d" % number) * (size // 8)


SHARED = [bytes([letter]) * 6000 for letter in b"abcdefghij"]
PAIRS = [
    (b"\x00account%04d" % number, SHARED[number // 3 % 10] if number % 3 == 0 else own_value(number) if number % 3 == 1 else b"short")
    for number in range(120)
]
"""A third refers to ten shared values, each four times; a third to own ones."""


def export(url: Path | str, pairs: Pairs = PAIRS, cuts: Sequence[int] = (30, 31, 90), **settings: object) -> ShardDataset:
    """Export a small shard in several ranges and files."""
    wanted = ExportSettings(str(url), **{"file_bytes_target": 40_000, "durable": False, **settings})  # type: ignore[arg-type]
    (dataset,) = export_epoch(silent_runner(), list_source(pairs, cuts, 16), context_of(None), wanted)
    return dataset


@pytest.fixture
def by_ranges() -> Iterator[None]:
    """Let folders be read as buckets are, and every request be counted."""
    count_calls(by_ranges=True)
    yield
    stop_counting()


def records_of(dataset: ShardDataset) -> list[pa.RecordBatch]:
    """Read all records."""
    return [batch for index in range(len(dataset.summary.files)) for batch in dataset.read_file(index)]


def hashes_in(batches: Sequence[pa.RecordBatch]) -> list[bytes]:
    """Return the hashes of values, in order."""
    return [value_hash for batch in batches for value_hash in batch.column("value_hash").to_pylist()]


def own_rows(dataset: ShardDataset) -> list[tuple[bytes, bytes]]:
    """Return key and hash of all own values, in the files' order."""
    batches = [batch for index in range(len(dataset.summary.values_files)) for batch in dataset.read_own_values_file(index)]
    return [(row["key"], row["value_hash"]) for batch in batches for row in batch.to_pylist()]


def shared_hashes(dataset: ShardDataset) -> list[bytes]:
    """Return the hashes of all shared values, in the files' order."""
    return hashes_in(
        [batch for index in range(len(dataset.summary.shared_values_files)) for batch in dataset.read_shared_values_file(index)]
    )


@BOTH_FORMATS
def test_own_values_lie_in_their_records_order_and_shared_ones_once_by_hash(tmp_path: Path, file_format: FileFormat) -> None:
    """Whether a value's records lie in one range or in several makes no difference."""
    dataset = export(tmp_path, file_format=file_format)
    assert own_rows(dataset) == [(key, sha256(value).digest()) for key, value in PAIRS if len(value) == 5000]
    assert shared_hashes(dataset) == sorted(sha256(value).digest() for value in SHARED)
    assert len(dataset.summary.values_files) > 3 and len(dataset.summary.shared_values_files) > 1


def test_the_same_records_give_the_same_files(tmp_path: Path) -> None:
    """To the byte, and so does a second run over the first."""
    first, other, again = export(tmp_path / "one"), export(tmp_path / "two"), export(tmp_path / "one")
    assert first.summary == other.summary == again.summary


def test_many_tasks_find_and_copy_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split by hash to look for shared values, and by bytes to copy them."""
    one = export(tmp_path / "one")
    monkeypatch.setattr(export_values, "SHARING_TASK_REFERENCES", 7)
    monkeypatch.setattr(export_values, "VALUES_TASK_BYTES_TARGET", 16_000)
    many = export(tmp_path / "many")
    assert (own_rows(many), shared_hashes(many)) == (own_rows(one), shared_hashes(one))
    assert len(list((tmp_path / "many" / many.folder / "ranges").glob("shared-*.rows.arrow"))) > 3
    assert len(many.summary.values_files) > len(one.summary.values_files)
    assert pairs_of(records_of(many), many.read_values(records_of(many))) == PAIRS


def test_a_shard_without_references_has_no_values(tmp_path: Path) -> None:
    """Nor anything that would say where they are."""
    dataset = export(tmp_path, [(b"a", b"1"), (b"b", b"2")], ())
    assert not dataset.summary.values_files and not dataset.summary.shared_values_files
    assert dataset.read_values(records_of(dataset)) == []


@pytest.mark.parametrize("remote", [False, True])
@given(pairs=record_sets(), cuts=st.lists(st.integers(0, 59), max_size=3), begin=st.integers(0, 60), end=st.integers(0, 60))
def test_any_records_find_their_values(
    tmp_path_factory: pytest.TempPathFactory, remote: bool, pairs: Pairs, cuts: list[int], begin: int, end: int
) -> None:
    """Out of a folder and out of a store that is read by requests; each value once."""
    folder = tmp_path_factory.mktemp("dataset")
    dataset = export(f"memory://{folder.name}" if remote else folder, pairs, cuts, file_bytes_target=9000)
    some = pairs[begin:end]
    found = dataset.read_values(record_batches(some))
    assert pairs_of(record_batches(some), found) == list(some)
    assert len(hashes_in(found)) == len({value for _, value in some if len(value) > 4000})


@BOTH_FORMATS
@pytest.mark.usefixtures("by_ranges")
def test_what_adjacent_records_read_does_not_go_with_the_shard(tmp_path: Path, file_format: FileFormat) -> None:
    """Twenty own values take the same few requests and bytes out of a shard of ten times as many."""
    taken = []
    for count in (80, 800):
        pairs = [(b"\x00account%04d" % number, own_value(number)) for number in range(count)]
        dataset = export(tmp_path / str(count), pairs, range(40, count, 40), file_format=file_format, file_bytes_target=1 << 20)
        records = dataset.read_span(RowSpan(0, 10, 30))
        before = counted_calls()
        assert len(hashes_in(dataset.read_values(records))) == 20
        calls = counted_calls() - before
        taken.append((requests(calls, READS), transferred(calls, READS)))
    assert taken[0] == taken[1]
    if file_format is FileFormat.IPC:
        assert taken[0][0] == 1 and taken[0][1] < 1.2 * 20 * 5000


@pytest.mark.usefixtures("by_ranges")
def test_a_shared_value_takes_at_most_one_read(tmp_path: Path) -> None:
    """However many there are in the shard; neighbours by hash are read together."""
    pairs = [(b"\x00%d-%04d" % (copy, number), own_value(number, 600_000)) for copy in range(2) for number in range(24)]
    dataset = export(tmp_path, pairs, (24,), file_bytes_target=8 << 20)
    records = dataset.read_span(RowSpan(0, 0, 5))
    before = counted_calls()
    assert len(hashes_in(dataset.read_values(records))) == 5
    assert requests(counted_calls() - before, READS) <= 5
    records = records_of(dataset)
    before = counted_calls()
    assert len(hashes_in(dataset.read_values(records))) == 24
    assert requests(counted_calls() - before, READS) <= 24 // 13 + len(dataset.summary.shared_values_files)


class _SourceOfTwoLengths(ListSource):
    def records(self, shard: object, key_range: object, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        for batch in ListSource.records(self, shard, key_range, record_batch_bytes_max):  # type: ignore[arg-type]
            rows = [row | ({"value_length": 6001} if row["key"] == PAIRS[0][0] else {}) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema=batch.schema)


def test_two_lengths_of_one_value_are_refused(tmp_path: Path) -> None:
    """By name of the value, whichever ranges say so."""
    with pytest.raises(ValueMismatchError, match=f"{sha256(PAIRS[0][1]).hexdigest()} two lengths"):
        export_epoch(
            silent_runner(),
            _SourceOfTwoLengths(tuple(PAIRS), (30, 90), 16),
            context_of(None),
            ExportSettings(str(tmp_path)),
        )


class _SourceOfAnotherLength(ListSource):
    def values(self, shard: object, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        for batch in ListSource.values(self, shard, value_hashes, record_batch_bytes_max):  # type: ignore[arg-type]
            rows = [row | {"value": row["value"] + b"!"} for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema=batch.schema)


class _SourceWithoutTheLast(ListSource):
    def values(self, shard: object, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        yield from list(ListSource.values(self, shard, value_hashes, record_batch_bytes_max))[:-1]  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [_SourceOfAnotherLength, _SourceWithoutTheLast])
def test_values_that_are_not_those_of_the_records_are_refused(tmp_path: Path, source: type[ListSource]) -> None:
    """Too long, or left out."""
    with pytest.raises(ValueMismatchError):
        export_epoch(silent_runner(), source(tuple(PAIRS)), context_of(None), ExportSettings(str(tmp_path)))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def _blank(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("as_bucket", [False, True])
@pytest.mark.parametrize("damage", [_cut, _blank, Path.unlink])
@pytest.mark.parametrize("kind", ["values_files", "shared_values_files"])
@BOTH_FORMATS
def test_a_damaged_file_of_values_is_named(tmp_path: Path, file_format: FileFormat, kind: str, damage, as_bucket: bool) -> None:  # type: ignore[no-untyped-def]
    """Cut off, full of zeros or gone; mapped or read by requests."""
    dataset = export(tmp_path, file_format=file_format)
    file: ValuesFile = getattr(dataset.summary, kind)[-1]
    records = records_of(dataset)
    damage(tmp_path / dataset.folder / file.name)
    if as_bucket:
        count_calls(by_ranges=True)
    try:
        with pytest.raises(DatasetError) as caught:
            dataset.read_values(records)
    finally:
        stop_counting()
    assert file.name in str(caught.value)


def test_an_offset_that_leads_out_of_a_file_of_records_is_named(tmp_path: Path) -> None:
    """Before it is followed: that would end the process."""
    dataset = export(tmp_path)
    path = tmp_path / dataset.folder / dataset.summary.files[0].name
    data = pa.py_buffer(path.read_bytes())
    offsets = pa.ipc.open_file(data).get_batch(0).column("key").buffers()[1]
    begin = offsets.address - data.address
    path.write_bytes(data[:begin].to_pybytes() + (-8).to_bytes(4, "little", signed=True) + data[begin + 4 :].to_pybytes())
    with pytest.raises(DatasetError, match=path.name):
        dataset.read_values(dataset.read_file(0))


@pytest.mark.parametrize("remote", [False, True])
def test_a_value_that_is_not_there_is_named(tmp_path: Path, remote: bool) -> None:
    """Its hash lies before, between or behind those that are there."""
    dataset = export(f"memory://{tmp_path.name}" if remote else tmp_path)
    for letter in (b"\x00", b"\x80", b"\xff"):
        row = {"key": PAIRS[1][0], "value": None, "value_length": 5000, "value_hash": letter * 32}
        with pytest.raises(ValueMismatchError, match=(letter * 32).hex()):
            dataset.read_values([pa.RecordBatch.from_pylist([row], schema=record_batches(PAIRS[:1])[0].schema)])


def test_a_dataset_of_another_format_is_to_be_exported_again(tmp_path: Path) -> None:
    """It is refused with that advice; an export over it leaves nothing of it."""
    dataset = export(tmp_path)
    summary = tmp_path / dataset.folder / "shard.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"format": "statecast.flat_state.1"}))
    old = tmp_path / dataset.folder / "values" / "values-0000-0000.arrow"
    old.write_bytes(b"of the older format")
    with pytest.raises(DatasetError, match=r"flat_state\.1.*export it again"):
        list_shards(str(tmp_path))
    assert export(tmp_path).summary == dataset.summary
    assert not old.exists()


def test_ranges_that_another_version_has_exported_are_exported_again(tmp_path: Path) -> None:
    """What an interrupted export of another format has left is not taken."""
    dataset = export(tmp_path)
    (tmp_path / dataset.folder / "shard.json").unlink()
    for path in (tmp_path / dataset.folder / "ranges").glob("*.json"):
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "format"}))
    for path in (tmp_path / dataset.folder / "ranges").glob("*.references.arrow"):
        path.write_bytes(b"of the older format")
    assert export(tmp_path).summary == dataset.summary


@pytest.mark.parametrize("damage", [_cut, _blank, Path.unlink])
def test_a_range_whose_references_are_damaged_is_exported_again(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    """The next run mends what a power cut left of an interrupted one."""
    dataset = export(tmp_path)
    (tmp_path / dataset.folder / "shard.json").unlink()
    for path in (tmp_path / dataset.folder / "ranges").glob("*.references.arrow"):
        damage(path)
    assert export(tmp_path).summary == dataset.summary


@pytest.mark.parametrize("damage", [_cut, _blank, Path.unlink])
@pytest.mark.parametrize("name", ["range-000000.references.arrow", "shared-0000.arrow", "shared-0000.rows.arrow"])
def test_damaged_references_are_named(tmp_path: Path, name: str, damage) -> None:  # type: ignore[no-untyped-def]
    """By tasks that find them so while an export runs."""
    dataset = export(tmp_path)
    store = ExportSettings(str(tmp_path)).read_dataset()
    damage(tmp_path / dataset.folder / "ranges" / name)
    with pytest.raises(DatasetError, match=name):
        read_own_references(store, dataset.folder, 0, (0,))
        read_shared(store, dataset.folder, 0)


def test_nothing_is_left_of_an_interrupted_export_by_other_ranges(tmp_path: Path) -> None:
    """A listing of the folder finds the records once."""
    more = export(tmp_path, cuts=range(5, 120, 5), file_bytes_target=8_000)
    (tmp_path / more.folder / "shard.json").unlink()
    dataset = export(tmp_path, cuts=(60,), range_bytes_target=1 << 20)
    left = {
        str(path.relative_to(tmp_path / dataset.folder)) for path in (tmp_path / dataset.folder).glob("*/*") if path.parent.name != "ranges"
    }
    assert left == {file.name for file in dataset.summary.all_files}
    assert pairs_of(records_of(dataset), dataset.read_values(records_of(dataset))) == PAIRS


class _SourceThatIsGone(ListSource):
    def key_ranges(self, shard: object, range_bytes_target: int) -> tuple[KeyRange, ...]:
        raise SourceError(problem="the node is gone")


def test_a_dataset_of_another_format_stays_until_there_is_something_to_replace_it(tmp_path: Path) -> None:
    """A source that can't be read costs nothing."""
    dataset = export(tmp_path)
    summary = tmp_path / dataset.folder / "shard.json"
    summary.write_text('{"format": "statecast.flat_state.1"}')
    before = objects_in(tmp_path)
    with pytest.raises(SourceError, match="gone"):
        export_epoch(
            silent_runner(),
            _SourceThatIsGone(tuple(PAIRS)),
            context_of(None),
            ExportSettings(str(tmp_path)),
        )
    assert objects_in(tmp_path) == before


@pytest.mark.parametrize("offsets", [[8, 16], [8, 16, 1 << 40], [-8, 16, 24], [24, 16, 32]])
def test_offsets_that_can_not_be_are_refused(offsets: list[int]) -> None:
    """Too few, past the end, before the begin, out of order."""
    file = ValuesFile("a", 1000, "00", 2, 10_000, (b"a", b"b"), (8, 16, 24))
    assert ValuesFile.from_json(file.to_json()) == file
    with pytest.raises(ValueError, match="batch_offsets"):
        ValuesFile.from_json(file.to_json() | {"batch_offsets": offsets})
