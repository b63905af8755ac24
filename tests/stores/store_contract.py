"""What every store must do, as one suite; a subclass gives the fixture ``store``."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.synchronize import Barrier
from random import Random

import pyarrow as pa
import pytest

from pipelines.stores.store import Data, Store
from schemas.errors import InvalidInputError, ObjectExistsError, ObjectNotFoundError, StatecastError
from tests.support.stored_bytes import stored_bytes

RACERS = 6
RACE_ROUNDS = 4

SIZES = [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 5 << 20]
"""Around the granule of GCS's resumable protocol, and S3's smallest upload part."""

NO_NAMES = ["", "/x", "a//b", "a/", "../x", "a/../b", "./a", "a\\b", "a b", "a\n", "a?b", "é", ".statecast-tmp/x", "x" * 2000]


def _read_elsewhere(store: Store, name: str, queue: multiprocessing.Queue[bytes]) -> None:
    queue.put(stored_bytes(store, name))


def _outcome(call: Callable[[], object]) -> StatecastError | None:
    try:
        call()
    except StatecastError as error:
        return error
    return None


def _race(store: Store, racer: int, barrier: Barrier, queue: multiprocessing.Queue[tuple[int, int, str]]) -> None:
    """Create one object and swap another in each round, at the same moment as the rival; tell how each went."""
    for number in range(RACE_ROUNDS):
        expected = store.info(f"pointer/{number}")
        body = bytes([racer]) * 300_000
        barrier.wait(timeout=60)
        created = _outcome(partial(store.put, f"created/{number}", body, create_only=True))
        swapped = _outcome(partial(store.swap, f"pointer/{number}", body, expected))
        queue.put((number, racer, f"{type(created).__name__} {type(swapped).__name__}"))


class StoreContract:
    """The promises of `pipelines.stores.store.Store`."""

    @pytest.mark.parametrize("size", SIZES)
    def test_an_object_comes_back_as_it_was_put(self, store: Store, size: int) -> None:
        """Bytes and size survive, whatever the size."""
        data = Random(size).randbytes(size)
        put = store.put("folder/object", data)
        found = store.info("folder/object")
        assert found is not None
        assert (put.size, found.size, found.version) == (size, size, put.version)
        assert stored_bytes(store, "folder/object") == data

    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, pa.py_buffer])
    def test_every_kind_of_buffer_can_be_put(self, store: Store, wrap: Callable[[bytes], Data]) -> None:
        """bytes, bytearray, memoryview and Arrow buffers are all taken."""
        store.put("object", wrap(b"some bytes"))
        assert stored_bytes(store, "object") == b"some bytes"

    @pytest.mark.parametrize("end_of_line", [b"\n", b"\r\n"])
    def test_bytes_that_look_like_a_mime_boundary_survive(self, store: Store, end_of_line: bytes) -> None:
        """A contract value can hold gcsfs's constant multipart boundary; it must not cut the object."""
        data = b"before" + end_of_line + b"--==0==--" + end_of_line + b"after" * 10
        store.put("created", data, create_only=True)
        store.put("replaced", data)
        store.swap("swapped", data, None)
        assert [stored_bytes(store, name) for name in ("created", "replaced", "swapped")] == [data] * 3

    def test_ranges_are_cut_as_slices_are(self, store: Store) -> None:
        """start and stop count bytes; what lies past the end is left out."""
        store.put("object", b"0123456789")
        ranges = [(0, 11), (0, 10), (2, 5), (4, 1 << 40), (9, 10), (5, 5), (8, 100), (10, 11), (20, 30)]
        assert [store.get("object", start, stop) for start, stop in ranges] == [b"0123456789"[start:stop] for start, stop in ranges]

    def test_a_missing_object_is_told_from_a_broken_store(self, store: Store) -> None:
        """get and open raise ObjectNotFoundError, info is None, a folder is no object."""
        store.put("folder/object", b"x")
        for name in ("missing", "folder", "folder/other", "missing/deep"):
            assert store.info(name) is None
            with pytest.raises(ObjectNotFoundError):
                stored_bytes(store, name)
            with pytest.raises(ObjectNotFoundError):
                store.get(name, 3, 3)
            with pytest.raises(ObjectNotFoundError):
                store.open(name)

    def test_an_opened_object_can_be_read_anywhere(self, store: Store) -> None:
        """Arrow reads record batches out of an opened object in any order."""
        sink = io.BytesIO()
        table = pa.table({"number": range(100_000)})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=10_000)
        store.put("table.arrow", sink.getvalue())
        with store.open("table.arrow") as file, pa.ipc.open_file(file) as reader:
            assert reader.num_record_batches == 10
            assert reader.get_batch(7).column(0)[0].as_py() == 70_000
            assert reader.read_all() == table

    def test_an_empty_object_can_be_opened(self, store: Store) -> None:
        """No bytes are no error."""
        store.put("empty", b"")
        with store.open("empty") as file:
            assert file.read() == b""

    def test_create_only_keeps_the_first(self, store: Store) -> None:
        """Other bytes are refused and change nothing."""
        store.put("object", b"first", create_only=True)
        with pytest.raises(ObjectExistsError):
            store.put("object", b"second", create_only=True)
        with pytest.raises(ObjectExistsError):
            store.put("object", b"other", create_only=True)
        assert stored_bytes(store, "object") == b"first"

    def test_create_only_takes_the_same_bytes_twice(self, store: Store) -> None:
        """A rerun finds its own object and goes on."""
        first = store.put("object", b"same", create_only=True)
        second = store.put("object", b"same", create_only=True)
        assert first == second

    def test_a_plain_put_replaces(self, store: Store) -> None:
        """The new bytes are seen at once, past every cache."""
        store.put("object", b"long old bytes")
        old = store.info("object")
        assert [info.size for info in store.list()] == [14]
        store.put("object", b"new")
        new = store.info("object")
        assert old is not None
        assert new is not None
        assert old.version != new.version
        assert (stored_bytes(store, "object"), new.size, [info.size for info in store.list()]) == (b"new", 3, [3])

    def test_one_of_many_creators_wins(self, store: Store) -> None:
        """Create-only is decided once, and the object is the winner's whole."""
        bodies = [bytes([racer]) * 300_000 for racer in range(RACERS)]
        with ThreadPoolExecutor(RACERS) as pool:
            errors = list(pool.map(lambda body: _outcome(lambda: store.put("object", body, create_only=True)), bodies))
        winners = [body for body, error in zip(bodies, errors, strict=True) if error is None]
        assert len(winners) == 1, errors
        assert stored_bytes(store, "object") == winners[0]
        assert all(isinstance(error, ObjectExistsError) for error in errors if error is not None), errors

    def test_a_listing_is_in_the_order_of_names(self, store: Store) -> None:
        """All objects at any depth, ascending by name as bytes, slash included."""
        names = ["b", "a.x", "a/b/c", "a/b", "a0", "shard_id=10/x", "shard_id=1/x"]
        written = [name for name in names if name != "a/b"]
        for name in written:
            store.put(name, name.encode())
        assert [(info.name, info.size) for info in store.list()] == [(name, len(name)) for name in sorted(written)]

    def test_a_prefix_is_a_folder(self, store: Store) -> None:
        """Listing shard 1 does not show shard 10."""
        for name in ("shard_id=1/x", "shard_id=1/y/z", "shard_id=10/x", "other"):
            store.put(name, b"1")
        assert [info.name for info in store.list("shard_id=1")] == ["shard_id=1/x", "shard_id=1/y/z"]
        assert list(store.list("shard_id=1/")) == list(store.list("shard_id=1"))
        assert list(store.list("missing")) == []

    def test_a_listing_has_the_versions_that_info_has(self, store: Store) -> None:
        """So an object can be swapped by its entry in a listing."""
        store.put("folder/object", b"x")
        [listed] = store.list()
        assert listed == store.info("folder/object")
        store.swap("folder/object", b"y", listed)

    def test_swap_replaces_what_was_expected(self, store: Store) -> None:
        """None expects no object; after that each version is replaced by the next."""
        first = store.swap("pointer", b"1", None)
        second = store.swap("pointer", b"2", first)
        third = store.swap("pointer", b"3", store.info("pointer"))
        assert stored_bytes(store, "pointer") == b"3"
        assert len({first.version, second.version, third.version}) == 3

    def test_swap_refuses_what_has_changed(self, store: Store) -> None:
        """A stale version, an object where none was expected, and none where one was."""
        old = store.swap("pointer", b"1", None)
        store.swap("pointer", b"2", old)
        for expected in (old, None):
            with pytest.raises(ObjectExistsError):
                store.swap("pointer", b"3", expected)
        with pytest.raises(ObjectExistsError):
            store.swap("never-there", b"3", old)
        assert stored_bytes(store, "pointer") == b"2"
        assert store.info("never-there") is None

    def test_swap_takes_its_own_bytes_for_success(self, store: Store) -> None:
        """After a lost reply the same swap is asked for again."""
        old = store.swap("pointer", b"1", None)
        store.swap("pointer", b"2", old)
        assert store.swap("pointer", b"2", old) == store.info("pointer")

    def test_one_of_many_swappers_wins(self, store: Store) -> None:
        """Swap is decided once."""
        old = store.swap("pointer", b"old", None)
        bodies = [b"racer %d" % racer for racer in range(RACERS)]
        with ThreadPoolExecutor(RACERS) as pool:
            errors = list(pool.map(lambda body: _outcome(lambda: store.swap("pointer", body, old)), bodies))
        winners = [body for body, error in zip(bodies, errors, strict=True) if error is None]
        assert len(winners) == 1, errors
        assert stored_bytes(store, "pointer") == winners[0]

    def test_delete_removes_and_can_be_repeated(self, store: Store) -> None:
        """A name that is not there is no error, and the name can be taken again."""
        store.put("folder/object", b"x")
        store.delete("folder/object")
        store.delete("folder/object")
        store.delete("missing/object")
        assert store.info("folder/object") is None
        assert list(store.list()) == []
        store.put("folder/object", b"y", create_only=True)

    def test_a_folder_is_deleted_with_all_below_it_and_nothing_else(self, store: Store) -> None:
        """Objects beside it and folders whose names begin like its own stay; a name in it can be taken again."""
        for name in ("epoch=1/a", "epoch=1/b/c", "epoch=1/b/d/e", "epoch=10/a", "epoch=1.txt", "other"):
            store.put(name, b"1")
        store.delete_folder("epoch=1")
        assert [info.name for info in store.list()] == ["epoch=1.txt", "epoch=10/a", "other"]
        store.put("epoch=1/b/c", b"2", create_only=True)
        assert [info.name for info in store.list("epoch=1")] == ["epoch=1/b/c"]

    def test_a_deletion_of_a_folder_can_be_repeated(self, store: Store) -> None:
        """Of what a killed one has left, of nothing, and of an object's own name, which is no folder."""
        store.put("folder/deep/a", b"1")
        store.put("folder/deep/b", b"1")
        store.put("object", b"1")
        store.delete("folder/deep/a")
        for folder in ("folder", "folder", "missing/folder", "object"):
            store.delete_folder(folder)
        assert [info.name for info in store.list()] == ["object"]

    def test_what_is_no_name_is_refused(self, store: Store) -> None:
        """No name leaves the store's folder or needs quoting."""
        for name in NO_NAMES:
            calls: tuple[Callable[[], object], ...] = (
                partial(store.put, name, b"x"),
                partial(stored_bytes, store, name),
                partial(store.info, name),
                partial(store.swap, name, b"x", None),
                partial(store.delete, name),
                partial(store.delete_folder, name),
                partial(store.open, name),
            )
            assert [type(_outcome(call)) for call in calls] == [InvalidInputError] * len(calls), name
        assert list(store.list()) == []

    def test_a_store_is_a_value(self, store: Store) -> None:
        """It survives pickling after use, equals its copy, and shows no connection."""
        store.put("object", b"x")
        copy = pickle.loads(pickle.dumps(store))
        assert copy == store
        assert copy.url == store.url


