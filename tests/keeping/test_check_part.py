"""The check of one published part: every way in which it can be wrong is a result that says what."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from pipelines.keeping.check_part import CheckPartTask
from pipelines.producing.publish.publish_part import PublishedPart, PublishPartTask
from pipelines.stores.open_store import open_store
from schemas.errors import TransientStoreError
from schemas.nearcore.state_part import Encoding, decode_state_part, encode_state_part
from schemas.published.manifest_shard import ManifestPart
from schemas.published.shard_statement import StatementPart
from tests.support.faulty_store import Fault, scripted
from tests.support.productions import inject, new_store_url, publish_tasks, small_shard
from tests.support.stored_bytes import stored_bytes


def check_of(published: PublishedPart, task: PublishPartTask) -> CheckPartTask:
    """Return the check of a part as its own producer describes it."""
    plan, digests = published.interval, published.digests
    return CheckPartTask(
        store_url=task.place.store_url,
        object_name=task.place.object_name,
        stored=ManifestPart(plan.part_id.idx, digests.stored_size, digests.stored_sha256, published.pieces.v2_root.hex()),
        stated=StatementPart(plan.part_id.idx, plan.key_begin, plan.key_end, digests.decoded_size, digests.decoded_sha256),
        part_id=plan.part_id,
        state_root=task.state_root,
        encoding=Encoding.V1,
        piece_length=task.piece_length,
        kernel_name="auto",
    )


@pytest.fixture
def checks() -> list[CheckPartTask]:
    """The checks of a small shard's parts in a fresh store."""
    return [check_of(task.run(), task) for task in publish_tasks(small_shard(), new_store_url())]


def test_right_parts_are_right(checks: list[CheckPartTask]) -> None:
    """All records are counted, and the pieces for the torrent come along."""
    checked = [check.run() for check in checks]
    assert [part.problem for part in checked] == [None] * 3
    assert sum(part.records for part in checked) == 120
    assert all(part.pieces is not None for part in checked)


def test_a_missing_part_is_missing(checks: list[CheckPartTask]) -> None:
    """And nothing else."""
    open_store(checks[0].store_url).delete(checks[0].object_name)
    checked = checks[0].run()
    assert (checked.missing, checked.size, checked.problem) == (True, 0, "it is missing")


def test_other_stored_bytes_are_wrong_even_when_they_decode_to_the_part(checks: list[CheckPartTask]) -> None:
    """The manifest's digest is of the stored bytes."""
    check = checks[1]
    store = open_store(check.store_url)
    store.put(check.object_name, encode_state_part(decode_state_part(stored_bytes(store, check.object_name), Encoding.V1), Encoding.V1, 19))
    problem = check.run().problem
    assert problem is not None
    assert "manifest's size and sha256" in problem


def stated(check: CheckPartTask) -> StatementPart:
    """Return the statement's entry of a part."""
    assert check.stated is not None
    return check.stated


def as_stored(check: CheckPartTask, data: bytes) -> CheckPartTask:
    """Put other bytes, and let the manifest speak of them."""
    open_store(check.store_url).put(check.object_name, data)
    return replace(check, stored=ManifestPart(check.part_id.idx, len(data), sha256(data).hexdigest(), None))


def test_a_manifest_and_a_statement_that_disagree_are_found(checks: list[CheckPartTask]) -> None:
    """The manifest lists another part's bytes."""
    other = stored_bytes(open_store(checks[2].store_url), checks[2].object_name)
    problem = as_stored(checks[1], other).run().problem
    assert problem is not None
    assert "statement's size and sha256" in problem


def test_a_lie_that_everybody_tells_is_found_by_the_trie(checks: list[CheckPartTask]) -> None:
    """Manifest and statement both speak of the other part: it does not prove this interval."""
    other = stored_bytes(open_store(checks[2].store_url), checks[2].object_name)
    lying = replace(as_stored(checks[1], other), stated=replace(stated(checks[2]), part_id=1))
    checked = lying.run()
    assert checked.problem is not None
    assert not checked.missing


def test_what_can_not_be_decoded_is_wrong(checks: list[CheckPartTask]) -> None:
    """Rubbish, with a manifest that knows its digest."""
    assert as_stored(checks[1], b"rubbish").run().problem is not None


def test_another_state_root_is_wrong(checks: list[CheckPartTask]) -> None:
    """The part is of the root that it hashes to."""
    assert replace(checks[1], state_root=type(checks[1].state_root)(b"\1" * 32)).run().problem is not None


@pytest.mark.parametrize("field", ["key_begin", "key_end"])
def test_a_stated_interval_that_is_not_the_parts_is_found(checks: list[CheckPartTask], field: str) -> None:
    """Clients cut their work by it."""
    check = checks[1]
    shifted: dict[str, Any] = {field: stated(check).key_begin + b"\0"}
    problem = replace(check, stated=replace(stated(check), **shifted)).run().problem
    assert problem is not None
    assert "interval" in problem


def test_a_wrong_pieces_root_is_found(checks: list[CheckPartTask]) -> None:
    """BitTorrent clients check against it."""
    problem = replace(checks[0], stored=replace(checks[0].stored, pieces_root="0" * 64)).run().problem
    assert problem is not None
    assert "pieces root" in problem


def test_a_store_that_fails_is_no_finding(checks: list[CheckPartTask], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not being able to read is another thing than having read something wrong."""
    inject(monkeypatch, checks[0].store_url, scripted({("get", 0): Fault.FAIL_BEFORE}))
    with pytest.raises(TransientStoreError):
        checks[0].run()
