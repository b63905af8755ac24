"""Leases: written, renewed, removed, and never in a reader's way."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from pipelines.bucket import lease_keeper
from pipelines.bucket.chain_catalogue import CatalogueWriter
from pipelines.bucket.epoch_claim import Claimant
from pipelines.bucket.holder_process import this_holder
from pipelines.bucket.holders import LITTER_AFTER_S, find_holders
from pipelines.bucket.lease_keeper import EpochLease, LeaseState
from pipelines.bucket.lease_rule import CLOCK_SKEW_S
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Data, ObjectInfo, Store
from schemas.errors import ManifestError, StoreDeniedError, TransientStoreError
from schemas.json_document import encode_json
from schemas.published.lease import LEASE_TTL_MAX_S, LEASE_TTL_S, ReaderLease
from tests.support.faulty_store import Fault
from tests.support.productions import inject, new_store_url
from tests.support.stored_bytes import stored_bytes
from tests.support.stored_epochs import CHAIN_ID, epoch_layout, publish_epoch

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LAYOUT = epoch_layout(1)
WAIT_S = 120


@dataclass(slots=True)
class Heard:
    """The leases' states, in order; a test can wait for one."""

    states: list[LeaseState] = field(default_factory=list)
    some: threading.Event = field(default_factory=threading.Event)

    def tell(self, _lease: EpochLease, state: LeaseState) -> None:
        """Note it."""
        self.states.append(state)
        self.some.set()


held_epoch = partial(lease_keeper.held_epoch, end_wait_s=WAIT_S)
"""Its end waits for the lease's however slow the machine is."""


@pytest.fixture
def url() -> str:
    """A store with epoch 1."""
    url = new_store_url()
    publish_epoch(url, 1)
    return url


@pytest.fixture
def store(url: str) -> Store:
    """The same."""
    return open_store(url)


def leases_in(store: Store) -> list[str]:
    """The names of all leases."""
    return [info.name for info in store.list(LAYOUT.leases_folder)]


def test_a_lease_is_there_during_a_read(store: Store) -> None:
    """It says who and until when, and is gone afterwards."""
    heard = Heard()
    with held_epoch([EpochLease(store, LAYOUT, "fetch", now=lambda: NOW)], heard.tell):
        assert heard.some.wait(WAIT_S)
        assert heard.states == [LeaseState.HELD]
        (name,) = leases_in(store)
        lease = ReaderLease.parse(stored_bytes(store, name), name)
        assert (lease.purpose, lease.renewed, lease.expires) == ("fetch", NOW, NOW + timedelta(seconds=LEASE_TTL_S))
        assert "a fetch of process" in find_holders(store, LAYOUT, NOW).description
    assert leases_in(store) == []


def test_a_lease_is_renewed(store: Store) -> None:
    """A heartbeat moves its end."""
    clock = iter(NOW + timedelta(minutes=minute) for minute in range(1000))
    lease = EpochLease(store, LAYOUT, "fetch", now=lambda: next(clock))
    assert lease.renew() is LeaseState.HELD
    assert lease.renew() is LeaseState.HELD
    found = ReaderLease.parse(stored_bytes(store, lease.name), lease.name)
    assert found.renewed == NOW + timedelta(minutes=1)


