"""The claim of an epoch: acquired, kept, taken over."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.bucket.epoch_claim import Claimant, heartbeat, release_held_claims, remove_dead_claim
from pipelines.bucket.holder_process import is_gone, this_holder
from pipelines.bucket.holders import find_holders
from pipelines.bucket.lease_rule import CLOCK_SKEW_S, LeaseSightings
from pipelines.stores.file_store import FileStore
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.store import Data, ObjectInfo
from schemas.errors import ClaimedError, InvalidInputError, ManifestError, ObjectNotFoundError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.published.claim import LEASE_TTL_S_MAX, Claim, Holder
from schemas.published.object_layout import EpochLayout
from tests.support.faulty_store import Fault, FaultyStore
from tests.support.stored_bytes import stored_bytes

LAYOUT = EpochLayout("testnet", 7, CryptoHash(bytes(range(32))))
START = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
TTL_S = 60.0
_runs = itertools.count(1)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return the time of day."""
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds


def claimant(store: MemoryStore | FaultyStore, clock: Clock, shard_ids: tuple[int, ...] = (0, 1), host: str = "elsewhere") -> Claimant:
    """Return a producer on another machine than this one."""
    holder = Holder(host, 4711, f"{next(_runs):032x}")
    return Claimant(store, LAYOUT, shard_ids, holder, TTL_S, LeaseSightings(clock.monotonic), clock.now)


@pytest.fixture
def store() -> MemoryStore:
    """A store of its own."""
    return MemoryStore(f"claim-{next(_runs)}")


def stored(store: MemoryStore) -> Claim:
    """Return the stored claim."""
    return Claim.parse(stored_bytes(store, LAYOUT.claim), "claim")


def test_a_claim_survives_its_wire_form(store: MemoryStore) -> None:
    """What is parsed is what was written."""
    claimant(store, Clock()).acquire()
    claim = stored(store)
    assert Claim.parse(claim.to_bytes(), "claim") == claim
    assert claim.leases[0].expires == START + timedelta(seconds=TTL_S)


def test_a_live_claim_is_named_with_its_holder_and_expiry(store: MemoryStore) -> None:
    """A second producer learns who holds the epoch until when."""
    clock = Clock()
    claimant(store, clock, host="first.example").acquire()
    with pytest.raises(ClaimedError, match=r"process 4711 on first\.example .* until 2026-01-02T03:05:05\.678Z"):
        claimant(store, clock).acquire()


def test_a_released_claim_leaves_nothing(store: MemoryStore) -> None:
    """After the release the name is free."""
    claimant(store, Clock()).acquire().release()
    assert store.info(LAYOUT.claim) is None


def test_other_shards_of_an_epoch_are_claimed_beside(store: MemoryStore) -> None:
    """Nodes that track different shards produce one epoch together, and each release leaves the other's lease."""
    clock = Clock()
    first = claimant(store, clock, (0, 1)).acquire()
    second = claimant(store, clock, (2,)).acquire()
    assert [lease.shard_ids for lease in stored(store).leases] == [(0, 1), (2,)]
    first.release()
    assert [lease.shard_ids for lease in stored(store).leases] == [(2,)]
    second.release()
    assert store.info(LAYOUT.claim) is None


@pytest.mark.parametrize(("after_s", "taken"), [(TTL_S + CLOCK_SKEW_S - 0.001, False), (TTL_S + CLOCK_SKEW_S, True)])
def test_a_claim_is_taken_over_only_after_its_expiry_and_the_margin(store: MemoryStore, after_s: float, taken: bool) -> None:
    """Clocks may differ by the margin."""
    clock = Clock()
    first = claimant(store, clock).acquire()
    clock.seconds = after_s
    second = claimant(store, clock)
    if not taken:
        with pytest.raises(ClaimedError):
            second.acquire()
        return
    second.acquire()
    with pytest.raises(ClaimedError, match=r"process 4711"):
        first.renew()
    with pytest.raises(ClaimedError):
        first.check()


def test_a_renewed_claim_is_not_taken_over(store: MemoryStore) -> None:
    """Each renewal moves the expiry."""
    clock = Clock()
    first = claimant(store, clock).acquire()
    for _ in range(5):
        clock.seconds += TTL_S
        first.renew()
    with pytest.raises(ClaimedError):
        claimant(store, clock).acquire()


def test_who_looks_on_takes_over_what_stands_still_whatever_the_clocks_say(store: MemoryStore) -> None:
    """A holder whose clock is an hour ahead would hold the epoch for an hour after its death; a witness needs its time to live only."""
    ahead, clock = Clock(), Clock()
    ahead.seconds = 3600
    claimant(store, ahead).acquire()
    witness = claimant(store, clock)
    with pytest.raises(ClaimedError):
        witness.acquire()
    clock.seconds = TTL_S
    with pytest.raises(ClaimedError):
        witness.acquire()
    clock.seconds += 0.1
    witness.acquire()


