"""One part: validated before it has a name, kept where it is right, replaced where it is wrong, beside other writers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from hashlib import sha256
from types import SimpleNamespace

import pytest

from pipelines.kernel.choice import choose_kernel
from pipelines.producing.publish.publish_part import PublishPartTask
from pipelines.stores import compare_and_swap, upload_limit
from pipelines.stores.compare_and_swap import SWAP_ATTEMPTS_MAX
from pipelines.stores.open_store import open_store
from pipelines.stores.pace import Pace
from schemas.errors import IntegrityError, ObjectExistsError, ObjectMismatchError, TransientStoreError
from schemas.nearcore.state_part import Encoding, decode_partial_state, decode_state_part, encode_state_part, partial_state_bytes
from tests.support.faulty_store import Fault, scripted
from tests.support.productions import PAIRS, inject, meanwhile, new_store_url, publish_tasks, small_shard
from tests.support.records import parts_of
from tests.support.stored_bytes import stored_bytes


@pytest.fixture
def store_url() -> str:
    """An empty store."""
    return new_store_url()


@pytest.fixture(scope="module")
def module_tasks() -> list[PublishPartTask]:
    """The tasks of one small shard, built once."""
    return publish_tasks(small_shard(), "memory://nowhere")


@pytest.fixture
def task(module_tasks: list[PublishPartTask], store_url: str) -> PublishPartTask:
    """The task of the middle part."""
    return publish_tasks_at(module_tasks, store_url)[1]


def publish_tasks_at(tasks: list[PublishPartTask], store_url: str) -> list[PublishPartTask]:
    """Return the same tasks for another store."""
    return [replace(task, place=replace(task.place, store_url=store_url)) for task in tasks]


def test_every_part_has_the_kernels_bytes(module_tasks: list[PublishPartTask], store_url: str) -> None:
    """What is stored decodes to what the reference kernel makes of the shard in one piece; all digests are right."""
    expected = parts_of(choose_kernel("reference"), PAIRS, 3)
    for task, part in zip(publish_tasks_at(module_tasks, store_url), expected.parts, strict=True):
        published = task.run()
        data = stored_bytes(open_store(store_url), task.place.object_name)
        assert not published.reused
        assert bytes(decode_state_part(data, Encoding.V1)) == bytes(part)
        assert published.digests.stored_sha256 == sha256(data).hexdigest()
        assert published.digests.decoded_sha256 == sha256(part).hexdigest()
        assert (published.digests.stored_size, published.digests.decoded_size) == (len(data), part.size)


def test_a_right_object_is_kept(task: PublishPartTask, store_url: str) -> None:
    """The second run writes nothing, and returns the same digests and pieces."""
    first = task.run()
    info = open_store(store_url).info(task.place.object_name)
    second = task.run()
    assert second.reused
    assert (second.digests, second.pieces) == (first.digests, first.pieces)
    assert open_store(store_url).info(task.place.object_name) == info


def test_parts_are_put_at_the_upload_limit(module_tasks: list[PublishPartTask], store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits until those before it are paid for; what is there already, and what has no limit, waits for nothing."""
    waits_s: list[float] = []
    monkeypatch.setattr(upload_limit, "time", SimpleNamespace(sleep=waits_s.append))
    # A clock that stands: the machine's speed does not count.
    monkeypatch.setattr(upload_limit, "process_upload_limit", cache(lambda rate: Pace(rate, clock=lambda: 0.0)))
    limit = 10_000
    limited = [
        replace(task, place=replace(task.place, upload_limit_bytes_per_s=limit)) for task in publish_tasks_at(module_tasks, store_url)
    ]
    sizes = [task.run().digests.stored_size for task in limited]
    assert waits_s == pytest.approx([sizes[0] / limit, (sizes[0] + sizes[1]) / limit])
    assert all(task.run().reused for task in limited)
    for task in publish_tasks_at(module_tasks, new_store_url()):
        task.run()
    assert len(waits_s) == 2


def reordered(task: PublishPartTask) -> bytes:
    """Return the part with its entries in another order: nearcore takes it, but it is not what producers agree on."""
    task.run()
    store = open_store(task.place.store_url)
    entries = decode_partial_state(decode_state_part(stored_bytes(store, task.place.object_name), Encoding.V1))
    store.delete(task.place.object_name)
    return encode_state_part(partial_state_bytes(entries[::-1]), Encoding.V1)