def test_the_heartbeat_renews(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the thread, again and again, while the block runs."""
    third = threading.Event()

    def count(method: str, name: str, _number: int) -> None:
        if method == "put" and "/leases/" in name:
            puts.append(name)
            if len(puts) == 3:
                third.set()

    puts: list[str] = []
    inject(monkeypatch, url, count)
    with held_epoch([EpochLease(open_store(url), LAYOUT, "fetch", ttl_s=0.03)]):
        assert third.wait(WAIT_S)
    assert len(set(puts)) == 1


def test_a_lease_ends_by_itself(store: Store) -> None:
    """A killed reader holds an epoch for its time to live and the difference of clocks, no longer."""
    EpochLease(store, LAYOUT, "fetch", now=lambda: NOW).renew()
    end = NOW + timedelta(seconds=LEASE_TTL_S + CLOCK_SKEW_S)
    assert find_holders(store, LAYOUT, end - timedelta(seconds=1)).live
    assert not find_holders(store, LAYOUT, end).live


def test_a_lease_of_long_ago_is_litter(store: Store) -> None:
    """It may be deleted; a younger one may be renewed at this moment."""
    lease = EpochLease(store, LAYOUT, "fetch", now=lambda: NOW)
    lease.renew()
    end = NOW + timedelta(seconds=LEASE_TTL_S + LITTER_AFTER_S)
    assert find_holders(store, LAYOUT, end).litter == ()
    assert find_holders(store, LAYOUT, end + timedelta(seconds=1)).litter == (lease.name,)


def test_an_epoch_that_is_not_there_gets_no_lease(store: Store) -> None:
    """A lease beside nothing would be a folder that must be cleared away."""
    assert EpochLease(store, epoch_layout(2), "fetch").renew() is LeaseState.GONE
    assert list(store.list(epoch_layout(2).folder)) == []


def test_a_lease_that_comes_after_the_mark_is_told(store: Store) -> None:
    """A reader of an epoch that is being deleted should know."""
    CatalogueWriter(store, CHAIN_ID).change(lambda catalogue: catalogue.marked(LAYOUT, NOW))
    assert EpochLease(store, LAYOUT, "fetch").renew() is LeaseState.LEAVING


@dataclass(slots=True)
class Refusing:
    """A store that refuses all writes."""

    inner: Store
    tried: int = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """Refuse."""
        self.tried += 1
        raise StoreDeniedError(problem="read only", where=name)

    def delete(self, name: str) -> None:
        """Never called."""
        raise AssertionError("nothing was written")


def test_a_store_that_refuses_is_left_alone(store: Store) -> None:
    """One attempt, and the reading goes on."""
    heard, refusing = Heard(), Refusing(store)
    with held_epoch([EpochLease(refusing, LAYOUT, "fetch", ttl_s=0.001)], heard.tell):  # type: ignore[arg-type]
        assert heard.some.wait(WAIT_S)
    assert (heard.states, refusing.tried) == ([LeaseState.REFUSED], 1)


def test_a_lease_whose_reply_was_lost_is_removed_all_the_same(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be there."""
    heard = Heard()
    inject(monkeypatch, url, lambda method, name, _: Fault.REPLY_LOST if method == "put" and "/leases/" in name else None)
    with held_epoch([EpochLease(open_store(url), LAYOUT, "fetch")], heard.tell):
        assert heard.some.wait(WAIT_S)
    assert heard.states == [LeaseState.FAILED]
    assert leases_in(open_store(url)) == []


@dataclass(slots=True)
class Hanging:
    """A store whose answers never come, until it is let go."""

    inner: Store
    asked: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def info(self, name: str) -> ObjectInfo | None:
        """Hang."""
        self.asked.set()
        self.let_go.wait(WAIT_S)
        raise TransientStoreError(problem="no answer", where=name)


def test_a_store_that_hangs_is_not_waited_for(store: Store) -> None:
    """The block begins at once and ends after a bounded wait."""
    hanging = Hanging(store)
    with held_epoch([EpochLease(hanging, LAYOUT, "fetch")], end_wait_s=0.01):  # type: ignore[arg-type]
        assert hanging.asked.wait(WAIT_S)
    assert not hanging.let_go.is_set()
    hanging.let_go.set()


def test_an_error_of_the_reader_comes_through(store: Store) -> None:
    """And the lease goes."""
    heard = Heard()
    with pytest.raises(KeyError), held_epoch([EpochLease(store, LAYOUT, "fetch")], heard.tell):
        assert heard.some.wait(WAIT_S)
        raise KeyError
    assert leases_in(store) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_its_own_thread_leaves_no_lease(store: Store) -> None:
    """An unexpected error ends the heartbeat; no other knows the lease's name."""
    reached = threading.Event()

    def fail(_lease: EpochLease, _state: LeaseState) -> None:
        reached.set()
        raise NameError

    with held_epoch([EpochLease(store, LAYOUT, "scrub")], fail):
        assert reached.wait(WAIT_S)
    assert leases_in(store) == []


def test_a_thread_that_can_not_be_started_leaves_no_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the others, which hold theirs already."""
    heard, leases = Heard(), [EpochLease(store, LAYOUT, "fetch") for _ in range(2)]
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if thread.name == f"lease-{leases[1].lease_id[:8]}":
            assert heard.some.wait(WAIT_S)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="new thread"), held_epoch(leases, heard.tell):
        pass
    assert heard.states == [LeaseState.HELD]
    assert leases_in(store) == []


def test_a_live_claim_holds_an_epoch(store: Store) -> None:
    """A producer is at work in it."""
    held = Claimant(store, LAYOUT, (0,), this_holder()).acquire()
    assert "process" in find_holders(store, LAYOUT, datetime.now(UTC)).description
    assert not find_holders(store, LAYOUT, datetime.now(UTC) + timedelta(days=1)).live
    held.release()
    assert not find_holders(store, LAYOUT, datetime.now(UTC)).live


@pytest.mark.parametrize("name", [LAYOUT.lease("ab" * 16), LAYOUT.claim])
def test_what_cannot_be_read_holds_an_epoch_for_a_while(tmp_path: object, name: str) -> None:
    """By the store's clock, as long as it could be live at most; without end where the store has no clock."""
    folder, memory = open_store(str(tmp_path)), open_store(new_store_url())
    for store in (folder, memory):
        store.put(name, b"from the future")
    now, later = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=LEASE_TTL_MAX_S + CLOCK_SKEW_S + 60)
    assert find_holders(folder, LAYOUT, now).live and not find_holders(folder, LAYOUT, later).live
    assert find_holders(memory, LAYOUT, later).live


def test_a_lease_at_the_end_of_all_times_is_none(store: Store) -> None:
    """Nothing could be reckoned after it; like whatever can't be read it holds the epoch for a while."""
    end = "9999-12-31T23:59:59Z"
    document = {"format": "urn:statecast:lease:v1", "holder": "x", "purpose": "fetch", "renewed": end, "expires": end}
    with pytest.raises(ManifestError):
        ReaderLease.parse(encode_json(document), "lease")
    store.put(LAYOUT.lease("ab" * 16), encode_json(document))
    assert "can't be read" in find_holders(store, LAYOUT, NOW).description