def test_an_unreadable_claim_is_left_alone_for_the_longest_lease(store: MemoryStore) -> None:
    """It may be a newer version's: only who has looked on for as long as any lease lives replaces it."""
    clock = Clock()
    store.put(LAYOUT.claim, b'{"format":"urn:statecast:claim:v2"}')
    witness = claimant(store, clock)
    for seconds in (0, LEASE_TTL_S_MAX):
        clock.seconds = seconds
        with pytest.raises(ClaimedError, match="can't be read"):
            witness.acquire()
    clock.seconds += 1
    witness.acquire()
    assert witness.holder in [lease.holder for lease in stored(store).leases]


def test_a_dead_process_of_this_machine_holds_nothing(store: MemoryStore) -> None:
    """A rerun after a kill does not wait for the expiry."""
    program = "from pipelines.bucket.holder_process import this_holder; import json; print(json.dumps(this_holder().to_json()))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    dead = Holder(**json.loads(said))
    clock = Clock()
    replace(claimant(store, clock), holder=dead).acquire()
    replace(claimant(store, clock), holder=this_holder()).acquire()


def test_what_a_killed_producer_left_of_its_claim_is_removed_and_a_live_one_is_not(store: MemoryStore) -> None:
    """An epoch that is published stays without a claim, unless a producer works on it."""
    expired = Clock()
    expired.seconds = -(TTL_S + CLOCK_SKEW_S + 1) - (START - datetime.now(UTC)).total_seconds()
    claimant(store, expired).acquire()
    remove_dead_claim(store, LAYOUT)
    assert store.info(LAYOUT.claim) is None
    expired.seconds += TTL_S
    claimant(store, expired).acquire()
    remove_dead_claim(store, LAYOUT)
    assert store.info(LAYOUT.claim) is not None


def test_only_a_process_that_is_known_to_be_gone_is_gone() -> None:
    """A living process, a process of another machine and one of an unknown machine are not; a reused pid is."""
    ours = this_holder()
    assert ours.pid == os.getpid()
    assert not is_gone(ours, ours.machine)
    assert not is_gone(replace(ours, machine="ab"), ours.machine)
    assert not is_gone(replace(ours, machine="", started=1), "")
    assert is_gone(replace(ours, started=ours.started - 1), ours.machine)


def test_a_process_that_proc_hides_is_not_gone(tmp_path: Path) -> None:
    """A mount of /proc with hidepid hides other users' processes: they run all the same."""
    ours = this_holder()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not is_gone(replace(ours, pid=child.pid, started=1), ours.machine, proc=tmp_path)
        child.communicate(b"\n")
    assert is_gone(replace(ours, pid=child.pid, started=1), ours.machine, proc=tmp_path)


def test_a_process_that_was_not_waited_for_is_gone() -> None:
    """What a kill leaves until the parent looks at it does nothing any more."""
    ours = this_holder()
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(replace(ours, pid=child.pid, started=1), ours.machine)


def test_a_release_does_not_wait_for_a_renewal_that_hangs() -> None:
    """The claim expires then; the process ends."""
    clock, hangs, heal = Clock(), threading.Event(), threading.Event()

    def hang_once(method: str, name: str, number: int) -> Fault | None:
        if method == "swap":
            hangs.set()
            heal.wait(600)
        return None

    inner = MemoryStore(f"claim-{next(_runs)}")
    held = replace(claimant(FaultyStore(inner, hang_once), clock), join_s_max=0.05).acquire()
    renewing = threading.Thread(target=held.renew, daemon=True)
    releasing = threading.Thread(target=held.release, daemon=True)
    renewing.start()
    assert hangs.wait(120)
    releasing.start()
    releasing.join(120)
    ended = not releasing.is_alive()
    heal.set()
    renewing.join(60)
    releasing.join(60)
    assert ended
    assert inner.info(LAYOUT.claim) is not None


def test_a_heartbeat_keeps_the_claim_through_faults_of_the_moment(store: MemoryStore) -> None:
    """A renewal that fails is tried again, and the claim stays ours."""
    beats = threading.Semaphore(0)

    def fail_twice(method: str, name: str, number: int) -> Fault | None:
        beats.release()
        return Fault.FAIL_BEFORE if method == "swap" and number < 2 else None

    notes: list[str] = []
    held = replace(claimant(FaultyStore(store, fail_twice), Clock()), now=lambda: datetime.now(UTC)).acquire()
    before = stored(store).leases[0].renewed
    with heartbeat(held, 0.03, notes.append):
        for _ in range(40):
            assert beats.acquire(timeout=120)
        held.check()
        assert stored(store).leases[0].renewed > before
    assert len(notes) == 2
    assert store.info(LAYOUT.claim) is None


def test_a_lost_claim_is_not_taken_from_its_new_holder(store: MemoryStore) -> None:
    """A producer that was away for long finds another at work, says so, and its release leaves the other's lease."""
    clock = Clock()
    first = claimant(store, clock).acquire()
    clock.seconds = 1000
    second = claimant(store, clock)
    second.acquire()
    with pytest.raises(ClaimedError):
        first.renew()
    first.release()
    assert [lease.holder for lease in stored(store).leases] == [second.holder]