class SharedStoreContract(StoreContract):
    """The same of a store that other processes see."""

    @pytest.mark.parametrize("method", ["spawn", "fork"])
    def test_another_process_sees_the_objects(self, store: Store, method: str) -> None:
        """A store that was in use goes to a worker by pickle or by fork, and opens its own connection there."""
        store.put("object", b"from the parent")
        context = multiprocessing.get_context("spawn") if method == "spawn" else multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=_read_elsewhere, args=(store, "object", queue))
        worker.start()
        assert queue.get(timeout=60) == b"from the parent"
        worker.join(timeout=60)
        assert worker.exitcode == 0

    def test_one_of_two_processes_wins(self, store: Store) -> None:
        """Create-only and swap are decided by the store, not inside a process; the loser gets an error, and nothing is mixed."""
        for number in range(RACE_ROUNDS):
            store.put(f"pointer/{number}", b"before")
        context = multiprocessing.get_context("fork")
        barrier, queue = context.Barrier(2), context.Queue()
        racers = [context.Process(target=_race, args=(store, racer, barrier, queue)) for racer in (1, 2)]
        for racer in racers:
            racer.start()
        told = sorted(queue.get(timeout=120) for _ in range(2 * RACE_ROUNDS))
        for racer in racers:
            racer.join(timeout=60)
        for number in range(RACE_ROUNDS):
            ends = {racer: end.split() for round_number, racer, end in told if round_number == number}
            for position, folder in enumerate(("created", "pointer")):
                assert sorted(end[position] for end in ends.values()) == ["NoneType", "ObjectExistsError"], (number, folder, ends)
                (winner,) = [racer for racer, end in ends.items() if end[position] == "NoneType"]
                assert stored_bytes(store, f"{folder}/{number}") == bytes([winner]) * 300_000
