"""The difference between an export and the trusted trie is given as keys, as narrow as the trie allows."""

from __future__ import annotations

from hashlib import sha256

import pytest

from pipelines.dataset.difference import TrustedTrie, name_difference
from pipelines.kernel.choice import choose_kernel
from schemas.nearcore.state_part import decode_partial_state
from tests.support.records import build_ranges, cut_pairs, record_batches

KERNEL = choose_kernel("reference")
PAIRS = [(b"\x00%05d" % (number * 7), b"value %d" % number) for number in range(500)]
CUTS = [100, 250, 251, 400]


def trusted_trie() -> TrustedTrie:
    """Return the trie of the unchanged records, its nodes by hash."""
    (build,) = build_ranges(KERNEL, cut_pairs(PAIRS, []))
    nodes = {sha256(entry).digest(): entry for entry in decode_partial_state(build.interior)}
    return TrustedTrie(KERNEL.seal([build.edge]).state_root, nodes.get)


def named(pairs: list[tuple[bytes, bytes]], cuts: list[int]) -> str | None:
    """Compare changed records with the trusted trie."""
    ranges = cut_pairs(pairs, cuts)
    edges = [build.edge for build in build_ranges(KERNEL, ranges)]
    return name_difference(KERNEL, edges, lambda index: record_batches(ranges[index].pairs), trusted_trie())


def spans(text: str | None) -> list[tuple[bytes, bytes]]:
    """Read the named key ranges."""
    assert text is not None
    words = [part.split() for part in text.split("; ")]
    return [(bytes.fromhex(word[1]), bytes.fromhex(word[3])) for word in words]


@pytest.mark.parametrize("cuts", [[], CUTS])
@pytest.mark.parametrize("position", [0, 99, 100, 250, 333, 499])
def test_a_changed_value_is_named_within_a_few_records(position: int, cuts: list[int]) -> None:
    """The one named range holds the changed key, and few others."""
    key = PAIRS[position][0]
    changed = [(k, v + b"!" if k == key else v) for k, v in PAIRS]

    ranges = spans(named(changed, cuts))

    assert all(first <= key <= last for first, last in ranges)
    inside = [k for k, _ in PAIRS if any(first <= k <= last for first, last in ranges)]
    assert 1 <= len(inside) <= 8


@pytest.mark.parametrize("position", [3, 120, 250, 420])
def test_a_missing_record_is_named_by_the_keys_around_it(position: int) -> None:
    """A dropped record lies inside or right beside a named range."""
    key = PAIRS[position][0]
    without = [pair for pair in PAIRS if pair[0] != key]

    ranges = spans(named(without, CUTS))

    around = {PAIRS[position - 1][0], PAIRS[position + 1][0]}
    assert any(first <= neighbour <= last for first, last in ranges for neighbour in around)


def test_nothing_is_named_without_the_trusted_nodes() -> None:
    """A source that has no trie leaves the question open."""
    trie = TrustedTrie(trusted_trie().state_root, lambda _: None)
    edges = [build.edge for build in build_ranges(KERNEL, cut_pairs(PAIRS, CUTS))]

    assert name_difference(KERNEL, edges, lambda _: [], trie) is None
