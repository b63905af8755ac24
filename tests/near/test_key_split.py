"""Cutting a shard by its table files."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.node.key_split import RANGES_MAX, ExistingKeys, split_keys
from pipelines.near.node.rocksdb_reader import DatabaseFile


def look_ups(keys: list[bytes]) -> ExistingKeys:
    """Look keys up in a sorted list."""
    return ExistingKeys(
        lambda key: next(iter(keys[bisect_left(keys, key) :]), None),
        lambda key: keys[bisect_right(keys, key) - 1] if bisect_right(keys, key) else None,
    )


keys_lists = st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=80, unique=True).map(sorted)


@given(keys_lists, st.data(), st.integers(1, 5000))
def test_cuts_are_ascending_existing_keys_after_the_first(keys: list[bytes], data: st.DataObject, target: int) -> None:
    """Whatever files there are, ranges that begin at the cuts tile the shard."""
    ends = st.sampled_from([b"\0" * 13, *keys, b"\xff" * 13])
    files = data.draw(
        st.lists(st.builds(lambda a, b, size: DatabaseFile(min(a, b), max(a, b), size), ends, ends, st.integers(1, 20_000)), max_size=8)
    )

    cuts = split_keys(files, keys[0], keys[-1], target, look_ups(keys))
    assert list(cuts) == sorted(set(cuts))
    assert all(keys[0] < cut <= keys[-1] for cut in cuts)


def test_files_that_follow_each_other_are_cut_between() -> None:
    """Where files tile the shard, each cut is a file's first key and ranges have about the target."""
    files = [DatabaseFile(bytes([index]), bytes([index, 255]), 100) for index in range(50)]
    assert split_keys(files, b"\0", b"\xff", 500, look_ups([])) == tuple(bytes([index]) for index in range(5, 50, 5))


def test_one_large_file_is_cut_by_interpolation() -> None:
    """A single file over the whole shard still gives ranges."""
    keys = [bytes(8) + b"\x02" + index.to_bytes(2, "big") for index in range(1000)]
    cuts = split_keys([DatabaseFile(keys[0], keys[-1], 1000)], keys[0], keys[-1], 100, look_ups(keys))
    assert len(cuts) == 9
    assert max(int.from_bytes(b, "big") - int.from_bytes(a, "big") for a, b in pairwise(cuts)) < 120


def test_a_tiny_target_does_not_cut_without_end() -> None:
    """The number of ranges is bounded whatever is asked for."""
    files = [DatabaseFile(b"\0", b"\xff", 1 << 40)]
    assert len(split_keys(files, b"\0", b"\xff", 1, ExistingKeys(lambda key: key, lambda key: key))) <= RANGES_MAX


def test_kinds_of_records_are_cut_apart_before_they_are_interpolated() -> None:
    """A file over several kinds is cut where each begins, and every kind for itself, so that clustered keys still spread."""
    keys = sorted(bytes(8) + bytes([kind]) + b"name%03d" % number for kind in (0, 2, 9, 255) for number in range(200))

    cuts = split_keys([DatabaseFile(keys[0], keys[-1], 400)], keys[0], keys[-1], 100, look_ups(keys))

    firsts = {next(key for key in keys if key[8] == kind) for kind in (2, 9, 255)}
    assert firsts <= set(cuts)
    assert max(sum(left <= key < right for key in keys) for left, right in pairwise([keys[0], *cuts, b"\xff" * 9])) <= 100
