"""Deltas and the parts that are made again of them: byte for byte, or an error that names the object."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.dataset.delta.applied_records import AppliedRecords
from pipelines.dataset.delta.shard_records import last_key_before, pieces_of
from pipelines.dataset.delta.stored_delta import StoredDelta, _read_object
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.restoring.part_object import PartObject
from pipelines.stores.open_store import open_store
from schemas.errors import (
    EpochNotReadyError,
    IntegrityError,
    InvalidInputError,
    ManifestError,
    ObjectMismatchError,
    ObjectNotFoundError,
    StatecastError,
    StateRootMismatchError,
)
from schemas.ids import PartId, ShardUId
from schemas.published.delta_object import decode_delta_object, encode_delta_object
from schemas.published.delta_statement import BaseRange
from tests.support.delta_epochs import DeltaEpochs
from tests.support.records import Pairs, pairs_of

KEYS = st.binary(min_size=1, max_size=4)
VALUES = st.one_of(st.binary(max_size=40), st.sampled_from([b"\1" * 4001, b"\2" * 4001, b"\1" * 9000, b"\3" * 4000]))
STATES = st.dictionaries(KEYS, VALUES, min_size=1, max_size=30)

PAIRS: Pairs = [(b"\x00" + f"account{number:03d}.near".encode(), bytes([number]) * (number * 50)) for number in range(120)]
CHANGED: Pairs = sorted(
    {
        **{key: value for key, value in PAIRS if not key.endswith(b"7.near")},
        PAIRS[11][0]: b"new" * 2000,
        PAIRS[118][0]: b"",
        b"\x00b.near": b"inserted",
        b"\x09z.near,key": b"\7" * 5000,
    }.items()
)


@pytest.fixture(scope="module")
def epochs() -> DeltaEpochs:
    """Return three epochs with the deltas 1 to 2, 2 to 3 and 1 to 3. They must not be changed."""
    made = DeltaEpochs()
    made.publish(1, PAIRS, 3)
    made.publish(2, CHANGED, 5)
    made.publish(3, CHANGED[10:], 4)
    for base, target in ((1, 2), (2, 3), (1, 3)):
        made.make_delta(base, target)
    return made


@pytest.mark.parametrize("kernel_name", ["native", "reference"])
def test_parts_come_back_by_one_delta_and_by_a_ladder(epochs: DeltaEpochs, kernel_name: str) -> None:
    """Objects equal the published ones byte for byte, over another number of parts too."""
    mine = replace(epochs, kernel_name=kernel_name)
    for steps in ([(1, 3)], [(1, 2), (2, 3)]):
        rebuild = mine.rebuild(1, [mine.delta(*step) for step in steps], 3)
        parts = rebuild.run()
        assert not any(part.is_reencoded for part in parts)
        assert mine.parts(3, rebuild.into_url) == mine.parts(3)


@given(older=STATES, newer=STATES, num_parts=st.tuples(st.integers(1, 5), st.integers(1, 5)))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_two_states_any_cuts(older: dict[bytes, bytes], newer: dict[bytes, bytes], num_parts: tuple[int, int]) -> None:
    """A base with the delta applied is the target, to the byte: its records and its parts."""
    mine = DeltaEpochs()
    mine.publish(1, sorted(older.items()), num_parts[0])
    mine.publish(2, sorted(newer.items()), num_parts[1])
    delta = mine.make_delta(1, 2)
    assert delta.statement.records == sum(older.get(key) != newer.get(key) for key in older.keys() | newer.keys())
    assert delta.statement.deleted == len(older.keys() - newer.keys())
    applied = mine.applied(1, [delta])
    found = applied.read(KeyRange(b"", None))
    assert pairs_of(found.records, found.read_values(found.records)) == sorted(newer.items())
    for key_range in pieces_of(applied):
        part = applied.read(key_range)
        wanted = [(k, v) for k, v in sorted(newer.items()) if key_range.begin <= k and (key_range.end is None or k < key_range.end)]
        assert pairs_of(part.records, part.read_values(part.records)) == wanted
    for key in newer:
        assert last_key_before(applied, key) == max((other for other in newer if other < key), default=None)
    rebuild = mine.rebuild(1, [delta], 2)
    rebuild.run()
    assert mine.parts(2, rebuild.into_url) == mine.parts(2)


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_corrupt_delta_never_ends_in_a_wrong_file(epochs: DeltaEpochs, data: st.DataObject) -> None:
    """Whether or not its statement is made to fit: typed errors, and nothing put but the published bytes."""
    delta = epochs.delta(1, 2)
    store = open_store(epochs.store_url)
    right = bytearray(store.get(delta.object_name(0), 0, 1 << 20))
    wrong = bytearray(right)
    for _ in range(data.draw(st.integers(1, 3))):
        wrong[data.draw(st.integers(0, len(wrong) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del wrong[data.draw(st.integers(0, len(wrong) - 1)) :]
    mine = _with_object(epochs, delta, bytes(wrong), sealed=data.draw(st.booleans()))
    rebuild = epochs.rebuild(1, [mine], 2)
    try:
        rebuild.run()
    except StatecastError as error:
        assert isinstance(error, IntegrityError)
        assert mine.layout.folder in error.where
        assert not epochs.parts(2, rebuild.into_url)
    else:
        assert epochs.parts(2, rebuild.into_url) == epochs.parts(2)


def _with_object(epochs: DeltaEpochs, delta: StoredDelta, content: bytes, *, sealed: bool) -> StoredDelta:
    """Return a delta with another object in a store of its own; its statement is made to fit it where it is sealed."""
    mine = DeltaEpochs()
    open_store(mine.store_url).put(delta.object_name(0), content)
    statement = delta.statement
    if sealed and content:
        listed = replace(statement.objects[0], size=len(content), sha256=hashlib.sha256(content).hexdigest())
        try:
            batches = decode_delta_object(content, "test")
        except ObjectMismatchError:
            batches = []
        if batches:
            listed = replace(
                listed,
                records=sum(batch.num_rows for batch in batches),
                deleted=sum(batch["value"].null_count for batch in batches),
                first_key=batches[0]["key"][0].as_py(),
                last_key=batches[-1]["key"][-1].as_py(),
            )
        statement = replace(statement, objects=(listed,))
    return StoredDelta(mine.store_url, statement)


def test_a_delta_that_lies_is_found_out_by_the_root(epochs: DeltaEpochs) -> None:
    """Its own statement fits it, but what it makes is not the target: nothing is put, and the delta is named."""
    lie = epochs.delta(1, 3)
    told = replace(lie.statement, target=epochs.delta(1, 2).statement.target)
    store = open_store(epochs.store_url)
    mine = StoredDelta(f"{epochs.store_url}-lie", told)
    open_store(mine.store_url).put(mine.object_name(0), store.get(lie.object_name(0), 0, 1 << 20))
    rebuild = epochs.rebuild(1, [mine], 2)
    with pytest.raises(IntegrityError) as caught:
        rebuild.run()
    assert mine.where in caught.value.where
    assert not epochs.parts(2, rebuild.into_url)


def test_a_part_that_fails_is_taken_whole(epochs: DeltaEpochs) -> None:
    """One part of the base is damaged: what needs it is given whole, the rest is rebuilt."""
    mine = DeltaEpochs()
    _copy(epochs, mine)
    store = open_store(mine.store_url)
    broken = mine.layout(1).state_part(0, PartId(2, 3))
    store.put(broken, store.get(broken, 0, 1 << 20)[:-1])
    rebuild = mine.rebuild(1, [mine.delta(1, 2)], 2)
    failed = rebuild.build()
    assert failed
    assert set(failed) < set(range(5))
    assert all(broken in error.where for error in failed.values())
    target = rebuild.target
    whole = {
        idx: PartObject(
            mine.store_url,
            target.layout.state_part(0, PartId(idx, 5)),
            PartId(idx, 5),
            target.statement.state_root,
            target.encoding,
            target.stored_sha256[idx],
        )
        for idx in failed
    }
    rebuilt = rebuild.finish(whole)
    assert {part.part_id.idx for part in rebuilt} == set(range(5)) - set(failed)
    put = mine.parts(2, rebuild.into_url)
    assert put == {name: data for name, data in mine.parts(2).items() if name in put}
    assert len(put) == len(rebuilt)


def test_a_rerun_goes_on_with_what_was_built(epochs: DeltaEpochs) -> None:
    """Interiors of a run that was killed are used again, and a damaged one is made again."""
    rebuild = epochs.rebuild(1, [epochs.delta(1, 2)], 2)
    assert not rebuild.build()
    store = rebuild.work.store()
    store.put(rebuild.work.interior(PartId(1, 5)), b"cut off")
    store.delete(rebuild.work.edge(PartId(2, 5)))
    rebuild.run()
    assert epochs.parts(2, rebuild.into_url) == epochs.parts(2)
    assert not list(store.list(rebuild.work.folder))


def test_missing_and_swapped_objects_are_named(epochs: DeltaEpochs) -> None:
    """Of another delta, cut, or not there."""
    delta, other = epochs.delta(1, 2), epochs.delta(2, 3)
    content = open_store(epochs.store_url).get(other.object_name(0), 0, 1 << 20)
    whole = open_store(epochs.store_url).get(delta.object_name(0), 0, 1 << 20)
    for wrong, error_class in ((content, ObjectMismatchError), (whole[:-1], ObjectMismatchError), (None, ObjectNotFoundError)):
        mine = DeltaEpochs()
        if wrong is not None:
            open_store(mine.store_url).put(delta.object_name(0), wrong)
        with pytest.raises(error_class) as caught:
            epochs.rebuild(1, [StoredDelta(mine.store_url, delta.statement)], 2).run()
        assert caught.value.where == f"{mine.store_url}/{delta.object_name(0)}"
        _read_object.cache_clear()


def test_a_statement_of_another_delta_is_refused(epochs: DeltaEpochs) -> None:
    """Under the name of one, the genuine statement of another."""
    mine = DeltaEpochs()
    _copy(epochs, mine)
    store, layout = open_store(mine.store_url), mine.layout(3)
    names = [layout.delta_statement(mine.layout(base).epoch_id, 0) for base in (1, 2)]
    store.put(names[0], store.get(names[1], 0, 1 << 20))
    with pytest.raises(ManifestError) as caught:
        mine.delta(1, 3)
    assert names[0] in caught.value.where


def test_a_chain_that_does_not_lead_there_is_told(epochs: DeltaEpochs) -> None:
    """Another chain, shard, root or a missing rung, each by the object that does not fit."""
    first, second = epochs.delta(1, 2), epochs.delta(2, 3)
    base, target = first.statement.base, second.statement.target
    records = epochs.applied(1, ()).base
    assert AppliedRecords.of(records, base, [first, second], target, "test").steps == (first, second)
    with pytest.raises(EpochNotReadyError, match=r"no delta leads from shard s0\.v0 of epoch 1"):
        AppliedRecords.of(records, base, [second], target, "test")
    with pytest.raises(EpochNotReadyError, match=r"to shard s0\.v0 of epoch 3"):
        AppliedRecords.of(records, base, [first], target, "test")
    with pytest.raises(EpochNotReadyError, match=r"shard s4\.v0"):
        AppliedRecords.of(records, replace(base, shard_uid=ShardUId(0, 4)), [first, second], target, "test")
    with pytest.raises(StateRootMismatchError) as caught:
        AppliedRecords.of(records, replace(base, state_root=target.state_root), [first, second], target, "test")
    assert caught.value.where == first.where
    with pytest.raises(InvalidInputError, match="chain"):
        AppliedRecords.of(records, base, [first, second], target, "mainnet")


def test_a_base_of_another_state_ends_in_an_error(epochs: DeltaEpochs) -> None:
    """Although the caller did not look: the root tells."""
    rebuild = epochs.rebuild(3, [epochs.delta(1, 2)], 2)
    with pytest.raises(IntegrityError):
        rebuild.run()
    assert not epochs.parts(2, rebuild.into_url)


def test_a_childs_delta_restricts_the_parents_records(epochs: DeltaEpochs) -> None:
    """Records outside of the base's ranges are not taken, though no row says that they are gone."""
    delta = epochs.delta(1, 2)
    ranges = (BaseRange(b"\x00account05", b"\x00account07"),)
    mine = StoredDelta(epochs.store_url, replace(delta.statement, base_ranges=ranges, objects=()))
    found = epochs.applied(1, [mine]).read(KeyRange(b"", None))
    keys = [key for key, _ in pairs_of(found.records, found.read_values(found.records))]
    assert keys == [key for key, _ in PAIRS if b"\x00account05" <= key < b"\x00account07"]