def test_a_deleted_claim_is_made_again(store: MemoryStore) -> None:
    """No other holds it, so nothing is lost."""
    held = claimant(store, Clock()).acquire()
    store.delete(LAYOUT.claim)
    held.renew()
    assert len(stored(store).leases) == 1


def test_a_reply_that_was_lost_is_our_own_claim(store: MemoryStore) -> None:
    """The claim that a lost reply leaves behind, and that could not be removed, is known again by its run."""
    faults = {"put": Fault.REPLY_LOST, "delete": Fault.FAIL_BEFORE}
    faulty = FaultyStore(store, lambda method, name, number: faults.get(method))
    one = claimant(faulty, Clock())
    with pytest.raises(TransientStoreError):
        one.acquire()
    one.acquire()
    assert len(stored(store).leases) == 1


def test_a_claim_whose_reply_was_lost_is_given_up(store: MemoryStore) -> None:
    """A retry is another run, and would wait for the lease's end."""
    faulty = FaultyStore(store, lambda method, name, number: Fault.REPLY_LOST if (method, number) == ("put", 0) else None)
    with pytest.raises(TransientStoreError):
        claimant(faulty, Clock()).acquire()
    assert store.info(LAYOUT.claim) is None
    claimant(faulty, Clock()).acquire()


def test_what_ends_the_taking_of_a_claim_leaves_none(store: MemoryStore) -> None:
    """An unexpected fault, or an interrupt, while the claim was on its way into the store."""

    class Dying(MemoryStore):
        def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
            super().put(name, data, create_only=create_only)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        claimant(Dying(store.url.removeprefix("memory://")), Clock()).acquire()
    assert store.info(LAYOUT.claim) is None


def test_a_claim_without_a_heartbeat_is_given_up(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread can't be started."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    held = claimant(store, Clock()).acquire()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="new thread"), heartbeat(held, TTL_S, print):
        pass
    assert store.info(LAYOUT.claim) is None


@pytest.mark.parametrize("ttl_s", [0.5, LEASE_TTL_S_MAX + 1])
def test_a_time_to_live_has_limits(store: MemoryStore, ttl_s: float) -> None:
    """Too short to be renewed and too long to wait for are refused."""
    with pytest.raises(InvalidInputError):
        replace(claimant(store, Clock()), ttl_s=ttl_s)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"claim:v1", b"claim:v2"),
        (b'"ttl_ms":60000', b'"ttl_ms":3600001'),
        (b'"shard_ids":[0,1]', b'"shard_ids":[0,"1"]'),
        (b"03:05:05.678Z", b"03:05:06.678Z"),
        (b'"pid":4711', b'"pid":-1'),
        (b"2026-01-02T03:04:05.678Z", b"2026-13-02T03:04:05.678Z"),
        (b"2026-01-02T03:04:05.678Z", b"9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_claim_of_another_form_is_refused(store: MemoryStore, old: bytes, new: bytes) -> None:
    """Each field is checked."""
    claimant(store, Clock()).acquire()
    data = stored_bytes(store, LAYOUT.claim)
    assert old in data
    with pytest.raises(ManifestError):
        Claim.parse(data.replace(old, new), "claim")


def test_a_claim_of_a_clock_that_is_ahead_ends_by_the_clock_of_the_store(tmp_path: Path) -> None:
    """A holder that was killed renews no more; an observer that looks once, as a scheduler's run does, must not wait for its clock."""
    folder = FileStore(str(tmp_path))
    ahead, onlooker = Clock(), Clock()
    real_s = (datetime.now(UTC) - START).total_seconds()
    ahead.seconds, onlooker.seconds = real_s + 1e7, real_s
    replace(claimant(MemoryStore("unused"), ahead), store=folder).acquire()
    other = replace(claimant(MemoryStore("unused"), onlooker), store=folder)
    with pytest.raises(ClaimedError):
        other.acquire()
    assert find_holders(folder, LAYOUT, onlooker.now()).live
    onlooker.seconds += TTL_S + CLOCK_SKEW_S + 1
    assert not find_holders(folder, LAYOUT, onlooker.now()).live
    other.acquire()


def test_a_claim_is_given_up_after_all_where_that_was_interrupted(store: MemoryStore) -> None:
    """At any moment of it: an end of the process gives up what is left."""

    class Interrupting(MemoryStore):
        def delete(self, name: str) -> None:
            raise KeyboardInterrupt

    claimed_by = claimant(store, Clock())
    held = replace(claimed_by, store=Interrupting(store.name)).acquire()
    with pytest.raises(KeyboardInterrupt):
        held.release()
    assert stored(store).leases
    held._claimant = claimed_by
    release_held_claims()
    with pytest.raises(ObjectNotFoundError):
        stored(store)