@pytest.mark.parametrize("wrong", [b"", b"rubbish", "another part", "another order"])
def test_a_wrong_object_is_replaced(module_tasks: list[PublishPartTask], store_url: str, wrong: bytes | str) -> None:
    """Empty, no part at all, another part of the same shard, or the right entries in another order."""
    task, other, _ = publish_tasks_at(module_tasks, store_url)
    store = open_store(store_url)
    if wrong == "another part":
        other.run()
        wrong = stored_bytes(store, other.place.object_name)
    elif wrong == "another order":
        wrong = reordered(task)
    assert isinstance(wrong, bytes)
    store.put(task.place.object_name, wrong)
    assert not task.run().reused
    assert stored_bytes(store, task.place.object_name) != wrong
    assert task.run().reused


def other_bytes(task: PublishPartTask) -> bytes:
    """Return the same part, compressed by another encoder: right, but other bytes."""
    task.run()
    store = open_store(task.place.store_url)
    decoded = decode_state_part(stored_bytes(store, task.place.object_name), Encoding.V1)
    store.delete(task.place.object_name)
    return encode_state_part(decoded, Encoding.V1, 19)


def test_a_faster_producers_right_object_stays(task: PublishPartTask, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes between the look and the put: its bytes are kept, and its digests are returned."""
    theirs = other_bytes(task)
    store = open_store(store_url)
    inject(monkeypatch, store_url, meanwhile("put", "state_part", lambda: store.put(task.place.object_name, theirs)))
    published = task.run()
    assert published.reused
    assert published.digests.stored_sha256 == sha256(theirs).hexdigest()
    assert stored_bytes(store, task.place.object_name) == theirs


def test_a_faster_producers_wrong_object_is_replaced(task: PublishPartTask, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Being first does not make it right."""
    store = open_store(store_url)
    inject(monkeypatch, store_url, meanwhile("put", "state_part", lambda: store.put(task.place.object_name, b"rubbish")))
    assert not task.run().reused
    assert task.run().reused


def test_a_wrong_object_that_another_producer_mends_is_kept(task: PublishPartTask, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement is decided by the store: the faster producer with the right bytes wins."""
    theirs = other_bytes(task)
    store = open_store(store_url)
    store.put(task.place.object_name, b"rubbish")
    inject(monkeypatch, store_url, meanwhile("swap", "state_part", lambda: store.put(task.place.object_name, theirs)))
    assert task.run().reused
    assert stored_bytes(store, task.place.object_name) == theirs


def test_who_is_always_too_late_gives_up(task: PublishPartTask, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of attempts, with an error that says so."""
    store = open_store(store_url)
    spoil = meanwhile("swap", "state_part", lambda: store.put(task.place.object_name, bytes([len(spoiled)]) + b"rubbish"), times=100)
    spoiled: list[int] = []
    store.put(task.place.object_name, b"rubbish")

    def schedule(method: str, name: str, number: int) -> Fault | None:
        spoiled.append(number)
        return spoil(method, name, number)

    (opened,) = [inject(monkeypatch, store_url, schedule)]
    monkeypatch.setattr(compare_and_swap, "WAIT_MAX_S", 0)
    with pytest.raises(ObjectExistsError, match=f"in each of {SWAP_ATTEMPTS_MAX} attempts"):
        task.run()
    assert opened[0].calls["swap"] == SWAP_ATTEMPTS_MAX


def test_a_store_that_gives_back_other_bytes_is_named(task: PublishPartTask, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the bytes were stored under the name of success."""
    inject(monkeypatch, store_url, scripted({("put", 0): Fault.TORN}))
    with pytest.raises(ObjectMismatchError, match="other bytes"):
        task.run()


def test_a_lost_reply_leaves_a_right_object(task: PublishPartTask, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes out, and a rerun finds its own object."""
    inject(monkeypatch, store_url, scripted({("put", 0): Fault.REPLY_LOST}))
    with pytest.raises(TransientStoreError):
        task.run()
    assert task.run().reused


def test_a_damaged_interior_is_never_put(store_url: str) -> None:
    """The part is validated before it has a name."""
    built = small_shard()
    task = publish_tasks(built, store_url)[1]
    work = built.planned.work.store()
    name = built.planned.work.interior(task.plan.part_id)
    interior = bytearray(stored_bytes(work, name))
    interior[len(interior) // 2] ^= 1
    work.put(name, bytes(interior))
    with pytest.raises(IntegrityError, match="delete it and run again"):
        task.run()
    assert list(open_store(store_url).list()) == []


def test_an_empty_shards_parts_are_empty(store_url: str) -> None:
    """nearcore's proof of nothing: the tag of the only variant, and no entries."""
    built = small_shard([], 2)
    for task in publish_tasks(built, store_url, Encoding.V0):
        published = task.run()
        assert stored_bytes(open_store(store_url), task.place.object_name) == bytes(5)
        assert published.digests.decoded_size == 5