def _copy(epochs: DeltaEpochs, into: DeltaEpochs) -> None:
    source, target = open_store(epochs.store_url), open_store(into.store_url)
    for info in source.list():
        target.put(info.name, source.get(info.name, 0, 1 << 30))


def test_a_delta_that_takes_a_parts_first_key_fails_that_part(epochs: DeltaEpochs) -> None:
    """Edges of such ranges can't be merged: the part fails, and with it the rebuilding of whoever has no whole part."""
    delta = epochs.delta(1, 2)
    gone = epochs.rebuild(1, [delta], 2).target.statement.parts[2].key_begin
    rows = {key: value for key, value in delta.rows() if key != gone} | {gone: None}
    content = encode_delta_object([sorted(rows.items())], {})
    rebuild = epochs.rebuild(1, [_with_object(epochs, delta, content, sealed=True)], 2)
    failed = rebuild.build()
    assert 2 in failed
    assert "do not begin or end where" in failed[2].problem
    with pytest.raises(IntegrityError, match="part"):
        rebuild.finish({})


def test_a_statement_of_other_parts_than_those_of_its_root_is_found_out(epochs: DeltaEpochs) -> None:
    """The state root is right, and a digest is not: that part is not put."""
    rebuild = epochs.rebuild(1, [epochs.delta(1, 2)], 2)
    statement = rebuild.target.statement
    wrong = replace(statement.parts[1], sha256="00" * 32)
    rebuild.target = replace(rebuild.target, statement=replace(statement, parts=(statement.parts[0], wrong, *statement.parts[2:])))
    with pytest.raises(ObjectMismatchError) as caught:
        rebuild.run()
    name = rebuild.target.layout.state_part(0, PartId(1, 5))
    assert caught.value.where == name
    assert name not in epochs.parts(2, rebuild.into_url)
