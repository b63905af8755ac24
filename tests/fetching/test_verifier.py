"""Parts that have the digest that their publisher signed, and are judged all the same."""

from __future__ import annotations

import hashlib
import queue
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.verifier import Verifier, VerifyPartTask
from schemas.errors import StoreError
from schemas.ids import CryptoHash, PartId
from schemas.published.dsse import parse_envelope
from schemas.published.shard_statement import ShardStatement
from tests.support.fault_server import BOMB_DECODED_BYTES, zstd_bomb
from tests.support.fetches import parts_layout, parts_manifest, published_parts


@pytest.fixture
def task(tmp_path: Path) -> VerifyPartTask:
    """A right part in a file of its own."""
    shard = parts_manifest().shards[1]
    data = (published_parts() / parts_layout().shard_statement(shard.shard_id)).read_bytes()
    statement = ShardStatement.from_payload(parse_envelope(data, "test").payload, "test")
    part_id = PartId(2, shard.num_parts)
    path = tmp_path / "part"
    name, listed, stated = parts_layout().state_part(shard.shard_id, part_id), shard.parts[2], statement.parts[2]
    path.write_bytes((published_parts() / name).read_bytes())
    part = FetchPart(
        object_name=name,
        shard_id=shard.shard_id,
        part_id=part_id,
        encoding=parts_manifest().encoding,
        size=listed.size,
        sha256=listed.sha256,
        state_root=shard.state_root,
        decoded_size=stated.decoded_size,
        decoded_sha256=stated.sha256,
    )
    return VerifyPartTask(path, part, "auto", check_stored=True)


def file_of(task: VerifyPartTask) -> Path:
    """Return the file that is judged."""
    assert isinstance(task.held, Path)
    return task.held


def of_another(task: VerifyPartTask, **changes: Any) -> VerifyPartTask:
    """Return the task with a part that must be another."""
    return replace(task, part=replace(task.part, **changes))


def test_a_right_part_is_right(task: VerifyPartTask) -> None:
    """By every rule."""
    assert task.run() is None


def test_each_rule_is_asked(task: VerifyPartTask) -> None:
    """Size, stored digest, decoded size and digest, state root, part id."""
    wrong = {
        "size": of_another(task, size=task.part.size + 1),
        "manifest's sha256": of_another(task, sha256="0" * 64),
        "limit": of_another(task, decoded_size=task.part.decoded_size - 1),
        "statement's size": of_another(task, decoded_size=task.part.decoded_size + 1),
        "statement's size and sha256": of_another(task, decoded_sha256="0" * 64),
    }
    for expected, changed in wrong.items():
        assert expected in str(changed.run())
    assert of_another(task, state_root=CryptoHash(b"\1" * 32)).run() is not None
    assert of_another(task, part_id=PartId(3, task.part.part_id.total)).run() is not None


def test_a_bomb_with_the_right_digest_is_not_decoded(task: VerifyPartTask) -> None:
    """The statement says how large the part is; no more is ever allocated."""
    bomb = zstd_bomb()
    file_of(task).write_bytes(bomb)
    problem = of_another(task, size=len(bomb), sha256=hashlib.sha256(bomb).hexdigest()).run()
    assert problem is not None and str(BOMB_DECODED_BYTES) in problem


def test_a_file_that_is_gone_is_no_verdict(task: VerifyPartTask) -> None:
    """It is an error of this machine."""
    file_of(task).unlink()
    with pytest.raises(StoreError):
        task.run()


@pytest.mark.parametrize("in_threads", [True, False])
def test_both_kinds_of_workers_bring_verdicts_and_errors(in_threads: bool, task: VerifyPartTask, tmp_path: Path) -> None:
    """Processes as well as threads."""
    answers: queue.SimpleQueue[tuple[str, str | None, BaseException | None]] = queue.SimpleQueue()
    verifier = Verifier(1, in_threads=in_threads)
    try:
        for name, one in (("right", task), ("wrong", of_another(task, size=1)), ("gone", replace(task, held=tmp_path / "gone"))):
            verifier.submit(one, lambda problem, error, name=name: answers.put((name, problem, error)))  # type: ignore[misc]
        found = {name: (problem, error) for name, problem, error in (answers.get(timeout=60) for _ in range(3))}
    finally:
        verifier.close()
    assert found["right"] == (None, None)
    assert found["wrong"][0] is not None and found["wrong"][1] is None
    assert isinstance(found["gone"][1], StoreError)
