"""Both kernels against parts that nearcore computed and verdicts that it gave."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import pytest

from pipelines.kernel.trie_kernel import Kernel
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import decode_partial_state
from tests.support.records import pairs_of, parts_of
from tests.support.vectors import (
    ALL_VECTORS,
    COMMITTED_VECTORS,
    DAMAGE_NAMES,
    damage_part,
    judged_as,
    pairs_of_case,
    read_vectors,
    verdict_of,
)

CASES = {case["case"]: case for case in read_vectors(COMMITTED_VECTORS)}


def check_case(kernel: Kernel, case: dict[str, Any]) -> int:
    """Compare a case's roots, parts, records and verdicts; return the number of verdicts."""
    pairs = pairs_of_case(case)
    verdicts = 0
    for part_set in case["part_sets"]:
        num_parts = part_set["num_parts"]
        shard = parts_of(kernel, pairs, num_parts)
        assert (case["state_root"], case["memory_usage"]) == (str(shard.state_root), shard.memory_usage)
        assert [part["part_id"] for part in part_set["parts"]] == list(range(num_parts))
        for expected, part, part_pairs in zip(part_set["parts"], shard.parts, shard.part_pairs, strict=True):
            part_id = PartId(expected["part_id"], num_parts)
            assert expected["sha256"] == hashlib.sha256(part).hexdigest(), (case["case"], part_id)
            assert (expected["size"], expected["nodes"]) == (part.size, len(decode_partial_state(part)))
            applied = kernel.apply(part, shard.state_root, part_id)
            assert list(part_pairs) == pairs_of(applied.records, applied.values)
            for damage in expected["mutations"]:
                damaged = damage_part(damage["name"], part.to_pybytes())
                assert damage["sha256"] == hashlib.sha256(damaged).hexdigest()
                verdict = verdict_of(kernel, damaged, shard.state_root, judged_as(damage["name"], part_id))
                assert damage["verdict"] == verdict, (case["case"], part_id, damage["name"])
                verdicts += 1
    return verdicts


def test_the_vectors_are_there() -> None:
    """The committed cases are varied: empty and large tries, every damage, every verdict, long and empty values, prefix keys."""
    damages = [d for case in CASES.values() for s in case["part_sets"] for part in s["parts"] for d in part["mutations"]]
    values = [value for case in CASES.values() for _, value in pairs_of_case(case)]
    all_keys = [[key for key, _ in pairs_of_case(case)] for case in CASES.values()]

    assert len(CASES) == 14
    assert sum(len(s["parts"]) for case in CASES.values() for s in case["part_sets"]) == 14 * (1 + 2 + 3 + 7 + 31)
    assert {d["name"] for d in damages} == DAMAGE_NAMES
    assert {d["verdict"] for d in damages} == {"valid", "invalid", "malformed"}
    assert not all_keys[0] and max(map(len, all_keys)) > 500
    assert b"" in values and max(map(len, values)) > 4000
    assert any(b"" in keys for keys in all_keys)
    assert any(after.startswith(before) for keys in all_keys for before, after in pairwise(keys))


@pytest.mark.parametrize("case", CASES)
def test_parts_and_verdicts_are_nearcores(kernel: Kernel, case: int) -> None:
    """Roots, memory usage, every part's bytes and every verdict are nearcore's."""
    assert check_case(kernel, CASES[case]) > 0


def test_the_cases_are_of_the_whole_set() -> None:
    """Unchanged: what holds for them and for the others holds for all 48."""
    cases = read_vectors(ALL_VECTORS)
    assert [case["case"] for case in cases] == list(range(48))
    assert all(CASES.get(case["case"], case) == case for case in cases)
    assert sum(len(part["mutations"]) for case in cases for part_set in case["part_sets"] for part in part_set["parts"]) == 1436 + 596


def test_all_other_vectors(kernel: Kernel) -> None:
    """The same holds for the other 34 cases of the whole set."""
    others = [case for case in read_vectors(ALL_VECTORS) if case["case"] not in CASES]
    assert sum(check_case(kernel, case) for case in others) == 1436


def test_a_wrong_root_is_refused(kernel: Kernel) -> None:
    """A part proves nothing against another root."""
    shard = parts_of(kernel, pairs_of_case(CASES[4]), 3)
    wrong = CryptoHash(hashlib.sha256(b"another root").digest())
    assert verdict_of(kernel, shard.parts[1].to_pybytes(), wrong, PartId(1, 3)) == "invalid"
